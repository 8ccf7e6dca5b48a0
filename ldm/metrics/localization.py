"""Does a map [h, w] lie on a mask [h, w]? Pointing game, overlap and AUC over the cells.

A map of one value everywhere has what chance has: of cells that are tied, their share counts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ldm.metrics.classification import Array

Cells = NDArray[np.bool_]


def pointing(scores: Array, mask: Cells) -> float:
    """Is the highest cell inside? The pointing game of Zhang et al., arXiv:1608.00507."""
    return float(mask[scores == scores.max()].mean())


def overlap(scores: Array, mask: Cells) -> float:
    """IoU, |A and B| / |A or B|, where A has the highest cells, as many as the mask B has."""
    size = int(mask.sum())
    edge = np.sort(scores, axis=None)[-size]  # the least value of a cell of A
    above, tied = scores > edge, scores == edge
    hits = mask[above].sum() + (size - above.sum()) * mask[tied].mean()
    return float(hits / (2 * size - hits))


def cell_auc(scores: Array, mask: Cells) -> float:
    """P(a cell inside is higher than one outside) + P(tie) / 2, from the sum of ranks."""
    inside = int(mask.sum())
    above = rankdata(scores.ravel())[mask.ravel()].sum() - inside * (inside + 1) / 2
    return float(above / (inside * (mask.size - inside)))
