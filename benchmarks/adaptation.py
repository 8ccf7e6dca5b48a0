"""What adaptation does to the built-in base: a table like the paper's Tables 4 and 5.

    python benchmarks/adaptation.py [RUN ...] [--n 100] [--data labels.csv] [--seed 1000]

Each RUN is a run folder of configs/textual_inversion.yaml, unet*.yaml or lora.yaml; the base comes
first, unasked. For each: n images of "a photo of a lung xray", n with "a visible pleural effusion"
(with its new word for textual inversion), judged by the built-in judge; and the Fréchet distance
of all 2 n, in the judge's features, to as many unseen images: phantoms, or with --data films of
the val split, half of them with an effusion where there are so many. A third n ask for other
findings in the same words, to see whether "pleural effusion" was learned, or "with a visible".
Copies are images nearer to one that was trained on, or to one of 64 versions of it a little
changed, than 1 % of unseen ones are. The first images go to OUT/sheet.png, a table to OUT/table.md
and all of it to OUT/report.json, with Kendall's tau between the order of the methods here and in
the paper (arXiv:2210.04133).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from drawn import EFFUSION, FINDINGS, OTHERS, UNSEEN, Artist, scores
from PIL import Image
from scipy.stats import kendalltau
from torch import Tensor
from tqdm import tqdm

from ldm import rng
from ldm.config import from_dict
from ldm.data import DataConfig
from ldm.data.augmentation import augment
from ldm.data.datasets import open_datasets
from ldm.judging.judge import Judge, load_judge
from ldm.metrics.classification import auc, decisions
from ldm.metrics.fid import frechet, jackknife
from ldm.metrics.nearest_images import audit
from ldm.pictures import image_files
from ldm.report import adapted_models, chambon
from ldm.system import cli
from ldm.training.methods.adaptation import Instances, Kind
from ldm.training.training_run import load_run
from ldm.vae import VAE
from ldm.weights import adapters

SUFFIX = " with a visible "
VARIANTS = 64  # as many as the configs train on
OTHER = (*FINDINGS[1:], *OTHERS["phantom"])
PAPER = {  # FID of the two prompts (Table 4), AUC (Table 5)
    name: (*row[:2], chambon.VERDICTS.get(name, (None,))[0]) for name, row in chambon.FID.items()
}


def open_run(
    run: str | None, base: str, folder: Path, seed: int, **settings: float
) -> tuple[Artist, str]:
    """Who draws with the model of a run folder, and the noun its prompts use."""
    noun = "lung xray"
    for kind in ("word", "lora"):
        try:
            _, facts = adapters.load(run or "", kind)
        except ValueError:
            continue
        artist = Artist(base, folder, seed, **settings)
        adapters.apply(artist.pipe, *([run], []) if kind == "word" else ([], [run]))
        return artist, facts.get("word", noun)
    return Artist(run or base, folder, seed, **settings), noun


@torch.inference_mode()
def judged(judge: Judge, pictures: Tensor) -> np.ndarray:
    """The judge's features [B, C]."""
    parts = [judge.features(part) for part in pictures.split(32)]
    return torch.cat(parts).numpy().astype(np.float64)


def taught(run: str) -> Tensor:
    """The images that a run was trained on, and 64 changed versions of each: those are copies, too.

    A run with method.variants=64 saw these very ones; next to the unchanged image alone a copy of a
    shifted one would pass for new.
    """
    config = load_run(Path(run) / "config.yaml")
    [(dataset, _)] = open_datasets(config.data, channels=1)
    kinds = [from_dict(Kind, kind, "method.kinds") for kind in config.method["kinds"]]
    instances = Instances(dataset, kinds, ["{}"])
    plain = instances.images(torch.arange(len(instances)))
    changed = [
        augment(image[None], rng.generator(0, "latents", i * VARIANTS + variant))
        for i, image in enumerate(plain)
        for variant in range(VARIANTS)
    ]
    return torch.cat([plain, *changed])


@torch.inference_mode()
def copies(vae: VAE, drawn: Tensor, trained: Tensor, unseen: Tensor) -> dict[str, str]:
    """Nearer to a trained image than 1 % of unseen ones are, which also pass through the VAE."""
    latents = [
        torch.cat([vae.encode(part).mean for part in x.split(32)]) for x in (drawn, trained, unseen)
    ]
    pixels = [drawn, trained, vae.decode(latents[2]).clamp(-1, 1)]
    spaces = {"pixels": pixels, "latents": latents}
    return {f"copies, {n}": str(audit(*(x.numpy() for x in s)).copies) for n, s in spaces.items()}


def reference(data: str | None, count: int, seed: int, other: bool = False) -> tuple[Tensor, ...]:
    """Unseen images without a finding, and with an effusion: at most `count` of each.

    other: more of them, for the distance that sets of real images have: phantoms of other seeds,
        or films of the train split
    """
    first = seed + other * 12 * count
    phantoms = DataConfig(phantoms=12 * count, phantom_seed=first)
    files = DataConfig(path=data, split="train" if other else "val")
    return adapted_models.reference(files if data else phantoms, count)


