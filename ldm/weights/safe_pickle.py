"""Reads a PyTorch pickle (.ckpt, .bin, .pt) without running its code.

A pickle is a program: it names functions and calls them. We read the names first, replace the
training tool's classes by empty ones, and refuse every name that is not on the lists below. Torch's
own weights-only reader then builds the tensors, and can call nothing else.
"""

import io
import pickletools
import re
import tarfile
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

# names in a dict of tensors; torch builds these itself
TENSOR_PARTS = re.compile(
    r"collections\.OrderedDict|_codecs\.encode|torch\.(Size|device)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter\.Parameter"
    r"|torch\.(Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch\.(float64|float32|float16|bfloat16|int64|int32|int16|int8|uint8|bool)"
)
# names of training tools beside the weights: replaced by empty classes, never imported
BYSTANDERS = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|omegaconf)(\.[a-z0-9_]+)*\._?[A-Z]\w*"
    r"|collections\.(defaultdict|Counter)|typing\.Any|argparse\.Namespace"
    r"|builtins\.(bool|bytes|dict|float|int|list|str|tuple)"
    r"|datetime\.(date|datetime|timedelta)|pathlib\.(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct))"
)
ZIP_MAGIC = b"PK\x03\x04"
MAPPINGS = ("AttributeDict", "Counter", "DictConfig", "defaultdict")  # bystanders that hold items


class PickleRefusedError(ValueError):
    """The file is not a plain PyTorch checkpoint; the message names the reason."""


class Inert:
    """Ignores construction and state. Mappings become plain ones."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # torch's reader sets items of real dicts only
        return OrderedDict() if cls.__name__ in MAPPINGS else super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def load(path: Path) -> Any:
    """The content of a file of torch.save, on the CPU; mapped, not read, if the format allows."""
    with path.open("rb") as file:
        zipped = file.read(4) == ZIP_MAGIC
    with torch.serialization.safe_globals(inert_classes(path)):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def inert_classes(path: Path) -> list[Any]:
    """One empty class per bystander named in the checkpoint; raises PickleRefusedError."""
    stand_ins: dict[str, type] = {}
    for name in _globals(path):
        if BYSTANDERS.fullmatch(name):
            module, _, last = name.rpartition(".")
            stand_ins[name] = type(last, (Inert,), {"__module__": module})
        elif not TENSOR_PARTS.fullmatch(name):
            raise PickleRefusedError(
                f"it names {name}, which does not belong to weights and could run code; nothing "
                "was loaded. Get the weights as .safetensors or from a safe source"
            )
    return list(stand_ins.values())


def _globals(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == ZIP_MAGIC:
            yield from _names(io.BytesIO(_zipped_pickle(file)))
        elif tarfile.is_tarfile(file):
            raise PickleRefusedError(
                "it is a tar archive of PyTorch 0.1, which cannot be read safely; "
                "save it again with a current PyTorch"
            )
        elif start[:1] == b"\x80":  # as every pickle since protocol 2
            file.seek(0)
            for _ in range(5):  # torch.save before 1.6: magic, version, machine, object, storages
                yield from _names(file)
        else:
            raise PickleRefusedError("it is not a PyTorch checkpoint, or it is damaged")


def _zipped_pickle(file: BinaryIO) -> bytes:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise PickleRefusedError("two entries of its archive have one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise PickleRefusedError("its archive is compressed, which torch.save never does")
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if [entry.filename.rpartition("/")[2] for entry in pickles] != ["data.pkl"]:
            raise PickleRefusedError("it is an archive, but not of weights: no single data.pkl")
        return archive.read(pickles[0])


def _names(file: BinaryIO) -> Iterator[str]:
    """Every global that the next pickle names, as `module.name`, from its opcodes alone."""
    strings = ["?", "?"]  # those pushed so far; STACK_GLOBAL takes the last two
    memo: dict[int, str] = {}
    value: Any
    for opcode, value, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            module, last = value.split(" ", 1)
            # pickles of protocol 2 spell Python's own modules as Python 2 did: `__builtin__`
            renamed = NAME_MAPPING.get((module, last), (IMPORT_MAPPING.get(module, module), last))
            yield ".".join(renamed)
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name.startswith("EXT"):
            raise PickleRefusedError("it calls a pickle extension, which weights do not need")
        elif opcode.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if value is None else value] = strings[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            strings.append(memo.get(value, "?"))
        elif isinstance(value, str):
            strings.append(value)
