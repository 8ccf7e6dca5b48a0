"""What diffusers computes with a tiny twin of SD 2.x: python -m benchmarks.sd2_goldens OUT.npz

Pseudo-random weights (tests/pseudo.py) of the twin in tests/sd2.yaml, written as a diffusers folder
and opened by diffusers and transformers: one pass of the U-Net and of the text tower, and four
guided DDIM steps that predict v. tests/test_sd2.py compares. Needs diffusers and transformers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.config import ModelConfig
from ldm.system import cli
from ldm.system.cli import load_config
from ldm.weights import loading
from ldm.weights.export import export

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from pseudo import fill, unit  # noqa: E402


def twin() -> tuple[ModelConfig, dict[str, dict[str, Tensor]]]:
    """Its config, and its parts with pseudo-random weights."""
    config = load_config(ModelConfig, ROOT / "tests" / "sd2.yaml")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, shape in loading.shapes(config, loading.PARTS).items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = torch.from_numpy(fill(name, shape))
    return config, parts


def inputs() -> dict[str, Tensor]:
    """x, context and negative, tokens: for the U-Net and for the text tower."""
    shapes = {"x": (2, 4, 8, 8), "context": (2, 77, 64), "negative": (2, 77, 64)}
    found = {name: torch.from_numpy(unit(f"sd2.{name}", shape)) for name, shape in shapes.items()}
    return found | {"tokens": torch.arange(2 * 77).reshape(2, 77) * 300 % 49408}


@torch.no_grad()
def main() -> int:
    parser = cli.Parser("benchmarks.sd2_goldens", "Goldens of SD 2.x, by diffusers.")
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    try:
        from diffusers import DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel
    except ImportError as error:
        raise ValueError(f"{error}: pip install -e '.[bench]'") from error
    config, parts = twin()
    given = inputs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        export("diffusers", folder, config, parts)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
        text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
        said = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        steps = DDIMScheduler.from_config(said)
    found = {"unet": unet(given["x"], torch.tensor([3, 500]), given["context"]).sample}
    found["text"] = text(given["tokens"])[0]
    x, both = given["x"], torch.cat([given["negative"], given["context"]])
    steps.set_timesteps(4)
    for t in steps.timesteps:
        plain, told = unet(torch.cat([x, x]), t, both).sample.chunk(2)
        x = steps.step(plain + 7.5 * (told - plain), t, x).prev_sample
    np.savez_compressed(out, **{n: t.numpy() for n, t in (found | {"latents": x}).items()})
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "benchmarks.sd2_goldens"))
