"""Images and texts with known findings, for training and for measuring.

phantom            computed chest radiographs of known truth
datasets           files and phantoms to train on, their pixels and latents cached, and batches
augmentation       random changes of training images
image_sets         files and phantoms to measure; rows of a folder or CSV: paths, labels, ids
csv_tables         rows of any CSV
cache              rows of numbers in a file, made when first asked for
caption_corpus     captions without images, split into training and held out
labelled_reports   reports with one label each: Open-I's, and those of a CSV
mesh_terms         MeSH terms of Open-I -> classes of CheXpert
prompt_parser      the findings that a prompt asks for
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """Radiographs with captions: files, phantoms, or both."""

    path: str | None = None  # a folder of images or a CSV; null: phantoms only
    split: str | None = "train"  # rows of the CSV with this `split`, where it has that column
    share: float = 1.0  # of the images from `path`; the rest are phantoms
    caption: str = "a photo of a lung xray"  # of images that come without one
    phantoms: int = 16000
    phantom_seed: int = 0  # phantoms phantom_seed ... phantom_seed + phantoms - 1
    exclude: tuple[str, ...] = ()  # findings that no image has, by label or phantom
    size: int = 128  # pixels
    augment: bool = True  # small shifts, zooms and contrast for files; never flips
    cache: str = "cache"  # pixels (of patients, too) and latents; safe to delete
