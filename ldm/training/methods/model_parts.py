"""The parts of a model in training: which exist already, which is made anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm import rng
from ldm.config import ConfigError, ModelConfig, load_config
from ldm.fast import switches, unfolded_convolution
from ldm.system import devices
from ldm.training.run_config import RunConfig, TrainConfig
from ldm.unet import UNet
from ldm.weights import export, loading
from ldm.weights.loading import build

State = dict[str, Tensor]


class Parts:
    """The parts of the model that exist already, and the sizes of all."""

    def __init__(self, run: RunConfig, trained: str) -> None:
        if unknown := sorted(set(run.model.parts) - set(loading.PARTS)):
            raise ConfigError(
                f"model.parts names {', '.join(unknown)}; choose from {', '.join(loading.PARTS)}"
            )
        self.device = devices.choose(run.train.device or None)
        given = None if run.model.config is None else load_config(ModelConfig, run.model.config)
        self.states: dict[str, State] = {}
        self.config = given or ModelConfig()
        if run.model.path is not None:
            found, states = loading.load_parts(run.model.path)
            self.states = {part: states[part] for part in run.model.parts if part in states}
            sizes = given or found
            if trained in self.states and getattr(sizes, trained) != getattr(found, trained):
                raise ConfigError(
                    f"{run.model.path} has a {trained} of other sizes than {run.model.config}; "
                    f"leave {trained} out of model.parts to begin anew"
                )
            changes: dict[str, Any] = {trained: getattr(sizes, trained), "schedule": sizes.schedule}
            self.config = dataclasses.replace(found, **changes)
        self.start = {part: loading.weights_hash({part: s}) for part, s in self.states.items()}

    def frozen(self, part: str) -> Any:
        """A part that must exist, not to be trained."""
        if part not in self.states:
            raise ConfigError(f"model.path has no {part}; train it first and name its run folder")
        module = build(part, self.config, self.states[part])
        return module.requires_grad_(False).to(self.device)

    def fresh(self, part: str, seed: int) -> Any:
        """The part to be trained: taken over if it exists, else with random weights."""
        if part in self.states:  # which then lets go of them: training changes the numbers in place
            module = build(part, self.config, self.states.pop(part))
        else:
            with random_weights(seed, part):
                module = loading.PARTS[part](self.config)
        # channels last: the convolutions of small networks train 6 to 12 % faster so
        # (benchmarks/channels_last.py); train.unfold, for large ones, makes them contiguous again
        module = module.to(self.device).to(memory_format=torch.channels_last)
        return module.train().requires_grad_(True)

    def unet(self, train: TrainConfig) -> UNet:
        """The U-Net to be trained, its switches set."""
        unet: UNet = self.fresh("unet", train.seed)
        unet.set_checkpointing(train.checkpointing)
        switches.set_attention(unet, train.attention)
        if train.unfold:
            unfolded_convolution.use(unet)
        return unet

    def save(self, path: Path, part: str, module: nn.Module, **changes: Any) -> None:
        """Write all parts; `changes` are fields of ModelConfig that training has found."""
        config = dataclasses.replace(self.config, **changes)
        states = {**self.states, part: module.state_dict()}
        export.save(path, config, states)


def check_drop_caption(share: float) -> None:
    """Raises ConfigError for what is no share of the captions; 1 learns from "" alone."""
    if not 0 <= share <= 1:
        raise ConfigError(f"method.drop_caption wants a share from 0 to 1, got {share}")


@contextmanager
def random_weights(seed: int, what: str) -> Iterator[None]:
    """Inside, torch's layers draw their first weights from (seed, what) alone."""
    with torch.random.fork_rng(devices=[]):  # layers are built on the CPU
        torch.default_generator.manual_seed(rng.generator(seed, "weights", what).initial_seed())
        yield
