"""The parts of a model in training: which exist, which is new, and how much memory they take."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from ldm import rng
from ldm.config import ConfigError, ModelConfig, to_dict
from ldm.data.datasets import Batch, Dataset, Latents, count_words, draw
from ldm.data.file_dataset import pieces_of
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system import devices
from ldm.system.cli import load_config
from ldm.training.trainer import Method
from ldm.training.training_run import RunConfig
from ldm.unet import UNet
from ldm.weights import export, loading
from ldm.weights.weight_files import Words, join_words, trained_words

log = logging.getLogger(__name__)


class Parts:
    """The parts of the model that exist already, and the sizes of all."""

    def __init__(self, run: RunConfig, trained: str) -> None:
        if unknown := sorted(set(run.model.parts) - set(loading.PARTS)):
            raise ConfigError(
                f"model.parts names {', '.join(unknown)}; choose from {', '.join(loading.PARTS)}"
            )
        self.device = devices.choose(run.train.device or None)
        given = None if run.model.config is None else load_config(ModelConfig, run.model.config)
        self.states: dict[str, dict[str, Tensor]] = {}
        self.fitting = False  # of the trained part, only some tensors have its sizes
        self.config = given or ModelConfig()
        if run.model.path is not None:
            found, states = loading.load_parts(run.model.path)
            self.states = {part: states[part] for part in run.model.parts if part in states}
            sizes = given or found
            grown = getattr(sizes, trained) != getattr(found, trained)
            self.fitting = run.model.fitting and grown
            if trained in self.states and grown and not run.model.fitting:
                raise ConfigError(
                    f"{run.model.path} has a {trained} of other sizes than {run.model.config}; "
                    f"leave {trained} out of model.parts to begin anew, or take over the tensors "
                    "that fit by model.fitting=true"
                )
            changes: dict[str, Any] = {"schedule": sizes.schedule}
            new = [part for part in loading.PARTS if part == trained or part not in self.states]
            changes |= {part: getattr(sizes, part) for part in new}
            self.config = dataclasses.replace(found, **changes)
        # those that the U-Net was trained on before; None: unknown
        self.words = trained_words(run.model.path or "") if "unet" in self.states else {}
        self.start = {part: loading.weights_hash({part: s}) for part, s in self.states.items()}

    def frozen(self, part: str) -> Any:
        """A part that must exist, not to be trained."""
        if part not in self.states:
            raise ConfigError(f"model.path has no {part}; train it first and name its run folder")
        module = loading.build(part, self.config, self.states[part])
        return module.requires_grad_(False).to(self.device)

    def fresh(self, part: str, seed: int) -> Any:
        """The part to be trained: taken over if it exists, else with random weights."""
        if part in self.states and self.fitting:
            with random_weights(seed, part):
                module = loading.PARTS[part](self.config)
            take_fitting(module, self.states.pop(part), part)
        elif part in self.states:  # which lets go of them: training changes them in place
            module = loading.build(part, self.config, self.states.pop(part))
        else:
            with random_weights(seed, part):
                module = loading.PARTS[part](self.config)
        # channels last: the convolutions of small networks train 6 to 12 % faster so
        # (benchmarks/channels_last.py); train.unfold, for large ones, makes them contiguous again
        module = module.to(self.device).to(memory_format=torch.channels_last)
        return module.train().requires_grad_(True)

    def save(
        self, path: Path, part: str, module: nn.Module, words: Words | None = None, **changes: Any
    ) -> None:
        """Write all parts. words: of this run;  changes: fields of ModelConfig that it found."""
        config = dataclasses.replace(self.config, **changes)
        states = {**self.states, part: module.state_dict()}
        export.export("ours", path, config, states, words=join_words(self.words, words or {}))


def take_fitting(module: nn.Module, weights: dict[str, Tensor], part: str) -> None:
    """Copy the tensors of a name and shape that the module has; the others stay random.

    Raises ConfigError if there is none.
    """
    own = module.state_dict()
    same = {n: w for n, w in weights.items() if n in own and w.shape == own[n].shape}
    if not same:
        raise ConfigError(f"model.path: no tensor of its {part} has the sizes of model.config")
    module.load_state_dict(own | same)
    log.info("%s: %d of %d tensors taken over, the others random", part, len(same), len(own))


@contextmanager
def random_weights(seed: int, what: str) -> Iterator[None]:
    """Inside, torch's layers draw their first weights from (seed, what) alone."""
    with torch.random.fork_rng(devices=[]):  # layers are built on the CPU
        torch.default_generator.manual_seed(rng.generator(seed, "weights", what).initial_seed())
        yield


