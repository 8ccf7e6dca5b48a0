"""Training from scratch: the VAE, the text tower, the U-Net.

Each method writes every part it knows into one file: the VAE alone, then VAE and text, then all
three. `model.path` names the file before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ldm import rng
from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError, from_dict
from ldm.data import row_captions
from ldm.data.augmentation import crop
from ldm.data.datasets import Batch, check_shares, open_datasets
from ldm.loss import (
    adaptive_weight,
    contrastive_loss,
    diffusion_loss,
    hinge_loss,
    reconstruction_terms,
)
from ldm.pictures import image_files
from ldm.training.methods.model_parts import Parts, PartTraining, UNetTraining, random_weights
from ldm.training.methods.patch_adversary import GROUPS, PatchAdversary
from ldm.training.training_run import RunConfig, check_range
from ldm.vae import VAE, Posterior


@dataclass(frozen=True)
class VAEOptions:
    """The weights of the loss terms; squared error has weight 1.

    Errors are means over pixels; kl is a mean over latent numbers, in nats.
    """

    crop: int = 64  # pixels; the network is convolutional, and crops are more varied than images
    absolute: float = 0.1
    gradient: float = 0.1
    kl: float = 1e-4
    detail: float = 0.0  # keeps the amplitude of fine detail
    adversary: float = 0.0  # its pull at the decoder, that of all errors of pixels being 1; 0: off
    adversary_width: int = 64  # channels of its first layer
    encoder: bool = True  # is it trained? Not once a U-Net knows its latents


class TrainVAE(PartTraining):
    """KL-VAE (LDM, arXiv:2112.10752, section 3.1), with an adversary on patches if asked for.

    The terms of `reconstruction_terms`, weighted, take the place of the paper's perceptual loss.
    Both networks learn in one step: the adversary's own loss sees copies without their gradient,
    the autoencoder's sees the adversary's weights without theirs.
    """

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(VAEOptions, run.method, "method")
        check_range(0, "method", self.options, "absolute", "gradient", "kl", "detail", "adversary")
        check_range(1, "method", self.options, "adversary_width")
        self.parts = Parts(run, "vae")
        self.vae: VAE = self.parts.fresh("vae", run.train.seed)
        if not self.options.encoder:
            shortcut = [self.vae.shortcut.encode] if self.vae.config.shortcut else []
            for module in (self.vae.encoder, self.vae.quant, *shortcut):
                module.requires_grad_(False)
        self.module: nn.Module = self.vae
        config = self.vae.config
        for name, pixels in (("data.size", run.data.size), ("method.crop", self.options.crop)):
            if pixels < 1 or pixels % config.factor:
                allowed = f"a positive multiple of {config.factor} (the VAE)"
                raise ConfigError(f"{name} must be {allowed}, got {pixels}")
        self.adversary: PatchAdversary | None = None
        if self.options.adversary:
            width = self.options.adversary_width
            if width % GROUPS or min(self.options.crop, run.data.size) < 32:
                raise ConfigError(
                    f"method.adversary_width must be a multiple of {GROUPS}, and the adversary "
                    f"sees 32 pixels or more; got {width} and method.crop={self.options.crop}"
                )
            with random_weights(run.train.seed, "adversary"):
                adversary = PatchAdversary(config.image_channels, width)
            self.adversary = adversary.to(self.parts.device).to(memory_format=torch.channels_last)
            self.module = nn.ModuleDict({"vae": self.vae, "adversary": self.adversary})
        self.datasets = open_datasets(run.data, config.image_channels)
        check_shares(self.datasets, run.train.batch_size)

    def settings(self) -> dict[str, Any]:
        there = {"with an adversary": True} if self.adversary is not None else {}
        return super().settings() | there

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        options, vae = self.options, self.vae
        x, mask = crop(batch.images, batch.masks, options.crop, generator)
        posterior = vae.encode(x)
        posterior = Posterior(posterior.mean.float(), posterior.logvar.float())
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
        y = vae.decode(posterior.sample(noise)).float()
        share = 1.0
        if mask is not None:  # padding is as it should be, and the means are over the rest
            y, share = torch.where(mask, y, x), max(mask.float().mean().item(), 1e-3)
        terms = {name: term / share for name, term in reconstruction_terms(y, x).items()}
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = terms["squared"] + options.absolute * terms["absolute"]
        loss = loss + options.gradient * terms["gradient"]
        if options.detail:
            loss = loss + options.detail * detail_loss(y, x) / share
        psnr = 10 * torch.log10(4 / terms["squared"].detach())  # the range [-1, 1] is 2 wide
        figures = {"psnr": psnr.item(), "kl": kl.item()}
        if self.adversary is not None:
            more, found = self.adversarial_terms(loss, y, x)
            loss, figures = loss + more, figures | found
        return loss + options.kl * kl, figures

    def adversarial_terms(
        self, reconstruction: Tensor, y: Tensor, x: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The autoencoder's term, weighted, and the adversary's; figures for the log.

        x, y: [B, C, H, W], images and their copies
        """
        adversary: Any = self.adversary
        frozen = {name: weight.detach() for name, weight in adversary.named_parameters()}
        fooled = -functional_call(adversary, frozen, (y,)).float().mean()
        last = self.vae.decoder.conv_out.weight
        weight = self.options.adversary * adaptive_weight(reconstruction, fooled, last)
        real, fake = adversary(torch.cat([x, y.detach()])).float().chunk(2)
        told = hinge_loss(real, fake)
        right = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        figures = {"adversary": told.item(), "told apart": right.item(), "weight": weight.item()}
        return weight * fooled + told, figures

    @torch.inference_mode()
    def preview(self) -> tuple[Tensor, str]:
        """Above, images; below, the same decoded from their latents."""
        x = self.draw_batch(8, rng.generator(0, "preview")).images.to(self.parts.device)
        y = self.vae.decode(self.vae.encode(x).mean).clamp(-1, 1)
        what = "above, images trained on; below, synthetic: the autoencoder's copies of them"
        return image_files.grid(torch.cat([x, y]).cpu(), columns=8), what

    @torch.inference_mode()
    def save(self, path: Path) -> None:
        """The scale that gives latents unit variance is measured here (LDM, section G)."""
        if not self.options.encoder:
            return self.parts.save(path, "vae", self.vae)
        batches = [self.draw_batch(16, rng.generator(0, "scale", i)).images for i in range(16)]
        latents = torch.cat([self.vae.encode(x.to(self.parts.device)).mean for x in batches])
        std = latents.std().item()
        if not 1e-6 < std < 1e6:  # as the scale may be
            what = f"the latents have a standard deviation of {std}"
            raise FloatingPointError(f"{what}: begin again with a lower train.learning_rate")
        self.parts.save(path, "vae", self.vae, scale_factor=1 / std)


