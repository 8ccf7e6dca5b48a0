"""How much memory training a U-Net takes: told before it starts, not when it fails."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ldm.config import ConfigError
from ldm.pipeline import LatentDiffusion
from ldm.system.devices import available
from ldm.training.run_config import TrainConfig
from ldm.vae import codec_bytes

log = logging.getLogger(__name__)

IN_BACKWARD = "train.update_in_backward=true with train.clip=1e9"


def check(
    pipe: LatentDiffusion, train: TrainConfig, trained: nn.Module, images: int, size: int
) -> None:
    """Raise ConfigError, with what would help, for a run that does not fit; else log the estimate.

    trained: the module whose parameters are learned
    images: how many, of size x size pixels, go through the U-Net before one backward pass
    """
    learned = {id(p): p.nbytes for p in trained.parameters() if p.requires_grad}
    networks = (pipe.unet, pipe.vae, pipe.text)
    weights = sum(({id(p): p.nbytes for n in networks for p in n.parameters()} | learned).values())
    # of each learned number Adam's two moments, the average, a gradient
    states = sum(learned.values()) * (3 if train.ema else 2)
    states += (max if train.update_in_backward else sum)(learned.values())
    share = 2 if train.precision == "bfloat16" else 1
    kept = activations(pipe, images, size) // share
    coding = codec_bytes(pipe.config.vae, size, size)  # of images and previews, between the steps
    need, room = weights + states + max(kept, coding), available(pipe.device)
    told = (
        f"about {need / 1e9:.3g} GB (weights {weights / 1e9:.3g}, gradients and optimizer "
        f"{states / 1e9:.3g}, activations {kept / 1e9:.3g}, or {coding / 1e9:.3g} to encode or "
        "decode an image)"
    )
    if need > room:
        hints = ["train.checkpointing=true"] * (not train.checkpointing)
        hints += ["train.ema=0"] * (train.ema > 0)
        whole = trained is pipe.unet  # else little is learned, and its gradients are small
        hints += [IN_BACKWARD] * (whole and train.accumulate == 1 and not train.update_in_backward)
        hints += ["a smaller train.batch_size with more train.accumulate"] * (images > 1)
        hints += ["method.train=lora"] * (whole and train.method == "finetune")
        hints += [f"a smaller data.size than {size}"]
        raise ConfigError(
            f"this run wants {told}, and {room / 1e9:.3g} GB are to be had; try {', '.join(hints)}"
        )
    log.info("memory: %s of %.3g GB", told, room / 1e9)


def activations(pipe: LatentDiffusion, images: int, size: int) -> int:
    """Bytes that the U-Net keeps for its backward pass, by a forward pass without any memory."""
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
