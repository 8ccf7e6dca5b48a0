"""A study as one HTML file: the page, its script and the images, and not which image is which."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ldm.config import ConfigError

Pixels = NDArray[np.uint8]  # [H, W]
MEGABYTES = 200  # of a file that a browser opens without trouble


def html(
    study: str, mode: str, size: int, ids: Sequence[str], shown: Sequence[tuple[Pixels, ...]]
) -> bytes:
    """shown: for each id its pixels, alone or the two of a pair.

    Pixels are neither compressed nor described: every image is as long as every other one.
    """
    trials = [{"id": name, **_texts(each)} for name, each in zip(ids, shown, strict=True)]
    content = {"study": study, "mode": mode, "size": size, "trials": trials}
    parts = {
        "STYLE": _read("page.css"),
        "STUDY": json.dumps(content),  # of letters and digits, so that no tag can end it
        "SCRIPT": "".join(map(_read, ("viewer.js", "keys.js", "page.js"))),
    }
    page = _read("page.html")
    for name, text in parts.items():
        page = page.replace(f"/*{name}*/", text)
    return page.encode()


def check_size(images: int, size: int) -> None:
    """ConfigError, before any work, if the page would be too large."""
    megabytes = images * size**2 * 4 / 3 / 1e6
    if megabytes > MEGABYTES:
        raise ConfigError(
            f"{images} images of {size} px make a page of {megabytes:.0f} MB, which wants to be at "
            f"most {MEGABYTES}; take a smaller --size or fewer images"
        )


def _texts(pixels: tuple[Pixels, ...]) -> dict[str, str]:
    names = ("pixels",) if len(pixels) == 1 else ("original", "copy")
    texts = (base64.b64encode(one.tobytes()).decode() for one in pixels)
    return dict(zip(names, texts, strict=True))


def _read(name: str) -> str:
    return (files("ldm.report.readers") / name).read_text(encoding="utf-8")
