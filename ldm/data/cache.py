"""Rows of numbers that are made when they are first asked for, and kept in a file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data import DataConfig


class CachedRows:
    """An array [N, ...] whose row i is `make(i)`: made once, whatever is asked for and when.

    The file holds N bytes, 1 where the row is there, then the rows; it is safe to delete, and
    should be after a power cut, which may keep the 1 and lose the row. What was made before a kill
    is kept. Several processes on one device may fill it at the same time: a row is the same
    whoever makes it.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: type[np.generic],
        make: Callable[[int], np.ndarray],
    ) -> None:
        self.path, self.make = path, make
        self.count, self.row = shape[0], int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.file = path.open("r+b")
        self.file.truncate(self.count * (1 + self.row))  # unwritten parts take no room on the disk
        self.made = np.memmap(path, np.uint8, "r", shape=(self.count,))
        self.rows = np.memmap(path, dtype, "r", offset=self.count, shape=shape)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The rows [B, ...];  indices: int64 [B]"""
        for index in np.unique(indices):
            if not self.made[index]:
                # written, not mapped: a full disk is then an error and not the end of the process
                row = np.ascontiguousarray(self.make(int(index)), self.rows.dtype).tobytes()
                self._write(self.count + int(index) * self.row, row)
                self._write(int(index), b"\x01")
        return self.rows[indices]

    def fill(self) -> int:
        """Make all that is missing, with a progress bar; returns how many rows were."""
        missing = np.flatnonzero(self.made == 0)
        for index in tqdm(missing, self.path.name, unit="image", delay=2):
            self[np.array([index])]
        return len(missing)

    def digest(self) -> str:
        """12 hex digits that change with the content of any row; all rows must be there."""
        digest = hashlib.sha256()
        for row in tqdm(self.rows, f"hashing {self.path.name}", unit="image", delay=2, leave=False):
            digest.update(row.tobytes())
        return digest.hexdigest()[:12]

    def _write(self, place: int, content: bytes) -> None:
        try:
            self.file.seek(place)
            self.file.write(content)
            self.file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


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
