"""From a cold start to something to look at: how the seconds split.

    python -m benchmarks.startup [--runs 5] [any options of sample.py]
    python -m benchmarks startup

Each run is a new process, as a user's is. The first command: four radiographs by sample.py, median
and range of every part, in turns with a process that only imports open_clip. The second: a small
model with random weights in a diffusers folder is opened and asked once, text to image, by us and
by diffusers; the norms of the images must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, Setting, contest, random_part
from ldm.config import ModelConfig, from_dict
from ldm.weights.export import export
from ldm.weights.loading import PARTS

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "image_size": 64,
    "unet": {"channels": [32, 64], "attention": [True, False], "heads": 2, "context_dim": 32},
    "vae": {"channels": [32, 32]},
    "text": {"width": 32, "layers": 2, "heads": 2},
}
OURS = """
import sys
import torch
import ldm

pipe = ldm.load(sys.argv[1])
with torch.inference_mode():
    text = pipe.text(torch.arange(77)[None])
    latent = pipe.unet(torch.ones(1, 4, 32, 32), torch.tensor([500]), text)
    print(float(pipe.vae.decode(latent).norm()))
"""
OTHER = """
import sys
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

kinds = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
parts = {name: kind.from_pretrained(f"{sys.argv[1]}/{name}") for name, kind in kinds.items()}
with torch.inference_mode():
    text = parts["text_encoder"](torch.arange(77)[None]).last_hidden_state
    latent = parts["unet"](torch.ones(1, 4, 32, 32), torch.tensor([500]), text).sample
    print(float(parts["vae"].decode(latent).sample.norm()))
"""


def run(program: str, folder: Path) -> float:
    """What the program prints about the model in the folder."""
    command = [sys.executable, "-c", program, str(folder)]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def rows(name: str, setting: Setting) -> list[Row]:
    config = from_dict(ModelConfig, SMALL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        parts = {part: random_part(part, config).state_dict() for part in PARTS}
        export("diffusers", folder, config, parts)
        installed = subprocess.run(
            [sys.executable, "-c", "import diffusers, transformers"], stderr=subprocess.DEVNULL
        )
        ours = {name: (lambda: run(OURS, folder), "a small model: imports, opening, one pass")}
        other = None if installed.returncode else lambda: run(OTHER, folder)
        return contest(ours, other, setting.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options, rest = parser.parse_known_args()
    prompt = [] if "--prompt" in rest else ["--prompt", "lung xray with pleural effusion"]
    parts: dict[str, list[float]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, str(ROOT / "sample.py"), *prompt, *rest]
            began = time.perf_counter()
            done = subprocess.run(
                [*command, "--json", "--out", out], check=True, stdout=subprocess.PIPE
            )
            whole = time.perf_counter() - began
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import open_clip"], check=True)
        alone = time.perf_counter() - began
        seconds = json.loads(done.stdout)["seconds"]
        seconds["start and end of Python"] = whole - sum(seconds.values())
        for part, value in {**seconds, "whole": whole, "import open_clip": alone}.items():
            parts.setdefault(part, []).append(value)
    report = {
        part: {
            "median": round(statistics.median(values), 2),
            "range": [round(min(values), 2), round(max(values), 2)],
        }
        for part, values in parts.items()
    }
    print(json.dumps({"runs": options.runs, "seconds": report}, indent=1))


if __name__ == "__main__":
    main()
