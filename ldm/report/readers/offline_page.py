"""A reader study as one HTML file: page, script and images, without which image is which."""

import base64
from collections.abc import Sequence

import numpy as np
from jinja2 import Environment, PackageLoader
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
    pages = Environment(
        loader=PackageLoader("ldm.report.readers", ""), autoescape=True, keep_trailing_newline=True
    )
    pages.policies["json.dumps_kwargs"] = {}  # keys in this order
    return pages.get_template("page.html").render(study=content).encode()


def check_size(images: int, size: int) -> None:
    """ConfigError, before any work, if the page would be too large."""
    megabytes = images * size**2 * 4 / 3 / 1e6
    if megabytes > MEGABYTES:
        raise ConfigError(
            f"{images} images of {size} px make a page of {megabytes:.0f} MB, but at most "
            f"{MEGABYTES} are allowed; take a smaller --size or fewer images"
        )


def _texts(pixels: tuple[Pixels, ...]) -> dict[str, str]:
    names = ("pixels",) if len(pixels) == 1 else ("original", "copy")
    texts = (base64.b64encode(one.tobytes()).decode() for one in pixels)
    return dict(zip(names, texts, strict=True))
