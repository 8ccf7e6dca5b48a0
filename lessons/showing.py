"""What the lessons share: where the built-in models are, and how pictures are shown."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "weights"  # draws chest films of 128 px
BASE = ROOT / "weights" / "base.safetensors"  # the same, but has never seen an effusion


def save(name: str, figure: Figure) -> None:
    """Write runs/lessons/NAME.png; a notebook shows the figure by itself."""
    path = ROOT / "runs" / "lessons" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.text(0.995, 0.005, "synthetic", ha="right", va="bottom", fontsize=7, color="gray")
    figure.savefig(path, dpi=100, metadata={"Description": "synthetic"})
    print(path.relative_to(ROOT).as_posix())


def show(name: str, pictures: Tensor, titles: Sequence[str], columns: int = 6) -> None:
    """Grey pictures [B, 1, H, W] in [-1, 1] beside each other, a title above each."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    size = (2 * columns, 2.3 * rows)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        axis.imshow(picture[0].numpy(), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=9)
    save(name, figure)
