"""The methods of training, by name; each is built from a RunConfig and handed to the Trainer.

pretraining          the VAE, the text tower, the U-Net, from scratch
adaptation           a finished model learns from a few images: textual inversion, fine-tuning, LoRA
projection_training  another text encoder in CLIP's place
bert_pretraining     a BERT by masked language modelling
judge_training       the judge, a classifier of findings
derived_datasets     picked images, images of the model's own, cached latents
model_parts          the parts of a model in training, and how much memory they take
"""

from importlib import import_module

from ldm.config import ConfigError
from ldm.training.methods.model_parts import UNetTraining
from ldm.training.run_config import RunConfig, TrainConfig
from ldm.training.trainer import Method

METHODS = {  # {train.method: file and class}, imported when chosen
    "vae": "pretraining.TrainVAE",
    "text": "pretraining.TrainText",
    "unet": "pretraining.TrainUNet",
    "judge": "judge_training.TrainJudge",
    "bert": "bert_pretraining.TrainBert",
    "textual_inversion": "adaptation.TextualInversion",
    "finetune": "adaptation.FineTune",
    "projection": "projection_training.TrainProjection",
}


def build_method(run: RunConfig) -> Method:
    """The method that `train.method` names, with its data and its model."""
    if run.train.method not in METHODS:
        raise ConfigError(f"unknown train.method {run.train.method!r}; known: {', '.join(METHODS)}")
    module, name = METHODS[run.train.method].split(".")
    method: Method = getattr(import_module(f"{__name__}.{module}"), name)(run)
    if isinstance(method, UNetTraining):
        if run.train.compile:
            from ldm.fast import compilation

            compilation.use(method.unet, run.train.compile)
        return method
    for switch in ("checkpointing", "attention", "unfold", "compile"):
        if getattr(run.train, switch) != getattr(TrainConfig(), switch):
            raise ConfigError(
                f"train.{switch} is about the U-Net, and train.method={run.train.method} runs "
                "none; leave it out"
            )
    return method
