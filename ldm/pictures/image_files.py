"""Images, tensors in [-1, 1], <-> files; only this file knows PIL's modes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, PngImagePlugin
from torch import Tensor

from ldm.system.atomic import whole_file

# raised by PIL for files that are absent, no images, damaged or made to fill the memory
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

# black and white, grey, colour, and 16-bit grey in any byte order; older PNG readers say "I"
PLAIN = ("1", "L", "RGB", "I", "I;16", "I;16L", "I;16B", "I;16N")

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of a TIFF (TIFF 6.0, section 8)
WHITE_IS_ZERO = 0


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Grey [..., 1, H, W] as RGB, or RGB as grey (the mean of the channels); equal: unchanged."""
    if images.shape[-3] == channels:
        return images
    if channels == 3 and images.shape[-3] == 1:
        return repeat(images, "... 1 H W -> ... C H W", C=3)
    if channels == 1 and images.shape[-3] == 3:
        return images.mean(dim=-3, keepdim=True)
    raise ValueError(f"cannot make {channels} channels of an image {tuple(images.shape)}")


def to_integers(images: Tensor, bits: int = 8) -> np.ndarray:
    """[C, H, W] in [-1, 1] -> uint8 or uint16 [H, W, C], rounded (truncating would darken)."""
    top = 2**bits - 1
    scaled = ((images.float().clamp(-1, 1) + 1) * (top / 2)).round()
    array = rearrange(scaled, "C H W -> H W C").cpu().numpy()
    return array.astype(np.uint8 if bits == 8 else np.uint16)


def from_integers(array: np.ndarray) -> Tensor:
    """uint8 or uint16 [H, W] or [H, W, C] -> float32 [C, H, W] in [-1, 1]; inverts to_integers."""
    top = np.iinfo(array.dtype).max
    array = array[..., None] if array.ndim == 2 else array
    return rearrange(torch.from_numpy(array.astype(np.float32)), "H W C -> C H W") * (2 / top) - 1


def load(path: str | Path) -> Tensor:
    """The image in a file as float32 [C, H, W] in [-1, 1]; C is 1 for grey, 3 for colour.

    16-bit grey keeps its depth. Raises ValueError naming the file if it is not a usable image.
    """
    image = _open(path)
    return from_integers(_levels(image if image.mode in PLAIN else image.convert("RGB")))


def read(path: str | Path) -> np.ndarray:
    """The grey levels as the file has them: uint8 or uint16 [H, W, C], C 1 or 3.

    Raises ValueError, as `load` does, also for levels that PIL changes: palettes, CMYK, 16-bit
    colour.
    """
    image = _open(path)
    if image.mode not in PLAIN:
        raise ValueError(f"{path} has colours of mode {image.mode}; save it as grey or RGB first")
    with Path(path).open("rb") as file:
        header = file.read(26)  # of a PNG the last two bytes are depth and kind of colour
    if image.format == "PNG" and header[24:] == b"\x10\x02":
        raise ValueError(f"{path} has 16-bit colour; save it as 16-bit grey or 8-bit colour first")
    array = _levels(image)
    return array[..., None] if array.ndim == 2 else array


def _read_file(path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.load()  # also text chunks that follow the pixels
            return file
    except UNREADABLE as e:
        reason = getattr(e, "strerror", None) or "not an image, or damaged"
        raise ValueError(f"cannot read the image {path}: {reason}") from e


def _open(path: str | Path) -> Image.Image:
    image = _read_file(path)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        raise ValueError(f"{path} has an alpha channel; flatten it first")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"{path} has 32 bits, of unknown range; save it with 8 or 16 bits")
    if 12 in _tags(image).get(BITS_PER_SAMPLE, ()):
        raise ValueError(f"{path} has 12 bits; save it with 8 or 16 bits")
    return image


def _levels(image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535).astype(np.uint16)
        # PIL has inverted such files of 8 bits, but not those of 16
        return 65535 - levels if _tags(image).get(PHOTOMETRIC) == WHITE_IS_ZERO else levels
    return np.asarray(image)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF; none for other files."""
    return getattr(image, "tag_v2", {})


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """[C, H, W] -> [C, height, width]; bicubic and antialiased, kept in [-1, 1]."""
    if image.shape[-2:] == (height, width):
        return image
    y = torch.nn.functional.interpolate(
        image[None], (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return y[0].clamp(-1, 1)


def fit_square(image: Tensor, size: int) -> Tensor:
    """[C, H, W] -> [C, size, size]: the central square, resized."""
    return resize(central(image), size, size)


def fit_padded(image: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """All of an image, with black borders at two sides.

    returns [C, size, size] and bool [1, size, size]: where the image is
    """
    height, width = (round(size * side / max(image.shape[-2:])) or 1 for side in image.shape[-2:])
    top, left = (size - height) // 2, (size - width) // 2
    square = torch.full((image.shape[0], size, size), -1.0)
    there = torch.zeros(1, size, size, dtype=torch.bool)
    square[:, top : top + height, left : left + width] = resize(image, height, width)
    there[:, top : top + height, left : left + width] = True
    return square, there


def central(image: Tensor) -> Tensor:
    """[C, H, W] -> [C, S, S]: the largest square in the middle."""
    side = min(image.shape[-2:])
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    return image[:, top : top + side, left : left + side]


def save(
    image: Tensor | np.ndarray, path: str | Path, text: Mapping[str, str], bits: int = 8
) -> None:
    """Write a PNG, whole or not at all; arguments as of `png`."""
    content = png(image, text, bits)
    with whole_file(Path(path)) as unfinished:
        unfinished.write_bytes(content)


def png(image: Tensor | np.ndarray, text: Mapping[str, str], bits: int = 8) -> bytes:
    """The content of a PNG.

    image: [C, H, W] in [-1, 1]; or uint8 or uint16 [H, W, C], written unchanged
    text: text chunks; `synthetic` and how to draw the image again
    """
    array = image if isinstance(image, np.ndarray) else to_integers(image, bits)
    if array.shape[2] == 1:
        array = array[..., 0]
    elif array.dtype != np.uint8:
        raise ValueError("colour is saved with 8 bits; 16 bits are for grey")
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    content = io.BytesIO()
    Image.fromarray(array).save(content, format="PNG", pnginfo=info)
    return content.getvalue()


def read_text(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises ValueError naming the file if it cannot be read."""
    return {str(k): v for k, v in _read_file(path).info.items() if isinstance(v, str)}


def grid(images: Sequence[Tensor] | Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Images [C, H, W] side by side on a dark sheet: [C, rows (H + gap), columns (W + gap)]."""
    columns = columns or min(len(images), 8)
    rows = -(-len(images) // columns)
    channels, height, width = images[0].shape
    sheet = torch.full((channels, rows * (height + gap), columns * (width + gap)), -1.0)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, y : y + height, x : x + width] = image
    return sheet
