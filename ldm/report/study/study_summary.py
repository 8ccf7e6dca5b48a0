"""The summary of a study, its limits, and how it was made."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ldm import __version__
from ldm.report.page import Block, Table
from ldm.report.study.paper_tables import AGAINST, LABELS, NAMES, Steps, distance, show, verdict
from ldm.report.study.rank_agreement import RankAgreement
from ldm.report.study.study_settings import Study

TIMES = ("seconds", "cpu")  # of the record of a step
RULE = (
    'Two rows are told apart if their intervals of 95 % do not overlap. "Same order": at least '
    'half of all pairs are told apart, and all of these stand as in the paper. "Not the same '
    'order": some of them do not. "Not told": the others. By chance about half of the pairs would '
    "stand as in the paper. Kendall's tau takes every pair, told apart or not; p is of no order in "
    "common. The paper gives no intervals, and its own figures rest on 50 images of a prompt: the "
    "accuracy of 0.95 has Wilson's interval 0.888 to 0.978. The columns were not corrected for "
    "their number."
)


def opening(study: Study) -> str:
    world = (
        "Stable Diffusion v1.4, real films and reports"
        if study.tier == "full"
        else "the built-in model of 128 pixels, phantoms (computed chests whose findings are "
        "known) and Open-I's reports"
    )
    return (
        "Chambon, Bluethgen, Langlotz and Chaudhari adapted Stable Diffusion to chest radiographs "
        "with five normal films and five with a pleural effusion (arXiv:2210.04133). This page "
        f"repeats their study on {world}. Every table stands beside theirs; it names the steps "
        "whose values.json, in the folder steps/ beside this page, holds its figures. All images "
        "drawn by models are synthetic."
    )


def results(study: Study, done: Steps, orders: Mapping[str, RankAgreement]) -> list[Block]:
    """The findings in short: the best model, and how many columns have the paper's order."""
    warning = (
        f"QUICK RUN: {study.n} images of each prompt and trainings cut short. It shows that "
        "everything works. Draw no conclusion from its figures; leave out --quick for those."
    )
    found: list[Block] = [headline(done), count_orders(orders), order_table(orders)]
    return [warning, *found] if study.quick else found


def headline(done: Steps) -> str:
    """The model with the least distance and the one with the highest accuracy: are they one?"""
    near = {name: one for name in NAMES if (one := distance(done, name, "both"))}
    right = {name: one for name in NAMES if (one := verdict(done, name, "accuracy"))}
    paper = (
        "The paper's headline is two models: the least FID, 0.034, is of the U-Net tuned on no "
        "findings and abnormality, whose AUC is 0.459; accuracy 0.95 and AUC 0.984 are of the "
        "U-Net with prior, whose FID, 0.170, is worse than the untouched model's 0.097."
    )
    if not near or not right:
        return f"{paper} Here there are too few images to say anything about it."
    nearest = min(near, key=lambda name: near[name].value)
    best = max(right, key=lambda name: right[name].value)
    what = f"{paper} Here the least distance of both prompts together is of {model(done, nearest)}"
    if nearest == best:
        what += ", and no model has a higher accuracy: one model is best at both."
    else:
        what += f"; the highest accuracy is of {model(done, best)}."
    overlaps = {
        "distance": [n for n, x in near.items() if n != nearest and x.low <= near[nearest].high],
        "accuracy": [n for n, x in right.items() if n != best and x.high >= right[best].low],
    }
    for figure, names in overlaps.items():
        listed = ", ".join(f'"{LABELS[name]}"' for name in names)
        what += f" In {figure} the best interval overlaps with that of {listed}." if names else ""
    return what


def model(done: Steps, name: str) -> str:
    """The name of a model with its figures."""
    figures = {"distance": distance(done, name, "both")}
    figures |= {kind: verdict(done, name, kind) for kind in ("accuracy", "AUC", AGAINST)}
    listed = ", ".join(f"{kind} {show(one)}" for kind, one in figures.items())
    return f'"{LABELS[name]}" ({listed})'


def count_orders(orders: Mapping[str, RankAgreement]) -> str:
    """A sentence on how many columns have the paper's order."""
    words = [one.words for one in orders.values()]
    same, other = (words.count(kind) for kind in ("same order", "not the same order"))
    return (
        f"Of {len(words)} columns that both studies have, {same} have the same order of their "
        f"rows, {other} have not, and of {len(words) - same - other} it cannot be told."
    )


def order_table(orders: Mapping[str, RankAgreement]) -> Table:
    apart = "pairs told apart, as in the paper"
    return Table(
        "Is the order of the rows the paper's?",
        ("column", "here and there", "Kendall's tau", "rows", apart),
        [
            (name, one.words, one.shown, str(one.n), f"{one.alike} of {one.apart}")
            for name, one in orders.items()
        ],
    )


def limits(study: Study, done: Steps) -> list[Block]:
    width = done["reference"].array("features_plain").shape[1]
    few = [
        f"{study.n} images are fewer than the {width} features they are compared in, so that a "
        "distance of one prompt compares methods and means little in itself."
    ]
    shared: list[Block] = [
        "One training run of each kind and one seed: intervals are of the images, not of trainings "
        "done again.",
        *(few if study.n < width else []),
        "A classifier that was made for real images is asked about drawn ones; what it calls an "
        "effusion, no radiologist has seen.",
    ]
    if study.tier == "full":
        return shared
    return [
        "Phantoms in the place of MIMIC-CXR and CheXpert, a model that a laptop trains in the "
        "place of Stable Diffusion: figures do not compare, and an order need not "
        "carry over. The untouched model here has seen films without an effusion; Stable Diffusion "
        "had seen the web.",
        "The classifier and the features are the built-in judge's, a network of seven findings, "
        "in the place of torchxrayvision's DenseNet-121 and Inception-v3.",
        *shared,
        "The text encoders of the paper's Table 2 are not here, except CLIP, by a small tower of "
        "its kind; the projection's encoder is a BERT that has read phantoms' captions and others.",
    ]


def machine_blocks(study: Study, done: Steps) -> list[Block]:
    records = {name: step.record for name, step in done.items()}
    records["all"] = {kind: sum(each[kind] for each in records.values()) for kind in TIMES}
    rows = [(name, *(f"{each[kind]:.0f}" for kind in TIMES)) for name, each in records.items()]
    command = "python evaluate.py study" + (" --quick" if study.quick else "")
    where = machine(done)
    return [
        f"{command}{' --tier full ...' if study.tier == 'full' else ''}; seed {study.seed} of all "
        f"drawings; steps are kept and found again by what they rest on. Machine: "
        f"{where['machine']}; versions: {where['versions']}.",
        Table(
            "Seconds of each step on this machine, of its last start if it was interrupted.",
            ("step", "seconds", "of all its cores' work"),
            rows,
        ),
    ]


def machine(done: Steps) -> dict[str, object]:
    """Facts that may differ between two runs of one study."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    records = {"seconds": "seconds", "processor's seconds": "cpu", "keys": "key"}
    return {
        "machine": f"{processor()}, {platform.system()}, {cores} cores, "
        f"{torch.get_num_threads()} threads",
        "versions": f"ldm {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        **{
            shown: {name: step.record[key] for name, step in done.items()}
            for shown, key in records.items()
        },
    }


def processor() -> str:
    """Its name where Linux tells it, or its kind."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpus.read_text()) if cpus.exists() else []
    return names[0] if names else platform.machine()
