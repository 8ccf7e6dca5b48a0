"""What the built-in model can do, in figures: those of weights/README.md.

    python benchmarks/built_in.py labels.csv [--out runs/built_in]

labels.csv is the table of films that the model was trained on, with a `val` split that it was not.
Image indices 0 to 99 of seed 0 for each prompt, default settings, nothing selected. Drawn images
are kept in --out, where the closest pairs and the contact sheets are written, too; these show real
films, so they are for looking at, not for publishing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from drawn import EFFUSION, FINDINGS, PREFIX, UNSEEN, Artist, Simple, everything, films, scores
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ldm import rng
from ldm.data import DataConfig
from ldm.data.augmentation import augment
from ldm.data.datasets import Phantoms
from ldm.data.file_dataset import Files
from ldm.drawing.drawing_settings import SYNTHETIC
from ldm.judging.judge import Judge, load_judge
from ldm.metrics.classification import auc, auc_difference
from ldm.metrics.fid import frechet, jackknife
from ldm.metrics.nearest_images import Neighbours, audit, nearest
from ldm.pictures import image_files
from ldm.system import cli

SAMPLES = 500  # for distances


def judge_report(judge: Judge, sets: Mapping[str, Files | Phantoms]) -> dict[str, str]:
    """The judge's AUC for each finding: against all other images, and against other findings."""
    report = {}
    for name, dataset in sets.items():
        pictures, rows = everything(dataset), [dataset.findings(i) for i in range(len(dataset))]
        some = np.array([any(row.values()) for row in rows])
        for finding in judge.config.findings:
            truth = np.array([row.get(finding, False) for row in rows])
            if truth.sum() < 2:
                continue
            found = scores(judge, pictures, finding)
            report[f"{name}: {finding}"] = (
                f"{auc(found, truth)}; against other findings {auc(found[some], truth[some])}, "
                f"{truth.sum()} with it"
            )
    return report


def prompts_report(judge: Judge, model: Artist, base: Artist, count: int) -> dict[str, str]:
    """Does the model draw what the prompt says? A finding against other findings, by the judge."""
    report = {}
    for world in PREFIX:
        for finding in FINDINGS:
            drawn, truth = model.pair(world, finding, count)
            found = scores(judge, drawn, finding)
            report[f"{world}: {finding}, model"] = str(auc(found, truth))
            if finding == EFFUSION:
                before = scores(judge, base.pair(world, finding, count)[0], finding)
                report[f"{world}: {finding}, base"] = str(auc(before, truth))
                report[f"{world}: {finding}, model - base"] = str(
                    auc_difference(found, before, truth)
                )
    return report


def probe_report(
    simple: Simple, train: Files, val: Files, artists: Mapping[str, Artist], count: int
) -> dict[str, str]:
    """Effusion against no findings, by a linear probe on simple features of real films."""

    def asked(dataset: Files) -> tuple[Tensor, np.ndarray]:
        rows = [dataset.findings(i) for i in range(len(dataset))]
        keep = [i for i, row in enumerate(rows) if row.get(EFFUSION) or not any(row.values())]
        truth = np.array([bool(rows[i].get(EFFUSION)) for i in keep])
        return dataset.images(torch.tensor(keep)), truth

    pictures, truth = asked(train)
    scale = simple(pictures).std(axis=0)
    probe = LogisticRegression(C=0.1, max_iter=1000).fit(simple(pictures) / scale, truth)

    def judged(some: Tensor, truth: np.ndarray) -> str:
        return str(auc(probe.decision_function(simple(some) / scale), truth))

    report = {"real val": judged(*asked(val))}
    for name, artist in artists.items():
        drawn = [
            artist.draw([f"lung xray{words}"] * count)
            for words in (f" with {EFFUSION}", ", no findings")
        ]
        report[name] = judged(torch.cat(drawn), np.repeat([1, 0], count))
    return report


def distance_report(
    simple: Simple, train: Files, val: Files, unseen: Tensor, artists: Mapping[str, Artist]
) -> dict[str, str]:
    """Fréchet distances to the real val films: of the model, of real films, of phantoms."""
    captions, picks = captions_of(train, SAMPLES)
    target = simple(everything(val))
    sets = {"real train (floor)": train.images(picks), "phantoms (ceiling)": unseen}
    sets |= {name: artist.draw(captions) for name, artist in artists.items()}
    found = {name: jackknife(frechet, simple(some), target) for name, some in sets.items()}
    floor, ceiling = (e.value for e in list(found.values())[:2])
    return {
        name: f"{e}, {100 * (e.value - floor) / (ceiling - floor):.0f} % of the way up"
        for name, e in found.items()
    }


def captions_of(train: Files, count: int) -> tuple[list[str], Tensor]:
    """Captions of training films, and which films they are of."""
    generator = rng.generator(0, "films for captions")
    picks = torch.randperm(len(train), generator=generator)[:count]
    return [train.caption(int(i), wording) for wording, i in enumerate(picks)], picks


