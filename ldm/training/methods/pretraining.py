"""Training from scratch: the VAE, the text tower, the U-Net.

Each method writes every part it knows into one file: the VAE alone, then VAE and text, then all
three. `model.path` names the file before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm import rng
from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError, from_dict, to_dict
from ldm.data import datasets
from ldm.data.augmentation import crop
from ldm.data.datasets import Batch, Dataset
from ldm.loss import diffusion_loss
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.training.methods import memory_estimate
from ldm.training.methods.latent_cache import Latents
from ldm.training.methods.model_parts import Parts, check_drop_caption, random_weights
from ldm.training.run_config import RunConfig
from ldm.unet import UNet
from ldm.vae import VAE


class Pretraining:
    """What the three have in common: options, parts of a model, and datasets with their shares."""

    options: Any
    parts: Parts
    datasets: Sequence[tuple[Dataset, float]]
    module: nn.Module

    def settings(self) -> dict[str, Any]:
        return {
            "method": to_dict(self.options),
            "sizes": to_dict(self.parts.config),
            "start": self.parts.start,
            "data": [dataset.key for dataset, _ in self.datasets],
        }

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        return datasets.draw(self.datasets, size, generator)

    def summary(self) -> str:
        return f"{sum(p.numel() for p in self.module.parameters()):,} weights"


@dataclass(frozen=True)
class VAEOptions:
    """The weights of the loss terms; squared error has weight 1.

    Errors are means over pixels; kl is a mean over latent numbers, in nats.
    """

    crop: int = 64  # pixels; the network is convolutional, and crops are more varied than images
    absolute: float = 0.1
    gradient: float = 0.1
    kl: float = 1e-4


class TrainVAE(Pretraining):
    """KL-VAE (LDM, arXiv:2112.10752, section 3.1) without an adversary.

    Squared + absolute error + absolute error of the differences between neighbours, which keeps
    edges, in the place of the paper's perceptual term: that needs a network trained on photographs.
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(VAEOptions, run.method, "method")
        for name in ("absolute", "gradient", "kl"):
            if not (weight := getattr(self.options, name)) >= 0:
                raise ConfigError(f"method.{name} wants 0 (off) or more, got {weight}")
        self.parts = Parts(run, "vae")
        self.module: VAE = self.parts.fresh("vae", run.train.seed)
        for name, pixels in (("data.size", run.data.size), ("method.crop", self.options.crop)):
            if pixels < 1 or pixels % self.module.config.factor:
                raise ConfigError(
                    f"{name} is {pixels}; the VAE wants multiples of {self.module.config.factor}"
                )
        self.datasets = datasets.open_datasets(run.data, self.module.config.image_channels)
        datasets.check_shares(self.datasets, run.train.batch_size)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        options, vae = self.options, self.module
        x = crop(batch.images, options.crop, generator)
        posterior = vae.encode(x)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
        y = vae.decode(posterior.sample(noise))
        squared = F.mse_loss(y, x)
        edges = sum(F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (-1, -2))
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = squared + options.absolute * F.l1_loss(y, x)
        loss = loss + options.gradient * edges + options.kl * kl
        psnr = 10 * torch.log10(4 / squared.detach())  # the range [-1, 1] is 2 wide
        return loss, {"psnr": psnr.item(), "kl": kl.item()}

    @torch.inference_mode()
    def preview(self) -> tuple[Tensor, str]:
        """Above, images; below, what is left of them."""
        x = self.draw(8, rng.generator(0, "preview")).images.to(self.parts.device)
        y = self.module.decode(self.module.encode(x).mean).clamp(-1, 1)
        what = "above, images trained on; below, synthetic: the autoencoder's copies of them"
        return image_files.grid(torch.cat([x, y]).cpu(), columns=8), what

    @torch.inference_mode()
    def save(self, path: Path) -> None:
        """The scale that gives latents unit variance is measured here (LDM, section G)."""
        batches = [self.draw(16, rng.generator(0, "scale", i)).images for i in range(16)]
        latents = torch.cat([self.module.encode(x.to(self.parts.device)).mean for x in batches])
        self.parts.save(path, "vae", self.module, scale_factor=1 / latents.std().item())


@dataclass(frozen=True)
class TextOptions:
    """The image side of the contrast, thrown away afterwards."""

    pixels: int = 64  # images are shrunk to this
    channels: int = 32  # of its first layer
    temperature: float = 0.07


