"""Pictures of embeddings: seeded, with a sign of its own for each class."""

import io

import numpy as np
import pytest
from PIL import Image

from ldm.data.mesh_terms import CLASSES
from ldm.report import plots
from ldm.report.plots import TsnePanel, scatter, tsne


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Three clusters far apart in 16 dimensions, and which is which."""
    labels = np.repeat([0, 1, 2], 12)
    centres = 20 * np.eye(3, 16)[labels]
    return (centres + np.random.default_rng(0).normal(size=(36, 16))).astype(np.float32), labels


def test_tsne_keeps_neighbours_and_is_the_same_again(clusters) -> None:
    """The nearest point on the plane is of the same cluster; the same call gives the same bits."""
    e, labels = clusters
    points = tsne(e, seed=3)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(labels[distances.argmin(1)], labels)
    assert np.array_equal(points, tsne(e, seed=3))


def test_a_few_points_and_a_negative_seed_are_drawn() -> None:
    """Perplexity stays below n."""
    assert np.isfinite(tsne(np.eye(4, dtype=np.float32), seed=-1)).all()


def test_equal_vectors_make_no_picture() -> None:
    """CLIP's first state has one value but for rounding: a plane would show the rounding."""
    rows = np.ones((20, 4), np.float32)
    assert tsne(rows) is None
    assert tsne(rows * (1 + 1e-7 * np.arange(20, dtype=np.float32)[:, None])) is None


def test_no_two_classes_share_a_sign() -> None:
    """Markers differ for all 14, so that colour is not needed; so do colours of neighbours."""
    assert len(set(map(str, plots.MARKERS))) == len(CLASSES) == len(plots.MARKERS)
    assert len(set(plots.COLOURS)) == 8  # Okabe and Ito's


def test_the_legend_names_the_classes_there_are_with_n(clusters, monkeypatch) -> None:
    """One legend for all panels, of the classes that have points, in the order of CLASSES."""
    from matplotlib.figure import Figure

    seen = []
    legend = Figure.legend
    monkeypatch.setattr(Figure, "legend", lambda *a, **k: seen.append(a[2]) or legend(*a, **k))
    e, labels = clusters
    panels = [TsnePanel(str(i), e[:, i : i + 2]) for i in range(3)]
    content = scatter(panels, labels * 4, CLASSES)
    names = [CLASSES[0], CLASSES[4], CLASSES[8]]
    assert seen == [[f"{name} (n = 12)" for name in names]]
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        levels = np.asarray(picture.convert("L"))
    height, width = levels.shape
    # three panels in rows of two: the fourth place, left of the legend, is empty
    empty = levels[int(0.55 * height) : int(0.95 * height), int(0.45 * width) : int(0.7 * width)]
    assert empty.min() == 255
    assert content == scatter(panels, labels * 4, CLASSES)
