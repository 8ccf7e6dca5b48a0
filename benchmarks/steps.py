"""How few steps, and where guided? What each way of sampling loses against 1,000 steps of DDPM.

    python benchmarks/steps.py [--n 200] [--reference 1000] [--out runs/steps]

Image i shows the caption of unseen phantom i, always from the same noise. For each way: the
Fréchet distance in the judge's features to other unseen phantoms, how much that differs from the
distance of 1,000 steps of DDPM (both with intervals of 95 %, by a jackknife that leaves out the
same tenth of captions in both), the judge's AUC for the effusions that the captions ask for, and
how often the U-Net looks at an image. One JSON object each on standard output, a table in
steps.md and curves in steps.png; pictures are kept in --out, so that a run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drawn import EFFUSION, UNSEEN, Artist, everything, scores
from torch import Tensor

from ldm.data import DataConfig
from ldm.data.datasets import Phantoms
from ldm.judging.extractors import batches, open_extractor
from ldm.judging.judge import load_judge
from ldm.metrics.classification import auc
from ldm.metrics.fid import frechet, jackknife
from ldm.report.plots import COLOURS, as_png, new
from ldm.samplers import SAMPLERS
from ldm.system import atomic, cli

Interval = tuple[float, float]
ALL: Interval = (0.0, math.inf)
# of noise levels sigma; the paper's (arXiv:2404.07724) for ImageNet at 512 px is 0.28 to 2.9
INTERVALS: tuple[Interval, ...] = ((0.28, 2.9), (0.28, 5.4), (0.0, 5.4), (0.28, math.inf))


class Way(NamedTuple):
    """How a picture is drawn."""

    sampler: str
    steps: int
    interval: Interval = ALL


def ways() -> Iterator[Way]:
    for sampler in SAMPLERS:
        for steps in (4, 8, 12, 20, 50):
            yield Way(sampler, steps)
    for interval in INTERVALS:
        yield Way("dpm++", 20, interval)


def looks(artist: Artist, prompt: str) -> int:
    """How many times an image goes through the U-Net."""
    rows: list[int] = []
    hook = artist.pipe.unet.register_forward_hook(lambda unet, given, out: rows.append(len(out)))
    artist.pipe.draw([prompt], [0], artist.sampling)
    hook.remove()
    return sum(rows)


def phantoms(count: int, first: int, size: int, out: Path) -> Phantoms:
    data = DataConfig(phantoms=count, phantom_seed=first, size=size, cache=str(out / "cache"))
    return Phantoms(data, channels=1)


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    more = "more than 1,000 steps"
    names = ("sampler", "steps", "guided at sigma", "passes", "distance", more, "AUC")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for record in records:
        figures = [
            "{:.2f} ({:.2f} to {:.2f})".format(*record[name][:3])
            for name in ("distance", "more than slow", "AUC")
        ]
        settings = (record[name] for name in ("sampler", "steps", "interval", "looks"))
        lines.append(f"| {' | '.join(map(str, [*settings, *figures]))} |")
    return "\n".join(lines) + "\n"


def curves(records: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: the distance by looks of the U-Net, a line for each sampler; 1,000 steps dotted."""
    slow, *others = records
    figure = new(9, 4.5)
    axis = figure.subplots()
    value, low, high, n = slow["distance"]
    axis.axhline(value, color="#000000", linestyle=":", label=f"ddpm, {slow['steps']:,} steps")
    axis.axhspan(low, high, color="#EEEEEE", label="its interval of 95 %")
    always = slow["interval"]
    for sampler, colour in zip(SAMPLERS, COLOURS[1:], strict=False):
        found = [r for r in others if r["sampler"] == sampler and r["interval"] == always]
        places = [r["looks"] for r in found]
        axis.plot(
            places,
            [r["distance"].value for r in found],
            "o-",
            color=colour,
            alpha=0.8,
            label=sampler,
        )
    for record, marker in zip([r for r in others if r["interval"] != always], "svPX", strict=True):
        label = f"dpm++, 20 steps, guided\nat sigma {record['interval']}"
        axis.plot(record["looks"], record["distance"].value, marker, color="#888888", label=label)
    axis.set(xscale="log", ylim=(0, None), ylabel="Fréchet distance to phantoms, judge's features")
    axis.set(xlabel="passes of the U-Net for an image")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return as_png(figure, f"n = {n} synthetic images each")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="weights")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--reference", type=int, default=1000, help="phantoms to compare with")
    parser.add_argument("--out", type=Path, default="runs/steps")
    options = parser.parse_args()
    judge, extract = load_judge("weights/judge.safetensors"), open_extractor("judge")

    def features(pictures: Tensor) -> np.ndarray:
        return np.concatenate([extract(some) for _, some in batches(enumerate(pictures))])

    def artist(way: Way) -> Artist:
        return Artist(options.model, options.out, seed=3, **way._asdict())

    slow = Way("ddpm", 1000)
    size = artist(slow).pipe.config.image_size
    asked = phantoms(options.n, UNSEEN, size, options.out)
    real = phantoms(options.reference, UNSEEN + 100_000, size, options.out)
    prompts = [asked.caption(i, wording=i) for i in range(len(asked))]
    truth = np.array([asked.findings(i)[EFFUSION] for i in range(len(asked))], int)
    target = features(everything(real))
    best = features(artist(slow).draw(prompts))
    width = best.shape[1]

    def worse(both: np.ndarray, real: np.ndarray) -> float:
        return frechet(both[:, :width], real) - frechet(both[:, width:], real)

    print(f"other phantoms: {jackknife(frechet, features(everything(asked)), target)}", flush=True)
    records = []
    for way in (slow, *ways()):
        one = artist(way)
        pictures = one.draw(prompts)
        found = features(pictures)
        more = jackknife(worse, np.hstack([found, best]), target)
        record = {
            **way._asdict(),
            "interval": "all" if way.interval == ALL else "{:g} to {:g}".format(*way.interval),
            "guidance": one.sampling.guidance,
            "looks": looks(one, prompts[0]),
            "distance": jackknife(frechet, found, target),
            "more than slow": more,
            "AUC": auc(scores(judge, pictures, EFFUSION), truth),
        }
        records.append(record)
        print(json.dumps(record), flush=True)
    for name, content in {
        "steps.md": table(records).encode(),
        "steps.png": curves(records),
    }.items():
        with atomic.whole_file(options.out / name) as whole:
            whole.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "steps.py"))
