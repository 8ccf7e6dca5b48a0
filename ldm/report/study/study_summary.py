"""The results of a study in short, and how it was made."""

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
