"""DICOM read: levels as a viewer shows them, and what may be said of the picture.

Names, dates and UIDs of a patient stay in the file: `facts` gives hashes.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ldm.pictures import bit_depths
from ldm.pictures.bit_depths import PictureError

# centre and width in Hounsfield units, as radiologists have them (radiopaedia.org, Windowing (CT))
WINDOWS = {"lung": (-600.0, 1500.0), "soft": (50.0, 400.0), "bone": (400.0, 1800.0)}
NO_FILMS = ("SEG", "RTDOSE", "PR", "KO", "SR", "RTSTRUCT")  # modalities of what lies beside films
MODALITIES = {"CT": "CT", "MR": "MRI", "US": "ultrasound"}  # as tables have them
LATERAL = ("LL", "RL", "LAT", "LATERAL")  # views from a side
YEARS = {"Y": 1, "M": 12, "W": 52, "D": 365}  # units of an age in a year


def parse_window(text: str) -> tuple[float, float]:
    """Centre and width of `lung`, `soft`, `bone` or "L,W". Raises ValueError."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", text)
    level, width = WINDOWS.get(text) or (map(float, match.groups()) if match else (0.0, 0.0))
    if width <= 1:
        raise ValueError(f"window must be {', '.join(WINDOWS)} or L,W, W above 1, got {text!r}")
    return level, width


def levels(path: str | Path, frame: int | None = None, window: str | None = None) -> np.ndarray:
    """uint8 or uint16 [H, W], or uint8 [H, W, 3] of colour; black 0 and white the most.

    Grey comes through the modality LUT or rescale, then through the first VOI LUT or window, as
    pydicom applies them (PS3.3, C.11.1 and C.11.2); padding is black. Without a window all stored
    levels are shown. frame: of several, from 0;  window: of CT, in the place of the file's own
    """
    centre = parse_window(window) if window else None
    ds = dataset(path)
    with _told(path):
        from pydicom.pixels import apply_color_lut

        if "Rows" not in ds or not any(name in ds for name in ("PixelData", "FloatPixelData")):
            kind = re.fullmatch("[A-Z]{2,16}", str(ds.get("Modality")))
            raise PictureError(f"it holds no picture ({kind[0] if kind else 'of no modality'})")
        if (area := int(ds.Rows) * int(ds.Columns)) > bit_depths.MOST_PIXELS:
            raise PictureError(bit_depths.TOO_LARGE.format(area))
        bit_depths.check_frame(int(ds.get("NumberOfFrames") or 1), frame)
        _take_groups(ds, frame or 0)
        pixels = _decoded(ds, frame or 0)
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, ds)
            return (pixels >> 8).astype(np.uint8) if pixels.dtype.itemsize == 2 else pixels
        if pixels.dtype.kind not in "ui" or int(ds.BitsStored) > 16:
            raise PictureError(f"it has {pixels.dtype.itemsize * 8} bits a pixel, of unknown range")
        if pixels.ndim == 3:
            top = 2 ** int(ds.BitsStored) - 1
            return (pixels * (255 / top)).round().astype(np.uint8) if top != 255 else pixels
        if window and ds.get("Modality") != "CT":
            bit_depths.guesses[bit_depths.NO_CT] += 1
        elif centre:
            ds.pop("VOILUTSequence", None)
            ds.WindowCenter, ds.WindowWidth = centre
            ds.VOILUTFunction = "LINEAR"
        shown = _shown(pixels, ds)
        top = 255 if int(ds.BitsStored) <= 8 else 65535
        return (shown * top).round().astype(np.uint8 if top == 255 else np.uint16)


def _take_groups(ds: Any, frame: int) -> None:
    """What enhanced objects say of a frame's levels, in its own or the shared groups, into `ds`."""
    groups = [*(ds.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]]
    groups += ds.get("SharedFunctionalGroupsSequence") or []
    for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
        for element in next((g[name].value[0] for g in groups if g.get(name)), []):
            if element.keyword not in ds:
                ds[element.tag] = element


