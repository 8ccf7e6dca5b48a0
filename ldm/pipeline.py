"""LatentDiffusion: text -> latent -> image."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm import rng
from ldm.clip import TextEncoder
from ldm.config import ConfigError, ModelConfig
from ldm.guidance import Denoise, guide
from ldm.samplers import SAMPLERS, Step, sample
from ldm.schedule import NoiseSchedule
from ldm.unet import UNet
from ldm.vae import VAE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn; with the weights, the prompt and the index it decides every pixel.

    guidance: SD's scale, 1 is off;  height, width: pixels
    interval: noise levels sigma that are guided, low < sigma <= high (arXiv:2404.07724)
    """

    seed: int = 0
    steps: int = 20
    sampler: str = "dpm++"
    guidance: float = 7.5
    negative: str = ""
    height: int = 512
    width: int = 512
    interval: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"unknown sampler {self.sampler!r}; known: {', '.join(SAMPLERS)}")
        if self.steps < 1:
            raise ConfigError(f"cannot draw in {self.steps} steps; use 1 or more")
        if not abs(self.guidance) < float("inf"):
            raise ConfigError(f"guidance must be a finite number, got {self.guidance}")
        if not 0 <= self.interval[0] < self.interval[1]:
            raise ConfigError(f"a guidance interval must have 0 <= LOW < HIGH, got {self.interval}")


