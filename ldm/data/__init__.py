"""Images and texts with known findings, for training and for measuring.

phantom            computed films, CT, MR and ultrasound of known truth
datasets           files and phantoms to train on, in batches, and their latents
file_dataset       the files among them: squares, captions, masks of padding
attributes         region, modality, view, sex and age of rows and of phantoms
augmentation       random changes of training images
sources            several tables: which rows, which are held out, how often each is drawn
row_captions       captions in many wordings from the columns of a table
image_sets         files and phantoms to measure: pixels, labels, ids
film_rows          the films of a folder or a table that are used, and where their files are
film_count         how many those are, how many are left out, and why
film_cells         what cells of a table say: view, sex, age, labels in any spelling
dicom_rows         rows of DICOM: frames, slices in order, what the file says
published_sets     public sets of chest films as they come
csv_tables         rows of any table of text
cache              rows of numbers in a file, made when first asked for
caption_corpus     captions without images, split into training and held out
labelled_reports   reports with one label each: Open-I's, and those of a CSV
mesh_terms         MeSH terms of Open-I -> classes of CheXpert
prompt_parser      the findings that a prompt asks for
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HoldOut:
    """Which rows of a source are never trained on, by patient or block (data/sources.py)."""

    of: str = ""  # the column whose cells are classes; "": all rows are one
    least: int = 0  # rows of each class, at least
    share: float = 0.0  # of each class


@dataclass(frozen=True)
class DataSource:
    """One of several tables of images."""

    path: str  # a folder of images, a CSV or phantoms:N:SEED:region=knee
    share: float = 1.0  # of every batch, relative to the other sources
    where: dict[str, Any] = field(default_factory=dict)  # {column: a cell, or a list of cells}
    captions: Literal["given", "templates"] = "given"  # of the row, or made from its columns
    group: str = ""  # the column whose cells are balanced, see DataConfig.balance
    hold_out: HoldOut = field(default_factory=HoldOut)


@dataclass(frozen=True)
class DataConfig:
    """Radiographs with captions: files, phantoms, or both."""

    path: str | None = None  # a folder, a CSV or phantoms:N:SEED:region=knee; null: chest phantoms
    root: str | None = None  # the folder that a table's films may lie in; null: the table's own
    split: str | None = "train"  # rows of the CSV with this `split`, where it has that column
    sources: tuple[DataSource, ...] = ()  # several, in the place of `path`
    balance: float = 0.5  # a group of n images of a source is drawn as often as n^balance
    share: float = 1.0  # of the images from `path` or `sources`; the rest are phantoms
    caption: str = "a photo of a lung xray"  # of images that come without one
    phantoms: int = 16000
    phantom_seed: int = 0  # phantoms phantom_seed ... phantom_seed + phantoms - 1
    exclude: tuple[str, ...] = ()  # findings that no image has, by label or phantom
    # what a table calls uncertain (CheXpert's -1; of VinDr-CXR, a minority of its readers)
    uncertain: Literal["positive", "negative", "unknown"] = "positive"
    strict: bool = False  # is a film that cannot be used an error, not counted and left out?
    # given captions over 77 tokens: the tower sees their start, one sentence drawn anew each time
    # (of the impression, if they have one), or all of it in pieces that the U-Net attends to
    long_captions: Literal["cut", "error", "sentences", "chunks"] = "cut"
    size: int = 128  # pixels
    # files into squares: the middle, all of it with black borders that no loss sees, or distorted
    fit: Literal["crop", "pad", "stretch"] = "crop"
    window: str | None = None  # of CT in DICOM: lung, soft, bone or L,W; null: the file's own
    augment: bool = True  # small shifts, zooms and contrast for files; never flips
    cache: str = "cache"  # pixels (of patients, too) and latents; safe to delete
