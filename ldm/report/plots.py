"""What drawings of measurements share: colours, an empty figure, its PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's eight, told apart by colour-blind readers (Wong, Nature Methods 8, 2011)
COLOURS = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)


def new(width: float, height: float) -> Figure:
    """An empty figure of that many inches, which belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Figure, text: str = "") -> bytes:
    """The same bytes for the same figure; `text` goes into the file."""
    content = io.BytesIO()
    metadata = {"Software": None, **({"Description": text} if text else {})}
    figure.savefig(content, format="png", metadata=metadata)
    return content.getvalue()
