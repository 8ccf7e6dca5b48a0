"""Files to train on: their pixels as squares, cached, with captions and masks of padding."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from ldm.data import DataConfig, DataSource, phantom, row_captions, sources
from ldm.data.cache import cached_squares, from_bytes
from ldm.data.film_rows import read_rows
from ldm.data.image_sets import FileSet
from ldm.pictures import image_files
from ldm.system.atomic import code_version, digest

log = logging.getLogger(__name__)


class Files(FileSet):
    """The images of a folder, or of the rows of a CSV (see `read_rows`), as squares (data.fit).

    An image without a caption and without labels has data.caption.
    source: one of data.sources, in the place of data.path
    """

    weights: Tensor | None = None  # how often each is drawn, up to a factor; None: equally often

    def __init__(self, config: DataConfig, channels: int, source: DataSource | None = None) -> None:
        path = Path((source.path if source else config.path) or "")
        found = sources.source_rows(source, config)[::2] if source else read_rows(path, config)
        rows, count = found
        super().__init__(rows, path, str(count))
        log.info("%s: %s", path, count)
        self.augmented, self.default_caption = config.augment, config.caption
        self.templates, self.fit = bool(source and source.captions == "templates"), config.fit
        if source and source.group:
            balanced = sources.drawing_weights(self.rows, source.group, config.balance)
            self.weights = torch.tensor(balanced)
        states = [(row["path"], Path(row["path"]).stat()) for row in self.rows]
        stamps = [[path, state.st_size, state.st_mtime_ns] for path, state in states]
        stamps.append([code_version(image_files.__file__)])
        stamps += [[config.fit]] if config.fit != "crop" else []
        self.size, self.channels = config.size, channels
        planes = channels + (config.fit == "pad")  # a mask follows where there is padding
        name = f"files-{digest(stamps)}"
        self.pixels = cached_squares(name, config, len(self), planes, self.square)
        self.pixels.fill()  # a damaged file is found now, not hours later
        # the key is that of the content: the same images elsewhere are the same dataset
        words = [{**row, "path": Path(row["path"]).name} for row in self.rows]
        how = [source.captions, source.group, config.balance] if source else []
        self.key = f"{digest([words, config.caption, *how])}-{self.pixels.digest()}"

    def square(self, index: int) -> Tensor:
        """float32 [C, size, size] in [-1, 1]; padded, one plane more: 1 in the image, -1 outside"""
        image = self.load(index)
        if self.fit == "pad":
            square, there = image_files.fit_padded(image, self.size)
            grey = image_files.to_channels(square, self.channels)
            return torch.cat([grey, 2.0 * there - 1])
        if self.fit == "stretch":
            square = image_files.resize(image, self.size, self.size)
        else:
            square = image_files.fit_square(image, self.size)
        return image_files.to_channels(square, self.channels)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()][:, : self.channels])

    def masks(self, indices: Tensor) -> Tensor | None:
        if self.fit != "pad":
            return None
        return torch.from_numpy(self.pixels[indices.numpy()][:, self.channels :] > 0)

    def caption(self, index: int, wording: int) -> str:
        row = self.rows[index]
        if self.templates:
            return row_captions.caption(row, self.findings(index), wording)
        if row.get("caption"):
            return row["caption"]
        if not row.get("labels"):
            return self.default_caption
        age = int(float(row["age"])) if row.get("age") else None
        labels = [label for label in row["labels"].split("|") if label]
        return phantom.caption_from_labels(
            labels, row.get("view") or "", row.get("sex") or "", age, wording
        )

    def collection(self, index: int) -> str:
        return self.rows[index].get("source_repo", "")