def detail_loss(y: Tensor, x: Tensor) -> Tensor:
    """mean |log s(y) - log s(x)|, s^2 = the mean square above a 5 x 5 mean, over 16 x 16 pixels.

    Errors of pixels alone make copies smooth; this keeps the amplitude of detail where it lies.
    """
    above = (z - F.avg_pool2d(z, 5, 1, 2, count_include_pad=False) for z in (y, x))
    s, truth = (F.avg_pool2d(z.square(), 16, 8).add(1e-5).log() / 2 for z in above)
    return F.l1_loss(s, truth)


@dataclass(frozen=True)
class TextOptions:
    """The image side of the contrast, thrown away afterwards."""

    pixels: int = 64  # images are shrunk to this
    channels: int = 32  # of its first layer
    temperature: float = 0.07
    tokens: bool = True  # are their vectors trained? Not where another model shares the table
    denied: tuple[str, ...] = ()  # findings to tell from their denial; the sides are told apart too


class TrainText(PartTraining):
    """CLIP's contrastive loss, with a small convolutional network on the image side."""

    def __init__(self, run: RunConfig) -> None:
        self.options = from_dict(TextOptions, run.method, "method")
        width, temperature = self.options.channels, self.options.temperature
        check_range(1, "method", self.options, "pixels", "channels")
        if width % GROUPS or not temperature > 0:
            raise ConfigError(
                f"method.channels must be a multiple of {GROUPS} and method.temperature above 0, "
                f"got {width} and {temperature}"
            )
        self.parts = Parts(run, "text")
        channels = self.parts.config.vae.image_channels
        self.datasets = open_datasets(run.data, channels)
        check_shares(self.datasets, run.train.batch_size)
        text = self.parts.fresh("text", run.train.seed)
        text.token_embedding.requires_grad_(self.options.tokens)
        with random_weights(run.train.seed, "image"):
            image = image_tower(channels, width, self.parts.config.text.width)
        image.to(self.parts.device)
        self.module: nn.ModuleDict = nn.ModuleDict({"text": text, "image": image})

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        prompts = self.embed_captions(batch.captions)  # [B, D]
        small = F.interpolate(batch.images, self.options.pixels, mode="bilinear", antialias=True)
        pictures = self.module["image"](small)  # [B, D]
        equal = torch.tensor([[a == b for b in batch.captions] for a in batch.captions]).float()
        equal = equal.to(self.parts.device)
        with torch.autocast(self.parts.device.type, enabled=False):  # similarities in float32
            loss, logits = contrastive_loss(
                prompts.float(), pictures.float(), equal, self.options.temperature
            )
        right = equal[torch.arange(len(equal)), logits.argmax(dim=1)].mean()
        figures = {"accuracy": right.item()}
        if self.options.denied:
            more, found = self.denial_loss(batch, pictures.float(), generator)
            loss, figures = loss + more, figures | found
        return loss, figures

    def denial_loss(
        self, batch: Batch, pictures: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Which of two captions that differ by a denial, or by the side, is the picture's?"""
        numbers = torch.randint(1 << 30, (len(batch.captions),), generator=generator).tolist()
        rows = zip(batch.captions, batch.findings, numbers, strict=True)
        pairs = [row_captions.contrast(c, known, self.options.denied, n) for c, known, n in rows]
        of = [i for i, pair in enumerate(pairs) if pair]
        if not of:
            return pictures.new_zeros(()), {"told apart": 0.5}  # by chance
        texts = self.embed_captions([text for pair in pairs for text in pair]).float()
        with torch.autocast(self.parts.device.type, enabled=False):
            texts = F.normalize(texts, dim=1).reshape(len(of), 2, -1)
            seen = F.normalize(pictures[of], dim=1)[:, None]
            logits = (texts * seen).sum(dim=2) / self.options.temperature  # the true caption first
            loss = F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64))
        return loss, {"told apart": (logits[:, 0] > logits[:, 1]).float().mean().item()}

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """[B, D], the states of the end-of-text tokens; causal, so what follows them is left out"""
        text: TextEncoder = self.module["text"]  # type: ignore[assignment]  # as built above
        tokens = text.tokenize(captions, log_dropped=False).to(self.parts.device)
        ends = (tokens == tokenizer().eot_token_id).int().argmax(dim=1)  # the first end-of-text
        states = text(tokens[:, : int(ends.max()) + 1])
        return states[torch.arange(len(tokens)), ends]

    def save(self, path: Path) -> None:
        self.parts.save(path, "text", self.module["text"])


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
    borders: bool = False  # learn the black borders of data.fit=pad, too
    variants: int = 8  # augmented copies of each file among the cached latents
    guidance: float = 2.0
    prompts: tuple[str, ...] = ("lung xray with pleural effusion", "lung xray, no findings")


