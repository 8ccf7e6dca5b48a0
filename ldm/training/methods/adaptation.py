"""Adapting a finished U-Net to a few images, with a prior that preserves what it knew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ldm import lora
from ldm.config import ConfigError, from_dict
from ldm.data import datasets
from ldm.data.cache import CachedRows, from_bytes, to_bytes
from ldm.data.datasets import Batch, Dataset, DerivedDataset, Latents
from ldm.data.phantom.captions import readable
from ldm.loss import diffusion_loss, prior_preservation
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.atomic import digest
from ldm.training.methods.model_parts import UNetTraining, random_weights
from ldm.training.training_run import RunConfig, check_range
from ldm.weights import adapters


@dataclass(frozen=True)
class Kind:
    """Images that share a prompt.

    finding: what they show, by any of its spellings; "no finding" for none
    images: how many of them
    suffix: what their prompt says after the noun
    """

    finding: str = "no finding"
    images: int = 5
    suffix: str = ""


# 5 + 5 images, as Chambon et al. have (arXiv:2210.04133)
KINDS = (Kind(), Kind("pleural effusion", 5, " with a visible pleural effusion"))


class Instances(DerivedDataset):
    """The images of a dataset picked for each kind, with the prompts of that kind."""

    def __init__(
        self,
        dataset: Dataset,
        kinds: Sequence[Kind],
        prompts: Sequence[str],
        augmented: bool = False,
    ) -> None:
        """prompts: templates with {} where a kind's suffix goes; no kinds: all, as captioned"""
        self.dataset, self.augmented, self.prompts = dataset, augmented, prompts
        picks = [(kind, index) for kind in kinds for index in pick(dataset, kind)]
        self.suffixes = [kind.suffix for kind, _ in picks]
        self.indices = [index for _, index in picks] if kinds else list(range(len(dataset)))
        self.key = digest([dataset.key, self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def origin(self, index: int) -> int:
        return self.indices[index]

    def images(self, indices: Tensor) -> Tensor:
        return self.dataset.images(torch.tensor([self.indices[i] for i in indices.tolist()]))

    def caption(self, index: int, wording: int) -> str:
        if not self.suffixes:
            return super().caption(index, wording)
        return self.prompts[wording % len(self.prompts)].replace("{}", self.suffixes[index])


def pick(dataset: Dataset, kind: Kind) -> list[int]:
    """The first images with the finding and the fewest others, in their order."""
    finding = readable(kind.finding)
    others: dict[int, int] = {}
    for index in range(len(dataset)):
        present = {name for name, shown in dataset.findings(index).items() if shown}
        if finding in present or (not finding and not present and dataset.findings(index)):
            others[index] = len(present)
    if kind.images < 1 or len(others) < kind.images:
        raise ConfigError(
            f"method.kinds asks for {kind.images} images with {finding or 'no finding'}; the least "
            f"is 1, and the data has {len(others)}"
        )
    return sorted(sorted(others, key=lambda index: others[index])[: kind.images])


class Prior(datasets.Unpadded):
    """Images that the model draws for a class prompt before it is adapted.

    DreamBooth (arXiv:2208.12242), "Class-specific Prior Preservation Loss". Each image is drawn
    when it is first read and kept in a cache, by a hash of weights, prompt and settings.
    """

    augmented = False

    def __init__(
        self, pipe: LatentDiffusion, prompt: str, count: int, sampling: Sampling, cache: str
    ) -> None:
        self.prompt, self.pipe, self.sampling = prompt, pipe, sampling
        channels = pipe.config.vae.image_channels
        self.key = digest([pipe.weights_hash, prompt, repr(sampling)])
        shape = (count, channels, sampling.height, sampling.width)
        path = Path(cache) / f"prior-{self.key}-{count}"
        self.pixels = CachedRows(path, shape, np.uint8, self.make)

    def make(self, index: int) -> np.ndarray:
        return to_bytes(self.pipe.draw([self.prompt], [index], self.sampling)[0])

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        return self.prompt

    def sample_id(self, index: int) -> str:
        return f"prior-{index}"

    def findings(self, index: int) -> Mapping[str, bool]:
        return {}

    def collection(self, index: int) -> str:
        return "prior"


class Adaptation(UNetTraining):
    """A finished model, a few images, and the denoising loss."""

    def __init__(
        self, run: RunConfig, kinds: Sequence[Kind], prompts: Sequence[str], variants: int
    ) -> None:
        super().__init__(run, adapts=True)
        self.unet.requires_grad_(False)
        channels = self.parts.config.vae.image_channels
        if run.data.fit == "pad":
            raise ConfigError("data.fit=pad is for training from scratch; here take crop")
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
        if self.run.data.long_captions == "chunks":
            return super().encode_captions(captions)
        for caption in set(captions) - self.contexts.keys():
            self.contexts[caption] = super().encode_captions([caption])[0]
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
            facts = {"rank": options.rank, "alpha": options.alpha, "words": self.words}
            adapters.save(path, "lora", adapters.lora_tensors(self.unet), facts)
        else:
            self.parts.save(path, "unet", self.unet, self.words)

    def summary(self) -> str:
        count = sum(p.numel() for p in self.module.parameters() if p.requires_grad)
        model = f"--model {self.run.train.out}"
        if self.options.train == "lora":
            model = f"--model {self.run.model.path} --lora {self.run.train.out}"
        return f'{count:,} weights of the U-Net; {model} --prompt "{self.shown[-1]}"'
