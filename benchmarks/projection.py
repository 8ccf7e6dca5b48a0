"""How well does another text encoder, projected into CLIP's space, do CLIP's work?

    python benchmarks/projection.py RUN [RUN ...] [--n 100] [--data captions.csv] [--out FOLDER]

Each RUN is a run folder of configs/projection_*.yaml. Beside them stand CLIP itself, its
end-of-text state alone, which is the most that a document level can reach, and what chance gives.

- Held-out captions (phantoms', or those of --data): cosine and squared error between the projected
  and CLIP's own states, a mean over places; "unexplained" is that error over that of the best
  constant at each place. No run has seen them: what is held out depends on a text alone.
- Open-I's impressions, at most 50 of each class: CheXpert@10 (arXiv:2210.04133, section 2.4) of
  the projected vector, at token level the one in the place of CLIP's end-of-text; in brackets the
  encoder's own vector, and shared words, the paper's baseline.
- n pictures of "phantom lung xray, no findings", n "with pleural effusion", n of other findings:
  the built-in judge's AUC for effusion against the two others, and the Frechet distance of the
  first 2 n, in the judge's features, to unseen phantoms.

All with 95 % intervals: bootstrap over captions, over reports (see ldm.metrics.retrieval), DeLong,
jackknife. The table goes to OUT/table.md, everything to OUT/report.json, first pictures to
OUT/sheet.png; drawn pictures are kept in OUT/drawn, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from adaptation import judged, reference, sheet, table
from drawn import EFFUSION, FINDINGS, OTHERS, PREFIX, UNSEEN, Artist, scores
from torch import Tensor, nn
from tqdm import tqdm

from ldm import rng
from ldm.clip import TextEncoder, tokenizer
from ldm.data import DataConfig
from ldm.data.caption_corpus import open_texts
from ldm.data.labelled_reports import Labelled, balanced, openi
from ldm.data.mesh_terms import CLASSES
from ldm.judging.judge import Judge, load_judge
from ldm.metrics.classification import auc
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import frechet, jackknife
from ldm.metrics.retrieval import Score, chexpert_at_k, shared_words
from ldm.system import cli
from ldm.text.projected_encoder import (
    PLACES,
    ProjectedText,
    PromptReader,
    clip_states,
    replace_text,
)

DRAWS = 1000  # of the bootstrap
OTHER = (*FINDINGS[1:], *OTHERS["phantom"])


class EndOfText(nn.Module):
    """CLIP's own document level."""

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.text = text

    def forward(self, prompts: list[str], log_dropped: bool = True) -> Tensor:
        return clip_states(self.text, prompts, "document")


def share(above: np.ndarray, below: np.ndarray) -> Estimate:
    """sum(above) / sum(below), with percentiles over texts drawn anew; both [n]."""
    g = rng.generator(0, "bootstrap of texts")
    which = torch.randint(len(above), (DRAWS, len(above)), generator=g).numpy()
    low, high = np.quantile(above[which].sum(1) / below[which].sum(1), [0.025, 0.975])
    return Estimate(above.sum() / below.sum(), float(low), float(high), len(above))


def fit_report(projected: ProjectedText, text: TextEncoder, held_out: list[str]) -> dict[str, str]:
    """How near the projected states of unseen captions are to CLIP's."""
    level, layout = projected.about.level, projected.reader.layout
    room = PLACES - 2
    kept = [t for t in held_out if len(tokenizer().encode(t)) <= room and not layout(t).dropped]
    pairs = [
        (projected(some, log_dropped=False), clip_states(text, some, level))
        for some in (kept[i : i + 64] for i in range(0, len(kept), 64))
    ]
    found, target = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    cosine = torch.cosine_similarity(found, target, dim=-1).mean(1)
    error = (found - target).square().mean((1, 2)).numpy()
    constant = (target - target.mean(0)).square().mean((1, 2)).numpy()
    one = np.ones(len(kept))
    return {
        "cosine": str(share(cosine.numpy(), one)),
        "squared error": str(share(error, one)),
        "unexplained": str(share(error, constant)),
        "left out as too long": f"{len(held_out) - len(kept)} of {len(held_out)}",
    }


def vectors(projected: ProjectedText, texts: list[str]) -> np.ndarray:
    """One of each text: [n, D], at token level in the place of CLIP's end-of-text."""
    rows = []
    for text in tqdm(texts, "reports", leave=False):
        layout = projected.reader.layout(text)
        end = layout.places.index(len(layout.ids) - 1) if projected.about.level == "token" else 0
        rows.append(projected([text], log_dropped=False)[0, end])
    return torch.stack(rows).numpy()


def unprojected(reader: PromptReader, texts: list[str]) -> np.ndarray:
    """The encoder's own vector of each text: [n, E]; at token level that of [SEP], as above."""
    about = argparse.Namespace(level=reader.level)
    return vectors(ProjectedText(reader, nn.Identity(), about), texts)


def reports_report(score: Score) -> dict[str, object]:
    return {
        "macro": str(score.macro),
        "classes": {CLASSES[c]: str(e) for c, e in score.classes.items()},
    }


