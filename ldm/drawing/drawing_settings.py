"""The settings of a drawing: from options, and to and from the text of a PNG."""

import dataclasses
import logging
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm import __version__
from ldm.config import ConfigError, ModelConfig
from ldm.drawing.edit_settings import Edit
from ldm.pictures import dicom_writing, image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system import cli
from ldm.system.devices import DTYPES
from ldm.weights.weight_files import unseen_words

log = logging.getLogger(__name__)

PIXELS_AT_ONCE = 16 * 128 * 128  # bounds memory: 16 images of 128 px, one of 512
NO_SWITCHES = ("sdpa", False, False, "no")
SYNTHETIC = "This is a synthetic image drawn by a model; it shows no patient."
EDITED = (
    "This is a synthetic image: a model changed an image that it was given. What it shows is no "
    "finding of anybody; what was left of the given image may be of a patient."
)


@dataclass(frozen=True)
class DrawingSettings:
    """Which pictures to draw, and how. Prompt j has images start + j n ... start + (j + 1) n - 1.

    guidance, size (width, height), device: None leaves the choice to the model and the machine
    weights: the hash of the weights that drew these pictures before; empty: any
    batch: the images that were drawn together before; a batch of another size adds numbers in
        another order, which sometimes changes a grey level. None: as PIXELS_AT_ONCE allows
    edit: the change to make to an image; None: draw from noise
    dicom: the modality of the DICOM files to write, CR, DX or CT; None: PNG
    prompt_syntax, long_prompts: see text/weighted_prompts.py
    """

    prompts: Sequence[str]
    n: int = 4
    start: int = 0
    seed: int = 0
    negative: str = ""
    steps: int = 20
    sampler: str = "dpm++"
    guidance: float | None = None
    interval: tuple[float, float] = (0.0, math.inf)
    size: tuple[int, int] | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    winograd: bool = False
    tiled: bool = False
    compile: str = "no"
    device: str | None = None
    weights: str = ""
    batch: range | None = None
    edit: Edit | None = None
    dicom: str | None = None
    prompt_syntax: str | None = None
    long_prompts: str | None = None

    def __post_init__(self) -> None:
        if not self.prompts or self.n < 1 or self.start < 0:
            raise ConfigError(
                f"cannot draw {self.n} images of {len(self.prompts)} prompts from index "
                f"{self.start}; give 1 or more of each and an index of 0 or more"
            )
        if len(self.indices) > cli.LARGEST:
            raise ConfigError(f"draw at most {cli.LARGEST:,} images, and the rest from --start on")
        if self.batch and self.size and len(self.batch) > self.at_once(*self.size):
            raise ConfigError(f"{len(self.batch)} images of this size are not drawn at once")
        batch = self.indices if self.batch is None else self.batch
        if self.indices.start < batch.start or self.indices.stop > batch.stop:
            raise ConfigError(f"images {self.indices} are not in their batch, {batch}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known: {', '.join(DTYPES)}")
        if self.dicom is not None:
            dicom_writing.check(self.dicom)
        self.sampling(ModelConfig())  # raises for what no model can do

    @property
    def indices(self) -> range:
        """The image indices, one for each picture."""
        return range(self.start, self.start + self.n * len(self.prompts))

    @staticmethod
    def at_once(width: int, height: int) -> int:
        """How many images of a size are drawn together."""
        return max(1, PIXELS_AT_ONCE // (width * height))

    def path(self, folder: Path, index: int) -> Path:
        """Where picture `index` is written to."""
        return folder / f"{index:05d}{'.png' if self.dicom is None else '.dcm'}"

    def save(self, picture: np.ndarray, path: Path, text: Mapping[str, str]) -> None:
        """Write a picture, as PNG or DICOM."""
        if self.dicom is None:
            return image_files.save(picture, path, text)
        spacing = self.edit.spacing if self.edit else None
        return dicom_writing.save(picture, path, text, self.dicom, spacing)

    @property
    def switches(self) -> tuple[str, bool, bool, str]:
        """The arguments of ldm.fast.switches.choose."""
        return self.attention, self.winograd, self.tiled, self.compile

    def prompt(self, index: int) -> int:
        """Which of the prompts image `index` shows; any will do for others in the batch."""
        return min(max((index - self.start) // self.n, 0), len(self.prompts) - 1)

    def sampling(self, config: ModelConfig) -> Sampling:
        """The pipeline's settings for this model."""
        width, height = self.size or (config.image_size, config.image_size)
        guidance = config.guidance if self.guidance is None else self.guidance
        given = (self.seed, self.steps, self.sampler, guidance, self.negative)
        return Sampling(*given, height, width, self.interval)

    def batches(self, sampling: Sampling) -> list[range]:
        """The image indices drawn together."""
        if self.batch is not None:
            return [self.batch]
        many = self.at_once(sampling.width, sampling.height)
        return [self.indices[i : i + many] for i in range(0, len(self.indices), many)]


def from_options(options: Mapping[str, Any]) -> DrawingSettings:
    """The settings that the options give; the PNG of --from, if any, says the rest."""
    given, image = cli.given(options, DrawingSettings), options["image"]
    if image is None:
        return DrawingSettings(**given)
    old = recall(image)
    if old.edit is not None and options["init"] is None:
        also = " and its mask with --mask" if old.edit.mask else ""
        raise ConfigError(f"{image} is an edit; give the image it was made from with --init{also}")
    # other settings give other pictures, whatever batch the old ones were in
    if given.keys() - {"dicom"}:
        given["batch"] = None
    return dataclasses.replace(old, **given)


class Entry(NamedTuple):
    """A field of DrawingSettings as PNG text; optional: older PNGs lack it."""

    field: str
    write: Callable[[Any], str] = str
    read: Callable[[str], Any] = str
    optional: bool = False


def _write_range(indices: range) -> str:
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"


def _read_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


SWITCH = (lambda on: "yes" if on else "no", {"yes": True, "no": False}.__getitem__)
RANGE = (_write_range, _read_range)
PNG_TEXT = {  # keyword: entry, in the file's order
    "prompt": Entry("prompts", "\n".join, lambda text: tuple(text.split("\n"))),
    "negative": Entry("negative"),
    "seed": Entry("seed", read=int),
    "index": Entry("indices", *RANGE),
    "sampler": Entry("sampler"),
    "steps": Entry("steps", read=int),
    "guidance": Entry("guidance", read=float),
    "guidance interval": Entry("interval", "{0[0]},{0[1]}".format, cli.interval, optional=True),
    "size": Entry("size", "{0[0]}x{0[1]}".format, cli.size),
    "dtype": Entry("dtype"),
    "attention": Entry("attention", optional=True),
    "winograd": Entry("winograd", *SWITCH, optional=True),
    "tiled": Entry("tiled", *SWITCH, optional=True),
    "compile": Entry("compile", optional=True),
    "device": Entry("device"),
    "weights": Entry("weights"),
    "batch": Entry("batch", *RANGE, optional=True),
    "edit": Entry("edit", Edit.to_text, Edit.from_text, optional=True),
    "dicom": Entry("dicom", optional=True),
    "prompt syntax": Entry("prompt_syntax", optional=True),
    "long prompts": Entry("long_prompts", optional=True),
}


def describe(
    settings: DrawingSettings,
    pipe: LatentDiffusion,
    model: str,
    shown: range,
    batch: range | None = None,
) -> dict[str, str]:
    """The PNG text of the images `shown`: what they are, and everything that `recall` needs.

    model: the file name of the weights;  batch: the images drawn together with these
    """
    sampling = settings.sampling(pipe.config)
    prompts = settings.prompts[settings.prompt(shown[0]) : settings.prompt(shown[-1]) + 1]
    used = dataclasses.replace(
        settings,
        prompts=prompts,
        n=len(shown) // len(prompts),
        start=shown.start,
        guidance=sampling.guidance,
        size=(sampling.width, sampling.height),
        device=pipe.device.type,
        weights=pipe.weights_hash,
        batch=batch,
    )
    values = {key: getattr(used, entry.field) for key, entry in PNG_TEXT.items()}
    text = {key: PNG_TEXT[key].write(value) for key, value in values.items() if value is not None}
    last = {key: text.pop(key) for key in ("batch", "edit", "dicom") if key in text}
    if text.get("long prompts") == "chunks":  # those of the run's longest prompt
        text["long prompts"] += f" {getattr(pipe.other_text, 'count', 1)}"
    text |= {"model": model, "software": f"ldm {__version__}"}
    if provenance := getattr(pipe.other_text, "provenance", None):
        text["text encoder"] = provenance()
    return {"synthetic": SYNTHETIC if used.edit is None else EDITED} | text | last


def recall(path: str | Path) -> DrawingSettings:
    """The settings that draw the PNG again. Raises ValueError if `describe` did not write it."""
    text = image_files.read_text(path)
    if not text.get("software", "").startswith("ldm "):
        raise ValueError(f"{path} was not drawn by ldm: its PNG text does not say how to draw it")
    trouble = f"the PNG text of {path} was changed or is incomplete:"
    try:
        values = {}
        for key, entry in PNG_TEXT.items():
            if key in text or not entry.optional:
                if not text[key].replace("\n", "").isprintable():
                    raise ValueError(f"{key} contains characters that are not text")
                values[entry.field] = entry.read(text[key])
        shown = values.pop("indices")
        return DrawingSettings(n=len(shown) // len(values["prompts"]), start=shown.start, **values)
    except ArgumentTypeError as error:  # says what must be, not of which key
        raise ValueError(f"{trouble} {key} {error}") from error
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"{trouble} {error}") from error


def prompt_remarks(prompts: Sequence[str], words: Collection[str], weighed: bool) -> list[str]:
    """What of the prompts may be meant otherwise than it is read, once each.

    words: the new words that the text tower has;  weighed: are weights of words read?
    """
    text = " ".join(prompts)
    known = {word.lower() for word in words}
    unknown = [w for w in re.findall(r"<[^<>\s]+>", text) if w.lower() not in known]
    remarks = [
        f"{w} is no loaded word, so it is read as plain text; give it with --embedding"
        for w in dict.fromkeys(unknown)
    ]
    marks = re.findall(r"\([^()]*:\s*[\d.]+\)|\[[^\[\]]+\]|\bBREAK\b", text)
    if marks and not weighed:
        remarks.append(f"{marks[0]} is read as plain text; --prompt-syntax reads weights of words")
    return remarks


def check_weights(
    settings: DrawingSettings, pipe: LatentDiffusion, chosen: bool, strict: bool = False
) -> None:
    """Raises ValueError if the weights are not those of the settings; a warning if chosen.

    strict: an error, too, if the prompts have words that the model was not trained on
    """
    weighed, prompts = settings.prompt_syntax is not None, [*settings.prompts, settings.negative]
    for remark in prompt_remarks(prompts, pipe.text.words, weighed):
        log.warning("%s", remark)
    texts = [*prompts, (settings.edit and settings.edit.invert) or ""]
    plain = [re.sub(r"\bBREAK\b", "", text) if weighed else text for text in texts if text]
    if pipe.trained_words is not None:
        unseen = unseen_words(plain, pipe.trained_words, pipe.text.words)
    else:
        unseen = "the model keeps no list of the words it was trained on" if strict else ""
    if unseen and strict:
        raise ConfigError(f"{unseen}; leave out --strict to draw all the same")
    if unseen:
        log.warning("%s", unseen)
    if settings.weights in ("", pipe.weights_hash):
        return
    message = f"the image was drawn with weights {settings.weights}, these are {pipe.weights_hash}"
    if not chosen:
        raise ValueError(
            f"{message}; name its own with --model, and what was added to them with "
            "--text-encoder, --embedding or --lora"
        )
    log.warning("%s: it will be another picture", message)