def copies_report(artist: Artist, train: Files, val: Files, count: int, variants: int) -> dict:
    """Are samples nearer to what was trained on than unseen films are? In pixels and in latents.

    Trained on: each film, and the changed copies of it that the U-Net saw; its changes are drawn by
    a film's number, which was another one for the base, without the films with an effusion. The
    unseen films pass through the autoencoder as the samples did: blur alone brings images nearer.
    """
    samples, vae = artist.draw(captions_of(train, SAMPLES)[0])[:count], artist.pipe.vae

    @torch.inference_mode()
    def encode(pictures: Tensor) -> Tensor:
        return torch.cat([vae.encode(part).mean for part in pictures.split(32)])

    with torch.inference_mode():
        held_out = vae.decode(encode(everything(val))).clamp(-1, 1)
    pictures = everything(train)
    dry = [not train.findings(i).get(EFFUSION) for i in range(len(train))]
    seen = [pictures]
    for i in range(variants):
        for films_of_one in (pictures, pictures[torch.tensor(dry)]):
            numbers = range(i, variants * len(films_of_one), variants)
            changed = [
                augment(x[None], rng.generator(0, "latents", number))
                for x, number in zip(films_of_one, numbers, strict=True)
            ]
            seen.append(torch.cat(changed))
    spaces = {"pixels": lambda x: x, "latents": encode}
    report = {}
    for name, space in spaces.items():
        rows = torch.cat([space(part) for part in seen])
        found = audit(space(samples).numpy(), rows.numpy(), space(held_out).numpy())
        order = np.argsort(found.samples.distance)[:16]
        real = torch.cat(seen)[found.samples.which[order]]
        sheet = torch.stack([x for pair in zip(samples[order], real, strict=True) for x in pair])
        save_sheet(sheet, artist.folder / f"closest_{name}.png", "pairs: drawn, nearest real film")
        quantiles = [0, 0.01, 0.1, 0.5]
        report[name] = {
            "nearer than 1 % of unseen films": str(found.copies),
            "distance: minimum, 1 %, 10 %, median of samples": quantile(found.samples, quantiles),
            "of unseen films": quantile(found.held_out, quantiles),
        }
    return report


def quantile(neighbours: Neighbours, at: Sequence[float]) -> list[float]:
    return [round(float(x), 2) for x in np.quantile(neighbours.distance, at)]


def save_sheet(pictures: Tensor, path: Path, what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_files.save(image_files.grid(pictures, 8), path, {"content": what})


def contact_sheets(artist: Artist, val: Files, count: int) -> None:
    """Prompt by prompt, images 0 to 15; and real films with the same label, not to be published."""
    for world, prefix in PREFIX.items():
        for words in (", no findings", *(f" with {finding}" for finding in FINDINGS)):
            drawn = artist.draw([prefix + words] * count)[:16]
            path = artist.folder / f"sheet_{world}_{words.split(' ', 1)[1].replace(' ', '_')}.png"
            image_files.save(image_files.grid(drawn, 8), path, {"synthetic": SYNTHETIC})
    for finding in ("", *FINDINGS):
        rows = [val.findings(i) for i in range(len(val))]
        wanted = [r.get(finding) if finding else not any(r.values()) for r in rows]
        picks = [i for i, there in enumerate(wanted) if there]
        real = val.images(torch.tensor(picks[:16]))
        name = finding.replace(" ", "_") or "no_findings"
        save_sheet(real, artist.folder / f"sheet_real_{name}.png", "real films of the val split")


def failures(
    artist: Artist, judge: Judge, simple: Simple, train: Files, val: Files, count: int
) -> None:
    """Above, the effusions that the judge believes least; below, what is least like a real film."""
    fluid = artist.draw([f"{PREFIX['film']} with {EFFUSION}"] * count)
    unseen = np.argsort(scores(judge, fluid, EFFUSION))[:8]
    samples = artist.draw(captions_of(train, SAMPLES)[0])
    odd = np.argsort(nearest(simple(samples), simple(everything(val))).distance)[-8:]
    sheet = torch.cat([fluid[unseen], samples[odd]])
    image_files.save(
        image_files.grid(sheet, 8), artist.folder / "failures.png", {"synthetic": SYNTHETIC}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="the CSV of films")
    parser.add_argument("--model", default="weights")
    parser.add_argument("--base", default="weights/base.safetensors")
    parser.add_argument("--judge", default="weights/judge.safetensors")
    parser.add_argument("--out", type=Path, default="runs/built_in")
    parser.add_argument("--n", type=int, default=100, help="images of each prompt")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    judge, train, val = (
        load_judge(options.judge),
        films(options.data, "train"),
        films(options.data, "val"),
    )
    unseen = Phantoms(DataConfig(phantoms=SAMPLES, phantom_seed=UNSEEN), channels=1)
    model, base = (Artist(path, options.out) for path in (options.model, options.base))
    artists = {"model": model, "base": base}
    contact_sheets(model, val, options.n)
    simple = Simple(everything(train))
    report = {
        "weights": {name: artist.pipe.weights_hash for name, artist in artists.items()},
        "the judge itself": judge_report(judge, {"phantoms": unseen, "real val": val}),
        "a finding against others": prompts_report(judge, model, base, options.n),
        "linear probe": probe_report(simple, train, val, artists, options.n),
        "distance": distance_report(simple, train, val, everything(unseen), artists),
        "copies": copies_report(model, train, val, count=200, variants=8),
    }
    failures(model, judge, simple, train, val, options.n)
    text = json.dumps(report, indent=1)
    (options.out / "report.json").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "built_in.py"))
