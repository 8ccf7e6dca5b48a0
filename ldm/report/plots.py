"""Plots as PNG: an empty figure, histograms, ROC curves, embeddings on a plane by t-SNE."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldm.metrics.fid import Array

# Okabe and Ito's eight, told apart by colour-blind readers (Wong, Nature Methods 8, 2011)
COLOURS = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)

# one for each CheXpert class, so that colour is not needed to tell them apart
MARKERS = (*"os^DvPX*<p>hd", (4, 1, 0))  # the last is a star of four points


class Curve(NamedTuple):
    """scores, labels: [n]"""

    name: str
    scores: ArrayLike
    labels: ArrayLike


class TsnePanel(NamedTuple):
    """points: [n, 2]"""

    title: str
    points: NDArray[np.float32]


def new(width: float, height: float) -> Any:
    """An empty figure of that many inches, which belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any, text: str = "") -> bytes:
    """The figure as PNG, equal figures as equal bytes; `text` goes into the file."""
    content = io.BytesIO()
    metadata = {"Software": None, **({"Description": text} if text else {})}
    figure.savefig(content, format="png", metadata=metadata)
    return content.getvalue()


def subplots(
    count: int, columns: int, size: tuple[float, float], legend: float = 0
) -> tuple[Any, Any]:
    """A figure of `count` panels in rows of `columns`, of `size` inches each; legend: its width."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new(size[0] * columns + legend, size[1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count]


def histograms(panels: Mapping[str, Mapping[str, Array]]) -> bytes:
    """{figure: {series: [n]}}, a panel for each figure; infinite values are counted, not drawn."""
    figure, axes = subplots(len(panels), len(panels), (4, 3.4))
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


def roc(panels: Mapping[str, Sequence[Curve]]) -> bytes:
    """{finding: its curves}, a panel for each finding."""
    from sklearn.metrics import roc_curve

    figure, axes = subplots(len(panels), 3, (4, 4))
    for axis, (finding, curves) in zip(axes, panels.items(), strict=True):
        for curve, colour, style in zip(curves, COLOURS, ("-", "--", "-.", ":"), strict=False):
            false, true, _ = roc_curve(curve.labels, curve.scores)
            axis.plot(false, true, color=colour, linestyle=style, label=curve.name)
        axis.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        axis.set(title=finding, xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
        axis.legend(loc="lower right", fontsize=8, frameon=False)
    return as_png(figure)


def tsne(embeddings: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32] | None:
    """[n, d] -> [n, 2] by t-SNE (van der Maaten and Hinton, JMLR 9, 2008); None if all are equal.

    Euclidean distances, perplexity 30, less for fewer than 91. Near points are alike; the size of a
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


def scatter(panels: Sequence[TsnePanel], labels: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """The panels in rows of two, with one legend that gives n of each class there is.

    labels: [n], places in names
    """
    figure, axes = subplots(len(panels), 2, (5, 4.8), legend=2.4)
    for axis, panel in zip(axes, panels, strict=True):
        for c in np.unique(labels):
            x, y = panel.points[labels == c].T
            style = {"c": COLOURS[c % len(COLOURS)], "marker": MARKERS[c % len(MARKERS)]}
            label = f"{names[c]} (n = {len(x)})"
            axis.scatter(x, y, s=28, linewidths=0.4, edgecolors="#333333", label=label, **style)
        axis.set(xticks=[], yticks=[], title=panel.title)
    series, titles = axes[0].get_legend_handles_labels()
    figure.legend(series, titles, loc="outside right center", frameon=False)
    return as_png(figure)
