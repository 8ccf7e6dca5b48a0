"""The table `data` of a training run: which radiographs, at which size."""

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
