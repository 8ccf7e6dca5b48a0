"""Images, tensors in [-1, 1], <-> files; only this file and bit_depths.py know PIL's modes.

A file is what its content says, whatever its name; it is turned as its EXIF says.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from ldm.pictures import bit_depths
from ldm.system import cli
from ldm.system.atomic import whole_file

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000", "GIF", "PPM")  # PIL's names
# of pictures, whatever is in the file; DICOM often has none
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".j2k")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

# black and white, grey, colour, and 16-bit grey in any byte order; older PNG readers say "I"
PLAIN = ("1", "L", "RGB", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")

Image.MAX_IMAGE_PIXELS = bit_depths.MOST_PIXELS // 2  # PIL raises above twice as many


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


def load(path: str | Path, frame: int | None = None, window: str | None = None) -> Tensor:
    """The image in a file as float32 [C, H, W] in [-1, 1]; C is 1 for grey, 3 for colour.

    16-bit grey keeps its depth. Raises ValueError naming the file if it is not a usable image.

    frame: which page or frame of several, from 0; None: there must be one
    window: of CT in DICOM, see `dicom_files.parse_window`; None: as the file says
    """
    return from_integers(_levels(path, frame, window))


def read(path: str | Path) -> np.ndarray:
    """The grey levels as the file has them: uint8 or uint16 [H, W, C], C 1 or 3.

    Fewer bits than 16 are spread over 16, DICOM comes as its window shows it. Raises ValueError,
    as `load` does, also for levels that PIL changes: palettes, CMYK, 16-bit colour.
    """
    array = _levels(path, exact=True)
    return array[..., None] if array.ndim == 2 else array


def head(path: str | Path) -> bytes:
    """The first bytes of a file, which tell its format. Raises ValueError."""
    try:
        with cli.regular(path).open("rb") as file:
            return file.read(132)
    except OSError as e:
        raise ValueError(f"cannot read the image {path}: {e.strerror}") from e


def is_dicom(path: str | Path) -> bool:
    """Is it DICOM? Old files without a preamble are known by their suffix alone."""
    start, named = head(path), Path(path).suffix.lower() in DICOM_SUFFIXES
    return start[128:] == b"DICM" or (named and start[:2] not in (b"\x89P", b"\xff\xd8"))


def is_picture(path: str | Path) -> bool:
    """Does it open as a picture, or, if damaged, is it named as one?"""
    return Path(path).suffix.lower() in SUFFIXES or is_dicom(path) or sides(path) is not None


def sides(path: str | Path) -> tuple[int, int] | None:
    """The sides of a picture, in any order; None of what is none."""
    if is_dicom(path):
        from ldm.pictures import dicom_files

        ds = dicom_files.dataset(path, head=True)
        return int(ds.Rows), int(ds.Columns)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except Exception:  # as in _read_file
        return None


def _levels(
    path: str | Path, frame: int | None = None, window: str | None = None, exact: bool = False
) -> np.ndarray:
    """uint8 or uint16 [H, W] or [H, W, 3]; exact: ValueError for what PIL would change"""
    if is_dicom(path):
        from ldm.pictures import dicom_files

        return dicom_files.levels(path, frame, window)
    if window:
        bit_depths.guesses[bit_depths.NO_CT] += 1
    image = _read_file(path, frame)
    kind = image.format
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if image.mode.startswith("I") or alpha.getextrema() != (255, 255):
            raise ValueError(f"{path} has an alpha channel; flatten it first")
        image = image.convert("L" if image.mode in ("L", "LA") else "RGB")  # all is opaque
    # the depth and kind of colour of a PNG
    deep = kind == "PNG" and head(path)[24] == 16 and head(path)[25] != 0
    if exact and image.mode not in PLAIN:
        raise ValueError(f"{path} has colours of mode {image.mode}; save it as grey or RGB first")
    if image.mode[0] in "FI":
        return bit_depths.sixteen_bits(image, path)
    array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if deep and (exact or 0 < array.max() < 64):  # nearly black: 14 bits or fewer in 16
        raise ValueError(f"{path} has 16-bit colour; save it as 16-bit grey or 8-bit colour first")
    return array


def _read_file(path: str | Path, frame: int | None = None) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags that no pixel depends on
            # not by name: PIL would map it into memory, which spoils a TIFF that lies on its side
            with Path(path).open("rb") as raw, Image.open(raw, formats=FORMATS) as file:
                if frame is not None or getattr(file, "n_frames", 1) > 1:
                    bit_depths.check_frame(getattr(file, "n_frames", 1), frame)
                    file.seek(frame or 0)
                file.load()  # also text chunks that follow the pixels
                ImageOps.exif_transpose(file, in_place=True)
                return file
    except MemoryError:
        raise
    except Exception as e:  # PIL raises nearly anything for a damaged file
        raise ValueError(f"cannot read the image {path}: {_reason(e, Path(path))}") from e


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return bit_depths.TOO_LARGE.format(int(re.findall(r"\d+", str(error))[0]))
    if isinstance(error, UnidentifiedImageError):
        from ldm.system import downloads

        if what := downloads.mistaken(path):
            return f"it {what}"
        known = f"or damaged; known are {', '.join(FORMATS)} and DICOM"
        return f"not an image, {known if path.stat().st_size else 'it is empty'}"
    if isinstance(error, bit_depths.PictureError):
        return str(error)
    damaged = f"it is damaged or cut short ({str(error) or type(error).__name__})"
    return getattr(error, "strerror", None) or damaged


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
    if array.dtype == np.uint16:
        info.add(b"sBIT", b"\x10")  # all bits count, however dark it is
    for key, value in text.items():
        info.add_itxt(key, value)
    content = io.BytesIO()
    Image.fromarray(array).save(content, format="PNG", pnginfo=info)
    return content.getvalue()


def read_text(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG, or what our DICOM says; ValueError if it cannot be read."""
    if is_dicom(path):
        from ldm.pictures import dicom_files

        return dicom_files.read_text(path)
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


def label(image: Tensor, text: str, height: int = 14) -> Tensor:
    """[C, H, W] -> [C, H + height, W]: white text on a black strip below, cut where it is wider."""
    strip = Image.new("L", (image.shape[-1], height))
    ImageDraw.Draw(strip).text((2, 0), text, fill=255, font=ImageFont.load_default())
    below = from_integers(np.array(strip))
    return torch.cat([image, below.expand(image.shape[0], -1, -1).to(image)], dim=1)
