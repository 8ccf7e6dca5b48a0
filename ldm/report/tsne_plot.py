"""Embeddings on a plane by t-SNE, one colour and one marker for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ldm.report.plots import COLOURS, as_png, new

# one for each class, which then need not be told apart by colour at all
MARKERS = (*"os^DvPX*<p>hd", (4, 1, 0))  # the last is a star of four points


class TsnePanel(NamedTuple):
    """points: [n, 2]"""

    title: str
    points: NDArray[np.float32]


def tsne(embeddings: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32] | None:
    """[n, d] -> [n, 2] by t-SNE (van der Maaten and Hinton, JMLR 9, 2008); None if all are equal.

    Euclidean distances, perplexity 30, less for fewer than 91. What is near is alike; the size of a
    cluster and the distance of two that are far apart mean nothing.
    """
    from sklearn.manifold import TSNE

    e = np.asarray(embeddings, np.float64)
    # float32 sums of the same numbers differ by 1e-6 at most
    if np.ptp(e, axis=0).max() <= 1e-5 * np.abs(e).max():
        return None
    perplexity = min(30, (len(e) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(e)
    return points.astype(np.float32)


def draw(panels: Sequence[TsnePanel], labels: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """A PNG of the panels in rows of two, with one legend that gives n of each class there is.

    labels: [n], places in names
    """
    columns, rows = min(2, len(panels)), (len(panels) + 1) // 2
    figure = new(5 * columns + 2.4, 4.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        series = _scatter(axis, panel, labels, names)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    figure.legend(
        series, [s.get_label() for s in series], loc="outside right center", frameon=False
    )
    return as_png(figure)


def _scatter(
    axis: Any, panel: TsnePanel, labels: NDArray[np.int64], names: Sequence[str]
) -> list[Any]:
    """What the legend names: the points of each class."""
    series = []
    for c in np.unique(labels):
        x, y = panel.points[labels == c].T
        style = {"c": COLOURS[c % len(COLOURS)], "marker": MARKERS[c % len(MARKERS)]}
        label = f"{names[c]} (n = {len(x)})"
        series.append(
            axis.scatter(x, y, s=28, linewidths=0.4, edgecolors="#333333", label=label, **style)
        )
    axis.set(xticks=[], yticks=[], title=panel.title)
    return series
