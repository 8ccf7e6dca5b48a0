"""The judge as one file: weights and config."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ldm import atomic
from ldm.config import JudgeConfig, from_dict, to_dict
from ldm.models.judge import Judge


def save_judge(path: Path, judge: Judge) -> None:
    """Weights and config in one safetensors file."""
    state = {name: tensor.contiguous() for name, tensor in judge.state_dict().items()}
    with atomic.whole_file(path) as unfinished:
        save_file(state, unfinished, metadata={"judge": json.dumps(to_dict(judge.config))})


def load_judge(path: str | Path) -> Judge:
    """The judge in a file or a run folder, in eval mode, float32, on the CPU.

    Raises ValueError, in one line, for anything else.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as handle:
            text = (handle.metadata() or {}).get("judge")
            state = {name: handle.get_tensor(name).float() for name in handle.keys()}  # noqa: SIM118 - no dict
        if text is None:
            raise ValueError("it holds no judge; train one with configs/judge.yaml")
        judge = Judge(from_dict(JudgeConfig, json.loads(text)))
        judge.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot open the judge {file}: {str(error).splitlines()[0]}") from error
    return judge.eval()
