"""Which guidance and how many steps should be the default? Chosen on images that no figure uses.

    python benchmarks/guidance.py labels.csv [--guidance 1.5 2 3 4] [--steps 20 50] [--n 200]

For each: the Fréchet distance in simple features (drawn.py) of n images, drawn with captions of
half of the training films, to the other half; and the judge's AUC, effusion against other findings,
of n / 2 + n / 2 images. Seed 1; the figures of the model card are of seed 0 and the val split.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from drawn import EFFUSION, Artist, Simple, everything, films, scores

from ldm import rng
from ldm.judging.judge import load_judge
from ldm.metrics.classification import auc
from ldm.metrics.fid import frechet, jackknife
from ldm.system import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="the CSV of films")
    parser.add_argument("--model", default="weights")
    parser.add_argument("--judge", default="weights/judge.safetensors")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0, 4.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--out", type=Path, default="runs/built_in")
    options = parser.parse_args()
    train, judge = films(options.data, "train"), load_judge(options.judge)
    pictures = everything(train)
    order = torch.randperm(len(train), generator=rng.generator(1, "halves"))
    mine, other = order.chunk(2)
    simple = Simple(pictures)
    target = simple(pictures[other])
    captions = [train.caption(int(i), wording) for wording, i in enumerate(mine[: options.n])]
    print("real films:", jackknife(frechet, simple(pictures[mine[: options.n]]), target))
    for guidance, steps in itertools.product(options.guidance, options.steps):
        artist = Artist(options.model, options.out, seed=1, guidance=guidance, steps=steps)
        distance = jackknife(frechet, simple(artist.draw(captions)), target)
        found = []
        for world in ("phantom", "film"):
            drawn, truth = artist.pair(world, EFFUSION, options.n // 2)
            found.append(f"{world} {auc(scores(judge, drawn, EFFUSION), truth)}")
        spread = np.mean(simple(artist.draw(captions)).std(axis=0)) / np.mean(target.std(axis=0))
        print(
            f"guidance {guidance}, {steps} steps: distance {distance}; spread {spread:.2f} of the "
            f"real one; AUC {', '.join(found)}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "guidance.py"))
