"""Synthetic pictures written as DICOM images of no patient (PS3.3: CR A.2, CT A.3, DX A.26)."""

import importlib.util
import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ldm.pictures import bit_depths
from ldm.system.atomic import whole_file

ROOT = "2.25"  # the root of UIDs that are a UUID, which nobody has to register (PS3.5, B.2)
FIELD = 400.0  # mm of the longer side of a picture whose spacing nobody knows
# attributes with their values for all modalities and for each, empty where nobody knows them
VALUES = json.loads(Path(__file__).with_name("dicom_values.json").read_text(encoding="utf-8"))


def check(modality: str) -> None:
    """Raises ValueError if DICOM of this modality cannot be written here."""
    if modality not in ("CR", "DX", "CT"):
        raise ValueError(f"the modality of DICOM must be CR, DX or CT, got {modality!r}")
    if importlib.util.find_spec("pydicom") is None:
        raise ValueError("DICOM is written by pydicom: pip install 'ldm[dicom]'")


def uid(*parts: object) -> str:
    """A UID under ROOT that is a function of the parts."""
    return f"{ROOT}.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(parts, sort_keys=True)).int}"


def save(
    picture: np.ndarray,
    path: Path,
    text: Mapping[str, str],
    modality: str,
    spacing: str | None = None,
) -> None:
    r"""Write a picture, whole or not at all; the same again is the same file, byte for byte.

    The pictures of one order are a study. Values of CT are no Hounsfield units (RescaleType US).

    picture: uint8 or uint16 [H, W, C];  text: as of a PNG; `dicom_files.read_text` gives it back
    spacing: of rows and columns in mm, "0.2\0.2"; None: FIELD for the longer side
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian
    from pydicom.valuerep import DSfloat

    bits, ct = 8 * picture.itemsize, modality == "CT"
    grey = picture.mean(axis=2).round().astype(np.uint16 if ct else picture.dtype)
    if np.ptp(picture, axis=2).any():
        bit_depths.guesses["colour written as grey, the mean of its channels"] += 1
    sides = spacing.split("\\") if spacing else [FIELD / max(grey.shape)] * 2
    order = {key: text[key] for key in text if key not in ("index", "batch", "prompt")}
    ds, what = Dataset(), {**text, "modality": modality}
    values = {
        **VALUES["all"],
        **VALUES[modality],
        "Modality": modality,
        "StudyInstanceUID": uid("study", order),
        "SeriesInstanceUID": uid("series", what),
        "SOPInstanceUID": uid("picture", what, grey.tobytes().hex()),
        "InstanceNumber": int(text["index"]) + 1,
        "DerivationDescription": f"{text['synthetic']} Its pixel spacing is "
        f"{'that of the given image' if spacing else 'nominal'}.",
        "ImageComments": json.dumps(dict(text)),
        "WindowCenter": 2 ** (bits - 1),
        "WindowWidth": 2**bits,
        **({"FrameOfReferenceUID": uid("frame of reference", what)} if ct else {}),
        "PixelSpacing" if ct else "ImagerPixelSpacing": [DSfloat(mm, True) for mm in sides],
    }
    for name, value in values.items():
        setattr(ds, name, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(uid("ldm"))
    ds.file_meta.ImplementationVersionName = "LDM"
    stored = max(bits, 12) if ct else bits
    ds.set_pixel_data(grey, "MONOCHROME2", stored, generate_instance_uid=False)
    with whole_file(path) as unfinished:
        ds.save_as(unfinished, enforce_file_format=True)