def sheet(path: Path, rows: dict[str, Tensor], title: str) -> None:
    """A row for each model: four images of the plain prompt, four with an effusion."""
    size = (8.8, 1.1 * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, (name, drawn) in zip(axes[:, 0], rows.items(), strict=True):
        axis.imshow(image_files.grid(drawn, columns=8)[0], cmap="gray", vmin=-1, vmax=1)
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=8)
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    Image.open(path).convert("L").save(path, optimize=True)  # a third of the bytes


def table(report: dict[str, dict[str, str]]) -> str:
    """Markdown: a row for each model, the intervals in brackets."""
    columns = list(max(report.values(), key=len))
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(row.get(c, "") for c in columns)] for name, row in report.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--base", default="weights/base.safetensors")
    parser.add_argument("--judge", default="weights/judge.safetensors")
    parser.add_argument("--data", help="a CSV: measure against its val split, not phantoms")
    parser.add_argument("--n", type=int, default=100, help="images of each prompt")
    parser.add_argument("--guidance", type=float, help="default: the model's")
    parser.add_argument("--seed", type=int, default=1000, help="of the drawn images")
    parser.add_argument("--phantom-seed", type=int, default=UNSEEN, help="of what they should be")
    parser.add_argument("--out", type=Path, default="runs/adaptation")
    options = parser.parse_args()
    settings = {} if options.guidance is None else {"guidance": options.guidance}
    judge = load_judge(options.judge)
    asked = (options.data, options.n, options.phantom_seed)
    normal, fluid = reference(*asked)
    more = torch.cat(reference(*asked, other=True))
    floor = judged(judge, more)
    truth = np.repeat([0, 1], [len(normal), len(fluid)])
    both = torch.cat([normal, fluid])
    logits, real = scores(judge, both, EFFUSION), judged(judge, both)
    report: dict[str, dict[str, str]] = {
        "reference": {
            "n": f"{len(normal)} + {len(fluid)}",
            "AUC": str(auc(logits, truth)),
            **{key: str(value) for key, value in decisions(logits, truth).items()},
            "distance, all": str(jackknife(frechet, floor, real)),
        }
    }
    figures: dict[str, tuple[float, float, float]] = {}
    rows: dict[str, Tensor] = {}
    for run in tqdm([None, *options.runs], unit="model"):
        artist, noun = open_run(run, options.base, options.out, options.seed, **settings)
        prompt = f"a photo of a {noun}"
        others = [f"{prompt}{SUFFIX}{OTHER[i % len(OTHER)]}" for i in range(options.n)]
        prompts = [prompt] * options.n + [f"{prompt}{SUFFIX}{EFFUSION}"] * options.n
        drawn, beside = artist.draw(prompts), artist.draw(others)
        logits, features = scores(judge, drawn, EFFUSION), judged(judge, drawn)
        labels = np.repeat([0, 1], options.n)
        against = np.concatenate([scores(judge, beside, EFFUSION), logits[options.n :]])
        name = "base" if run is None else Path(run).name
        halves = [
            jackknife(frechet, features[labels == label], real[truth == label]) for label in (0, 1)
        ]
        area = auc(logits, labels)
        rows[name] = torch.cat([drawn[:4], drawn[options.n :][:4]])
        figures[name] = (halves[0].value, halves[1].value, area.value)
        report[name] = {
            "AUC": str(area),
            "AUC, other findings": str(auc(against, labels)),
            **{key: str(value) for key, value in decisions(logits, labels).items()},
            "distance, all": str(jackknife(frechet, features, real)),
            "distance, no suffix": str(halves[0]),
            "distance, effusion": str(halves[1]),
        }
        if run:
            unseen = both if options.data else torch.cat([both, more])  # more: films of train
            report[name] |= copies(artist.pipe.vae, drawn, taught(run), unseen)
    for column, what in enumerate(("distance, no suffix", "distance, effusion", "AUC")):
        known = [n for n in figures if n in PAPER and PAPER[n][column] is not None]
        if len(known) > 2:
            ours, theirs = ([d[n][column] for n in known] for d in (figures, PAPER))
            tau = kendalltau(ours, theirs)
            report[f"Kendall's tau to the paper, {what}"] = {
                "tau": f"{tau.statistic:.2f} (p = {tau.pvalue:.2f}, {len(known)} methods)"
            }
    title = "synthetic; left no suffix, right a visible pleural effusion"
    sheet(options.out / "sheet.png", rows, title)
    (options.out / "table.md").write_text(
        table({name: row for name, row in report.items() if "AUC" in row})
    )
    text = json.dumps(report, indent=1)
    (options.out / "report.json").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "adaptation.py"))
