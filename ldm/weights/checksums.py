"""Are weights as they were written? Compares files with the checksums that they carry."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open

from ldm.system import cli
from ldm.weights.export import CHECKSUMS, checksums
from ldm.weights.safe_pickle import ZIP_MAGIC
from ldm.weights.weight_files import WeightsError, open_tensors, some


def compare_all(paths: Sequence[str | Path]) -> Iterator[str]:
    """A line about each file; then WeightsError if any is damaged.

    paths: files of any layout, checkpoints among them
    """
    damaged = []
    for path in paths:
        try:
            yield f"{path} {compare(Path(path))}"
        except WeightsError as error:
            damaged.append(path)
            yield str(error)
    if damaged:
        raise WeightsError(f"{len(damaged)} of {len(paths)} files are damaged, as said above")


def compare(file: Path) -> str:
    """What a whole file was found to be; raises WeightsError, in one line, for any other."""
    try:
        with cli.regular(file).open("rb") as opened:
            head = opened.read(9)
        if head[:4] == ZIP_MAGIC:
            compare_zip(file, file.stat().st_mtime_ns)
            return "is as it was written (a zip)"
        tensors, _ = open_tensors(file)  # which looks at head and size
        metadata = (head[8:] == b"{" and safe_open(file, "pt").metadata()) or {}
        if CHECKSUMS not in metadata:
            return "has no checksums; its head and size are right"
        sums = json.loads(metadata.pop(CHECKSUMS))
        found = checksums({name: read() for name, read in tensors.items()}, metadata)
        if names := [name for name in found | sums if found.get(name) != sums.get(name)]:
            raise WeightsError(f"{file} is damaged: checksums differ of {some(names)}")
        return f"is as it was written ({len(tensors)} tensors)"
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can raise any error in its reader
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:100]
        raise WeightsError(f"{file} is damaged or cannot be read: {reason}") from error


@lru_cache
def compare_zip(path: Path, changed: int) -> None:
    """Raises an error unless each part of a zip, as torch.save writes, has its CRC32.

    changed: when, so that a file is read once in a process as long as it stays the same
    """
    with zipfile.ZipFile(path) as archive:
        if part := archive.testzip():
            raise zipfile.BadZipFile(f"its part {part} differs from its checksum")
