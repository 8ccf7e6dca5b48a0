"""Textual projection: a map from an in-domain text encoder to CLIP's, learned from texts alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm import projected_text
from ldm.adapt.parts import Parts, random_weights
from ldm.config import ConfigError, RunConfig, from_dict, to_dict
from ldm.data.datasets import Batch
from ldm.data.texts import open_texts
from ldm.models.clip import TextEncoder, tokenizer
from ldm.models.projection import Ridge, TextProjection, padded_or_cut
from ldm.projected_text import PLACES, About, Level, ProjectedText, clip_states
from ldm.text_features import How

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProjectionOptions:
    """Which encoder takes CLIP's place, what of it is projected, and by what."""

    encoder: str = "weights/bert"  # a folder that ldm.text_weights.load_bert opens
    level: Level = "document"
    how: How = "mean"  # the vector of a document; of no matter at token level
    fit: Literal["mlp", "ridge", "none"] = "mlp"
    layers: int = 1  # hidden ones of the mlp
    hidden: int = 768  # their width
    penalty: float = 1e-3  # of ridge, see ldm.models.projection.Ridge
    drop_caption: float = 0.1  # share of "" among the texts, which guidance steers away from


class Project:
    """mean |projection(encoder(text)) - CLIP(text)|^2, both frozen    (arXiv:2210.04133, sec. 2.5)

    The paper names an "MLE loss"; for errors of equal variance that is the squared error. At token
    level the mean is over CLIP's 77 places, since the U-Net attends to all. Ridge regression and
    no projection are there from the start; they want one step that changes nothing.
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(ProjectionOptions, run.method, "method")
        options, self.out = self.options, run.train.out
        if not 0 <= options.drop_caption < 1 or options.layers < 1 or options.hidden < 1:
            raise ConfigError(
                "method.drop_caption wants a share from 0 to below 1, layers and hidden 1 or more"
            )
        if options.fit != "mlp" and (run.train.steps, run.train.learning_rate) != (1, 0):
            raise ConfigError(
                f"method.fit={options.fit} is known at once and no step may change it; "
                "add train.steps=1 train.learning_rate=0"
            )
        self.parts = Parts(run, "text")
        self.text: TextEncoder = self.parts.frozen("text")
        if self.text.config.context_length != PLACES:
            raise ConfigError(
                f"model.path has a text tower of {self.text.config.context_length} places, "
                f"but a projection wants CLIP's {PLACES}"
            )
        self.reader, self.encoder_hash = projected_text.open_reader(
            options.encoder, options.level, options.how
        )
        self.reader.to(self.parts.device)
        texts = open_texts(run.data)
        self.key = texts.key
        self.train, self.held_out = self._whole(texts.train), self._whole(texts.held_out)
        if not self.train:
            raise ConfigError(f"no text is short enough for {PLACES} places; give shorter ones")
        self.module = self._begin(run.train.seed).to(self.parts.device)

    def settings(self) -> dict[str, Any]:
        return {
            "method": to_dict(self.options),
            "sizes": to_dict(self.parts.config.text),
            "start": self.parts.start,
            "encoder": self.encoder_hash,
            "data": self.key,
        }

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """Texts, and the encoder's states of them in the place of images."""
        picks = torch.randint(len(self.train), (size,), generator=generator).tolist()
        dropped = torch.rand(size, generator=generator) < self.options.drop_caption
        texts = ["" if d else self.train[i] for d, i in zip(dropped, picks, strict=True)]
        return Batch(self.reader(texts, tell=False), texts, [f"text-{i}" for i in picks])

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            target = clip_states(self.text, batch.captions, self.options.level)
        projected = self.module(batch.images)
        cosine = F.cosine_similarity(projected.detach(), target, dim=-1).mean()
        return F.mse_loss(projected, target), {"cosine": cosine.item()}

    def preview(self) -> None:
        return None

    def summary(self) -> str:
        options = self.options
        kind = f"{options.fit} at {options.level} level"
        return f"{kind}, from {len(self.train)} texts; sample.py --text-encoder {self.out}"

    def save(self, path: Path) -> None:
        projected_text.save(path, self.module, self._about())

    def projected(self) -> ProjectedText:
        """What `save` keeps, as it is now."""
        return ProjectedText(self.reader, self.module, self._about())

    def _about(self) -> About:
        options = self.options
        return About(
            options.encoder,
            self.encoder_hash,
            self.parts.start["text"],
            options.level,
            options.how,
            options.fit,
            width=self.text.config.width,
            layers=options.layers if options.fit == "mlp" else 0,
            hidden=options.hidden,
        )

    def _whole(self, texts: Sequence[str]) -> list[str]:
        """The texts that CLIP and the encoder have room for; of a cut one they might see others."""
        room = PLACES - 2
        kept = [
            text
            for text in texts
            if len(tokenizer().encode(text)) <= room and not self.reader.layout(text).dropped
        ]
        if len(kept) < len(texts):
            log.warning("%d of %d texts are too long: left out", len(texts) - len(kept), len(texts))
        return kept

    def _begin(self, seed: int) -> TextProjection:
        """The projection before the first step."""
        options, widths = self.options, (self.reader.width, self.text.config.width)
        if options.fit == "none":
            return padded_or_cut(*widths)
        if options.fit == "mlp":
            with random_weights(seed, "projection"):
                return TextProjection(*widths, options.layers, options.hidden)
        ridge = Ridge(*widths)
        for start in range(0, len(self.train), 64):
            self._add(ridge, self.train[start : start + 64])
        share = options.drop_caption
        self._add(ridge, [""], round(len(self.train) * share / (1 - share)))
        return ridge.solve(options.penalty)

    @torch.no_grad()
    def _add(self, ridge: Ridge, texts: Sequence[str], times: int = 1) -> None:
        x = self.reader(texts, tell=False)
        y = clip_states(self.text, texts, self.options.level)
        ridge.add(*(z.expand(times, *z.shape) for z in (x, y)))
