"""One training step at Stable Diffusion v1.4's size: seconds, and the most memory it took.

    python benchmarks/full_size_step.py [--method finetune] [--train lora] [--checkpointing]

Weights of the real names and sizes with random values, 512 px, one image in a step; phantoms.
The step is the second of two, so that nothing is done for the first time; peak memory is the
process's own (VmHWM), estimate and all.
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
from ldm.export import save
from ldm.weights import PARTS

ROOT = Path(__file__).parents[1]
COMMAND = """
import sys, train
status = train.main(sys.argv[1:])
print([line for line in open("/proc/self/status") if "VmHWM" in line][0], file=sys.stderr)
"""


def weights(folder: Path) -> Path:
    """A whole model of the real sizes; small random values, so that nothing overflows."""
    torch.manual_seed(0)
    config = ModelConfig()
    parts = {}
    for name, build in PARTS.items():
        with torch.device("meta"):
            shapes = {key: tensor.shape for key, tensor in build(config).state_dict().items()}
        parts[name] = {key: 0.02 * torch.randn(shape) for key, shape in shapes.items()}
    return save(folder / "model.safetensors", config, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="finetune", choices=["finetune", "textual_inversion"])
    parser.add_argument("--train", default="all", choices=["all", "cross-attention", "lora"])
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--ema", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = weights(folder)
        config = "unet" if options.method == "finetune" else "textual_inversion"
        command = [sys.executable, "-c", COMMAND, f"configs/{config}.yaml", f"model.path={path}"]
        command += [f"train.out={folder / 'run'}", f"data.cache={folder / 'cache'}"]
        command += ["data.size=512", "data.phantoms=30", "train.steps=2", "train.batch_size=1"]
        command += ["train.save_every=9", "train.sample_every=0", f"train.ema={options.ema}"]
        command += [f"train.checkpointing={str(options.checkpointing).lower()}"]
        if options.method == "finetune":
            command.append(f"method.train={options.train}")
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        log = (folder / "run" / "log.jsonl").read_text().splitlines()
        memory = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
        estimate = re.search(r"memory: about ([\d.]+) GB", done.stderr)
        report = {
            **vars(options),
            "seconds of the step": json.loads(log[-1])["seconds"],
            "seconds of the whole command": round(time.monotonic() - began, 1),
            "peak GB": round(int(memory[1]) * 1024 / 1e9, 2) if memory else None,
            "estimated GB": float(estimate[1]) if estimate else None,
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main()
