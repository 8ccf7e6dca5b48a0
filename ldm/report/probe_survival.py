"""Survival of things of known size in the autoencoder: phantoms beside twins without them."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.image_sets import UNSEEN
from ldm.data.phantom import LETTERS, Phantom, Probe, Rendered, render, sample_phantoms
from ldm.data.phantom.body import Anatomy
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report import page
from ldm.report.page import Picture, Table
from ldm.report.plots import as_png, new
from ldm.report.roundtrip import Copier

SIZES = {  # mm
    "nodule": (3.0, 5.0, 8.0, 12.0, 18.0, 27.0),
    "wire": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
    "letter": (4.0, 8.0, 12.0, 18.0, 27.0, 40.0),
}
HALF = 0.5  # of the contrast, and of the phantoms
LABELS = {"nodule": "nodule, diameter", "wire": "wire, diameter", "letter": "letter, height"}
SYNTHETIC = "Synthetic: drawn phantoms and their reconstructions; no patient is shown."


class Values(NamedTuple):
    """One probe in one phantom.

    kept: share of its contrast in the reconstruction;  alike: cosine of its traces in both images
    contrast: grey levels of 255 that it adds to its mask
    read: is a letter still most like itself among the four? NaN for other probes
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

    @property
    def n(self) -> int:
        return self.values["kept"].shape[1]

    def halves(self) -> list[Estimate]:
        """For each size: the share of phantoms that keep at least half of the contrast."""
        return [wilson(int((row >= HALF).sum()), len(row)) for row in self.values["kept"]]

    def reads(self) -> list[Estimate | None]:
        """For each size: the share of letters that are read; None for other probes."""
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
    found = []
    value, low, high, _ = zip(*series.halves(), strict=True)  # [sizes] each
    for shares in (value, high, low):  # the higher the share, the smaller the size
        survives = [share >= HALF for share in shares]
        from_here_on = [size for i, size in enumerate(series.sizes) if all(survives[i:])]
        found.append(min(from_here_on, default=math.inf))
    return Smallest(*found)


def measure(copier: Copier, count: int) -> list[Series]:
    """Every probe in `count` healthy phantoms that nothing was trained on; posterior means."""
    phantoms = sample_phantoms(range(UNSEEN, UNSEEN + count), findings=[])
    values: dict[str, list[list[Values]]] = {name: [] for name in SIZES}  # [n][sizes]
    crops: dict[str, Tensor] = {}
    bar = tqdm(phantoms, "probes", unit="phantom", delay=2, disable=None, leave=False)
    for i, phantom in enumerate(bar):
        for name, sizes in SIZES.items():
            shape = LETTERS[i % len(LETTERS)] if name == "letter" else name
            found, around = in_one(copier, phantom, [Probe(shape, mm / 10) for mm in sizes])
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
    """The values of each probe in one phantom, and its crops [probes, 2, side, side]."""
    twin, drawn = _draw(copier, phantom, [None]), _draw(copier, phantom, probes)
    originals = torch.cat([twin.images, drawn.images])[:, 0]
    copies = copier.means(originals[:, None])[:, 0]
    found, crops = [], []
    for i, (probe, mask) in enumerate(zip(probes, drawn.masks["probe"], strict=True), start=1):
        added, copied = (x[i] - x[0] for x in (originals, copies))
        read = math.nan
        if probe.name in LETTERS:
            others = [dataclasses.replace(probe, name=n) for n in LETTERS if n != probe.name]
            letters = _draw(copier, phantom, others)
            anywhere = letters.masks["probe"].any(dim=0) | mask
            images = letters.images[:, 0] - originals[0]
            traces = {one.name: trace for one, trace in zip(others, images, strict=True)}
            traces[probe.name] = added
            alike = [kept(traces[name][anywhere], copied[anywhere])[1] for name in LETTERS]
            read = float(LETTERS[int(np.argmax(alike))] == probe.name)
        contrast = 127.5 * float(added[mask].mean())
        found.append(Values(*kept(added[mask], copied[mask]), contrast, read))
        crops.append(torch.stack([_crop(x[i], mask) for x in (originals, copies)]))
    return found, torch.stack(crops)


def _draw(copier: Copier, phantom: Phantom, probes: Sequence[Probe | None]) -> Rendered:
    return render([dataclasses.replace(phantom, probe=probe) for probe in probes], copier.size)


