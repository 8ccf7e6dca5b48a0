"""A folder of drawn pictures: numbered by image index, each saying how to draw it again."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.drawing.drawing_settings import DrawingSettings, describe
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.samplers import Step
from ldm.system.cli import Stopwatch
from ldm.system.processes import Processes

SHEET = 64  # images in grid.png at most
FRAMES = 8  # x0 predictions in trajectory.png at most


@torch.inference_mode()
def draw(
    pipe: LatentDiffusion,
    order: DrawingSettings,
    folder: Path,
    model: str,
    watch: Stopwatch,
    trajectory: bool = False,
    world: Processes | None = None,
) -> list[Path]:
    """Draw and save: 00000.png ..., grid.png and, on request, trajectory.png; returns the paths.

    Each process of the world draws its share of the batches; the leading one writes the sheets.

    model: the name that the PNG text gives the weights;  watch: gets the seconds of its parts
    trajectory: show what the first image was predicted to become, at a few steps on the way
    """
    sampling = order.sampling(pipe.config)
    pipe.check(sampling)
    with watch("text"):
        contexts = pipe.encode_each(order.prompts)
        negative = None if sampling.guidance == 1 else pipe.encode_each([sampling.negative])
    world = world or Processes()
    batches = order.batches(sampling)[world.rank :: world.size]
    frames: list[Tensor] = []
    wanted = torch.linspace(0, sampling.steps - 1, min(FRAMES, sampling.steps)).round().tolist()
    total = len(batches) * sampling.steps
    with tqdm(total=total, desc="drawing", unit="step", disable=None, leave=False) as bar:

        def on_step(step: Step) -> None:
            if trajectory and step.i in wanted and world.leads and len(frames) < len(wanted):
                # of the first batch, which the leading process draws
                frames.append(step.x0[[batches[0].index(order.start)]])
            bar.update()

        for batch in batches:
            with watch("steps"):
                context = contexts[[order.prompt(i) for i in batch]]
                z = pipe.latents(context, negative, batch, sampling, on_step)
            with watch("decode"):
                drawn = dict(zip(batch, pipe.decode(z), strict=True))
            with watch("save"):
                folder.mkdir(parents=True, exist_ok=True)
                for i in [i for i in batch if i in order.indices]:
                    text = describe(order, pipe, model, range(i, i + 1), batch)
                    image_files.save(drawn[i], folder / f"{i:05d}.png", text)
    world.wait()
    paths = [folder / f"{i:05d}.png" for i in order.indices]
    if not world.leads:
        return paths
    with watch("decode"):
        strip = [pipe.decode(x0)[0] for x0 in frames]
    with watch("save"):
        sheet = [image_files.load(path) for path in paths[:SHEET]]
        paths.append(folder / "grid.png")
        text = describe(order, pipe, model, order.indices, order.company)
        image_files.save(
            image_files.grid(sheet, order.n if 1 < order.n <= 8 else None), paths[-1], text
        )
        if strip:
            paths.append(folder / "trajectory.png")
            text = describe(order, pipe, model, order.indices[:1], batches[0])
            image_files.save(image_files.grid(strip), paths[-1], text)
    return paths
