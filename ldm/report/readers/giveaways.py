"""Cues that tell real images from synthetic ones without a look at the chest."""

from collections.abc import Callable, Sequence

import numpy as np

from ldm.metrics.classification import auc_of_readers
from ldm.metrics.estimate import Estimate
from ldm.report import page
from ldm.report.page import Table
from ldm.report.readers.offline_page import Pixels


def sharpness(pixels: Pixels) -> float:
    """The mean size of the Laplacian: low where an autoencoder or an enlargement blurred."""
    x = pixels.astype(np.float64)
    laplacian = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(np.abs(laplacian).mean())


def border(pixels: Pixels) -> float:
    """The mean grey of the outermost pixels less that of all."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return float(edge.mean() - pixels.mean())


CUES: dict[str, Callable[[Pixels], float]] = {
    "mean grey": lambda pixels: float(pixels.mean()),
    "contrast (SD of grey)": lambda pixels: float(pixels.std()),
    "sharpness (mean Laplacian)": sharpness,
    "share of black and white": lambda pixels: float(np.isin(pixels, (0, 255)).mean()),
    "grey levels in use": lambda pixels: float(len(np.unique(pixels))),
    "border, less the mean": border,
}


def measure(real: Sequence[Pixels], synthetic: Sequence[Pixels]) -> dict[str, Estimate]:
    """{cue: its AUC}; 1: higher in every synthetic image, 0: in every real one, 0.5: no cue."""
    labels = np.repeat([0, 1], [len(real), len(synthetic)])
    return {
        name: auc_of_readers([[cue(pixels) for pixels in (*real, *synthetic)]], labels)
        for name, cue in CUES.items()
    }


def table(found: dict[str, Estimate]) -> Table:
    apart = {name: "tells them apart" for name, e in found.items() if not e.low <= 0.5 <= e.high}
    return Table.of(page.passage("giveaways"), "cue", {"AUC": found, "": apart})
