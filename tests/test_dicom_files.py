"""DICOM read: the levels of pydicom's own path, or the reason; nothing of a patient leaves."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data import DataConfig
from ldm.data.file_dataset import Files
from ldm.data.image_sets import load_each, open_set
from ldm.pictures import bit_depths, image_files
from ldm.pictures.dicom_files import WINDOWS, facts, levels, parse_window

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
SHIPPED = [
    path
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*"))
    if path.is_file() and image_files.is_dicom(path)
]
X = np.arange(1024, dtype=np.uint16).reshape(32, 32)
WHO = {"PatientName": "Doe^Jane", "PatientID": "MRN 4711", "PatientBirthDate": "19700102"}


def film(path: Path, pixels: np.ndarray = X, **more: object) -> Path:
    """A DX film of 12 bits, or with other attributes."""
    given = {"SOPInstanceUID": "1.2.3.4", "Modality": "DX", "BitsStored": 12, **WHO, **more}
    kind, bits = given.pop("PhotometricInterpretation", "MONOCHROME2"), given.pop("BitsStored")
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    ds.set_pixel_data(pixels, kind, bits, generate_instance_uid=False)
    for name, value in given.items():
        setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def by_pydicom(path: Path) -> np.ndarray:
    """Grey of 0 to 1: apply_modality_lut and apply_voi_lut, over the range that they can have."""
    ds = pydicom.dcmread(path)
    values = pydicom.pixels.apply_modality_lut(pydicom.pixels.pixel_array(ds), ds)
    values = pydicom.pixels.apply_voi_lut(values, ds)
    slope, start = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low, high = 0, 2**ds.BitsStored - 1
    if "VOILUTSequence" in ds:
        slope, start, high = 1, 0, 2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" not in ds and ds.PixelRepresentation:
        slope, start, low, high = 1, 0, values.min(), values.max()
    elif ds.PixelRepresentation:
        low, high = -(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1
    grey = (values - (low * slope + start)) / ((high - low) * slope)
    return (1 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey).clip(0, 1)


REASONS = {  # part of the path -> the reason; SE000000 has heads of CT without pixels
    "rtplan_truncated": "it holds no picture (RTPLAN)",
    "rtdose": "32 bits a pixel",
    "32bit": "32 bits a pixel",
    "truncated": "damaged or cut short (Explicit VR Little Endian: The number of bytes",
    "JPEG-lossy": "damaged or cut short (JPEG Extended",
    "embedded-sequence": "damaged or cut short (JPEG 2000",
    "badVR": "its head is damaged (ValueError)",
}
NONE = (
    "DICOMDIR",
    "rtp",
    "rts",
    "SR",
    "report",
    "waveform",
    "_sequence",
    "SQ",
    "meta",
    "Meta",
    "charset",
)
REASONS |= dict.fromkeys((*NONE, "SE000000"), "it holds no picture")


def test_every_file_of_pydicom_is_read_as_by_pydicom_or_refused() -> None:
    """Grey levels are those of pydicom's LUTs; else the reason is in the line."""
    read = 0
    for path in SHIPPED:
        name = str(path).partition("test_files/")[2]
        why = next((why for part, why in REASONS.items() if part in name), None)
        ds = pydicom.dcmread(path, force=True)
        if why or int(ds.get("NumberOfFrames", 1)) > 1:
            with pytest.raises(ValueError, match=r"^cannot read the DICOM .*$") as error:
                levels(path, 0 if why else None)
            assert (why or f"it has {ds.NumberOfFrames} pages or frames") in str(error.value)
            continue
        read, found = read + 1, levels(path)
        if found.ndim == 3:
            shown = pydicom.pixels.pixel_array(ds)
            if "PALETTE" in ds.PhotometricInterpretation:
                shown = pydicom.pixels.apply_color_lut(shown, ds)
            assert np.array_equal(found, shown if shown.dtype == np.uint8 else shown >> 8), name
        else:
            want = by_pydicom(path) * np.iinfo(found.dtype).max
            assert np.abs(found - want).max() <= 0.5 + 1e-6, name
    assert read > 70


