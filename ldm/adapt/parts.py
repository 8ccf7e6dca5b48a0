"""The parts of a model in training: which exist already, which is made anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm import devices, rng, weights
from ldm.config import ConfigError, ModelConfig, RunConfig, load_config
from ldm.pipeline import build

State = dict[str, Tensor]


class Parts:
    """The parts of the model that exist already, and the sizes of all."""

    def __init__(self, run: RunConfig, trained: str) -> None:
        self.device = devices.choose(run.train.device or None)
        given = None if run.model.config is None else load_config(ModelConfig, run.model.config)
        self.states: dict[str, State] = {}
        self.config = given or ModelConfig()
        if run.model.path is not None:
            found, states = weights.load_parts(run.model.path)
            self.states = {part: states[part] for part in run.model.parts if part in states}
            sizes = given or found
            changes: dict[str, Any] = {trained: getattr(sizes, trained), "schedule": sizes.schedule}
            self.config = dataclasses.replace(found, **changes)
        if self.config.unet.context_dim != self.config.text.width:
            raise ConfigError(
                f"the U-Net attends to {self.config.unet.context_dim} numbers a token and the "
                f"text tower gives {self.config.text.width}; make unet.context_dim and text.width "
                "equal"
            )

    def frozen(self, part: str) -> Any:
        """A part that must exist, not to be trained."""
        if part not in self.states:
            raise ConfigError(f"model.path has no {part}; train it first and name its run folder")
        module = build(part, self.config, self.states[part])
        return module.requires_grad_(False).to(self.device)

    def fresh(self, part: str, seed: int) -> Any:
        """The part to be trained: taken over if it exists, else with random weights."""
        if part in self.states:
            module = build(part, self.config, self.states[part])
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(rng.generator(seed, "weights", part).initial_seed())
                module = weights.PARTS[part](self.config)
        return module.train().requires_grad_(True).to(self.device)

    def save(self, path: Path, part: str, module: nn.Module, **changes: Any) -> None:
        """Write all parts; `changes` are fields of ModelConfig that training has found."""
        config = dataclasses.replace(self.config, **changes)
        states = {**self.states, part: module.state_dict()}
        weights.save(path, config, states)
