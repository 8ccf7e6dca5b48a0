"""Files to train on: their pixels as squares, cached, with captions and masks of padding."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.clip import tokenizer
from ldm.config import ConfigError
from ldm.data import DataConfig, DataSource, phantom, row_captions, sources
from ldm.data.cache import cached_squares, from_bytes
from ldm.data.film_rows import Row, read_rows
from ldm.data.image_sets import FileSet
from ldm.pictures import bit_depths, dicom_files, image_files
from ldm.system.atomic import code_version, digest

log = logging.getLogger(__name__)

ROOM = 75  # tokens of a caption: 77 without start and end


def long_captions(rows: Sequence[Row]) -> dict[int, list[str]]:
    """{place of a row whose caption the text tower would cut: its sentences}

    They are those of the impression where the caption is a report that has one; a sentence that is
    too long itself is several.
    """
    from ldm.data import labelled_reports

    found = {}
    for index, row in enumerate(rows):
        text = row.get("caption") or ""
        # a token is one byte or more, and to count them all takes minutes
        if len(text.encode()) > ROOM and len(tokenizer().encode(text)) > ROOM:
            text = labelled_reports.impression(text) or text
            sentences = re.split(r"(?<=[.!?])\s+", text)
            found[index] = [piece for each in sentences for piece in pieces_of(each, ROOM)]
    return found


def pieces_of(caption: str, room: int) -> list[str]:
    """A caption in pieces of whole words, each of `room` tokens at most (but for longer words)."""
    pieces, used = [""], 0
    for word in caption.split():
        used += (length := len(tokenizer().encode(word)))
        if used > room and pieces[-1]:
            pieces, used = [*pieces, ""], length
        pieces[-1] = f"{pieces[-1]} {word}".strip()
    return pieces


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
        given = source is None or source.captions == "given"
        self.sentences = long_captions(rows) if given else {}
        count.note(len(self.sentences), f"captions over 77 tokens: {config.long_captions}")
        super().__init__(rows, path, str(count))
        log.info("%s: %s", path, count)
        if self.sentences and config.long_captions == "error":
            raise ConfigError(
                f"{path}: {len(self.sentences)} captions have over 77 tokens, first that of "
                f"{self.sample_id(min(self.sentences))}; take data.long_captions=sentences, say"
            )
        self.by_sentence = config.long_captions == "sentences"
        self.augmented, self.default_caption = config.augment, config.caption
        self.templates, self.fit = bool(source and source.captions == "templates"), config.fit
        if source and source.group:
            balanced = sources.drawing_weights(self.rows, source.group, config.balance)
            self.weights = torch.tensor(balanced)
        states = [(row["path"], Path(row["path"]).stat()) for row in self.rows]
        stamps: list[Any] = [[path, s.st_size, s.st_mtime_ns] for path, s in states]
        readers = (image_files, bit_depths, dicom_files)
        stamps.append([code_version(*(str(reader.__file__) for reader in readers))])
        shown = [[row.get("file_frame"), row.get("ct_window")] for row in self.rows]
        stamps += [*shown] if any(map(any, shown)) else []
        stamps += [[config.fit]] if config.fit != "crop" else []
        self.size, self.channels = config.size, channels
        planes = channels + (config.fit == "pad")  # a mask follows where there is padding
        name = f"files-{digest(stamps)}"
        self.pixels = cached_squares(name, config, len(self), planes, self.square)
        content = self.pixels.digest()  # makes what is missing: a damaged file is found now
        made = self.pixels.made
        bit_depths.tell_guesses()
        cropped = {row["path"] for row in self.rows} if config.fit == "crop" and made else set()
        sizes = [image_files.sides(path) or (1, 1) for path in cropped]
        lost = [1 - min(sides) / max(sides) for sides in sizes]
        if cut := [share for share in lost if share > 0.01]:
            told = (100 * sum(cut) / len(cut), 100 * max(cut), len(cut), len(self))
            log.info("data.fit=crop leaves out %.0f %% (up to %.0f %%) of %d of %d films", *told)
        # the key is that of the content: the same images elsewhere are the same dataset
        words = [{**row, "path": Path(row["path"]).name} for row in self.rows]
        how = [source.captions, source.group, config.balance] if source else []
        self.key = f"{digest([words, config.caption, *how])}-{content}"

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
        if self.by_sentence and index in self.sentences:
            return self.sentences[index][wording % len(self.sentences[index])]
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
