"""DICOM out: valid, of no patient, marked as synthetic, and the same bytes when drawn again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_line

import sample
from ldm.pictures import dicom_writing, image_files
from ldm.pictures.dicom_files import facts
from ldm.system import cli

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
TEXT = {"synthetic": "Drawn by a model.", "prompt": "Erguß\nlinks", "seed": "0", "index": "3"}
TEXT |= {"batch": "0-7", "software": "ldm 9"}

# type 1 and 2 attributes of the modules that each IOD requires: DICOM PS3.3 A.2.3 (CR), A.3.3 (CT)
# and A.26.3 (DX); modules C.7.1.1 Patient, C.7.2.1 General Study, C.7.3.1 General Series, C.7.5.1
# General Equipment, C.7.6.1 General Image, C.7.6.3 Image Pixel, C.12.1 SOP Common
ALL_1 = (
    "StudyInstanceUID SeriesInstanceUID Modality SOPClassUID SOPInstanceUID SamplesPerPixel "
    "PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelData"
)
ALL_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber "
    "ReferringPhysicianName StudyID SeriesNumber Manufacturer InstanceNumber"
)
TYPE_1 = {
    "CR": "",
    # C.8.11.1 DX Series, C.8.11.2 DX Anatomy Imaged, C.8.11.3 DX Image, C.8.11.4 DX Detector
    "DX": "PresentationIntentType ImageLaterality ImageType BurnedInAnnotation "
    "PixelIntensityRelationship PixelIntensityRelationshipSign RescaleIntercept RescaleSlope "
    "RescaleType LossyImageCompression PresentationLUTShape ImagerPixelSpacing "
    "WindowCenter WindowWidth",  # 1C: for presentation
    # C.7.4.1 Frame of Reference, C.7.6.2 Image Plane, C.8.2.1 CT Image
    "CT": "FrameOfReferenceUID ImagePositionPatient ImageOrientationPatient PixelSpacing ImageType "
    "RescaleIntercept RescaleSlope RescaleType",
}
TYPE_2 = {
    "CR": "BodyPartExamined ViewPosition PatientOrientation",  # C.8.1.1 CR Series; 2C
    "DX": "AnatomicRegionSequence DetectorType AcquisitionContextSequence PatientOrientation",
    "CT": "PositionReferenceIndicator SliceThickness KVP AcquisitionNumber",
}


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("modality", TYPE_1)
def test_a_file_is_valid_and_opens_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str, number: int
) -> None:
    """Every type 1 and 2 attribute is there; pydicom, SimpleITK and we read the same pixels."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK, of the extra `test`, is missing")
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.RAISE)
    kind, channels = ((np.uint8, 1), (np.uint16, 1), (np.uint8, 3))[number % 3]
    luck = np.random.default_rng(number)
    shape = (33 + number, 47 - number, channels)
    picture = luck.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    path, text = tmp_path / "x.dcm", TEXT | {"index": str(number)}
    dicom_writing.save(picture, path, text, modality)
    first = path.read_bytes()
    dicom_writing.save(picture, path, text, modality)
    assert path.read_bytes() == first
    ds = pydicom.dcmread(path)
    for name in f"{ALL_1} {TYPE_1[modality]}".split():
        assert ds[name].value not in (None, "", b""), name
    for name in f"{ALL_2} {TYPE_2[modality]}".split():
        assert name in ds, name
    assert ds[0x0008001C].value == "YES"
    assert "Drawn by a model." in ds.DerivationDescription
    assert not any(ds[name].value for name in ALL_2.split()[:9])
    uids = [ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID]
    assert len(set(uids)) == 3
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)
    grey = picture.mean(axis=2).round()
    assert np.array_equal(ds.pixel_array, grey)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0], grey)
    shown = image_files.load(path)[0]
    torch.testing.assert_close(
        shown, torch.from_numpy(grey / np.iinfo(kind).max * 2 - 1).float(), atol=1e-6, rtol=0
    )
    assert image_files.read_text(path) == text


def test_pictures_of_one_order_are_a_study(tmp_path: Path) -> None:
    """Index and prompt tell series and pictures apart; another seed or size is another study."""
    found = []
    for change in ({}, {"index": "4"}, {"prompt": "x"}, {"seed": "1"}):
        picture = np.zeros((8, 8, 1), np.uint8)
        dicom_writing.save(picture, tmp_path / "x.dcm", TEXT | change, "DX")
        found.append(pydicom.dcmread(tmp_path / "x.dcm"))
    assert len({ds.StudyInstanceUID for ds in found}) == 2
    assert len({ds.SeriesInstanceUID for ds in found}) == 4
    assert len({ds.SOPInstanceUID for ds in found}) == 4


def draw(*options: object) -> int | str | None:
    try:
        given = ["--steps", 1, "--device", "cpu", *options]
        return cli.run(lambda: sample.main([str(option) for option in given]), "sample.py")
    except SystemExit as stop:
        return stop.code


def test_sample_writes_dicom_and_draws_it_again(tmp_path: Path, model: Path) -> None:
    """--dicom writes 00000.dcm ...; --from it gives the same bytes; --init keeps its spacing."""
    base, out = ("--model", model, "--prompt", "lung xray"), tmp_path / "out"
    assert draw(*base, "--n", 2, "--dicom", "--modality", "CT", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["00000.dcm", "00001.dcm", "grid.png"]
    assert pydicom.dcmread(out / "00001.dcm").Modality == "CT"
    again = tmp_path / "again"
    command = ("--model", model, "--from", out / "00001.dcm", "--out", again)
    assert cli.run(lambda: sample.main([str(part) for part in command]), "sample.py") == 0
    assert (again / "00001.dcm").read_bytes() == (out / "00001.dcm").read_bytes()
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    dicom_writing.save(levels, tmp_path / "x.dcm", TEXT, "DX", "0.2\\0.3")
    assert facts(tmp_path / "x.dcm")[0]["pixel_spacing"] == "0.2\\0.3"
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[20:40, 20:40] = 255
    image_files.save(mask, tmp_path / "m.png", {})
    edit = ("--init", tmp_path / "x.dcm", "--mask", tmp_path / "m.png", "--resample", 1)
    assert draw(*base, *edit, "--dicom", "--out", tmp_path / "edit") == 0
    ds = pydicom.dcmread(tmp_path / "edit" / "00000.dcm")
    assert (ds.Modality, [*ds.ImagerPixelSpacing], ds.BitsStored) == ("DX", [0.2, 0.3], 16)
    kept = mask[..., 0] == 0
    assert np.array_equal(ds.pixel_array[kept], levels[..., 0][kept])
    assert "may be of a patient" in ds.DerivationDescription
    assert json.loads(ds.ImageComments)["dicom"] == "DX"


def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("--model", model, "--prompt", "lung xray", "--out", tmp_path / "out")
    assert draw(*base, "--modality", "CT") == 2
    assert_one_line(capsys.readouterr().err, "--modality is of DICOM; give --dicom, too")
    monkeypatch.setattr(dicom_writing.importlib.util, "find_spec", lambda name: None)
    assert draw(*base, "--dicom") == 2
    assert_one_line(
        capsys.readouterr().err, "DICOM is written by pydicom: pip install 'ldm[dicom]'"
    )
    with pytest.raises(ValueError, match="modality of DICOM must be CR, DX or CT, got 'MR'"):
        dicom_writing.check("MR")
    assert not (tmp_path / "out").exists()
