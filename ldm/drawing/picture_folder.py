"""A folder of pictures: numbered by image index, each saying how to draw it again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.drawing.drawing_settings import DrawingSettings, describe
from ldm.drawing.latent_editing import OnStep
from ldm.pictures import bit_depths, image_files
from ldm.pipeline import LatentDiffusion
from ldm.samplers import Step
from ldm.system.cli import Stopwatch
from ldm.system.devices import Processes

SHEET = 64  # images in grid.png at most
FRAMES = 8  # x0 predictions in trajectory.png at most

Texts = Mapping[int, Mapping[str, str]]  # image index -> PNG text


class Painter(NamedTuple):
    """Makes pictures, a batch at a time.

    batches: the image indices made together;  steps: how many a batch takes
    paint: the pictures [H, W, C] of a batch; it gets the PNG texts of those to be saved
    leftovers: files to remove once the picture of an index is saved
    beside: other files that `paint` writes for the picture of an index
    """

    batches: Sequence[range]
    steps: int
    paint: Callable[[range, Texts, OnStep], Sequence[np.ndarray]]
    leftovers: Callable[[int], Iterable[Path]] = lambda index: ()
    beside: Callable[[int], Iterable[Path]] = lambda index: ()


@torch.inference_mode()
def prepare(pipe: LatentDiffusion, settings: DrawingSettings, watch: Stopwatch) -> Painter:
    """A painter of new pictures, drawn from noise."""
    sampling = settings.sampling(pipe.config)
    pipe.check(sampling)
    with watch("text"):
        contexts = pipe.encode_each(settings.prompts)
        negative = None if sampling.guidance == 1 else pipe.encode_each([sampling.negative])

    def paint(batch: range, texts: Texts, on_step: OnStep) -> list[np.ndarray]:
        with watch("steps"):
            context = contexts[[settings.prompt(i) for i in batch]]
            z = pipe.sample_latents(context, negative, batch, sampling, on_step)
        with watch("decode"):
            return [image_files.to_integers(image) for image in pipe.decode(z)]

    return Painter(settings.batches(sampling), sampling.steps, paint)


@torch.inference_mode()
def draw(
    painter: Painter,
    pipe: LatentDiffusion,
    settings: DrawingSettings,
    folder: Path,
    model: str,
    watch: Stopwatch,
    processes: Processes,
    trajectory: bool,
) -> list[Path]:
    """Make and save 00000.png ..., or .dcm; of new pictures also sheets. Returns the paths.

    Each process draws its share of the batches; the leading one writes the sheets.

    model: the file name of the weights, for the PNG text;  watch: gets the seconds of each part
    trajectory: also save what the first image was predicted to become, at a few of the steps
    """
    batches = painter.batches[processes.rank :: processes.size]
    wanted = torch.linspace(0, painter.steps - 1, min(FRAMES, painter.steps)).round().tolist()
    frames: list[Tensor] = []
    total, name = len(batches) * painter.steps, "editing" if settings.edit else "drawing"
    with tqdm(total=total, desc=name, unit="step", disable=None, leave=False) as bar:

        def on_step(step: Step) -> None:
            if trajectory and step.i in wanted and processes.leads and len(frames) < len(wanted):
                # of the first batch, which the leading process draws
                frames.append(step.x0[[batches[0].index(settings.start)]])
            bar.update()

        for batch in batches:
            texts = {
                i: describe(settings, pipe, model, range(i, i + 1), batch)
                for i in batch
                if i in settings.indices
            }
            pictures = dict(zip(batch, painter.paint(batch, texts, on_step), strict=True))
            with watch("save"):
                folder.mkdir(parents=True, exist_ok=True)
                for i, text in texts.items():
                    settings.save(pictures[i], settings.path(folder, i), text)
                    for path in painter.leftovers(i):
                        path.unlink(missing_ok=True)
    processes.wait()
    if settings.dicom is not None:
        bit_depths.tell_guesses()
    paths = [settings.path(folder, i) for i in settings.indices]
    if settings.edit is not None or not processes.leads:
        return paths
    with watch("save"):
        images = [image_files.load(path) for path in paths[:SHEET]]
        sheet = image_files.grid(images, settings.n if 1 < settings.n <= 8 else None)
        paths.append(folder / "grid.png")
        text = describe(settings, pipe, model, settings.indices, settings.batch)
        image_files.save(sheet, paths[-1], text)
    if frames:
        with watch("decode"):
            strip = image_files.grid([pipe.decode(x0)[0] for x0 in frames])
        with watch("save"):
            paths.append(folder / "trajectory.png")
            text = describe(settings, pipe, model, settings.indices[:1], batches[0])
            image_files.save(strip, paths[-1], text)
    return paths + [path for i in settings.indices for path in painter.beside(i)]