def _shown(pixels: np.ndarray, ds: Any) -> np.ndarray:
    """float64 [H, W], 0 black and 1 white"""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    value, limit = (ds.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit"))
    ends = sorted((value, value if limit is None else limit)) if value is not None else (1, 0)
    padding = (pixels >= ends[0]) & (pixels <= ends[1])  # (PS3.3, C.7.5.1.1.2)
    values = apply_modality_lut(pixels, ds)
    bits, signed = int(ds.BitsStored), int(ds.PixelRepresentation) == 1
    item = (ds.get("VOILUTSequence") or [{}])[0]
    if item.get("LUTData") is not None and item.get("LUTDescriptor") is not None:
        low, high = 0.0, 2.0 ** int(item.LUTDescriptor[2]) - 1
        values = apply_voi_lut(values, ds)
    elif ds.get("WindowCenter") is not None and ds.get("WindowWidth") is not None:
        # what the window makes of the darkest and the brightest value that there can be
        low, high = apply_voi_lut(np.array([-np.inf, np.inf]), ds)
        values = apply_voi_lut(values, ds)
    elif ds.get("ModalityLUTSequence"):
        low, high = 0.0, 2.0 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    elif signed:
        kept = values[~padding] if not padding.all() else values
        low, high = float(kept.min()), float(kept.max()) + (kept.min() == kept.max())
        bit_depths.guesses["DICOM without a window, shown from its least to its most"] += 1
    else:
        top = bit_depths.white_level(pixels[~padding]) if bits == 16 else 2**bits - 1
        low, high = sorted(apply_modality_lut(np.array([0, top]), ds))
    shown = (values - low) / (high - low)
    shown = 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown
    shown[padding] = 0
    return shown.clip(0, 1)


def _decoded(ds: Any, frame: int) -> np.ndarray:
    """The stored values [H, W] or [H, W, 3] of a frame."""
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import AllTransferSyntaxes, ImplicitVRLittleEndian

    # an old file without a head has the default (PS3.5, 10.1)
    syntax = ds.file_meta.setdefault("TransferSyntaxUID", ImplicitVRLittleEndian).value
    name = syntax.name if syntax in AllTransferSyntaxes else "an unknown transfer syntax"
    if syntax in AllTransferSyntaxes and not get_decoder(syntax).is_available:
        raise PictureError(f"no decoder of {name} is installed: pip install 'ldm[dicom]'")
    try:
        # pylibjpeg-rle, if it is there, panics past Exception
        plugin = "pydicom" if "RLE" in name else ""
        return pixel_array(ds, index=frame, decoding_plugin=plugin)
    except Exception as e:  # whatever the decoders raise; what is in quotes may be of a patient
        lines = re.sub("'.*'", "...", str(e)).splitlines() or [type(e).__name__]
        reason = lines[-1].strip()
        raise PictureError(f"its pixels are damaged or cut short ({name}: {reason})") from e


def facts(path: str | Path) -> list[dict[str, str]]:
    """A row for each frame: view, sex, age in years, pixel_spacing; patient and series as hashes;
    position in mm along the normal of the slices. What the file does not say is "".
    """
    ds = dataset(path, head=True)
    with _told(path):
        if "Rows" not in ds or ds.get("Modality") in NO_FILMS:
            return []
        age = re.fullmatch(r"(\d{1,3})([YMWD])", str(ds.get("PatientAge") or ""))
        years = int(age[1]) / YEARS[age[2]] if age else 0
        view = str(ds.get("ViewPosition") or "").upper()
        spacing = ds.get("PixelSpacing") or ds.get("ImagerPixelSpacing")
        where, plane = (ds.get(f"Image{what}Patient") for what in ("Position", "Orientation"))
        normal = np.cross(plane[:3], plane[3:]) if plane and where else None
        row = {
            "view": "lateral" if view in LATERAL else view if view in ("PA", "AP") else "",
            "sex": {"M": "M", "F": "F"}.get(str(ds.get("PatientSex") or ""), ""),
            "modality": MODALITIES.get(str(ds.get("Modality")), ""),
            "age": f"{years:.4g}" if age and years <= 120 else "",
            "patient_id": hashed(str(ds.get("PatientID") or "")),
            "series": hashed(str(ds.get("SeriesInstanceUID") or "")),
            "pixel_spacing": "\\".join(map(str, np.atleast_1d(spacing))) if spacing else "",
            "position": "" if normal is None else str(float(np.dot(where, normal))),
        }
        if view and not row["view"]:
            bit_depths.guesses["DICOM with a view that captions have no word for"] += 1
        # a damaged head may name any number, but no more than there are bytes
        count = min(int(ds.get("NumberOfFrames") or 1), Path(path).stat().st_size)
        return [row | {"file_frame": str(i) if count > 1 else ""} for i in range(count)]


def hashed(text: str) -> str:
    """12 hex digits in the place of what names a patient; "" of ""."""
    return sha256(text.encode()).hexdigest()[:12] if text else ""


def read_text(path: str | Path) -> dict[str, str]:
    """The texts of a file that dicom_writing.py wrote; none of any other."""
    ds = dataset(path, head=True)
    with _told(path):
        ours = ds.get("SyntheticData") == "YES" and str(ds.get("ImageComments")).startswith("{")
        return json.loads(ds.ImageComments) if ours else {}


def dataset(path: str | Path, head: bool = False) -> Any:
    """The dataset; its head: all before the pixels."""
    try:
        from pydicom import dcmread
    except ImportError as e:
        raise ValueError(f"{path} is DICOM, which pydicom reads: pip install 'ldm[dicom]'") from e
    # its warnings hold values of the file, its errors tracebacks
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with _told(path):
        return dcmread(path, force=True, stop_before_pixels=head)


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Whatever a damaged file makes pydicom raise, as a ValueError in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these, too, may hold what the file says of a patient
            yield
    except MemoryError:
        raise
    except Exception as e:
        ours = isinstance(e, PictureError)  # pydicom's words may hold what is said of the patient
        reason = str(e) if ours else f"its head is damaged ({type(e).__name__})"
        raise ValueError(f"cannot read the DICOM {path}: {reason}") from e
