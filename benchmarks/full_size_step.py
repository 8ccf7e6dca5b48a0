"""One training step at Stable Diffusion v1.4's size: seconds, and the most memory it took.

    python benchmarks/full_size_step.py [--method finetune] [--train lora] [--checkpointing]

--in-backward lets gradients go as they come (train.update_in_backward).

Weights of the real names and sizes with random values, 512 px, one image in a step; phantoms.
The step is the second of two, so that nothing is done for the first time. Peak memory is the
process's own, looked at five times a second; pages of the weights' file come on top, up to 4.3 GB
that the system takes back where it wants them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ldm.config import ModelConfig
from ldm.weights.export import save
from ldm.weights.loading import PARTS

ROOT = Path(__file__).parents[1]


def watch(command: list[str], log: Path) -> tuple[int, int]:
    """Run a command; returns its exit status and the most bytes it had for itself, sampled."""
    most = 0
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        own = re.search(r"RssAnon:\s+(\d+) kB", status)
        most = max(most, int(own[1]) * 1024 if own else 0)
        time.sleep(0.2)
    return process.returncode, most


def weights(path: Path) -> Path:
    """A whole model of the real sizes; small random values, so that nothing overflows."""
    if path.exists():
        return path
    torch.manual_seed(0)
    config = ModelConfig()
    parts = {}
    for name, build in PARTS.items():
        with torch.device("meta"):
            shapes = {key: tensor.shape for key, tensor in build(config).state_dict().items()}
        parts[name] = {key: 0.02 * torch.randn(shape) for key, shape in shapes.items()}
    return save(path, config, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="finetune", choices=["finetune", "textual_inversion"])
    parser.add_argument("--train", default="all", choices=["all", "cross-attention", "lora"])
    parser.add_argument("--model", type=Path, help="the 4.3 GB, kept there for the next call")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--in-backward", action="store_true", help="train.update_in_backward")
    parser.add_argument("--prior", action="store_true", help="with one class image, drawn first")
    parser.add_argument("--ema", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = weights(options.model or folder / "model.safetensors")
        config = "unet" if options.method == "finetune" else "textual_inversion"
        command = [sys.executable, "train.py", f"configs/{config}.yaml", f"model.path={path}"]
        command += [f"train.out={folder / 'run'}", f"data.cache={folder / 'cache'}"]
        command += ["data.size=512", "data.phantoms=30", "train.steps=2", "train.batch_size=1"]
        command += ["train.save_every=9", "train.sample_every=0", f"train.ema={options.ema}"]
        command += [f"train.checkpointing={str(options.checkpointing).lower()}"]
        if options.in_backward:
            command += ["train.update_in_backward=true", "train.clip=1e9"]
        kinds = ["{finding: no finding, images: 1}", "{finding: pleural effusion, images: 1}"]
        command += [f"method.kinds=[{', '.join(kinds)}]"]
        if options.method == "finetune":
            command.append(f"method.train={options.train}")
            command.append(f"method.prior_weight={float(options.prior)}")
            command.append("method.prior_images=1")
        began = time.monotonic()
        status, most = watch(command, folder / "stderr")
        told = (folder / "stderr").read_text()
        if status:
            raise SystemExit(told[-2000:])
        log = (folder / "run" / "log.jsonl").read_text().splitlines()
        estimate = re.search(r"memory: about ([\d.]+) GB", told)
        report = {
            **{name: value for name, value in vars(options).items() if name != "model"},
            "seconds of the step": json.loads(log[-1])["seconds"],
            "seconds of the whole command": round(time.monotonic() - began, 1),
            "peak GB": round(most / 1e9, 2),
            "estimated GB": float(estimate[1]) if estimate else None,
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main()