WINDOW, INVERTED = {"WindowCenter": 600, "WindowWidth": 800}, "MONOCHROME1"
ROOTS = pydicom.Sequence([pydicom.Dataset()])
ROOTS[0].add_new("LUTDescriptor", "US", [1024, 0, 12])
ROOTS[0].add_new("LUTData", "US", np.sqrt(X * 16383.0).ravel().astype(int).tolist())
SIGNED = (X.astype(np.int16) - 512) * 3
CASES: dict[str, tuple[np.ndarray, dict]] = {
    "12 bits, no window": (X * 4, {}),
    "MONOCHROME1": (X * 4, {"PhotometricInterpretation": INVERTED}),
    "10 bits stored": (X, {"BitsStored": 10}),
    "a window": (X * 4, WINDOW),
    "the first of two windows": (X * 4, {"WindowCenter": [900, 9], "WindowWidth": [700, 1]}),
    "sigmoid": (X, {**WINDOW, "VOILUTFunction": "SIGMOID"}),
    "linear exact": (X, {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"}),
    "rescaled": (X * 4, {"RescaleSlope": 0.5, "RescaleIntercept": -100, **WINDOW}),
    "VOI LUT before the window": (X, {"VOILUTSequence": ROOTS, **WINDOW}),
    "signed, no window": (SIGNED, {"BitsStored": 16}),
    "signed with a window": (SIGNED, {"BitsStored": 16, "WindowCenter": 40, "WindowWidth": 400}),
    "8 bits": ((X // 4).astype(np.uint8), {"BitsStored": 8}),
}


@pytest.mark.parametrize("case", CASES)
def test_levels_are_those_of_pydicom(tmp_path: Path, case: str) -> None:
    """LUTs, windows, signs and MONOCHROME1 of a film made here: pydicom's values, rounded once."""
    path = film(tmp_path / "x", CASES[case][0], **CASES[case][1])
    found = image_files.read(path)[..., 0]
    assert np.abs(found - by_pydicom(path) * np.iinfo(found.dtype).max).max() <= 0.5 + 1e-6
    assert np.ptp(found) > 0


def test_padding_is_black_and_counts_for_nothing(tmp_path: Path) -> None:
    """PixelPaddingValue ... RangeLimit: black in MONOCHROME1, too, and outside least and most."""
    pixels = SIGNED.copy()
    pixels[:4] = -2000
    more = {"BitsStored": 16, "PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        found = levels(film(tmp_path / "x", pixels, PhotometricInterpretation=kind, **more))
        assert (found[:4] == 0).all()
        assert sorted((found[4, 0], found[-1, -1])) == [0, 65535]


@pytest.mark.parametrize("window", [*WINDOWS, "-500.5,800"])
def test_ct_comes_through_a_window_of_a_name(tmp_path: Path, window: str) -> None:
    """data.window in Hounsfield units replaces the file's; of other modalities it is not used."""
    level, width = parse_window(window)
    ends = [level - width, level - width / 2, level - 0.5, level + width / 2, level + width]
    pixels = np.tile(np.array(ends) * 2, (8, 1)).astype(np.int16)
    scale = {"RescaleSlope": 0.5, "RescaleIntercept": 0, "BitsStored": 16}
    film(tmp_path / "x", pixels, Modality="CT", **scale, **WINDOW)
    config = DataConfig(path=str(tmp_path), size=8, window=window, cache=str(tmp_path / "c"))
    found, want = Files(config, 1).load(0)[0, 0], torch.tensor([-1.0, -1, 0, 1, 1])
    torch.testing.assert_close(found, want, atol=4 / width, rtol=0)
    film(tmp_path / "x", X)
    bit_depths.guesses.clear()
    assert np.array_equal(levels(tmp_path / "x", None, window), levels(tmp_path / "x"))
    assert bit_depths.guesses[bit_depths.NO_CT] == 1


@pytest.mark.parametrize("text", ["brain", "1", "40,", "40,0", "a,b", "40,400,1"])
def test_an_unknown_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="window must be lung, soft, bone or L,W"):
        parse_window(text)


def test_a_tree_of_dicom_is_a_set_of_films_without_patients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files without suffix, slices by position, frames apart, captions; ids hashed."""
    plane = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "SeriesInstanceUID": "1.2.9"}
    for name, z in {"IM1": 20.0, "IM2": -5.0, "IM3": 7.5}.items():
        film(tmp_path / name, X, ImagePositionPatient=[0, 0, z], **plane)
    (tmp_path / "a").mkdir()
    said = {"ViewPosition": "PA", "PatientSex": "F", "PatientAge": "047Y"}
    film(tmp_path / "a" / "1.2.840.4711", PixelSpacing=[0.2, 0.3], **said)
    film(tmp_path / "a" / "loop.dcm", np.stack([X, X // 2]))
    (tmp_path / "zz").write_bytes(
        next(path for path in SHIPPED if path.name == "rtplan.dcm").read_bytes()
    )
    (tmp_path / "notes.pdf").write_bytes(b"PK")
    (tmp_path / "report.19700102").write_bytes(b"PK")
    (tmp_path / "._IM1").write_bytes(b"\0\5\x16\7")
    config = DataConfig(path=str(tmp_path), size=16, cache=str(tmp_path / ".cache"))
    with caplog.at_level(logging.INFO):
        films = Files(config, 1)
        list(load_each(open_set(str(tmp_path))))
    rows = [Path(row["path"]).name for row in films.rows]
    assert rows == ["IM2", "IM3", "IM1", "1.2.840.4711", "loop.dcm", "loop.dcm"]
    assert films.caption(3, 0) == "a photo of a lung xray, PA view, 47 year old woman"
    assert films.rows[3]["pixel_spacing"] == "0.2\\0.3"
    assert len(set(films.ids)) == 6
    assert not torch.equal(films.load(4), films.load(5))
    told = caplog.text + str(films.ids) + str([films.patient(i) for i in range(6)])
    secrets = ("Doe", "Jane", "MRN", "4711", "1970", "1.2.", "IM1")
    assert not [word for word in secrets if word in told]
    for left in (
        "1 DICOM without a picture",
        "1 hidden",
        "1 .pdf",
        "1 of another kind",
    ):
        assert left in told


AGES = [("047Y", "47"), ("006M", "0.5"), ("014D", "0.03836"), ("026W", "0.5"), ("", "")]


@pytest.mark.parametrize(("age", "years"), AGES)
def test_ages_are_years(tmp_path: Path, age: str, years: str) -> None:
    """And a view is one that captions have a word for, or is told."""
    bit_depths.guesses.clear()
    for view, said in (("RL", "lateral"), ("ap", "AP"), ("LLD", "")):
        assert facts(film(tmp_path / "x", ViewPosition=view))[0]["view"] == said
    assert sum(bit_depths.guesses.values()) == 1
    assert facts(film(tmp_path / "x", PatientAge=age))[0]["age"] == years


def test_a_missing_decoder_or_pydicom_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one line that says what to install; PNGs are read without pydicom."""
    path = next(path for path in SHIPPED if path.name == "MR_small_jpeg_ls_lossless.dcm")
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless)
    monkeypatch.setattr(type(decoder), "is_available", False)
    with pytest.raises(ValueError, match=r"no decoder of JPEG-LS .* pip install 'ldm\[dicom\]'"):
        levels(path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match="is DICOM, which pydicom reads: pip install"):
        image_files.load(path)
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "x.png", {})
    assert open_set(str(tmp_path)).load(0).shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["Modality", "PhotometricInterpretation", "Manufacturer"])
def test_an_error_says_nothing_that_a_damaged_head_says(tmp_path: Path, name: str) -> None:
    """Whatever lies where a word of the standard should, it may be of a patient."""
    with pydicom.config.disable_value_validation():
        ds = pydicom.dcmread(film(tmp_path / "x"))
        setattr(ds, name, "DOE^JANE")
        if name != "PhotometricInterpretation":
            del ds.PixelData
        ds.save_as(tmp_path / "x")
    with pytest.raises(ValueError, match="cannot read the DICOM") as error:
        levels(tmp_path / "x")
    assert "DOE" not in str(error.value)


def sequence(**said: object) -> "pydicom.Sequence":
    item = pydicom.Dataset()
    for name, value in said.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroups"])
def test_enhanced_ct_has_its_rescale_and_window_in_groups(tmp_path: Path, place: str) -> None:
    """The same levels as a plain slice, by the file's own window and by one that is asked for."""
    scale = {"RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU"}
    own = {"WindowCenter": 40, "WindowWidth": 400}
    plain = film(tmp_path / "plain.dcm", Modality="CT", **scale, **own)
    transform = {"PixelValueTransformationSequence": sequence(**scale)}
    groups = sequence(**transform, FrameVOILUTSequence=sequence(**own))
    place = place if place.startswith("Shared") else f"{place}Sequence"
    enhanced = film(tmp_path / "e.dcm", Modality="CT", **{place: groups})
    for window in (None, "lung", "bone"):
        assert np.array_equal(levels(enhanced, window=window), levels(plain, window=window))


def test_what_lies_beside_films_is_no_film(tmp_path: Path) -> None:
    film(tmp_path / "a.dcm")
    for modality in ("SEG", "RTDOSE"):
        film(tmp_path / f"{modality}.dcm", Modality=modality)
    asked = open_set(str(tmp_path))
    assert len(asked) == 1
    assert "2 DICOM without a picture" in asked.count


def test_a_labelled_folder_of_dicom_keeps_its_label(tmp_path: Path) -> None:
    (tmp_path / "PNEUMONIA").mkdir()
    film(tmp_path / "PNEUMONIA" / "a.dcm", ViewPosition="PA", PatientAge="047Y", PatientSex="M")
    films = Files(DataConfig(path=str(tmp_path), size=32, cache=str(tmp_path / "c")), 1)
    said = " ".join(films.caption(0, wording) for wording in range(20))
    assert "pneumonia" in said
    assert "47 year old man" in said


def test_a_damaged_head_is_found_when_the_film_is_loaded(tmp_path: Path) -> None:
    """So that --skip-bad goes on without it."""
    film(tmp_path / "a.dcm")
    whole = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:200])
    asked = open_set(str(tmp_path))
    assert len([pair for pair in load_each(asked, skip_bad=True)]) == 1
