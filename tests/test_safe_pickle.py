"""Checkpoints are read without running them: bystanders become inert, the rest is refused."""

import builtins
import io
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.weights import safe_pickle
from ldm.weights.safe_pickle import PickleRefusedError


class Call:
    """Pickled as a call: whoever unpickles it runs function(*arguments)."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def save(path: Path, content: Any, protocol: int = 2, zipped: bool = True) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_trap_9_lightning_objects_become_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """A file with objects of a package that is not installed gives its tensors, bit for bit."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    kind = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = kind
    with monkeypatch.context() as installed:
        for part in (name, "pytorch_lightning.callbacks", "pytorch_lightning"):
            installed.setitem(sys.modules, part, module)
        callback = kind()
        callback.best = "epoch=6.ckpt"
        weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        content = {"state_dict": {"w": weight}, "callbacks": {kind: {"state": callback}}}
        path = save(tmp_path / "lightning.ckpt", content, zipped=zipped)
    loaded = safe_pickle.load(path)
    assert torch.equal(loaded["state_dict"]["w"], weight)
    assert name not in sys.modules
    (stand_in,) = loaded["callbacks"]
    assert issubclass(stand_in, safe_pickle.Inert)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, f"{os.name}.system"),
        (builtins.eval, "builtins.eval"),
        (builtins.getattr, "builtins.getattr"),
        (torch.hub.load, "torch.hub.load"),
    ],
)
def test_trap_9_a_malicious_pickle_is_refused_by_name(
    tmp_path: Path, function: Any, name: str, protocol: int, zipped: bool
) -> None:
    """A pickle that would call something is refused, with that name, and nothing is called."""
    witness = tmp_path / "it ran"
    command = f"open({str(witness)!r}, 'w')" if function is eval else f"touch '{witness}'"
    content = {"state_dict": {"w": torch.ones(2), "x": Call(function, command)}}
    path = save(tmp_path / "bad.ckpt", content, protocol, zipped)
    with pytest.raises(PickleRefusedError, match=name.replace(".", r"\.")):
        safe_pickle.load(path)
    assert not witness.exists()


def test_a_bystander_cannot_smuggle_a_call(tmp_path: Path) -> None:
    """A name that only resembles a training tool's is refused: stand-ins are for classes alone."""
    body = b"\x80\x02cpytorch_lightning.utilities\nrun_command\n(X\x02\x00\x00\x00lstR."
    path = tmp_path / "bad.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    with pytest.raises(PickleRefusedError, match=r"pytorch_lightning\.utilities\.run_command"):
        safe_pickle.load(path)


def _zip(entries: list[str], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for entry in entries:
            archive.writestr(entry, pickle.dumps({}, protocol=2))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, weights", "not a PyTorch checkpoint"),
        (_zip(["archive/readme.txt"]), "no single data.pkl"),
        (_zip(["archive/data.pkl", "other/data.pkl"]), "no single data.pkl"),
        (_zip(["archive/data.pkl", "archive/DATA.pkl"]), "one name"),
        (_zip(["archive/data.pkl"], zipfile.ZIP_DEFLATED), "compressed"),
    ],
)
def test_what_torch_did_not_write_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Archives that two readers could read in two ways are refused, with the reason."""
    path = tmp_path / "odd.ckpt"
    path.write_bytes(content)
    with pytest.raises(PickleRefusedError, match=message):
        safe_pickle.load(path)