class PartTraining(Method):
    """The settings and batches of a method that trains a part of a latent diffusion model."""

    options: Any
    parts: Parts
    datasets: Sequence[tuple[Dataset, float]]  # with their shares

    def settings(self) -> dict[str, Any]:
        return {
            "method": to_dict(self.options),
            "sizes": to_dict(self.parts.config),
            "start": self.parts.start,
            "data": [dataset.key for dataset, _ in self.datasets],
        }

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        return draw(self.datasets, size, generator)

    def summary(self) -> str:
        return f"{sum(p.numel() for p in self.module.parameters()):,} weights"


class UNetTraining(PartTraining):
    """A method that runs the U-Net on latents, with a frozen VAE and text tower."""

    def __init__(self, run: RunConfig, adapts: bool) -> None:
        """adapts: a finished model is needed, whose hash `pipe` then has"""
        self.run, self.size = run, run.data.size
        self.parts = Parts(run, "unet")
        vae, text = self.parts.frozen("vae"), self.parts.frozen("text")
        if adapts and "unet" not in self.parts.states:
            raise ConfigError("model.path has no unet; name a finished model to adapt")
        start = loading.weights_hash(self.parts.states) if adapts else ""
        self.unet: UNet = self.parts.fresh("unet", run.train.seed)
        self.unet.set_checkpointing(run.train.checkpointing)
        if run.train.attention != "sdpa":
            from ldm.fast import switches

            switches.set_attention(self.unet, run.train.attention)
        if run.train.unfold:
            from ldm.fast import unfolded_convolution

            unfolded_convolution.use(self.unet)
        self.pipe = LatentDiffusion(self.parts.config, self.unet, vae, text, weights_hash=start)
        self.pipe.latent_shape(self.size, self.size)  # raises before hours of work, not after

    def as_latents(self, dataset: Dataset, variants: int = 1) -> Latents:
        start, cache = self.parts.start["vae"], self.run.data.cache
        return Latents(dataset, self.pipe.vae, start, variants, self.size, cache)

    @cached_property
    def words(self) -> dict[str, int]:
        """As of `count_words`, without a prior, whose images the model itself drew."""
        return count_words([d.dataset for d, _ in self.datasets if isinstance(d, Latents)])

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """[B, S, D]; with data.long_captions=chunks S is 77 for each piece of the longest one."""
        if self.run.data.long_captions != "chunks":
            return self.pipe.encode_text(captions, log_dropped=False)
        pieces = [
            pieces_of(caption, self.pipe.text.config.context_length - 2) for caption in captions
        ]
        count = max(map(len, pieces))
        padded = [piece for each in pieces for piece in each + [""] * (count - len(each))]
        encoded = self.pipe.encode_text(padded, log_dropped=False)
        return rearrange(encoded, "(B k) S D -> B (k S) D", k=count)

    def sampling(self, guidance: float) -> Sampling:
        """The settings of previews and class images."""
        return Sampling(self.run.train.seed, guidance=guidance, height=self.size, width=self.size)

    @torch.inference_mode()
    def draw_preview(
        self, prompts: Sequence[str], seeds: Sequence[int], guidance: float
    ) -> tuple[Tensor, str]:
        """Four images of each prompt, always from the same noise."""
        each = [prompt for prompt in prompts for _ in range(4)]
        self.unet.eval()
        images = self.pipe.draw(each, seeds, self.sampling(guidance))
        self.unet.train()
        return image_files.grid(images, columns=4), "synthetic: drawn by a model in training"

    def drop_captions(
        self, captions: Sequence[str], share: float, generator: torch.Generator
    ) -> list[str]:
        """The captions, each replaced by "" with probability `share`, for guidance without text."""
        dropped = torch.rand(len(captions), generator=generator) < share
        return ["" if drop else c for drop, c in zip(dropped, captions, strict=True)]

    def draw_diffusion_inputs(
        self, moments: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x0 and eps [B, C, h, w], and t [B], for `diffusion_loss`.

        moments: [B, 2 C, h, w], mean and logvar, as datasets.Latents has them
        """
        mean, logvar = moments.chunk(2, dim=1)
        noise, eps = torch.randn(2, *mean.shape, generator=generator).to(mean.device)
        x0 = self.pipe.scale_factor * (mean + torch.exp(0.5 * logvar) * noise)
        t = torch.randint(self.pipe.schedule.steps, (len(mean),), generator=generator)
        return x0, eps, t.to(mean.device)

    def check_memory(self, images: int) -> None:
        """Raise ConfigError, with what would help, if the run does not fit; else log the estimate.

        images: how many go through the U-Net before one backward pass
        """
        train, pipe, size = self.run.train, self.pipe, self.size
        learned = {id(p): p.nbytes for p in self.module.parameters() if p.requires_grad}
        held = {id(p): p.nbytes for n in (pipe.unet, pipe.vae, pipe.text) for p in n.parameters()}
        weights = sum((held | learned).values())
        # of each learned number Adam's two moments, the average, a gradient
        states = sum(learned.values()) * (3 if train.ema else 2)
        states += (max if train.update_in_backward else sum)(learned.values())
        kept = activation_bytes(pipe, images, size) // (2 if train.precision == "bfloat16" else 1)
        coding = devices.codec_bytes(pipe.config.vae, size, size)  # between the steps
        need, room = weights + states + max(kept, coding), devices.available(pipe.device)
        estimate = (
            f"about {need / 1e9:.3g} GB (weights {weights / 1e9:.3g}, gradients and optimizer "
            f"{states / 1e9:.3g}, activations {kept / 1e9:.3g}, or {coding / 1e9:.3g} to encode or "
            "decode an image)"
        )
        if need <= room:
            log.info("memory: %s of %.3g GB", estimate, room / 1e9)
            return
        whole = self.module is self.unet  # else little is learned, and its gradients are small
        hints = {
            "train.checkpointing=true": not train.checkpointing,
            "train.ema=0": train.ema > 0,
            "train.update_in_backward=true with train.clip=1e9": whole
            and train.accumulate == 1
            and not train.update_in_backward,
            "a smaller train.batch_size with more train.accumulate": images > 1,
            "method.train=lora": whole and train.method == "finetune",
            f"a smaller data.size than {size}": True,
        }
        raise ConfigError(
            f"this run needs {estimate}, and {room / 1e9:.3g} GB are available; "
            f"try {', '.join(hint for hint, helps in hints.items() if helps)}"
        )


def activation_bytes(pipe: LatentDiffusion, images: int, size: int) -> int:
    """Bytes that the U-Net keeps for its backward pass, by a forward pass on the meta device."""
    names = pipe.unet.named_parameters()
    weights = {
        n: torch.empty_like(p, device="meta", requires_grad=p.requires_grad) for n, p in names
    }
    own = {w.untyped_storage()._cdata for w in weights.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        x = torch.empty(images, *pipe.latent_shape(size, size))
        t = torch.zeros(images, dtype=torch.int64)
        text = pipe.config.text
        context = torch.empty(images, text.context_length, text.width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(pipe.unet, weights, (x, t, context))
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
