"""Rows of numbers that are made when they are first asked for, and kept in a file."""

import hashlib
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data import DataConfig
from ldm.system import atomic

log = logging.getLogger(__name__)


class CachedRows:
    """An array [N, ...] whose row i is `make(i)`: made once, whatever is asked for and when.

    The file holds the CRC32 of each row, 0 until it is made, then the rows; it is safe to delete.
    A row that differs from its CRC32, as after a power cut, is made again; what was made before a
    kill is kept. Several processes on one device may fill it at the same time: a row is the same
    whoever makes it. Nothing is mapped: a full disk or a file cut short would end the process.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: type[np.generic],
        make: Callable[[int], np.ndarray],
    ) -> None:
        self.path, self.make = path.with_name(f"{path.name}.rows"), make  # older ones had no CRC32
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.size = int(np.prod(shape[1:])) * self.dtype.itemsize
        self.made, self.damaged = 0, False
        path.parent.mkdir(parents=True, exist_ok=True)
        # a link in its place is refused: what it leads to may be something else than a cache
        ways = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        if self.path.is_symlink():
            raise OSError(f"the cache {self.path} is a link; delete it")
        self.file = os.fdopen(os.open(self.path, ways, 0o666), "r+b", buffering=0)
        if path.is_file():
            log.warning("%s is of an older version: it is not read, and can be deleted", path)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The rows [B, ...];  indices: int64 [B]"""
        picks, places = np.unique(indices, return_inverse=True)
        rows = b"".join(self._row(int(index)) for index in picks)
        return np.frombuffer(rows, self.dtype).reshape(len(picks), *self.shape[1:])[places]

    def fill(self) -> int:
        """Make all that is missing or damaged, with a progress bar; returns how many rows were."""
        before = self.made
        for index in tqdm(range(len(self)), self.path.name, unit="image", delay=2):
            self._row(index)
        return self.made - before

    def digest(self) -> str:
        """12 hex digits that change with the content of any row; makes what is missing."""
        digest = hashlib.sha256()
        for index in tqdm(range(len(self)), self.path.name, unit="image", delay=2, leave=False):
            digest.update(self._row(index))
        return digest.hexdigest()[:12]

    def _row(self, index: int) -> bytes:
        place = 4 * len(self) + index * self.size
        if kept := int.from_bytes(self._read(4 * index, 4), "little"):
            row = self._read(place, self.size)
            if zlib.crc32(row) == kept:
                return row
            if not self.damaged:
                log.warning("%s is damaged or cut short; such rows are made again", self.path)
            self.damaged = True
        row = np.ascontiguousarray(self.make(index), self.dtype).tobytes()
        self._write(place, row)
        self._write(4 * index, zlib.crc32(row).to_bytes(4, "little"))
        self.made += 1
        return row

    def _read(self, place: int, size: int) -> bytes:
        with atomic.named(self.path):
            self.file.seek(place)
            return self.file.read(size)

    def _write(self, place: int, content: bytes) -> None:
        with atomic.named(self.path):
            self.file.seek(place)
            while content:
                content = content[self.file.write(content) :]


def cached_squares(
    name: str, config: DataConfig, count: int, planes: int, square: Callable[[int], Tensor]
) -> CachedRows:
    """uint8 [count, planes, size, size] of squares in [-1, 1], each made when first asked for."""
    path = Path(config.cache) / f"{name}-{config.size}-{planes}"
    shape = (count, planes, config.size, config.size)
    return CachedRows(path, shape, np.uint8, lambda index: to_bytes(square(index)))


def to_bytes(pixels: Tensor) -> np.ndarray:
    """[-1, 1] -> uint8 of the same shape"""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)


def from_bytes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1
