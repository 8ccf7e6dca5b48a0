"""Reconstructions of images by the autoencoder, and how near they are to the originals."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm import rng
from ldm.config import ConfigError, ModelConfig
from ldm.data.image_sets import ImageSet
from ldm.drawing.drawing_settings import PIXELS_AT_ONCE
from ldm.judging.extractors import Extractor
from ldm.metrics import fid
from ldm.metrics.estimate import mean
from ldm.metrics.fid import Array
from ldm.metrics.image_quality import psnr, rmse, ssim
from ldm.pictures import image_files
from ldm.report.page import Table
from ldm.report.set_distances import read_batches
from ldm.vae import VAE, Posterior
from ldm.weights.loading import build, load_parts, weights_hash

HOW = ("sample", "mean")  # of the posterior: what is decoded
ORIGINAL = "original"
# of pairs [H, W] in [-1, 1]; RMSE on torchxrayvision's [-1024, 1024], as arXiv:2210.04133's
FIGURES: dict[str, Callable[[Array, Array], float]] = {
    "RMSE": lambda a, b: 1024 * rmse(a, b),
    "PSNR": lambda a, b: psnr(a, b, span=2),
    "SSIM": lambda a, b: ssim((a + 1) / 2, (b + 1) / 2, span=1),  # black must be 0
}
QUANTILES = {"least": 0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1}


@dataclass(frozen=True)
class Copier:
    """An autoencoder for images of one size.

    channels: of its images;  weights: their hash
    """

    vae: VAE
    channels: int
    size: int
    seed: int = 0
    device: torch.device | str = "cpu"
    weights: str = ""

    @property
    def at_once(self) -> int:
        """Images of a batch: 16 of 128 px, one of 512."""
        return max(1, PIXELS_AT_ONCE // self.size**2)

    def fit(self, image: Tensor) -> Tensor:
        """[C, H, W] -> [1, size, size]: the central square, as in training, and grey."""
        return image_files.fit_square(image_files.to_channels(image, 1), self.size)

    @torch.inference_mode()
    def __call__(self, originals: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
        """{how: reconstructions} of grey originals, all [B, 1, H, W] in [-1, 1].

        indices: key the noise: image 7 has the same in any batch
        """
        posterior = self._encode(originals)
        shape = posterior.mean.shape[1:]
        noise = [
            torch.randn(shape, generator=rng.generator(self.seed, "posterior", i)) for i in indices
        ]
        sampled = posterior.sample(torch.stack(noise).to(self.device))
        return {"sample": self._decode(sampled), "mean": self._decode(posterior.mean)}

    @torch.inference_mode()
    def means(self, originals: Tensor) -> Tensor:
        """The decoded posterior means of any number of grey originals [n, 1, H, W]."""
        parts = originals.split(self.at_once)
        return torch.cat([self._decode(self._encode(part).mean) for part in parts])

    def _encode(self, originals: Tensor) -> Posterior:
        return self.vae.encode(image_files.to_channels(originals, self.channels).to(self.device))

    def _decode(self, z: Tensor) -> Tensor:
        decoded = self.vae.decode(z).float().cpu()
        if not decoded.isfinite().all():
            raise FloatingPointError(
                "the reconstruction is not finite: the VAE's weights are broken"
            )
        return image_files.to_channels(decoded.clamp(-1, 1), 1)


def open_copier(
    path: str | Path,
    config: ModelConfig | None = None,
    size: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Copier:
    """The VAE of weights in any layout; ConfigError if it has none, or for a size it cannot encode.

    size: pixels of a side; None: the model's
    """
    config, parts = load_parts(path, config)
    if "vae" not in parts:
        raise ConfigError(f"{path} has no vae; name a model with one")
    size = size or config.image_size
    if size % config.vae.factor:
        raise ConfigError(
            f"this VAE encodes sides that are multiples of {config.vae.factor}, not {size}; it was "
            f"trained at {config.image_size}"
        )
    vae: VAE = build("vae", config, parts["vae"]).to(device)  # type: ignore[assignment]  # by name
    digest = weights_hash({"vae": parts["vae"]})
    return Copier(vae, config.vae.image_channels, size, seed, device, digest)


@dataclass
class Copies:
    """A set before and after, image by image.

    figures: {how: {figure: [n]}};  features: {extractor: {ORIGINAL or how: [n, d]}}
    indices: places in the set;  labels: what it knows of each;  enlarged: images smaller than asked
    """

    ids: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    labels: list[Mapping[str, bool]] = field(default_factory=list)
    figures: dict[str, dict[str, Array]] = field(default_factory=dict)
    features: dict[str, dict[str, Array]] = field(default_factory=dict)
    enlarged: int = 0

    @property
    def n(self) -> int:
        return len(self.ids)

    def similarity(self, extractor: str, how: str) -> Array:
        """[n] cosine of the embeddings of each original and its reconstruction."""
        return cosine(self.features[extractor][ORIGINAL], self.features[extractor][how])

    def strangers(self, extractor: str) -> Array:
        """[n] cosine of each original and the one before it, for comparison."""
        originals = self.features[extractor][ORIGINAL]
        return cosine(originals, np.roll(originals, 1, axis=0))

    def as_csv(self) -> bytes:
        """A line for each image."""
        columns = {f"{name} {how}": self.figures[how][name] for how in HOW for name in FIGURES}
        for extractor in self.features:
            for how in HOW:
                columns[f"cosine {how} {extractor}"] = self.similarity(extractor, how)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", *columns])
        for name, *values in zip(self.ids, *columns.values(), strict=True):
            writer.writerow([name, *(f"{value:.6g}" for value in values)])
        return text.getvalue().encode()


def measure(
    asked: ImageSet,
    copier: Copier,
    extractors: Sequence[Extractor],
    limit: int | None = None,
    skip_bad: bool = False,
) -> Copies:
    """Every image of a set, a few at a time. Raises ValueError for fewer than two."""
    found = Copies()
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    features: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for indices, pictures in read_batches(asked, limit, skip_bad, copier.at_once):
        originals = torch.stack([copier.fit(image) for image in pictures])
        shown = {ORIGINAL: originals, **copier(originals, indices)}
        for how in HOW:
            for name, figure in FIGURES.items():
                pairs = zip(originals[:, 0].numpy(), shown[how][:, 0].numpy(), strict=True)
                figures[how, name] += [figure(a, b) for a, b in pairs]
        for extractor in extractors:
            for which, batch in shown.items():
                features[extractor.name, which].append(fid.checked(extractor(batch), least=1))
        found.indices += indices
        found.ids += [asked.sample_id(i) for i in indices]
        found.labels += [asked.findings(i) for i in indices]
        found.enlarged += sum(min(image.shape[-2:]) < copier.size for image in pictures)
    if found.n < 2:
        raise ValueError(f"{asked.name} has {found.n} usable images; an interval needs 2 or more")
    found.figures = {how: {f: np.array(figures[how, f]) for f in FIGURES} for how in HOW}
    found.features = {
        one.name: {w: np.concatenate(features[one.name, w]) for w in (ORIGINAL, *HOW)}
        for one in extractors
    }
    return found


def cosine(a: Array, b: Array) -> Array:
    """[n] of the rows of [n, d]; 0 for a row of zeros."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / lengths.clip(min=1e-12)


def quantile_table(caption: str, rows: Mapping[str, Array]) -> Table:
    """A row for each name with its values [n]."""
    cells = []
    for name, values in rows.items():
        deviation = values.std(ddof=1) if np.isfinite(values).all() else math.nan
        quantiles = np.quantile(values, list(QUANTILES.values()), method="nearest")
        cells.append((name, mean(values).show(), *(f"{x:.4g}" for x in (deviation, *quantiles))))
    return Table(caption, ("figure", "mean (95 %)", "SD", *QUANTILES), cells)


def summaries(each: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """{name: mean, its interval, n, SD and median} of values [n]."""
    with np.errstate(invalid="ignore"):  # the deviation of infinite values
        return {
            name: mean(values)._asdict()
            | {"SD": float(values.std(ddof=1)), "median": float(np.median(values))}
            for name, values in each.items()
        }
