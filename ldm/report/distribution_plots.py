"""Drawings of measurements as PNG: distributions, and images beside their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ldm.metrics.fid import Array
from ldm.report.plots import COLOURS, as_png, new


class Triple(NamedTuple):
    """Two images [1, H, W] in [-1, 1] that are to be compared."""

    title: str
    original: Tensor
    copy: Tensor


def distributions(panels: Mapping[str, Mapping[str, Array]]) -> bytes:
    """{figure: {series: [n]}}, a histogram each; infinite values are left out, and counted."""
    figure = new(4 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, series) in zip(axes, panels.items(), strict=True):
        finite = {name: values[np.isfinite(values)] for name, values in series.items()}
        together = np.concatenate(list(finite.values()))
        edges = np.histogram_bin_edges(together, bins=30) if len(together) else 1
        for (name, values), colour in zip(finite.items(), (COLOURS[5], COLOURS[1]), strict=False):
            without = len(series[name]) - len(values)
            label = f"{name} (n = {len(values)}{f', {without} infinite' if without else ''})"
            axis.hist(values, edges, histtype="step", color=colour, label=label, linewidth=1.5)
            if len(values):
                axis.axvline(float(np.median(values)), color=colour, linestyle=":", linewidth=1)
        axis.set(xlabel=title, ylabel="images")
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize=8, frameon=False, loc="best")
    return as_png(figure)


def triples(shown: Sequence[Triple], labels: tuple[str, str], text: str) -> bytes:
    """Rows of original, reconstruction and their difference, one scale for all differences.

    labels: what stands over originals and reconstructions;  text: goes into the file
    """
    figure = new(9, 2.9 * len(shown))
    axes = figure.subplots(len(shown), 3, squeeze=False)
    errors = [127.5 * (one.copy - one.original)[0].numpy() for one in shown]
    most = max(float(np.quantile(np.abs(error), 0.995)) for error in errors) or 1.0
    for row, one, error in zip(axes, shown, errors, strict=True):
        for axis, image in zip(row, (one.original, one.copy), strict=False):
            axis.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1)
        drawn = row[2].imshow(error, cmap="RdBu_r", vmin=-most, vmax=most)
        row[0].set_ylabel(one.title, fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, label in zip(axes[0], (*labels, "difference, grey levels of 255"), strict=True):
        axis.set_title(label, fontsize=9)
    figure.colorbar(drawn, ax=list(axes[:, 2]), shrink=0.6)
    return as_png(figure, text)