def _crop(image: Tensor, mask: Tensor) -> Tensor:
    """[H, W] -> a square of a fifth of its side, around the mask but inside the image."""
    side = image.shape[0] // 5
    middle = mask.nonzero().float().mean(dim=0).tolist()
    top, left = (min(max(round(at) - side // 2, 0), image.shape[0] - side) for at in middle)
    return image[top : top + side, left : left + side]


def tables(series: Sequence[Series], size: int) -> list[Table]:
    """Each probe in each size, then the smallest that survives;  size: of the images, pixels"""
    rows = []
    for one in series:
        quartiles = np.quantile(one.values["kept"], (0.5, 0.25, 0.75), axis=1).T
        for i, (half, read) in enumerate(zip(one.halves(), one.reads(), strict=True)):
            contrast, alike = one.values["contrast"][i].mean(), np.median(one.values["alike"][i])
            middle, low, high = quartiles[i]
            kept_share = Estimate(middle, low, high, one.n).show(".2f")
            cells = [f"{LABELS[one.name]} {one.sizes[i]:g} mm", f"{contrast:.1f}", kept_share]
            cells += [half.show(".3f"), f"{alike:.2f}", read.show(".3f") if read else ""]
            rows.append([*cells, str(half.n)])
    phantoms = sample_phantoms(range(UNSEEN, UNSEEN + series[0].n), findings=[])
    pixel = float(np.median([10 * Anatomy(one).view_width / size for one in phantoms]))
    caption = page.passage("survival", size=size, pixel=pixel)
    header = ("thing", "contrast", "kept", "keep half of it", "likeness", "read", "n")
    ends = [
        (LABELS[one.name], *(_mm(found, one.sizes) for found in smallest(one))) for one in series
    ]
    return [
        Table(caption, header, rows),
        Table(page.passage("survival_ends"), ("thing", "smallest", "from", "to"), ends),
    ]


def _mm(size: float, sizes: Sequence[float]) -> str:
    """In words where the series ends."""
    if math.isinf(size):
        return f"> {sizes[-1]:g} mm"
    return f"{'<= ' if size == sizes[0] else ''}{size:g} mm"


def summary(series: Sequence[Series]) -> dict[str, Any]:
    """{probe: figures by size}; a smallest size beyond the series is infinite."""
    return {
        one.name: {
            "mm": one.sizes,
            "n": one.n,
            "keep half": one.halves(),
            "read": one.reads(),
            "smallest": smallest(one),
            **{
                f"median {name}": np.median(one.values[name], axis=1).round(4).tolist()
                for name in ("kept", "alike", "contrast")
            },
        }
        for one in series
    }


def picture(series: Sequence[Series], size: int) -> Picture:
    """The curves, and beside them the first phantom's crops in the window of the largest probe."""
    figure = new(12, 3.2 * len(series))
    figure.suptitle(SYNTHETIC, fontsize=10)
    parts: Any = figure.subfigures(len(series), 1, squeeze=False)  # its type depends on its shape
    for part, one in zip(parts[:, 0], series, strict=True):
        _draw_series(part, one)
    caption = page.passage("survival_picture", synthetic=SYNTHETIC, n=series[0].n, size=size)
    return Picture("survival.png", as_png(figure, SYNTHETIC), caption)


def _draw_series(part: Any, one: Series) -> None:
    sides: Any = part.subfigures(1, 2, width_ratios=[1, 2.4])
    curve, crops = sides
    axis = curve.subplots()
    low, middle, high = np.quantile(one.values["kept"], (0.25, 0.5, 0.75), axis=1)
    axis.fill_between(one.sizes, low, high, alpha=0.25)
    axis.plot(one.sizes, middle, marker="o")
    axis.axhline(HALF, color="gray", linestyle=":")
    axis.set(xlabel=f"{LABELS[one.name]}, mm", ylabel="contrast kept", ylim=(0, 1.1))
    axis.set(xscale="log", xticks=one.sizes, xticklabels=[f"{size:g}" for size in one.sizes])
    axis.minorticks_off()
    window = {"vmin": float(one.crops[-1, 0].min()), "vmax": float(one.crops[-1, 0].max())}
    grid = crops.subplots(2, len(one.sizes))
    for column, size in enumerate(one.sizes):
        for axis, crop in zip(grid[:, column], one.crops[column], strict=True):
            axis.imshow(crop.numpy(), cmap="gray", **window)
            axis.set(xticks=[], yticks=[])
        grid[0, column].set_title(f"{size:g} mm", fontsize=9)
    grid[0, 0].set_ylabel("original", fontsize=9)
    grid[1, 0].set_ylabel("reconstruction", fontsize=9)