class TrainText(Pretraining):
    """CLIP's contrastive loss (arXiv:2103.00020, figure 3), with a small convolutional image side.

    Captions repeat, so the target of a row is spread evenly over all pairs with an equal caption.
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(TextOptions, run.method, "method")
        pixels, width = self.options.pixels, self.options.channels
        if pixels < 1 or width < 1 or width % GROUPS or not self.options.temperature > 0:
            raise ConfigError(
                f"method.pixels wants 1 or more, method.channels a multiple of {GROUPS}, "
                f"method.temperature above 0, got {pixels}, {width}, {self.options.temperature}"
            )
        self.parts = Parts(run, "text")
        channels = self.parts.config.vae.image_channels
        self.datasets = datasets.open_datasets(run.data, channels)
        datasets.check_shares(self.datasets, run.train.batch_size)
        text = self.parts.fresh("text", run.train.seed)
        with random_weights(run.train.seed, "image"):
            image = image_tower(channels, self.options.channels, self.parts.config.text.width)
        image.to(self.parts.device)
        self.module: nn.ModuleDict = nn.ModuleDict({"text": text, "image": image})

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        text: TextEncoder = self.module["text"]  # type: ignore[assignment]  # as built above
        tokens = text.tokenize(batch.captions, tell=False).to(self.parts.device)
        ends = (tokens == tokenizer().eot_token_id).int().argmax(dim=1)  # the first end-of-text
        prompts = text(tokens)[torch.arange(len(tokens)), ends]  # [B, D]
        small = F.interpolate(batch.images, self.options.pixels, mode="bilinear", antialias=True)
        pictures = self.module["image"](small)  # [B, D]
        similarity = F.normalize(prompts, dim=1) @ F.normalize(pictures, dim=1).T
        logits = similarity / self.options.temperature
        equal = torch.tensor([[a == b for b in batch.captions] for a in batch.captions]).float()
        equal = equal.to(self.parts.device)
        target = equal / equal.sum(dim=1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = equal[torch.arange(len(equal)), logits.argmax(dim=1)].mean()
        return loss, {"accuracy": right.item()}

    def preview(self) -> None:
        return None

    def save(self, path: Path) -> None:
        self.parts.save(path, "text", self.module["text"])


GROUPS = 8  # of the image side's norms


def image_tower(channels: int, width: int, out: int) -> nn.Module:
    """Four strided convolutions and a mean: image [B, C, H, W] -> [B, out]."""
    layers: list[nn.Module] = []
    for i in range(4):
        after = width * 2**i
        layers += [nn.Conv2d(channels, after, 3, 2, 1), nn.GroupNorm(GROUPS, after), nn.SiLU()]
        channels = after
    pooled = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, out)]
    return nn.Sequential(*layers, *pooled)


@dataclass(frozen=True)
class UNetOptions:
    """How the U-Net learns, and what it draws while it does."""

    drop_caption: float = 0.1  # share of captions replaced by "", for classifier-free guidance
    min_snr: float = 0.0  # gamma of min-SNR weighting; 0 is off
    variants: int = 8  # augmented copies of each file among the cached latents
    guidance: float = 2.0
    prompts: tuple[str, ...] = ("lung xray with pleural effusion", "lung xray, no findings")


def noised(
    pipe: LatentDiffusion, moments: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """x0 and eps [B, C, h, w], and t [B], for `diffusion_loss`.

    moments: [B, 2 C, h, w], mean and logvar as ldm.training.methods.latent_cache.Latents has them
    """
    mean, logvar = moments.chunk(2, dim=1)
    noise, eps = torch.randn(2, *mean.shape, generator=generator).to(mean.device)
    x0 = pipe.scale_factor * (mean + torch.exp(0.5 * logvar) * noise)
    t = torch.randint(pipe.schedule.steps, (len(mean),), generator=generator).to(mean.device)
    return x0, eps, t


class TrainUNet(Pretraining):
    """The diffusion loss on latents that were made once, with captions dropped now and then."""

    def __init__(self, run: RunConfig) -> None:
        self.options = options = from_dict(UNetOptions, run.method, "method")
        check_drop_caption(options.drop_caption)
        if not options.min_snr >= 0:
            raise ConfigError(f"method.min_snr wants 0 (off) or more, got {options.min_snr}")
        if options.variants < 1 or not options.prompts:
            raise ConfigError("method.variants wants 1 or more, method.prompts at least one")
        self.parts = Parts(run, "unet")
        self.seed = run.train.seed
        vae: VAE = self.parts.frozen("vae")
        text: TextEncoder = self.parts.frozen("text")
        self.module: UNet = self.parts.unet(run.train)
        self.pipe = LatentDiffusion(self.parts.config, self.module, vae, text)
        self.size = run.data.size
        self.pipe.latent_shape(self.size, self.size)  # raises before hours of work, not after
        start = self.parts.start["vae"]
        self.datasets = [
            (Latents(dataset, vae, start, options.variants, self.size, run.data.cache), share)
            for dataset, share in datasets.open_datasets(run.data, vae.config.image_channels)
        ]
        datasets.check_shares(self.datasets, run.train.batch_size)
        memory_estimate.check(self.pipe, run.train, self.module, run.train.batch_size, self.size)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        size = len(batch.ids)
        x0, eps, t = noised(self.pipe, batch.images, generator)
        dropped = torch.rand(size, generator=generator) < self.options.drop_caption
        captions = ["" if drop else c for drop, c in zip(dropped, batch.captions, strict=True)]
        with torch.no_grad():
            context = self.pipe.encode_text(captions, tell=False)
        each = diffusion_loss(self.module, self.pipe.schedule, x0, eps, t, context)
        if self.options.min_snr:
            each = each * self.pipe.schedule.min_snr_weight(t, self.options.min_snr)
        return each.mean(), {}

    def preview(self) -> tuple[Tensor, str]:
        """Four images of each prompt, always from the same noise."""
        prompts = [prompt for prompt in self.options.prompts for _ in range(4)]
        sampling = Sampling(
            self.seed, guidance=self.options.guidance, height=self.size, width=self.size
        )
        self.module.eval()
        drawn = self.pipe.draw(prompts, range(len(prompts)), sampling)
        self.module.train()
        return image_files.grid(drawn, columns=4), "synthetic: drawn by a model in training"

    def save(self, path: Path) -> None:
        found = {"guidance": self.options.guidance, "image_size": self.size}
        self.parts.save(path, "unet", self.module, **found)
