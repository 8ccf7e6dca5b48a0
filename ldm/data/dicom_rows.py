"""Rows of films in DICOM: one a frame, with what the file says, slices in the order of the body."""

from collections.abc import Sequence
from pathlib import Path

from ldm.data import DataConfig, row_captions
from ldm.pictures import dicom_files, image_files


def expanded(
    rows: Sequence[dict[str, str]], config: DataConfig
) -> tuple[list[dict[str, str]], int]:
    """The rows, of each DICOM one a frame, with `dicom_files.facts`, and a caption made of them.

    Slices of a series stand where its first file is, in order of position. The number is of DICOM
    without a picture, which are left out.
    """
    kept: list[tuple[int, float, dict[str, str]]] = []
    first: dict[str, int] = {}  # the place of the first file of a series
    empty = 0
    for place, row in enumerate(rows):
        plain = Path(row["path"]).suffix.lower() in image_files.SUFFIXES
        dicom = not plain and image_files.is_dicom(row["path"])
        try:
            found = dicom_files.facts(row["path"]) if dicom else [row]
        except ValueError:  # damaged, which is said when it is loaded, or left out by --skip-bad
            dicom, found = False, [row]
        empty += not found
        for said in found:
            series, position = said.get("series"), said.get("position")
            start = first.setdefault(series, place) if series and position else place
            told = row.get("caption") or row.get("labels") or not dicom
            caption = row.get("caption", "") if told else _caption(config.caption, said)
            kept.append((start, float(position or 0), {**row, **said, "caption": caption}))
    return [row for *_, row in sorted(kept, key=lambda film: film[:2])], empty


def _caption(start: str, said: dict[str, str]) -> str:
    """ "a photo of a lung xray, PA view, 47 year old man" """
    view = f"{said['view']} view" if said["view"] else ""
    years = int(float(said["age"] or 0))
    age = f"{years} year old " if years else ""
    who = age + row_captions.WORDS["people"][said["sex"]][0] if age or said["sex"] else ""
    return ", ".join(filter(None, (start, view, who)))


def sample_id(name: str, row: dict[str, str]) -> str:
    """The name of a film without its patient: that of DICOM, often a UID, is hashed."""
    plain = Path(row["path"]).suffix.lower() in image_files.SUFFIXES
    frame = row.get("file_frame") or ""
    return (name if plain else dicom_files.hashed(name)) + (f"-{frame}" if frame else "")
