"""A picture is what its file says: orientation, depth, pages, alpha, size; damaged files are named.

Each file is made here; what a viewer shows is a ramp, dark on the left and above.
"""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from ldm.data import DataConfig
from ldm.data.file_dataset import Files
from ldm.data.image_sets import load_each, open_set
from ldm.drawing.edited_pictures import read_mask
from ldm.pictures import bit_depths, image_files

RAMP = (np.add.outer(np.arange(24) * 3, np.arange(32) * 5) + 10).astype(np.uint8)  # 10 ... 234
TURNS = {  # EXIF orientation -> how the shown picture is stored (Exif 2.32, table 5)
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["png", "webp", "tiff", "jpg", "16-bit png"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path, orientation: int, form: str) -> None:
    """Left stays left: stored in any of the eight ways, the picture is the one that was shown."""
    levels = RAMP.astype(np.uint16) * 257 if "16" in form else RAMP
    shown, exif = Image.fromarray(levels), Image.Exif()
    exif[0x0112] = orientation
    turn = TURNS[orientation]
    stored = shown if turn is None else shown.transpose(turn)
    path, more = tmp_path / f"x.{form.split()[-1]}", {"lossless": True} if form == "webp" else {}
    stored.save(path, exif=exif, **more)
    found = image_files.to_channels(image_files.load(path), 1)
    assert found.shape == (1, 24, 32)
    close = 0.02 if form == "jpg" else 1e-6
    torch.testing.assert_close(found, image_files.from_integers(levels), atol=close, rtol=0)
    if form != "webp":  # it is RGB
        assert image_files.read(path).shape == (24, 32, 1)


def png_with(levels: np.ndarray, bits: int) -> bytes:
    """A PNG whose sBIT says `bits`."""
    info, content = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add(b"sBIT", bytes([bits]))
    Image.fromarray(levels).save(content, format="PNG", pnginfo=info)
    return content.getvalue()


@pytest.mark.parametrize(
    ("top", "said", "white", "guessed"),
    [
        *((2**n - 1, None, 2**n - 1, f"taken as {n}-bit") for n in (8, 10, 12, 14)),
        *((top, None, 2**n - 1, f"as {n}-bit") for top, n in ((200, 8), (3000, 12), (9000, 14))),
        (20000, None, 65535, ""),
        (65535, None, 65535, ""),
        (4095, 12, 4095, ""),
        (1000, 12, 4095, ""),  # what the file says goes before what its pixels suggest
        (65520, 12, 65535, ""),  # spread over all bits, as the specification has it
        (900, 16, 65535, ""),
    ],
)
def test_fewer_bits_in_a_16_bit_file_are_found(
    tmp_path: Path, top: int, said: int | None, white: int, guessed: str
) -> None:
    """White is what sBIT says, else the least depth that holds the brightest pixel; it is told."""
    levels = np.linspace(0, top, 32 * 32).astype(np.uint16).reshape(32, 32)
    path = tmp_path / "x.png"
    Image.fromarray(levels).save(path)
    if said:
        path.write_bytes(png_with(levels, said))
    bit_depths.guesses.clear()
    found = image_files.load(path)
    torch.testing.assert_close(
        found[0], torch.from_numpy(levels / white * 2 - 1).float(), atol=2e-5, rtol=0
    )
    assert guessed in "".join(bit_depths.guesses)
    assert bool(bit_depths.guesses) == bool(guessed)
    back = image_files.read(path)[..., 0] * (white / 65535)
    assert np.array_equal(back.round(), levels), "each level comes back"


def test_our_own_dark_picture_stays_dark(tmp_path: Path) -> None:
    """16 bits that we wrote say so themselves, and no rule brightens them."""
    dark = np.full((8, 8, 1), 300, np.uint16)
    image_files.save(dark, tmp_path / "x.png", {})
    assert np.array_equal(image_files.read(tmp_path / "x.png"), dark)


def test_what_was_guessed_is_said_once_with_its_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training and evaluation say once by which rule how many files were read."""
    for i in range(3):
        Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / f"{i}.png")
    bit_depths.guesses.clear()
    rule = "16-bit files taken as 12-bit, for no pixel is above 4095: 3 files"
    with caplog.at_level(logging.INFO):
        Files(DataConfig(path=str(tmp_path), size=16, cache=str(tmp_path / "cache")), 1)
        assert caplog.text.count(rule) == 1
        assert "data.fit=crop leaves out 25 % (up to 25 %) of 3 of 3 films" in caplog.text
        list(load_each(open_set(str(tmp_path))))
    assert caplog.text.count(rule) == 2


# --- what a file may hold beside grey ---

GREY, COLOUR = Image.fromarray(RAMP), Image.fromarray(RAMP).convert("RGB")
READ: dict[str, tuple[Image.Image, str, dict]] = {
    "grey": (GREY, "png", {}),
    "1 bit": (GREY.point(lambda x: 255 * (x > 99), "1"), "png", {}),
    "palette": (GREY.convert("P"), "png", {}),
    "CMYK": (COLOUR.convert("CMYK"), "tiff", {}),
    "opaque alpha": (GREY.convert("RGBA"), "png", {}),
    "grey and opaque alpha": (GREY.convert("LA"), "png", {}),
    "float of 0 to 1": (Image.fromarray(RAMP.astype(np.float32) / 255), "tiff", {}),
    "JPEG 2000": (GREY, "jp2", {}),
    "WebP": (COLOUR, "webp", {"lossless": True}),
    "BMP": (GREY, "bmp", {}),
    "PGM": (GREY, "pgm", {}),
    "JFIF": (GREY, "jfif", {"format": "JPEG", "quality": 100}),
    "a PNG named .jpg": (GREY, "jpg", {"format": "PNG"}),
    "a TIFF named .png": (GREY, "png", {"format": "TIFF"}),
    "a PNG named .dcm": (GREY, "dcm", {"format": "PNG"}),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_shown_is_what_is_read(tmp_path: Path, case: str) -> None:
    """Whatever the mode and the name: the levels that a viewer shows, but for rounding."""
    image, suffix, more = READ[case]
    image.save(tmp_path / f"x.{suffix}", **more)
    found = image_files.to_channels(image_files.load(tmp_path / f"x.{suffix}"), 1)
    shown = RAMP if case != "1 bit" else np.where(RAMP > 99, 255, 0).astype(np.uint8)
    torch.testing.assert_close(found, image_files.from_integers(shown), atol=0.02, rtol=0)
    assert len(open_set(str(tmp_path))) == 1


def deep_colour(levels: np.ndarray) -> bytes:
    """A PNG of 16-bit colour, which PIL cannot write."""
    rows = np.repeat(levels[..., None], 3, axis=2).astype(">u2")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    size = struct.pack(">II", levels.shape[1], levels.shape[0]) + b"\x10\x02\0\0\0"
    chunks = ((b"IHDR", size), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


PAGES = {"save_all": True, "append_images": [Image.fromarray(RAMP // i) for i in (2, 3)]}
REFUSED: dict[str, tuple[Image.Image | bytes, dict, str]] = {
    **{
        f"{form} of 3 pages": (GREY, {"format": form, **PAGES}, "it has 3 pages or frames; save")
        for form in ("TIFF", "GIF", "WEBP", "PNG", "MPO")
    },
    "transparent": (
        Image.new("RGBA", (8, 8), (9, 9, 9, 99)),
        {},
        "alpha channel; flatten it first",
    ),
    "32 bits": (Image.new("I", (8, 8), 70000), {"format": "TIFF"}, "32 bits, of unknown range"),
    "float above 1": (Image.new("F", (8, 8), 7), {"format": "TIFF"}, "unknown range"),
    "float nan": (Image.new("F", (8, 8), float("nan")), {"format": "TIFF"}, "unknown range"),
    "dark 16-bit colour": (deep_colour(RAMP.astype(np.uint16) * 16), {}, "16-bit colour; save it"),
    "empty": (b"", {}, "not an image, it is empty"),
    "text": (b"a letter, not a film", {}, "not an image, or damaged; known are PNG, JPEG"),
    "too large": (
        Image.new("1", (20000, 20000)),
        {},
        "400,000,000 .*, 178,956,970; .*LDM_MAX",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    """Never the first of several pages, never a guess: one line with the file and what to do."""
    content, more, message = REFUSED[case]
    path = tmp_path / "x.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, **more)
    for read in (image_files.load, image_files.read):
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_page_is_read_where_it_is_named(tmp_path: Path) -> None:
    """A table's column `file_frame` picks one page of several."""
    rest = [Image.fromarray(RAMP // i) for i in (2, 3)]
    Image.fromarray(RAMP).save(tmp_path / "x.tiff", save_all=True, append_images=rest)
    (tmp_path / "x.csv").write_text("filename,file_frame\nx.tiff,2\nx.tiff,0\nx.tiff,3\n")
    found = open_set(str(tmp_path / "x.csv"))
    assert [found.sample_id(i) for i in range(3)] == ["x-2", "x-0", "x-3"]
    torch.testing.assert_close(found.load(0)[0], image_files.from_integers(RAMP // 3)[0])
    torch.testing.assert_close(found.load(1)[0], image_files.from_integers(RAMP)[0])
    with pytest.raises(ValueError, match="it has 3 pages or frames and no 3; save each"):
        found.load(2)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tiff", "bmp", "jp2", "pgm"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, form: str, share: float) -> None:
    """No part of a picture is taken for the whole, in any format."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / f"x.{form}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cannot read the image .*x\.{form}: (it is|not)"):
        image_files.load(path)


@pytest.mark.parametrize(("labels", "dtype"), [(1, np.uint8), (3, np.uint8), (1, np.uint16)])
def test_a_label_map_is_a_mask(
    tmp_path: Path, labels: int, dtype: type, caplog: pytest.LogCaptureFixture
) -> None:
    """Levels 0 and 1, or a few labels, of which a viewer shows nothing: repainted, and said."""
    mask = np.zeros((32, 32), dtype)
    mask[4:9] = labels
    Image.fromarray(mask).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png", np.zeros((32, 32, 1), np.uint8))
    assert np.array_equal(found[..., 0], np.where(mask > 0, 255, 0))
    assert "m.png is nearly black: a label map" in caplog.text
