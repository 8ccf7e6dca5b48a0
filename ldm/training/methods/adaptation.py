"""Teaching a finished model from a few images: new words for its text tower, or its U-Net anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm import lora
from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError, from_dict
from ldm.data import datasets
from ldm.data.datasets import Batch
from ldm.loss import diffusion_loss
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.training.methods import memory_estimate
from ldm.training.methods.instance_images import Instances, Kind, Prior
from ldm.training.methods.latent_cache import Latents
from ldm.training.methods.model_parts import Parts, check_drop_caption, random_weights
from ldm.training.methods.pretraining import Pretraining, noised
from ldm.training.run_config import RunConfig
from ldm.vae import VAE
from ldm.weights import adapters
from ldm.weights.loading import weights_hash

# the paper's 5 + 5 images
KINDS = (Kind(), Kind("pleural effusion", 5, " with a visible pleural effusion"))


class Adaptation(Pretraining):
    """What both ways have in common: a finished model, a few images, and the denoising loss."""

    def __init__(
        self, run: RunConfig, kinds: Sequence[Kind], prompts: Sequence[str], variants: int
    ) -> None:
        if variants < 1:
            raise ConfigError("method.variants wants 1 (the images as they are) or more")
        self.run = run
        self.parts = Parts(run, "unet")
        text: TextEncoder = self.parts.frozen("text")
        vae: VAE = self.parts.frozen("vae")
        if "unet" not in self.parts.states:
            raise ConfigError("model.path has no unet; name a finished model to adapt")
        start = weights_hash(self.parts.states)
        self.unet = self.parts.unet(run.train).requires_grad_(False)
        self.pipe = LatentDiffusion(self.parts.config, self.unet, vae, text)
        self.pipe.weights_hash = start
        self.size = run.data.size
        self.pipe.latent_shape(self.size, self.size)  # raises before minutes of work, not after
        channels = self.parts.config.vae.image_channels
        (dataset, _), *more = datasets.open_datasets(run.data, channels)
        if more:
            raise ConfigError("adaptation wants files or phantoms, not both; leave out data.share")
        instances = Instances(dataset, kinds, prompts, variants > 1 and run.data.augment)
        self.instances = self.latents(instances, variants)
        self.datasets = [(self.instances, 1.0)]
        self.contexts: dict[str, Tensor] = {}
        told = [prompts[0].replace("{}", kind.suffix) for kind in kinds or [Kind()]]
        self.shown = list(dict.fromkeys(told))  # what it was taught, each prompt once

    def latents(self, dataset: Any, variants: int = 1) -> Latents:
        vae, cache = self.pipe.vae, self.run.data.cache
        return Latents(dataset, vae, self.parts.start["vae"], variants, self.size, cache)

    def check_memory(self, trained: nn.Module, images: int) -> None:
        memory_estimate.check(self.pipe, self.run.train, trained, images, self.size)

    def sampling(self) -> Sampling:
        """The model's own way of drawing, at the size of this run."""
        guidance, size = self.pipe.config.guidance, self.size
        return Sampling(self.run.train.seed, guidance=guidance, height=size, width=size)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """[B, S, D]; each prompt goes through the frozen tower once."""
        with torch.no_grad():
            for caption in set(captions) - self.contexts.keys():
                self.contexts[caption] = self.pipe.encode_text([caption], tell=False)[0]
        return torch.stack([self.contexts[caption] for caption in captions])

    def denoise(self, moments: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
        """The mean diffusion loss of latents [B, 2 C, h, w] with their text."""
        x0, eps, t = noised(self.pipe, moments, generator)
        return diffusion_loss(self.unet, self.pipe.schedule, x0, eps, t, context).mean()

    @torch.inference_mode()
    def preview(self) -> tuple[Tensor, str]:
        """Four images of each prompt, always from the same noise."""
        each = [prompt for prompt in self.shown for _ in range(4)]
        self.unet.eval()
        drawn = self.pipe.draw(each, [*range(4)] * len(self.shown), self.sampling())
        self.unet.train()
        return image_files.grid(drawn, columns=4), "synthetic: drawn by a model in training"


@dataclass(frozen=True)
class FineTuneOptions:
    """What of the U-Net is trained, on which images, and what keeps it as it was."""

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
    """DreamBooth's loss (arXiv:2208.12242, eq. 2): instances + prior_weight x prior.

    All but the U-Net is frozen, and no word is added (the paper's section 2.7).
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(FineTuneOptions, run.method, "method")
        options = self.options
        check_drop_caption(options.drop_caption)
        if "{}" not in options.prompt and any(kind.suffix for kind in options.kinds):
            raise ConfigError(
                f"method.prompt is {options.prompt!r}, which has no {{}} where the suffixes of "
                "method.kinds go; add it, or leave the suffixes out"
            )
        super().__init__(run, options.kinds, [options.prompt], options.variants)
        if not options.prior_weight >= 0 or (options.prior_weight and options.prior_images < 1):
            raise ConfigError(
                "method.prior_weight wants 0 (off) or more, and then method.prior_images 1 or more"
            )
        self.module: nn.Module = self.unet
        if options.train == "lora":  # which changes nothing yet
            with random_weights(run.train.seed, "lora"):
                self.module = lora.inject(self.unet, options.rank, options.alpha)
        else:
            for name, parameter in self.unet.named_parameters():
                parameter.requires_grad_(options.train == "all" or ".cross_attn." in name)
        if not any(p.requires_grad for p in self.module.parameters()):
            raise ConfigError(f"this U-Net has nothing to train as method.train={options.train!r}")
        self.check_memory(self.module, run.train.batch_size * (2 if options.prior_weight else 1))
        self.prior: Latents | None = None
        if options.prior_weight:
            pipe, count, cache = self.pipe, options.prior_images, run.data.cache
            drawn = Prior(pipe, options.prior_prompt, count, self.sampling(), cache)
            drawn.pixels.fill()  # before any weight changes
            self.prior = self.latents(drawn)

    def settings(self) -> dict[str, Any]:
        prior = None if self.prior is None else self.prior.key
        return super().settings() | {"prior": prior}

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """`size` instances, then as many images of the prior where it is on."""
        sources = [self.instances, *([] if self.prior is None else [self.prior])]
        picks = [(s, torch.randint(len(s), (size,), generator=generator)) for s in sources]
        return datasets.collect(picks, generator)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        count = len(batch.ids) // (1 if self.prior is None else 2)
        dropped = torch.rand(count, generator=generator) < self.options.drop_caption
        captions = ["" if d else c for d, c in zip(dropped, batch.captions, strict=False)]
        loss = self.denoise(batch.images[:count], self.encode(captions), generator)
        figures = {"instance": loss.item()}
        if self.prior is not None:
            context = self.encode(batch.captions[count:])
            prior = self.denoise(batch.images[count:], context, generator)
            figures["prior"] = prior.item()
            loss = loss + self.options.prior_weight * prior
        return loss, figures

    def save(self, path: Path) -> None:
        options = self.options
        if options.train == "lora":
            facts = {"rank": options.rank, "alpha": options.alpha}
            adapters.save(path, "lora", lora.weights(self.unet), facts)
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
    """The vectors of a word [k, D], the only thing that is trained."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())


class TextualInversion(Adaptation):
    """v* = argmin |eps - eps_theta(x_t, t, c(v))|^2, all else frozen (arXiv:2208.01618, eq. 2)"""

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(InversionOptions, run.method, "method")
        options = self.options
        if not options.word.strip() or options.vectors < 1:
            raise ConfigError("method.word wants a name, method.vectors 1 or more")
        prompts = [text.replace("{0}", options.word) for text in TEMPLATES[options.template]]
        super().__init__(run, options.kinds, prompts, options.variants)
        ids = tokenizer().encode(options.concept)
        if not ids:
            raise ConfigError("method.concept is empty; name a word to start from, such as lung")
        table = self.pipe.text.token_embedding.weight
        self.start = torch.stack([table[ids[i % len(ids)]] for i in range(options.vectors)])
        self.module: NewWord = NewWord(self.start.to(self.parts.device))
        self.pipe.text.words[options.word] = self.module.vectors
        self.check_memory(self.module, run.train.batch_size)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        context = self.pipe.encode_text(batch.captions, tell=False)
        loss = self.denoise(batch.images, context, generator)
        return loss, {"distance": self.distance()[0]}

    def distance(self) -> tuple[float, float]:
        """Of the word from where it started: Euclidean, and the cosine between them; means."""
        now, start = self.module.vectors.detach().cpu(), self.start.cpu()
        cosine = F.cosine_similarity(now, start, dim=1).mean()
        return (now - start).norm(dim=1).mean().item(), cosine.item()

    def save(self, path: Path) -> None:
        facts = {"word": self.options.word, "start": self.options.concept}
        adapters.save(path, "word", {"vectors": self.module.vectors}, facts)

    def summary(self) -> str:
        far, cosine = self.distance()
        where = f"{far:.3g} from {self.options.concept!r} (cosine {cosine:.3f})"
        model = f"--model {self.run.model.path} --embedding {self.run.train.out}"
        return f'{self.options.word} is {where}; {model} --prompt "{self.shown[-1]}"'
