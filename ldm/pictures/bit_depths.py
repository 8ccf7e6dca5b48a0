"""Which level of a picture is white, where its file has more bits than it uses or does not say."""

import atexit
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

log = logging.getLogger(__name__)

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of a TIFF (TIFF 6.0, section 8)
WHITE_IS_ZERO = 0
DEPTHS = (8, 10, 12, 14)  # bits of detectors whose levels are kept in 16
MOST_PIXELS = int(os.environ.get("LDM_MAX_PIXELS") or 178_956_970)  # more would fill the memory
TOO_LARGE = (
    f"it has {{:,}} pixels, more than the limit, {MOST_PIXELS:,}; if they are meant, set "
    "LDM_MAX_PIXELS in the environment to width times height"
)
NO_CT = "data.window not applied, as it is no CT in DICOM"
guesses: Counter[str] = Counter()  # {rule: files read by it, as they do not say what is white}


class PictureError(ValueError):
    """Why a file cannot be read, in our words."""


def tell_guesses() -> None:
    """Log, once, the rules by which files were read since the last time, and how many files."""
    for rule, count in sorted(guesses.items()):
        log.warning("%s: %d file%s", rule, count, "" if count == 1 else "s")
    guesses.clear()


atexit.register(tell_guesses)  # what no reader has told by then


def check_frame(count: int, frame: int | None) -> None:
    """PictureError unless `frame` is one of `count` pages or frames; None: there must be one."""
    if (frame is None and count > 1) or not 0 <= (frame or 0) < count:
        raise PictureError(
            f"it has {count} pages or frames{'' if frame is None else f' and no {frame}'}; save "
            "each as a file, or name one, from 0, in a column `file_frame` of a CSV"
        )


def sixteen_bits(image: Image.Image, path: str | Path) -> np.ndarray:
    """uint16 [H, W] of a picture of more than 8 bits, with white as 65535. Raises ValueError."""
    array, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        if image.mode == "I" or not (array.min() >= 0 and 0 < array.max() <= 1):
            raise ValueError(f"{path} has 32 bits, of unknown range; save it with 8 or 16 bits")
        guesses["floating point of 0 to 1, taken as black to white"] += 1
        return (array * 65535).round().astype(np.uint16)
    array = array.clip(0, 65535).astype(np.uint16)
    said = 12 if 12 in tags.get(BITS_PER_SAMPLE, ()) else None
    top = white_level(array, _significant_bits(path) if image.format == "PNG" else said)
    # PIL has inverted such files of 8 bits, but not those of more
    array = top - array if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else array
    # each level comes back as array * top / 65535, rounded
    return ((array.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def white_level(array: np.ndarray, bits: int | None = None) -> int:
    """2^n - 1; n is named by the file, if all levels fit, or the least of DEPTHS, 16 that fits."""
    brightest = int(array.max()) if array.size else 0
    if bits:  # of a PNG; the levels should be spread over all 16 bits, and often are not
        return 2**bits - 1 if brightest < 2**bits else 65535
    depth = next((depth for depth in DEPTHS if 0 < brightest < 2**depth), 16)
    if depth < 16:
        guesses[f"16-bit files taken as {depth}-bit, for no pixel is above {2**depth - 1}"] += 1
    return 2**depth - 1


def _significant_bits(path: str | Path) -> int | None:
    """The sBIT of a grey PNG (PNG specification, 11.3.2.7); it stands before the pixels."""
    before = Path(path).read_bytes().partition(b"IDAT")[0].partition(b"sBIT")[2]
    return before[0] if before else None
