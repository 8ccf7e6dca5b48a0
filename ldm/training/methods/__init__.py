"""What can be trained, by name; each method is built from a RunConfig and handed to ldm.train."""

from __future__ import annotations

from collections.abc import Callable

from ldm.config import ConfigError
from ldm.fast import compilation
from ldm.training.methods.adaptation import Adaptation, FineTune, TextualInversion
from ldm.training.methods.bert_pretraining import TrainBert
from ldm.training.methods.judge_training import TrainJudge
from ldm.training.methods.pretraining import TrainText, TrainUNet, TrainVAE
from ldm.training.methods.projection_training import Project
from ldm.training.run_config import RunConfig, TrainConfig
from ldm.training.trainer import Method

METHODS: dict[str, Callable[[RunConfig], Method]] = {
    "vae": TrainVAE,
    "text": TrainText,
    "unet": TrainUNet,
    "judge": TrainJudge,
    "bert": TrainBert,
    "textual_inversion": TextualInversion,
    "finetune": FineTune,
    "projection": Project,
}


def build_method(run: RunConfig) -> Method:
    """The method that `train.method` names, with its data and its model."""
    if run.train.method not in METHODS:
        raise ConfigError(f"unknown train.method {run.train.method!r}; known: {', '.join(METHODS)}")
    method = METHODS[run.train.method](run)
    if isinstance(method, TrainUNet | Adaptation):
        compilation.use(method.pipe.unet, run.train.compile or "no")
        return method
    for switch in ("checkpointing", "attention", "unfold", "compile"):
        if getattr(run.train, switch) != getattr(TrainConfig(), switch):
            raise ConfigError(
                f"train.{switch} is about the U-Net, and train.method={run.train.method} runs "
                "none; leave it out"
            )
    return method
