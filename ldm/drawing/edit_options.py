"""What sample.py is asked to do to an image. Imports nothing heavy: --help answers at once."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.config import ConfigError, from_dict
from ldm.system import cli

Pair = tuple[int, int]
Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class Edit:
    """One way of changing an image; what is None was not asked for.

    init, mask: while options are read any name of them; in a PNG's text the hashes of their levels
    invert: what the image shows; "" what the prompt says
    canvas: (width, height), and where the image lies on it: (x, y)
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
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"--strength wants above 0 and at most 1, got {self.strength}")
        if (self.grow is not None or self.invert_mask is not None) and self.mask is None:
            raise ConfigError("--grow and --invert-mask are about --mask; give one")
        if self.resample is not None and self.way not in ("inpainting", "outpainting"):
            raise ConfigError("--resample is about what is repainted; give --mask or --outpaint")

    @property
    def way(self) -> str:
        """The name of what is done."""
        if self.mask is not None:
            return "inpainting"
        if self.outpaint is not None or self.canvas is not None:
            return "outpainting"
        return "image to image" if self.invert is None else "inversion"

    def text(self) -> str:
        """For a PNG, on one line; `edit_of` reads it."""
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return json.dumps({"way": self.way} | given, sort_keys=True)


def edit_of(text: str) -> Edit:
    """What `Edit.text` wrote. Raises ValueError for anything else."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ConfigError("the PNG text of the edit is no table")
    return from_dict(Edit, {k: v for k, v in values.items() if k != "way"})


def given_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Edit that were given, but for the files."""
    names = {field.name for field in dataclasses.fields(Edit)} - {"init", "mask"}
    return {name: options[name] for name in sorted(names) if options[name] is not None}


def numbers(count: int, form: str) -> Callable[[str], tuple[int, ...]]:
    """For argparse: reads `count` whole numbers of 0 or more, with commas between them."""

    def read(text: str) -> tuple[int, ...]:
        if not re.fullmatch(rf"\d{{1,6}}(,\d{{1,6}}){{{count - 1}}}", text):
            raise argparse.ArgumentTypeError(f"wants {form} in pixels, 0 or more, got {text!r}")
        return tuple(map(int, text.split(",")))

    return read


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of editing."""
    add = parser.add_argument_group(
        "editing", "Change an image, which keeps its size."
    ).add_argument
    add("--init", metavar="IMG", help="the image: PNG, JPEG ... of 64 pixels a side or more")
    what = "how much of it to draw anew, from above 0 to 1: all of it (0.6; with --invert 1)"
    add("--strength", type=cli.finite, metavar="S", help=what)
    what = "by inversion: the same chest as --prompt has it; TEXT says what it shows now (--prompt)"
    add("--invert", nargs="?", const="", metavar="TEXT", type=cli.line, help=what)
    add("--mask", metavar="IMG", help="repaint where it is white; all else stays bit for bit")
    add("--grow", type=cli.whole(0), metavar="N", help="repaint N pixels around the mask, too (0)")
    what = "repaint where the mask is black"
    add("--invert-mask", action="store_const", const=True, help=what)
    what = "paint this many pixels beyond each edge, window by window; once stopped it goes on"
    read = numbers(4, "LEFT,TOP,RIGHT,BOTTOM")
    add("--outpaint", type=read, metavar="LEFT,TOP,RIGHT,BOTTOM", help=what)
    add("--canvas", type=cli.size, metavar="WxH", help="the same, by the size that it shall have")
    add("--at", type=numbers(2, "X,Y"), metavar="X,Y", help="where the image lies on the canvas")
    what = "take each step N times when repainting: slower, and goes better with the rest (4)"
    add("--resample", type=cli.whole(1), metavar="N", help=what)


def folder(options: argparse.Namespace) -> Path:
    """Where results go when nobody says.

    An image of samples/ redrawn there would replace the grid it was in.
    """
    return Path("redrawn" if options.image else "edited" if options.init else "samples")


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses what does not go together; fills in what editing wants otherwise than drawing.

    parser.error ends the program.
    """
    given = given_in(vars(options))
    if options.init is None:
        if given or options.mask:
            name = next(iter(given), "mask").replace("_", "-")
            parser.error(f"--{name} edits an image; give it with --init")
        return
    for name in ("size", "trajectory"):
        if getattr(options, name):
            parser.error(f"--{name} is for drawing, and --init for editing; give one of them")
    try:
        edit = Edit(mask=options.mask, **given)
    except ConfigError as error:
        parser.error(str(error))
    if options.image is None:  # an edit drawn again has all of these
        options.n = options.n or 1
        if edit.invert is not None:
            options.sampler, options.steps = options.sampler or "ddim", options.steps or 50
            options.guidance = 1.0 if options.guidance is None else options.guidance
    if edit.invert is not None and (options.n or 1) > 1:
        parser.error("--invert leaves nothing to chance: --n images would all be the same")
