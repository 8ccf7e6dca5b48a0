"""Every random draw is a function of (seed, what for, index), never of what was drawn before."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator whose stream depends on `seed` and `purpose` alone.

    The 64-bit seed is a hash, so neighbouring seeds and indices give unrelated streams.
    """
    key = "|".join(str(part) for part in (seed, *purpose))
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def gaussian(seed: int, indices: Sequence[int], step: int, shape: Sequence[int]) -> Tensor:
    """Unit Gaussian noise [B, *shape]; row b depends on (seed, indices[b], step) alone.

    Image 7 therefore has the same noise whether it is drawn alone or in a batch of 16.
    Drawn on the CPU, so that a GPU gives the same picture. Step -1 is the starting noise x_T.
    """
    rows = [torch.randn(*shape, generator=generator(seed, "noise", i, step)) for i in indices]
    return torch.stack(rows)
