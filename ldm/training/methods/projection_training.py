"""Textual projection: a map from an in-domain text encoder to CLIP's, learned from texts alone."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError, from_dict, to_dict
from ldm.data.cache import CachedRows
from ldm.data.caption_corpus import open_texts
from ldm.data.datasets import Batch
from ldm.system.atomic import code_version, digest
from ldm.text import projected_encoder
from ldm.text.pooling import How
from ldm.text.projected_encoder import PLACES, About, Level, clip_states
from ldm.text.projection import Ridge, TextProjection, padded_or_cut
from ldm.training.methods.model_parts import Parts, random_weights
from ldm.training.trainer import Method
from ldm.training.training_run import RunConfig, check_range
from ldm.weights import adapters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProjectionOptions:
    """The encoder in CLIP's place, the states that are projected, and the kind of projection."""

    encoder: str = "weights/bert"  # a folder that ldm.text.bert_files.load_bert opens
    level: Level = "document"
    how: How = "mean"  # pooling into the vector of a document; unused at token level
    fit: Literal["mlp", "ridge", "none"] = "mlp"
    layers: int = 1  # hidden ones of the mlp
    hidden: int = 768  # their width
    penalty: float = 1e-3  # of ridge, see ldm.text.projection.Ridge
    drop_caption: float = 0.1  # share of "" among the texts, which guidance steers away from


class TrainProjection(Method):
    """mean |projection(encoder(text)) - CLIP(text)|^2, both frozen    (arXiv:2210.04133, sec. 2.5)

    The paper names an "MLE loss"; for errors of equal variance that is the squared error. At token
    level the mean is over CLIP's 77 places, since the U-Net attends to all. Ridge regression and
    no projection are known from the start: they take one step that changes nothing.
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(ProjectionOptions, run.method, "method")
        options, self.out = self.options, run.train.out
        check_range(1, "method", options, "layers", "hidden")
        if not 0 <= options.drop_caption < 1:
            raise ConfigError(
                f"method.drop_caption must be from 0 to below 1, got {options.drop_caption}"
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
                f"but a projection needs CLIP's {PLACES}"
            )
        self.reader, self.encoder_hash = projected_encoder.open_reader(
            options.encoder, options.level, options.how
        )
        self.reader.to(self.parts.device)
        texts = open_texts(run.data)
        self.key = texts.key
        self.train, self.held_out = self._fitting(texts.train), self._fitting(texts.held_out)
        if not self.train:
            raise ConfigError(f"no text is short enough for {PLACES} places; give shorter ones")
        self.widths = (self.reader.width, self.text.config.width)
        self.states = self._cached(["", *self.train], Path(run.data.cache))
        self.module = self._begin(run.train.seed).to(self.parts.device)

    def settings(self) -> dict[str, Any]:
        return {
            "method": to_dict(self.options),
            "sizes": to_dict(self.parts.config.text),
            "start": self.parts.start,
            "encoder": self.encoder_hash,
            "data": self.key,
        }

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        """In the place of images the states of both encoders, [B, S, E + D]."""
        picks = 1 + torch.randint(len(self.train), (size,), generator=generator)
        dropped = torch.rand(size, generator=generator) < self.options.drop_caption
        picks[dropped] = 0
        texts = ["" if i == 0 else self.train[i - 1] for i in picks.tolist()]
        return Batch(self._both(picks), texts, [f"text-{i}" for i in picks.tolist()])

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        states, target = batch.images.split(self.widths, dim=-1)
        projected = self.module(states)
        cosine = F.cosine_similarity(projected.detach(), target, dim=-1).mean()
        return F.mse_loss(projected, target), {"cosine": cosine.item()}

    def summary(self) -> str:
        options = self.options
        kind = f"{options.fit} at {options.level} level"
        return f"{kind}, from {len(self.train)} texts; sample.py --text-encoder {self.out}"

    def save(self, path: Path) -> None:
        adapters.save(path, "projection", self.module.state_dict(), to_dict(self.about()))

    def about(self) -> About:
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

    def _fitting(self, texts: Sequence[str]) -> list[str]:
        """The texts that fit into CLIP and the encoder; of others each reads another part."""
        room = PLACES - 2
        kept = [
            text
            for text in texts
            if len(tokenizer().encode(text)) <= room and not self.reader.layout(text).dropped
        ]
        if len(kept) < len(texts):
            log.warning("%d of %d texts are too long: left out", len(texts) - len(kept), len(texts))
        return kept

    def _cached(self, texts: Sequence[str], folder: Path) -> list[CachedRows]:
        """The states of the encoder [n, S, E] and of CLIP [n, S, D]: they do not change.

        Each text is read alone, so that its numbers do not depend on the order of reading.
        """
        level, how = self.options.level, self.options.how
        places = PLACES if level == "token" else 1
        code = code_version(projected_encoder.__file__)

        def rows(key: tuple[str, ...], width: int, read: Callable[[str], Tensor]) -> CachedRows:
            path = folder / f"{key[0]}-{digest([code, *key, list(texts)])}"

            @torch.no_grad()
            def make(index: int) -> np.ndarray:
                return read(texts[index])[0].cpu().numpy()

            return CachedRows(path, (len(texts), places, width), np.float32, make)

        encoder = ("states", self.encoder_hash, level, how)
        clip = ("clip", self.parts.start["text"], level)
        return [
            rows(encoder, self.widths[0], lambda text: self.reader([text], log_dropped=False)),
            rows(clip, self.widths[1], lambda text: clip_states(self.text, [text], level)),
        ]

    def _both(self, picks: Tensor) -> Tensor:
        """[B, S, E + D]"""
        return torch.cat([torch.from_numpy(rows[picks.numpy()]) for rows in self.states], dim=-1)

    def _begin(self, seed: int) -> TextProjection:
        """The projection before the first step."""
        options = self.options
        if options.fit == "none":
            return padded_or_cut(*self.widths)
        if options.fit == "mlp":
            with random_weights(seed, "projection"):
                return TextProjection(*self.widths, options.layers, options.hidden)
        ridge = Ridge(*self.widths)
        share = options.drop_caption
        empty = torch.zeros(round(len(self.train) * share / (1 - share)), dtype=torch.int64)
        for picks in torch.cat([empty, torch.arange(1, len(self.train) + 1)]).split(64):
            ridge.add(*self._both(picks).split(self.widths, dim=-1))
        return ridge.solve(options.penalty)
