"""Which pictures to draw, and how: of options, and into and out of the text of a PNG."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm import __version__
from ldm.config import ConfigError, ModelConfig
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.devices import DTYPES
from ldm.text.projected_encoder import ProjectedText

log = logging.getLogger(__name__)

PIXELS_AT_ONCE = 16 * 128 * 128  # bounds memory: 16 images of 128 px, one of 512
SYNTHETIC = "This is a synthetic image drawn by a model; it shows no patient."


@dataclass(frozen=True)
class DrawingSettings:
    """Which pictures to draw: of prompt j the images start + j n ... start + (j + 1) n - 1.

    guidance, size (width, height), device: None leaves it to the model and the machine
    weights: the hash of the weights these pictures were drawn with before; empty: any
    company: the batch they were drawn in before. A batch of another size adds up in another order,
        which tips a grey level now and then; None: as many at once as PIXELS_AT_ONCE allows
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
    company: range | None = None

    def __post_init__(self) -> None:
        if not self.prompts or self.n < 1 or self.start < 0:
            raise ConfigError(
                f"cannot draw {self.n} images of {len(self.prompts)} prompts from index "
                f"{self.start}; wants at least one of each and an index of 0 or more"
            )
        among = self.indices if self.company is None else self.company
        if self.indices.start < among.start or self.indices.stop > among.stop:
            raise ConfigError(f"images {self.indices} are not in their batch, {among}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known: {', '.join(DTYPES)}")
        self.sampling(ModelConfig())  # raises for what no model can do

    @property
    def indices(self) -> range:
        """The image indices, one for each picture."""
        return range(self.start, self.start + self.n * len(self.prompts))

    def prompt(self, index: int) -> int:
        """Which of the prompts image `index` shows; the company's own prompts do not matter."""
        return min(max((index - self.start) // self.n, 0), len(self.prompts) - 1)

    def sampling(self, config: ModelConfig) -> Sampling:
        """How this model draws them."""
        width, height = self.size or (config.image_size, config.image_size)
        guidance = config.guidance if self.guidance is None else self.guidance
        drawn = (self.seed, self.steps, self.sampler, guidance, self.negative, height, width)
        return Sampling(*drawn, self.interval)

    def batches(self, sampling: Sampling) -> list[range]:
        """The image indices drawn together."""
        if self.company is not None:
            return [self.company]
        many = max(1, PIXELS_AT_ONCE // (sampling.height * sampling.width))
        return [self.indices[i : i + many] for i in range(0, len(self.indices), many)]


def order_of(options: Mapping[str, Any], image: str | Path | None = None) -> DrawingSettings:
    """The settings that the options give; what they leave open is as in the PNG `image`."""
    fields = [field.name for field in dataclasses.fields(DrawingSettings)]
    given = {name: options[name] for name in fields if options.get(name) not in (None, [])}
    if image is None:
        return DrawingSettings(**given)
    # other settings are other pictures: which batch the old ones were in is of no use then
    return dataclasses.replace(recall(image), **(given and dict(given, company=None)))


def describe(
    order: DrawingSettings,
    pipe: LatentDiffusion,
    model: str,
    shown: range,
    company: range | None = None,
) -> dict[str, str]:
    """The PNG text of the images `shown`: what it is, and everything that `recall` needs."""
    sampling = order.sampling(pipe.config)
    prompts = order.prompts[order.prompt(shown[0]) : order.prompt(shown[-1]) + 1]
    text = {
        "synthetic": SYNTHETIC,
        "prompt": "\n".join(prompts),
        "negative": order.negative,
        "seed": str(order.seed),
        "index": _write_range(shown),
        "sampler": order.sampler,
        "steps": str(order.steps),
        "guidance": repr(sampling.guidance),
        "guidance interval": "{},{}".format(*sampling.interval),
        "size": f"{sampling.width}x{sampling.height}",
        "dtype": order.dtype,
        "attention": order.attention,
        "winograd": "yes" if order.winograd else "no",
        "tiled": "yes" if order.tiled else "no",
        "compile": order.compile,
        "device": pipe.device.type,
        "weights": pipe.weights_hash,
        "model": model,
        "software": f"ldm {__version__}",
    }
    if isinstance(pipe.other_text, ProjectedText):
        text["text encoder"] = pipe.other_text.provenance()
    return text | ({} if company is None else {"batch": _write_range(company)})


def recall(path: str | Path) -> DrawingSettings:
    """The order that draws the PNG again. Raises ValueError if it is none of ours."""
    text = image_files.read_text(path)
    if not text.get("software", "").startswith("ldm "):
        raise ValueError(f"{path} was not drawn by ldm: its PNG text does not say how to draw it")
    try:
        prompts = tuple(text["prompt"].split("\n"))
        shown = _read_range(text["index"])
        width, height = text["size"].split("x")
        low, high = text.get("guidance interval", "0,inf").split(",")  # older ones do not say
        return DrawingSettings(
            prompts=prompts,
            n=len(shown) // len(prompts),
            start=shown.start,
            seed=int(text["seed"]),
            negative=text["negative"],
            steps=int(text["steps"]),
            sampler=text["sampler"],
            guidance=float(text["guidance"]),
            interval=(float(low), float(high)),
            size=(int(width), int(height)),
            dtype=text["dtype"],
            attention=text.get("attention", "sdpa"),
            winograd={"yes": True, "no": False}[text.get("winograd", "no")],
            tiled=text.get("tiled") == "yes",
            compile=text.get("compile", "no"),
            device=text["device"],
            weights=text["weights"],
            company=_read_range(text["batch"]) if "batch" in text else None,
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"the PNG text of {path} was changed or is incomplete: {error}") from error


def _write_range(indices: range) -> str:
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"


def _read_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def check_weights(order: DrawingSettings, pipe: LatentDiffusion, chosen: bool) -> None:
    """Raises ValueError if these are not the weights of the order; warns if the user chose them."""
    if order.weights in ("", pipe.weights_hash):
        return
    message = f"the image was drawn with weights {order.weights}, these are {pipe.weights_hash}"
    if not chosen:
        raise ValueError(
            f"{message}; name its own with --model, and what was added to them with "
            "--text-encoder, --embedding or --lora"
        )
    log.warning("%s: it will be another picture", message)
