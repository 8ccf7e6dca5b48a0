"""Files that appear whole or not at all, and the one tensor format that we write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def whole_file(path: Path, size: int | None = None) -> Iterator[Any]:
    """A file to write to, which takes the name `path` once everything is on the disk.

    If anything fails (a full disk, an interrupt) nothing is left, and an older `path` stays.
    size: bytes to come, for the progress bar that long writing shows
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            with tqdm.wrapattr(
                file,
                "write",
                total=size,
                desc=f"writing {path.name}",
                delay=2,
                disable=None,
                leave=False,
            ) as out:
                yield out
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: a rename outlives a power cut only after this."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a .safetensors file: header length (8 bytes, little endian), JSON header, raw tensors.

    One tensor at a time, so that weights of any size need no memory of their own and show progress.
    """
    # widest first, so that every tensor lies at a multiple of its own width
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path, size=8 + len(text) + end) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(raw_bytes(tensors[name]))


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's numbers in memory order, without a copy where they already lie so."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
