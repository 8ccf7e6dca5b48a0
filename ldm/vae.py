"""The autoencoder between images and latents (LDM, arXiv:2112.10752, section 3.1)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.attention import PixelAttention
from ldm.blocks import ResBlock, Upsample, group_norm
from ldm.config import VAEConfig


@dataclass(frozen=True)
class Posterior:
    """The diagonal Gaussian q(z | image); latents are unscaled (see pipeline).

    mean, logvar: [B, C, h, w]
    """

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise   (VAE, arXiv:1312.6114, section 2.4);  noise, result: [B, C, h, w]"""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)), summed over the latent, in nats: [B]   (arXiv:1312.6114, appendix B)"""
        terms = self.mean**2 + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))


class Downsample(nn.Conv2d):
    """A 3 x 3 convolution with stride 2, padded right and bottom only.

    Symmetric padding, as in the U-Net, would shift each level by half a cell of its output.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C, h/2, w/2]"""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class VAELevel(nn.Module):
    """Res blocks of one resolution; attention after the first (the middle), or a resampling."""

    def __init__(
        self,
        width_in: int,
        width: int,
        blocks: int,
        groups: int,
        attention: bool = False,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(
            ResBlock(width_in if j == 0 else width, width, groups, eps=1e-6) for j in range(blocks)
        )
        self.attn = nn.ModuleList([PixelAttention(width, groups)] if attention else [])
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, width, h', w']"""
        for i, res in enumerate(self.res):
            x = res(x)
            if i < len(self.attn):
                x = self.attn[i](x)
        return x if self.resample is None else self.resample(x)


class Encoder(nn.Module):
    """Image [B, C, H, W] -> mean and logvar, stacked: [B, 2 C_z, h, w]."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        self.patch = cfg.patch
        width, last = cfg.channels[0], len(cfg.channels) - 1
        self.conv_in = nn.Conv2d(cfg.image_channels * cfg.patch**2, width, 3, padding=1)
        self.down = nn.ModuleList()
        for i, channels in enumerate(cfg.channels):
            half = Downsample(channels) if i < last else None
            self.down.append(VAELevel(width, channels, cfg.res_blocks, cfg.groups, resample=half))
            width = channels
        self.mid = VAELevel(width, width, 2, cfg.groups, attention=True)
        self.norm_out = group_norm(width, cfg.groups, eps=1e-6)
        self.conv_out = nn.Conv2d(width, 2 * cfg.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(image, self.patch))
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latent [B, C_z, h, w] -> image [B, C, H, W]."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        self.patch = cfg.patch
        width = cfg.channels[-1]
        self.conv_in = nn.Conv2d(cfg.latent_channels, width, 3, padding=1)
        self.mid = VAELevel(width, width, 2, cfg.groups, attention=True)
        self.up = nn.ModuleList()
        for i, channels in reversed(list(enumerate(cfg.channels))):
            double = Upsample(channels) if i > 0 else None
            self.up.append(
                VAELevel(width, channels, cfg.res_blocks + 1, cfg.groups, resample=double)
            )
            width = channels
        self.norm_out = group_norm(width, cfg.groups, eps=1e-6)
        self.conv_out = nn.Conv2d(width, cfg.image_channels * cfg.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in self.up:
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch)


class Shortcut(nn.Module):
    """A linear map of each block of `factor` x `factor` pixels to its latent, and one back.

    It begins as the lowest waves of the cosine transform, as JPEG's, which hold most of a
    radiograph; the networks beside it begin at zero and learn the rest.
    """

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        image, latent, factor = cfg.image_channels, cfg.latent_channels, cfg.factor
        self.encode = nn.Conv2d(image, 2 * latent, factor, stride=factor)
        self.decode = nn.ConvTranspose2d(latent, image, factor, stride=factor)
        frequencies, waves = (x[:latent] for x in cosine_waves(factor))
        waves = waves[:, None].expand(-1, image, -1, -1) / math.sqrt(image)
        # high frequencies are weak: strengthened, they are not lost in the last steps of sampling
        gain = (1 + frequencies)[:, None, None, None]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.encode.weight[: len(waves)] = gain * waves
            self.decode.weight[: len(waves)] = waves / gain
            # a small variance: its logarithm is the second half of what `encode` returns
            self.encode.bias[latent:] = -6.0  # type: ignore[index]  # it has a bias


def cosine_waves(size: int) -> tuple[Tensor, Tensor]:
    """The two-dimensional DCT-II basis, which is orthonormal, lowest frequencies first.

    returns frequencies [size^2] and waves [size^2, size, size]
    """
    k, x = torch.arange(size)[:, None], torch.arange(size)
    lines = torch.cos(math.pi / size * k * (x + 0.5)) * math.sqrt(2 / size)
    lines[0] /= math.sqrt(2)
    frequencies = torch.hypot(k.float(), k.T.float()).flatten()
    order = frequencies.argsort(stable=True)
    waves = rearrange(torch.einsum("ky, lx -> klyx", lines, lines), "k l y x -> (k l) y x")
    return frequencies[order], waves[order]


class VAE(nn.Module):
    """Encoder and decoder with the 1 x 1 convolutions of SD v1 around the latent."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        self.config = cfg
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.quant = nn.Conv2d(2 * cfg.latent_channels, 2 * cfg.latent_channels, 1)
        self.post_quant = nn.Conv2d(cfg.latent_channels, cfg.latent_channels, 1)
        if cfg.shortcut:
            self.shortcut = Shortcut(cfg)
            for parameter in (*self.quant.parameters(), *self.decoder.conv_out.parameters()):
                nn.init.zeros_(parameter)

    def encode(self, images: Tensor) -> Posterior:
        """images: [B, C, H, W] in [-1, 1], H and W multiples of the factor."""
        channels, factor = self.config.image_channels, self.config.factor
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(
                f"encode needs images [B, {channels}, H, W], got {tuple(images.shape)}; "
                "pictures.image_files.to_channels converts between grey and RGB"
            )
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"sides must be multiples of {factor}, got {tuple(images.shape[2:])}; resize or pad"
            )
        moments = self.quant(self.encoder(images))
        if self.config.shortcut:
            moments = moments + self.shortcut.encode(images)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))  # as SD v1: exp stays finite

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, C_z, h, w], unscaled;  returns images [B, C, H, W], about [-1, 1], not clamped"""
        images = self.decoder(self.post_quant(z))
        return images + self.shortcut.decode(z) if self.config.shortcut else images