class TrainUNet(UNetTraining):
    """The diffusion loss on latents that were made once, with some captions dropped."""

    def __init__(self, run: RunConfig) -> None:
        self.options = options = from_dict(UNetOptions, run.method, "method")
        check_range(0, "method", options, "drop_caption", most=1)
        check_range(0, "method", options, "min_snr")
        check_range(1, "method", options, "variants")
        if not options.prompts:
            raise ConfigError("method.prompts needs at least one prompt")
        super().__init__(run, adapts=False)
        self.module: nn.Module = self.unet
        sources = open_datasets(run.data, self.parts.config.vae.image_channels)
        self.datasets = [(self.as_latents(d, options.variants), share) for d, share in sources]
        check_shares(self.datasets, run.train.batch_size)
        self.check_memory(run.train.batch_size)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, eps, t = self.draw_diffusion_inputs(batch.images, generator)
        captions = self.drop_captions(batch.captions, self.options.drop_caption, generator)
        context = self.encode_captions(captions)
        mask = None if self.options.borders else batch.masks
        each = diffusion_loss(self.unet, self.pipe.schedule, x0, eps, t, context, mask)
        if self.options.min_snr:
            each = each * self.pipe.schedule.min_snr_weight(t, self.options.min_snr)
        return each.mean(), {}

    def preview(self) -> tuple[Tensor, str]:
        prompts = self.options.prompts
        return self.draw_preview(prompts, range(4 * len(prompts)), self.options.guidance)

    def save(self, path: Path) -> None:
        found = {"guidance": self.options.guidance, "image_size": self.size}
        self.parts.save(path, "unet", self.unet, self.words, **found)
