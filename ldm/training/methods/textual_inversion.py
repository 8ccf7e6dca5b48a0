"""Textual inversion: a finished model learns a new word from a few images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.clip import tokenizer
from ldm.config import ConfigError, from_dict
from ldm.data.datasets import Batch
from ldm.training.methods.adaptation import KINDS, Adaptation, Kind
from ldm.training.training_run import RunConfig, check_range
from ldm.weights import adapters

# {template: its prompts}; {0}: the new word, {}: the suffix of the kind
TEMPLATES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("inversion_templates.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class InversionOptions:
    """The new word, where its vectors start, and the prompts that it is learned in."""

    word: str = "<lung-xray>"
    concept: str = "lung"  # existing words whose vectors it starts from
    vectors: int = 1
    template: Literal["object", "style"] = "object"
    kinds: tuple[Kind, ...] = KINDS
    variants: int = 1  # of each image, shifted, zoomed and exposed a little differently


class NewWord(nn.Module):
    """The vectors of a word [k, D], all that is trained."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())


class TextualInversion(Adaptation):
    """v* = argmin |eps - eps_theta(x_t, t, c(v))|^2, all else frozen (arXiv:2208.01618, eq. 2)"""

    def __init__(self, run: RunConfig) -> None:
        self.options = options = from_dict(InversionOptions, run.method, "method")
        check_range(1, "method", options, "vectors", "variants")
        ids = tokenizer().encode(options.concept)
        if not options.word.strip() or not ids:
            raise ConfigError(
                "method.word or method.concept is empty; name the new word, and a word to start "
                "from, such as lung"
            )
        prompts = [text.replace("{0}", options.word) for text in TEMPLATES[options.template]]
        super().__init__(run, options.kinds, prompts, options.variants)
        table = self.pipe.text.token_embedding.weight
        self.start = torch.stack([table[ids[i % len(ids)]] for i in range(options.vectors)])
        self.module: NewWord = NewWord(self.start.to(self.parts.device))
        self.pipe.text.words[options.word] = self.module.vectors
        self.check_memory(run.train.batch_size)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        context = self.pipe.encode_text(batch.captions, log_dropped=False)
        loss = self.denoising_loss(batch.images, context, generator)
        return loss, {"distance": self.distance()[0]}

    def distance(self) -> tuple[float, float]:
        """From the word's first vectors to the present ones: Euclidean, and the cosine; means."""
        now, start = self.module.vectors.detach().cpu(), self.start.cpu()
        cosine = F.cosine_similarity(now, start, dim=1).mean()
        return (now - start).norm(dim=1).mean().item(), cosine.item()

    def save(self, path: Path) -> None:
        facts = {"word": self.options.word, "start": self.options.concept}
        adapters.save(path, "word", {"vectors": self.module.vectors}, facts)

    def summary(self) -> str:
        far, cosine = self.distance()
        moved = f"{far:.3g} from {self.options.concept!r} (cosine {cosine:.3f})"
        model = f"--model {self.run.model.path} --embedding {self.run.train.out}"
        return f'{self.options.word} is {moved}; {model} --prompt "{self.shown[-1]}"'
