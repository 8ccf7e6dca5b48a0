"""Images in and out: round trips, provenance, refusals, and the geometry of squares and sheets."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.pictures import image_files

NOTE = {"synthetic": "yes"}


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


# --- values ---


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (8, 3), (16, 1)])
def test_every_grey_level_survives_saving_and_loading(
    tmp_path: Path, bits: int, channels: int
) -> None:
    """Through [-1, 1] and a PNG, or a PNG alone, none of the 2^bits levels changes."""
    side = 2 ** (bits // 2)
    dtype = np.uint8 if bits == 8 else np.uint16
    levels = np.arange(2**bits, dtype=dtype).reshape(side, side)
    array = np.stack([levels, levels.T, levels[::-1]][:channels], axis=-1)
    image = image_files.from_integers(array)
    assert image.shape == (channels, side, side)
    assert (image.min(), image.max()) == (-1, 1)
    for given in (image, array):
        image_files.save(given, tmp_path / "x.png", NOTE, bits)
        assert torch.equal(image_files.load(tmp_path / "x.png"), image)
        found = image_files.read(tmp_path / "x.png")
        assert found.dtype == dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize("bits", [8, 16])
def test_values_are_rounded_to_the_nearest_level_and_clamped(bits: int) -> None:
    """No value moves by more than half a level, and what is beyond [-1, 1] is its end."""
    x = noise(1, 64, 64)
    moved = image_files.from_integers(image_files.to_integers(x, bits)) - x
    half = 1 / (2**bits - 1)  # levels are 2 / (2^bits - 1) apart; float32 adds 1e-7
    assert 0.9 * half < moved.abs().max() <= half + 2e-7
    assert image_files.to_integers(torch.tensor([[[-3.0, 3.0]]]), bits).ravel().tolist() == [
        0,
        2**bits - 1,
    ]


def test_grey_and_colour(tmp_path: Path) -> None:
    """Grey becomes RGB by repeating, RGB grey by the mean; a batch too; other channels are told."""
    grey, colour = noise(2, 1, 4, 4), noise(3, 4, 4)
    assert torch.equal(image_files.to_channels(grey, 3), grey.expand(2, 3, 4, 4))
    expected = (colour[0] + colour[1] + colour[2]) / 3
    torch.testing.assert_close(image_files.to_channels(colour, 1), expected[None])
    assert image_files.to_channels(colour, 3) is colour
    with pytest.raises(ValueError, match="cannot make 3 channels"):
        image_files.to_channels(noise(4, 8, 8), 3)
    with pytest.raises(ValueError, match="16 bits are for grey"):
        image_files.save(colour, tmp_path / "x.png", NOTE, bits=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["1", "P", "CMYK"])
def test_other_modes_load_as_what_they_show(tmp_path: Path, mode: str) -> None:
    """Black and white, palette and CMYK files give the pixels that a viewer shows."""
    array = np.zeros((4, 4, 3), dtype=np.uint8)
    array[1:3] = 255
    image = Image.fromarray(array).convert(mode)
    image.save(tmp_path / "x.tiff")
    loaded = image_files.load(tmp_path / "x.tiff")
    assert loaded.shape[0] == (1 if mode == "1" else 3)
    assert torch.equal(image_files.to_channels(loaded, 3), image_files.from_integers(array))


def tiff(bits: int, photometric: int, pixels: bytes) -> bytes:
    """A grey TIFF of two rows, uncompressed."""
    width = len(pixels) * 8 // bits // 2
    start = 8 + 2 + 9 * 12 + 4  # header, count of tags, tags, no next directory
    values = {256: width, 257: 2, 258: bits, 259: 1, 262: photometric, 273: start}
    values |= {277: 1, 278: 2, 279: len(pixels)}
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + tags + bytes(4) + pixels


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path: Path, bits: int, kind: type) -> None:
    """PhotometricInterpretation 0 says that 0 is white, 1 that it is black: the same picture."""
    levels = np.linspace(0, 2**bits - 1, 8).astype(kind).reshape(2, 4)
    for photometric, written in ((0, np.iinfo(kind).max - levels), (1, levels)):
        (tmp_path / "x.tiff").write_bytes(tiff(bits, photometric, written.tobytes()))
        assert np.array_equal(image_files.read(tmp_path / "x.tiff")[..., 0], levels)
        loaded = image_files.load(tmp_path / "x.tiff")
        assert torch.equal(loaded, image_files.from_integers(levels))


def test_a_tiff_of_12_bits_has_white_pixels(tmp_path: Path) -> None:
    """Its white is 4095; taken for 16 bits it would be almost black."""
    (tmp_path / "x.tiff").write_bytes(tiff(12, 1, b"\xff" * 12))
    assert (image_files.read(tmp_path / "x.tiff") == 65535).all()


# --- levels as the file has them ---


def test_levels_that_would_not_come_back_are_refused(tmp_path: Path) -> None:
    """Palette, CMYK and 16-bit colour, of which PIL would give other levels without a word."""
    for mode, name in (("P", "x.png"), ("CMYK", "x.jpg")):
        Image.new(mode, (8, 8)).save(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} has colours of mode {mode}; save it as grey"):
            image_files.read(tmp_path / name)
    header = b"IHDR" + (1).to_bytes(4, "big") * 2 + b"\x10\x02\0\0\0"
    pixels = b"IDAT" + zlib.compress(b"\0" + bytes(range(6)))
    chunks = [
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        for chunk in (header, pixels, b"IEND")
    ]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"deep\.png has 16-bit colour; save it as 16-bit grey or"):
        image_files.read(tmp_path / "deep.png")


# --- provenance ---


def test_text_survives(tmp_path: Path) -> None:
    """PNG text comes back as it was: line ends, long text, other alphabets, nothing at all."""
    text = {"prompt": "one\ntwo", "negative": "", "note": "Erguß ≥ 3 cm 胸水", "long": "x" * 9999}
    image_files.save(noise(1, 4, 4), tmp_path / "x.png", text)
    assert image_files.read_text(tmp_path / "x.png") == text


def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing fails half way, what was there stays and nothing else is left."""

    def fail(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:20])
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.png"
    image_files.save(noise(1, 4, 4), path, NOTE)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        image_files.save(noise(1, 8, 8), path, NOTE)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == {path: before}