class LatentDiffusion:
    """A latent diffusion model (arXiv:2112.10752): text tower, U-Net, VAE and noise schedule."""

    def __init__(
        self, config: ModelConfig, unet: UNet, vae: VAE, text: TextEncoder, weights_hash: str = ""
    ) -> None:
        self.config = config
        self.unet, self.vae, self.text = unet, vae, text
        self.schedule = NoiseSchedule(**vars(config.schedule))
        self.scale_factor = config.scale_factor
        self.weights_hash = weights_hash
        # {word: training images that have it in a caption}; None: unknown
        self.trained_words: Mapping[str, int] | None = None
        # another text encoder in the place of `text`: (prompts, log_dropped) -> [B, S, D]
        self.other_text: nn.Module | None = None

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "LatentDiffusion":
        """Move the networks; returns self."""
        for module in (self.unet, self.vae, self.text, self.other_text):
            if module is not None:
                module.to(device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    def encode_text(self, prompts: Sequence[str], log_dropped: bool = True) -> Tensor:
        """[B, S, D], what the U-Net attends to; `log_dropped` as in TextEncoder.tokenize."""
        if self.other_text is not None:
            return self.other_text(prompts, log_dropped)
        return self.text(self.text.tokenize(prompts, log_dropped).to(self.device))

    def encode_each(self, prompts: Sequence[str]) -> Tensor:
        """[B, S, D] as `encode_text`, one prompt a pass: rounding does not depend on the others."""
        alone = {prompt: self.encode_text([prompt]) for prompt in dict.fromkeys(prompts)}
        return torch.cat([alone[prompt] for prompt in prompts])

    def predict_eps(self, x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The predicted noise, whatever the U-Net was trained to predict."""
        return self.schedule.to_eps(self.unet(x_t, t, context), x_t, t)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """[C_z, h, w] of a height x width image; ConfigError if the networks cannot hold it."""
        factor, multiple = self.config.vae.factor, self.config.multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ConfigError(
                f"this model draws sides that are multiples of {multiple}, not {width}x{height}; "
                f"it was trained at {self.config.image_size}"
            )
        return self.config.unet.in_channels, height // factor, width // factor

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[str],
        indices: Sequence[int],
        sampling: Sampling,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Tensor:
        """One image for each prompt: float32 [B, C, H, W] in [-1, 1], on the CPU.

        indices: the image indices, which key the noise: image 7 is the same in any company
        on_step: sees every step, for progress bars and strips of x0 predictions
        """
        self.check(sampling)
        context = self.encode_each(prompts)
        negative = None if sampling.guidance == 1 else self.encode_each([sampling.negative])
        return self.decode(self.sample_latents(context, negative, indices, sampling, on_step))

    def check(self, sampling: Sampling) -> None:
        """ConfigError, before any work, for steps or a size that this model cannot do."""
        self.latent_shape(sampling.height, sampling.width)
        if sampling.steps > self.schedule.steps:
            raise ConfigError(
                f"this model draws in at most {self.schedule.steps} steps, not {sampling.steps}"
            )

    @torch.inference_mode()
    def sample_latents(
        self,
        context: Tensor,
        negative: Tensor | None,
        indices: Sequence[int],
        sampling: Sampling,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Tensor:
        """Scaled latents [B, C_z, h, w] from noise, for `decode`.

        context: [B, S, D];  negative: [1, S, D], None only if the guidance is 1 and thus off
        """
        denoise = self.denoiser(context, negative, sampling)
        noise_at = self.noise_source(sampling, indices)
        return self.sample_from(noise_at(-1), denoise, sampling, noise_at, on_step=on_step)

    def denoiser(self, context: Tensor, negative: Tensor | None, sampling: Sampling) -> Denoise:
        """The network with the text and the guidance inside; arguments as of `sample_latents`."""
        low, high = sampling.interval

        def guided(t: Tensor) -> bool:
            return low < float(self.schedule.snr(t[:1].cpu()).rsqrt()) <= high

        return guide(self.predict_eps, context, negative, sampling.guidance, guided)

    def noise_source(self, sampling: Sampling, indices: Sequence[int]) -> Callable[[int], Tensor]:
        """step -> [B, C_z, h, w], keyed by (seed, image index, step); step -1 is x_T"""
        seed, shape = sampling.seed, self.latent_shape(sampling.height, sampling.width)
        return lambda i: rng.gaussian(seed, indices, i, shape).to(self.device, self.dtype)

    def timesteps(self, steps: int) -> Tensor:
        """int64 [steps], descending"""
        # trailing starts at T - 1, where x_t is nearest to the noise that sampling starts from
        schedule = self.config.schedule
        sd1 = schedule.final_alpha_bar == "first" and not schedule.zero_terminal_snr
        return self.schedule.timesteps(steps, "leading" if sd1 else "trailing")

    @torch.inference_mode()
    def sample_from(
        self,
        x: Tensor,
        denoise: Denoise,
        sampling: Sampling,
        noise_at: Callable[[int], Tensor],
        skip: int = 0,
        hook: Callable[[Step], Tensor] | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Tensor:
        """Clean latents from x [B, C_z, h, w] at timesteps[skip]; hook as in `sample`.

        Step i has the same noise whether or not steps before it were skipped.
        """
        timesteps = self.timesteps(sampling.steps)[skip:]
        sampler = SAMPLERS[sampling.sampler](self.schedule)
        for step in sample(sampler, denoise, x, timesteps, lambda i: noise_at(skip + i), hook):
            on_step(step)
            x = step.x
        if not x.isfinite().all():  # also waits for the device, so that timings are true
            raise FloatingPointError(
                f"the latents are not finite in {self.dtype}: the weights are broken, or they need "
                "float32 or bfloat16"
            )
        return x

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> scaled latents [B, C_z, h, w]: the posterior's means.

        Editing needs the one most likely latent of an image; training draws from the posterior
        instead, so that the U-Net sees all latents that decode to it. One at a time, as `decode`.
        """
        batches = images.to(self.device, self.dtype).split(1)
        return torch.cat([self.vae.encode(one).mean for one in batches]) * self.scale_factor

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents [B, C_z, h, w] -> float32 images [B, C, H, W] in [-1, 1], on the CPU.

        One at a time: at 512 px SD's decoder needs a gigabyte for each.
        In half precision it can overflow, which shows as a black image: such a batch is
        decoded again in float32. Raises FloatingPointError if that does not help either.
        """
        images = self._decode(z)
        if not images.isfinite().all() and self.dtype != torch.float32:
            log.warning("the decoder overflowed in %s; decoding again in float32", self.dtype)
            self.vae.float()
            images = self._decode(z.float())
            self.vae.to(self.dtype)
        if not images.isfinite().all():
            raise FloatingPointError("the image is not finite: the decoder's weights are broken")
        return images.float().clamp(-1, 1).cpu()

    def _decode(self, z: Tensor) -> Tensor:
        return torch.cat([self.vae.decode(one / self.scale_factor) for one in z.split(1)])
