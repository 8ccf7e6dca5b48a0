"""Adapting a finished model to a few images: new words for its text tower, or a trained U-Net."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm import lora
from ldm.clip import tokenizer
from ldm.config import ConfigError, from_dict
from ldm.data import datasets
from ldm.data.datasets import Batch
from ldm.loss import diffusion_loss, prior_preservation
from ldm.training.methods.derived_datasets import Instances, Kind, Latents, Prior
from ldm.training.methods.model_parts import UNetTraining, random_weights
from ldm.training.training_run import RunConfig, check_range
from ldm.weights import adapters

# 5 + 5 images, as Chambon et al. have (arXiv:2210.04133)
KINDS = (Kind(), Kind("pleural effusion", 5, " with a visible pleural effusion"))


class Adaptation(UNetTraining):
    """A finished model, a few images, and the denoising loss."""

    def __init__(
        self, run: RunConfig, kinds: Sequence[Kind], prompts: Sequence[str], variants: int
    ) -> None:
        super().__init__(run, adapts=True)
        self.unet.requires_grad_(False)
        channels = self.parts.config.vae.image_channels
        (dataset, _), *more = datasets.open_datasets(run.data, channels)
        if more:
            raise ConfigError("adaptation needs files or phantoms, not both; leave out data.share")
        instances = Instances(dataset, kinds, prompts, variants > 1 and run.data.augment)
        self.instances = self.as_latents(instances, variants)
        self.datasets = [(self.instances, 1.0)]
        self.contexts: dict[str, Tensor] = {}
        learned = [prompts[0].replace("{}", kind.suffix) for kind in kinds or [Kind()]]
        self.shown = list(dict.fromkeys(learned))  # the prompts of previews, each once

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """[B, S, D]; each caption goes through the frozen tower once."""
        with torch.no_grad():
            for caption in set(captions) - self.contexts.keys():
                self.contexts[caption] = self.pipe.encode_text([caption], tell=False)[0]
        return torch.stack([self.contexts[caption] for caption in captions])

    def denoising_loss(
        self, moments: Tensor, context: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean diffusion loss of latents [B, 2 C, h, w] with their text."""
        x0, eps, t = self.draw_diffusion_inputs(moments, generator)
        return diffusion_loss(self.unet, self.pipe.schedule, x0, eps, t, context).mean()

    def preview(self) -> tuple[Tensor, str]:
        seeds = [*range(4)] * len(self.shown)
        return self.draw_preview(self.shown, seeds, self.pipe.config.guidance)


@dataclass(frozen=True)
class FineTuneOptions:
    """The part of the U-Net that is trained, the images, and the prior that preserves it."""

    train: Literal["all", "cross-attention", "lora"] = "all"
    rank: int = 4
    alpha: float = 4.0
    kinds: tuple[Kind, ...] = KINDS  # empty: all images of the data, with their own captions
    prompt: str = "a photo of a lung xray{}"  # {}: the suffix of the kind
    prior_weight: float = 0.0  # 0 is off
    prior_prompt: str = "a photo of a lung xray"
    prior_images: int = 64
    variants: int = 1  # of each instance, shifted, zoomed and exposed a little differently
    drop_caption: float = 0.0


class FineTune(Adaptation):
    """DreamBooth's loss: instances + prior_weight x prior (arXiv:2208.12242, eq. 2).

    All but the U-Net is frozen, and there is no new word, as in Chambon et al. (arXiv:2210.04133).
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = options = from_dict(FineTuneOptions, run.method, "method")
        check_range(0, "method", options, "drop_caption", most=1)
        check_range(0, "method", options, "prior_weight")
        check_range(1, "method", options, "variants")
        if options.prior_weight:
            check_range(1, "method", options, "prior_images")
        if "{}" not in options.prompt and any(kind.suffix for kind in options.kinds):
            raise ConfigError(
                f"method.prompt is {options.prompt!r}, which has no {{}} where the suffixes of "
                "method.kinds go; add it, or leave the suffixes out"
            )
        super().__init__(run, options.kinds, [options.prompt], options.variants)
        self.module: nn.Module = self.unet
        if options.train == "lora":  # which changes nothing yet
            with random_weights(run.train.seed, "lora"):
                self.module = lora.inject(self.unet, options.rank, options.alpha)
        else:
            for name, parameter in self.unet.named_parameters():
                parameter.requires_grad_(options.train == "all" or ".cross_attn." in name)
        if not any(p.requires_grad for p in self.module.parameters()):
            raise ConfigError(f"this U-Net has nothing to train as method.train={options.train!r}")
        self.check_memory(run.train.batch_size * (2 if options.prior_weight else 1))
        self.prior: Latents | None = None
        if options.prior_weight:
            sampling = self.sampling(self.pipe.config.guidance)
            count, cache = options.prior_images, run.data.cache
            prior = Prior(self.pipe, options.prior_prompt, count, sampling, cache)
            prior.pixels.fill()  # before any weight changes
            self.prior = self.as_latents(prior)

    def settings(self) -> dict[str, Any]:
        prior = None if self.prior is None else self.prior.key
        return super().settings() | {"prior": prior}

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        """`size` instances, then as many images of the prior where it is on."""
        sources = [self.instances, *([] if self.prior is None else [self.prior])]
        picks = [(s, torch.randint(len(s), (size,), generator=generator)) for s in sources]
        return datasets.collect(picks, generator)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        count = len(batch.ids) // (1 if self.prior is None else 2)
        captions = self.drop_captions(batch.captions[:count], self.options.drop_caption, generator)
        context = self.encode_captions(captions)
        instance = self.denoising_loss(batch.images[:count], context, generator)
        if self.prior is None:
            return instance, {"instance": instance.item()}
        context = self.encode_captions(batch.captions[count:])
        prior = self.denoising_loss(batch.images[count:], context, generator)
        loss = prior_preservation(instance, prior, self.options.prior_weight)
        return loss, {"instance": instance.item(), "prior": prior.item()}

    def save(self, path: Path) -> None:
        options = self.options
        if options.train == "lora":
            facts = {"rank": options.rank, "alpha": options.alpha}
            adapters.save(path, "lora", adapters.lora_tensors(self.unet), facts)
        else:
            self.parts.save(path, "unet", self.unet)

    def summary(self) -> str:
        count = sum(p.numel() for p in self.module.parameters() if p.requires_grad)
        model = f"--model {self.run.train.out}"
        if self.options.train == "lora":
            model = f"--model {self.run.model.path} --lora {self.run.train.out}"
        return f'{count:,} weights of the U-Net; {model} --prompt "{self.shown[-1]}"'


TEMPLATES = {  # {0}: the new word, {}: the suffix of the kind
    "object": (
        "a photo of a {0}{}",
        "a rendering of a {0}{}",
        "a close photo of the {0}{}",
        "a grey picture of a {0}{}",
        "one {0}{}",
        "the {0}{}",
    ),
    "style": (
        "a photo in the style of {0}{}",
        "a picture in the style of {0}{}",
        "a rendering in the style of {0}{}",
        "a grey picture in the style of {0}{}",
        "the style of {0}{}",
    ),
}


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
        context = self.pipe.encode_text(batch.captions, tell=False)
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