# --- refusals ---


def png(tmp: Path) -> bytes:
    image_files.save(noise(1, 64, 64), tmp / "good.png", NOTE)
    return (tmp / "good.png").read_bytes()


def bomb(data: bytes) -> bytes:
    """The PNG with a header that says 65535 x 65535 pixels."""
    header = b"IHDR" + (65535).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"not an image\n",
    "truncated": lambda data: data[: len(data) // 2],
    "header only": lambda data: data[:33],
    "damaged pixels": lambda data: data.replace(data[len(data) // 2 :][:64], bytes(64)),
    "damaged length": lambda data: re.sub(b".IDAT", b"\0IDAT", data, flags=re.DOTALL),
    "damaged header": lambda data: data[:20] + b"\xff" + data[21:],
    "a bomb": bomb,
}


@pytest.mark.parametrize("case", [*UNREADABLE, "missing", "a folder"])
@pytest.mark.parametrize("read", [image_files.load, image_files.read_text])
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, case: str, read: Callable[[Path], object]
) -> None:
    """A file that is no whole image raises ValueError, one line that names it."""
    path = tmp_path / "bad.png"
    if case == "a folder":
        path.mkdir()
    elif case != "missing":
        path.write_bytes(UNREADABLE[case](png(tmp_path)))
    with pytest.raises(ValueError, match="cannot read the image") as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mode", "name", "message"),
    [
        *((mode, "x.png", "an alpha channel; flatten it") for mode in ("RGBA", "LA", "P")),
        *((mode, "x.tiff", "32 bits, .* save it with 8 or 16 bits") for mode in ("F", "I")),
    ],
)
def test_transparency_and_unknown_ranges_are_refused(
    tmp_path: Path, mode: str, name: str, message: str
) -> None:
    """What lies behind transparent pixels, and which value is white, is not guessed."""
    more = {"transparency": 0} if mode == "P" else {}
    Image.new(mode, (4, 4)).save(tmp_path / name, **more)
    with pytest.raises(ValueError, match=f"{name} has {message}"):
        image_files.load(tmp_path / name)


# --- geometry ---


def test_fit_square_is_the_central_square(tmp_path: Path) -> None:
    """Wide and tall images lose both ends alike; a square of the right size keeps its bits."""
    x = noise(1, 8, 8)
    wide = torch.cat([torch.ones(1, 8, 3), x, torch.ones(1, 8, 3)], dim=2)
    assert torch.equal(image_files.fit_square(wide, 8), x)
    assert torch.equal(image_files.fit_square(wide.mT, 8), x.mT)
    assert torch.equal(image_files.fit_square(wide, 4), image_files.resize(x, 4, 4))


def test_resizing_keeps_flat_images_flat_and_stays_in_range() -> None:
    """A constant stays itself at any size, edges do not overshoot, and shrinking averages."""
    flat = torch.full((1, 9, 7), 0.5)
    torch.testing.assert_close(image_files.resize(flat, 4, 13), torch.full((1, 4, 13), 0.5))
    edge = torch.ones(1, 16, 16)
    edge[..., 8:] = -1
    assert image_files.resize(edge, 50, 50).abs().max() == 1
    board = torch.ones(1, 63, 63)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = -1  # a point sample is black or white
    assert image_files.resize(board, 9, 9)[:, 1:-1, 1:-1].abs().max() < 0.01


def test_grid_holds_every_image_in_reading_order() -> None:
    """Image i stands in row i // columns, column i % columns; gaps and free places are black."""
    x = noise(5, 3, 4, 6)
    sheet = image_files.grid(x, columns=3, gap=1)
    assert sheet.shape == (3, 2 * 5, 3 * 7)
    for i, image in enumerate(x):
        place = sheet[:, i // 3 * 5 :, i % 3 * 7 :][:, :4, :6]
        assert torch.equal(place, image)
        place.fill_(-1)
    assert (sheet == -1).all()
    assert image_files.grid(list(x)).shape == (3, 4 + 2, 5 * (6 + 2))
    assert image_files.grid(noise(9, 1, 4, 4)).shape == (1, 2 * (4 + 2), 8 * (4 + 2))
