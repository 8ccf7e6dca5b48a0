"""The settings of an edit. Imports nothing heavy, so that a mistyped option is refused at once."""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ldm.config import ConfigError, from_dict
from ldm.system import cli

Pair = tuple[int, int]
Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class Edit:
    """One way of changing an image; None: not asked for.

    init, mask: file names in the options, hashes of the pixels in a PNG's text
    invert: what the image shows; "" stands for the prompt
    canvas, at: the canvas (width, height), and where the image lies on it, (x, y)
    spacing: of the image's pixels in mm, row and column, where it is DICOM
    """

    init: str = ""
    mask: str | None = None
    grow: int | None = None
    invert_mask: bool | None = None
    resample: int | None = None
    strength: float | None = None
    invert: str | None = None
    outpaint: Four | None = None  # left, top, right, bottom
    canvas: Pair | None = None
    at: Pair | None = None
    spacing: str | None = None

    def __post_init__(self) -> None:
        ways = {
            "--strength or --invert": self.strength is not None or self.invert is not None,
            "--mask": self.mask is not None,
            "--outpaint": self.outpaint is not None,
            "--canvas": self.canvas is not None or self.at is not None,
        }
        if len(asked := [name for name, given in ways.items() if given]) > 1:
            raise ConfigError(f"{' and '.join(asked)} are different edits; give one of them")
        if (self.canvas is None) != (self.at is None):
            raise ConfigError("--canvas WxH and --at X,Y go together: how large, and where on it")
        if not (self.invert or "").isprintable():
            raise ConfigError("--invert contains characters that are not text")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"--strength must be above 0 and at most 1, got {self.strength}")
        if (self.grow is not None or self.invert_mask is not None) and self.mask is None:
            raise ConfigError("--grow and --invert-mask change --mask; give a mask, too")
        if self.resample is not None and self.way not in ("inpainting", "outpainting"):
            raise ConfigError("--resample is for repainting; give --mask or --outpaint, too")

    @property
    def way(self) -> str:
        """The name of the kind of edit."""
        if self.mask is not None:
            return "inpainting"
        if self.outpaint is not None or self.canvas is not None:
            return "outpainting"
        return "image to image" if self.invert is None else "inversion"

    def to_text(self) -> str:
        """One line for a PNG; `from_text` reads it."""
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return json.dumps({"way": self.way} | given, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> "Edit":
        """Raises ValueError for anything that `to_text` does not write."""
        values = cli.parse_json(text)
        if isinstance(values, dict):
            values.pop("way", None)
        return from_dict(cls, values, "edit")


def check_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: Mapping[str, Any]
) -> None:
    """Refuses options that do not go together; sets the defaults of editing.

    given: the fields of Edit among the options;  parser.error ends the program
    """
    if options.init is None:
        name = next(iter(given)).replace("_", "-")
        parser.error(f"--{name} edits an image; give it with --init")
    for name in ("size", "trajectory"):
        if getattr(options, name):
            parser.error(f"--{name} is for drawing, and --init for editing; give one of them")
    try:
        edit = Edit(**given)
    except ConfigError as error:
        parser.error(str(error))
    if options.image is None:  # the PNG of --from says all of these
        options.n = options.n or 1
        if edit.invert is not None:
            options.sampler, options.steps = options.sampler or "ddim", options.steps or 50
            options.guidance = 1.0 if options.guidance is None else options.guidance
    if edit.invert is not None and (options.n or 1) > 1:
        parser.error("--invert uses no noise: all --n images would be the same")