def images_report(artist: Artist, judge: Judge, real: Tensor, count: int) -> tuple[dict, Tensor]:
    """What is drawn of three kinds of prompts, by the judge; and a few of the pictures."""
    others = [f" with {OTHER[i % len(OTHER)]}" for i in range(count)]
    normal, fluid, other = (
        artist.draw([PREFIX["phantom"] + words for words in some])
        for some in ([", no findings"] * count, [f" with {EFFUSION}"] * count, others)
    )
    truth = np.repeat([0, 1], count)
    found = {
        name: str(auc(scores(judge, torch.cat([against, fluid]), EFFUSION), truth))
        for name, against in (("AUC", normal), ("AUC, other findings", other))
    }
    drawn = torch.cat([normal, fluid])
    distance = jackknife(frechet, judged(judge, drawn), judged(judge, real))
    return {**found, "distance": str(distance)}, torch.cat([normal[:4], fluid[:4]])


def open_artist(run: str | None, options: argparse.Namespace) -> Artist:
    artist = Artist(options.model, options.out, options.seed)
    if run is not None:
        replace_text(artist.pipe, run)
    return artist


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--model", default="weights")
    parser.add_argument("--judge", default="weights/judge.safetensors")
    parser.add_argument("--data", help="a CSV with a column `caption`, for the held-out captions")
    parser.add_argument("--n", type=int, default=100, help="images of each prompt; 0: none")
    parser.add_argument("--k", type=int, default=10, help="of CheXpert@k")
    parser.add_argument("--per-class", type=int, default=50, help="reports of a class at most")
    parser.add_argument("--seed", type=int, default=1000, help="of the drawn images")
    parser.add_argument("--out", type=Path, default="runs/projection")
    options = parser.parse_args()
    if len({Path(run).name for run in options.runs}) < len(options.runs):
        parser.error("two runs have the same name; rename a folder")
    if 0 < options.n < 5:
        parser.error("--n wants 5 or more, for the jackknife leaves out tenths; or 0")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    held_out = list(open_texts(DataConfig(path=options.data)).held_out)
    reports: Labelled = balanced(openi(), options.per_class)
    judge, pictures = load_judge(options.judge), {}
    normal, fluid = reference(None, max(options.n, 16), UNSEEN)
    real = torch.cat([normal, fluid])
    column = f"CheXpert@{options.k}"

    def rate(embeddings: np.ndarray) -> dict[str, object]:
        return reports_report(chexpert_at_k(embeddings, reports.labels, options.k))

    words = chexpert_at_k(shared_words(reports.texts), reports.labels, options.k)
    report: dict[str, dict] = {
        "chance": {column: f"{words.macro_chance:.3f}", "AUC": "0.5", "AUC, other findings": "0.5"},
        "shared words": {column: str(words.macro)},
    }
    details: dict[str, object] = {"shared words": reports_report(words)}
    for run in tqdm([None, "end", *options.runs], unit="row"):
        artist = open_artist(None if run == "end" else run, options)
        pipe, name = artist.pipe, "CLIP" if run is None else Path(run).name
        row: dict[str, str] = {}
        if run is None:
            tower = [clip_states(pipe.text, [text], "document")[0, 0] for text in reports.texts]
            details[name] = rate(torch.stack(tower).numpy())
            row[column] = details[name]["macro"]
        elif run == "end":
            name = "CLIP, end of text alone"
            pipe.other_text, pipe.weights_hash = EndOfText(pipe.text), f"{pipe.weights_hash}+end"
        else:
            projected = pipe.other_text
            cut = sum(bool(projected.reader.layout(text).dropped) for text in reports.texts)
            details[name] = {
                "made of": projected.provenance(),
                "projected": rate(vectors(projected, reports.texts)),
                "encoder alone": rate(unprojected(projected.reader, reports.texts)),
                "reports cut": f"{cut} of {len(reports.texts)}",
            }
            row = fit_report(projected, pipe.text, held_out)
            details[name]["left out as too long"] = row.pop("left out as too long")
            both = [details[name][key]["macro"] for key in ("projected", "encoder alone")]
            row[column] = f"{both[0]} [{both[1]}]"
        if options.n:
            found, pictures[name] = images_report(artist, judge, real, options.n)
            row |= found
        report[name] = row
    columns = ["cosine", "squared error", "unexplained", column]
    if options.n:
        columns += ["AUC", "AUC, other findings", "distance"]
        truth = np.repeat([0, 1], [len(normal), len(fluid)])
        floor = torch.cat(reference(None, options.n, UNSEEN, other=True))
        report["phantoms"] = {
            "AUC": str(auc(scores(judge, real, EFFUSION), truth)),
            "distance": str(jackknife(frechet, judged(judge, floor), judged(judge, real))),
        }
        pictures["phantoms"] = torch.cat([normal[:4], fluid[:4]])
        title = "synthetic; left no findings, right pleural effusion; no patient"
        sheet(options.out / "sheet.png", pictures, title)
    whole = {name: {c: row.get(c, "") for c in columns} for name, row in report.items()}
    (options.out / "table.md").write_text(table(whole))
    facts = {"reports": reports.counts(), "left out": reports.left_out, "details": details}
    text = json.dumps({"table": whole, **facts}, indent=1)
    (options.out / "report.json").write_text(text + "\n")
    print(table(whole))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "projection.py"))
