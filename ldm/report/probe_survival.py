"""What survives the autoencoder: things of known size in phantoms, beside twins without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.image_sets import UNSEEN
from ldm.data.phantom import LETTERS, Phantom, Probe, Rendered, render, sample_phantoms
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report.roundtrip import Copier

SIZES = {  # mm
    "nodule": (3.0, 5.0, 8.0, 12.0, 18.0, 27.0),
    "wire": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
    "letter": (4.0, 8.0, 12.0, 18.0, 27.0, 40.0),
}
HALF = 0.5  # of the contrast, and of the phantoms


class Values(NamedTuple):
    """What becomes of one probe in one phantom.

    kept: share of its contrast;  alike: cosine of what is left and what was there
    contrast: grey levels of 255 that it adds to its mask
    read: is a letter still most like itself among the four? NaN for what is no letter
    """

    kept: float
    alike: float
    contrast: float
    read: float


@dataclass(frozen=True)
class Series:
    """One kind of probe in growing sizes, in the same phantoms.

    sizes: mm;  values: {field of Values: [sizes, n]}
    crops: around it in the first phantom, [sizes, 2, side, side], original and reconstruction
    """

    name: str
    sizes: tuple[float, ...]
    values: dict[str, Array]
    crops: Tensor

    def halves(self) -> list[Estimate]:
        """Of each size: in how many phantoms at least half of the contrast is kept."""
        return [wilson(int((row >= HALF).sum()), len(row)) for row in self.values["kept"]]

    def reads(self) -> list[Estimate | None]:
        """Of each size: how many letters can be told; None for what is no letter."""
        read = self.values["read"]
        return [None if np.isnan(row).any() else wilson(int(row.sum()), len(row)) for row in read]


class Smallest(NamedTuple):
    """mm, with the ends that the intervals of the shares allow; infinite: none of the series."""

    value: float
    low: float
    high: float


def kept(added: Tensor, copied: Tensor) -> tuple[float, float]:
    """<copied, added> / |added|^2, and the cosine of the two.

    added: what a probe adds to the original at some pixels;  copied: to the reconstruction; [m]
    The first is the least-squares factor between them: 1 for a perfect copy, 0 for none.
    """
    a, b = added.double(), copied.double()
    overlap, length = float(a @ b), float(a.norm())
    if length == 0:
        raise ValueError("a probe adds nothing to its phantom; take a larger --size")
    return overlap / length**2, overlap / max(length * float(b.norm()), 1e-12)


def smallest(series: Series) -> Smallest:
    """The size from which on at least half of the phantoms keep at least half of the contrast."""
    shares = series.halves()
    ends = ("value", "high", "low")  # the higher the share, the smaller the size
    return Smallest(
        *(_from_there_on(series.sizes, [getattr(share, end) for share in shares]) for end in ends)
    )


def _from_there_on(sizes: Sequence[float], shares: Sequence[float]) -> float:
    found = math.inf
    for size, share in zip(reversed(sizes), reversed(shares), strict=True):
        if share < HALF:
            break
        found = size
    return found


def measure(copier: Copier, count: int) -> list[Series]:
    """Every probe in `count` healthy phantoms that nothing was trained on; posterior means."""
    phantoms = sample_phantoms(range(UNSEEN, UNSEEN + count), findings=[])
    values: dict[str, list[list[Values]]] = {name: [] for name in SIZES}  # [n][sizes]
    crops: dict[str, Tensor] = {}
    bar = tqdm(phantoms, "probes", unit="phantom", delay=2, disable=None, leave=False)
    for i, phantom in enumerate(bar):
        for name, sizes in SIZES.items():
            what = LETTERS[i % len(LETTERS)] if name == "letter" else name
            found, around = in_one(copier, phantom, [Probe(what, mm / 10) for mm in sizes])
            values[name].append(found)
            crops.setdefault(name, around)
    series = []
    for name, sizes in SIZES.items():
        table = np.array(values[name]).transpose(2, 1, 0)  # [fields, sizes, n]
        by_field = dict(zip(Values._fields, table, strict=True))
        series.append(Series(name, sizes, by_field, crops[name]))
    return series


def in_one(
    copier: Copier, phantom: Phantom, probes: Sequence[Probe]
) -> tuple[list[Values], Tensor]:
    """What becomes of each probe in one phantom, and the crops [probes, 2, side, side]."""
    twin = _draw(copier, phantom, None)
    drawn = [_draw(copier, phantom, probe) for probe in probes]
    originals = torch.cat([twin.images, *(one.images for one in drawn)])
    copies = copier.means(originals)
    found, crops = [], []
    for i, (probe, one) in enumerate(zip(probes, drawn, strict=True), start=1):
        mask = one.masks["probe"][0]
        added, copied = ((x[i] - x[0])[0] for x in (originals, copies))
        read = math.nan
        if probe.name in LETTERS:
            read = float(_read(copier, phantom, probe, (twin, one), copied) == probe.name)
        contrast = 127.5 * float(added[mask].mean())
        found.append(Values(*kept(added[mask], copied[mask]), contrast, read))
        crops.append(torch.stack([_crop(x[i, 0], mask) for x in (originals, copies)]))
    return found, torch.stack(crops)


def _read(
    copier: Copier, phantom: Phantom, probe: Probe, shown: tuple[Rendered, Rendered], copied: Tensor
) -> str:
    """The letter, of the probe's size and at its place, that `copied` [H, W] looks most like.

    shown: the phantom without and with the probe
    """
    twin, own = shown
    drawn = [
        own if name == probe.name else _draw(copier, phantom, dataclasses.replace(probe, name=name))
        for name in LETTERS
    ]
    anywhere = torch.cat([one.masks["probe"] for one in drawn]).any(dim=0)
    alike = [kept((one.images - twin.images)[0, 0][anywhere], copied[anywhere])[1] for one in drawn]
    return LETTERS[int(np.argmax(alike))]


def _draw(copier: Copier, phantom: Phantom, probe: Probe | None) -> Rendered:
    return render([dataclasses.replace(phantom, probe=probe)], copier.size)


def _crop(image: Tensor, mask: Tensor) -> Tensor:
    """[H, W] -> a square of a fifth of its side, around the mask but inside the image."""
    side = image.shape[0] // 5
    middle = mask.nonzero().float().mean(dim=0).tolist()
    top, left = (min(max(round(at) - side // 2, 0), image.shape[0] - side) for at in middle)
    return image[top : top + side, left : left + side]
