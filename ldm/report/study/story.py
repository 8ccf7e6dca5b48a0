"""The page of a study: what the paper found, what was found here, and what that is worth."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping

import torch

from ldm import __version__
from ldm.metrics.classify import Estimate
from ldm.report import Report, page
from ldm.report.page import Block, Heading, Table
from ldm.report.study import adapted, figures, tables
from ldm.report.study.adapted import AGAINST, NAMES, distance, verdict
from ldm.report.study.order import Order
from ldm.report.study.settings import Study
from ldm.report.study.steps import RECORD
from ldm.report.study.tables import Steps, show

TITLE = "Adapting latent diffusion to chest radiographs: the study of arXiv:2210.04133, repeated"
TUNED = ("unet_no_findings", "unet", "unet_prior")


def report(study: Study, done: Steps) -> Report:
    """The page in every form; in tables.md and tables.json nothing depends on the machine."""
    orders: dict[str, Order] = {}
    body = [*autoencoder(done, orders), *text(done, orders), *drawn(study, done, orders)]
    summary = [Heading("Summary"), *warnings(study), *headline(done), order_table(orders), RULE]
    blocks = [*opening(study), *summary, *body, Heading("What this study cannot say"), *limits(study)]
    made: list[Block] = [Heading("How it was made"), *machine(study, done)]
    values = {name: step.values for name, step in done.items()}
    values = {"orders": {k: {**o._asdict(), "words": o.words} for k, o in orders.items()}, **values}
    files = page.files("study", TITLE, [*blocks, *made], values)
    del files["study.json"], files["study.txt"]
    only_tables = [b for b in blocks if isinstance(b, Table | Heading)]
    files["tables.md"] = page.markdown(TITLE, only_tables).encode()
    files["tables.json"] = (json.dumps(values, indent=1) + "\n").encode()
    files["machine.json"] = (json.dumps(facts(done), indent=1) + "\n").encode()
    told = page.text(TITLE, [*warnings(study), *headline(done), order_table(orders)])
    return Report(told, {"orders": values["orders"]}, files)


def opening(study: Study) -> list[Block]:
    world = (
        "Stable Diffusion v1.4, real films and reports"
        if study.tier == "full"
        else "the built-in model of 128 pixels, phantoms (computed chests whose findings are known) "
        "and Open-I's reports"
    )
    return [
        "Chambon, Bluethgen, Langlotz and Chaudhari adapted Stable Diffusion to chest radiographs "
        "with five normal films and five with a pleural effusion (arXiv:2210.04133). This page "
        f"repeats their study on {world}. Every table stands beside theirs; it names the steps "
        "whose values.json, in the folder steps/ beside this page, holds its figures. All images "
        "drawn by models are synthetic.",
    ]


def warnings(study: Study) -> list[Block]:
    if not study.quick:
        return []
    return [
        f"QUICK RUN: {study.n} images of each prompt and trainings cut short. It shows that "
        "everything works. Draw no conclusion from its figures; leave out --quick for those."
    ]


RULE = (
    "Two rows are told apart if their intervals of 95 % do not overlap. \"Same order\": all pairs "
    "that are told apart stand as in the paper. \"Not the same order\": some do not. \"Not told\": "
    "no pair is told apart. By chance about half of the pairs would stand as in the paper. "
    "Kendall's tau takes every pair, told apart or not; p is of no order in common. The paper "
    "gives no intervals, and its own figures rest on 50 images of a prompt: the accuracy of 0.95 "
    "has Wilson's interval 0.888 to 0.978. The columns were not corrected for their number."
)


def order_table(orders: Mapping[str, Order]) -> Table:
    rows = [
        (
            name,
            one.words,
            "" if one.tau is None else f"{one.tau:.2f} ({one.p:.2f})",
            str(one.n),
            f"{one.alike} of {one.apart}",
        )
        for name, one in orders.items()
    ]
    header = ("column", "here and there", "tau (p)", "rows", "pairs told apart, as in the paper")
    return Table("Is the order of the rows the paper's?", header, rows)


def said(orders: Mapping[str, Order], start: str) -> str:
    """The orders of one table, in a sentence each."""
    return " ".join(f"{name}: {one}." for name, one in orders.items() if name.startswith(start))


def headline(done: Steps) -> list[Block]:
    """Is one model good at both?"""
    near = {name: one for name in NAMES if (one := distance(done, name, "both"))}
    right = {name: one for name in NAMES if (one := verdict(done, name, "accuracy"))}
    paper = (
        "The paper's headline is two models: the least FID, 0.034, is of the U-Net tuned on no "
        "findings and abnormality, whose AUC is 0.459; accuracy 0.95 and AUC 0.984 are of the "
        "U-Net with prior, whose FID, 0.170, is worse than the untouched model's 0.097."
    )
    if not near or not right:
        return [f"{paper} Here there are too few images to say anything about it."]
    nearest = min(near, key=lambda name: near[name].value)
    best = max(right, key=lambda name: right[name].value)
    told = f"Here the least distance of both prompts together is of {of(done, nearest)}"
    if nearest == best:
        return [f"{paper} {told}, and no model has a higher accuracy: one model is best at both."]
    apart = "" if right[best].low > right[nearest].high else ", but the intervals overlap"
    return [f"{paper} {told}; the highest accuracy is of {of(done, best)}{apart}."]


def of(done: Steps, name: str) -> str:
    parts = {
        "distance": distance(done, name, "both"),
        "accuracy": verdict(done, name, "accuracy"),
        "AUC": verdict(done, name, "AUC"),
        AGAINST: verdict(done, name, AGAINST),
    }
    told = ", ".join(f"{what} {show(one)}" for what, one in parts.items())
    return f"\"{figures.LABELS[name]}\" ({told})"


def autoencoder(done: Steps, orders: dict[str, Order]) -> list[Block]:
    blocks: list[Block] = [
        Heading("1. What the autoencoder lets through (section 3.2, Tables 1 and 6, Figure 3)"),
        "The paper: reconstructions are good (SSIM 0.93), and a classifier says nearly the same of "
        "them as of the originals; some AUCs rise a little, most of all that of effusion (0.877 to "
        "0.881), others fall, as that of lung lesion (0.766 to 0.728).",
    ]
    for name in ("reconstruction", "reconstruction_films"):
        if name not in done:
            continue
        quality, found = tables.quality(done, name), tables.findings(done, name)
        blocks += [quality, reread(done, name), *found.tables]
        blocks.append(said(found.orders, "Table"))
        suffix = "" if name == "reconstruction" else ", films"
        orders |= {key + suffix: one for key, one in found.orders.items()}
        caption = "Figure 3: distributions of the figures of each pair."
        blocks.append(figures.of_step(done, name, "distributions.png", caption))
        caption = (
            "Figure 3: originals, reconstructions (synthetic) and what was added or lost: the "
            "worst, the median and the best pair."
        )
        blocks.append(figures.of_step(done, name, "triples.png", caption))
    return blocks


def reread(done: Steps, name: str) -> str:
    """In how many findings the AUC changed, by the paired intervals."""
    found = tables.reader(done[name].values)["findings"]
    changes = {key: tables.estimate(one["difference"]["sample"]) for key, one in found.items()}
    down = [key for key, one in changes.items() if one and one.high < 0]
    up = [key for key, one in changes.items() if one and one.low > 0]
    return (
        f"Here ({done[name].values['n']} images), of {len(found)} findings the AUC falls in "
        f"{len(down)} ({', '.join(down) or 'none'}), rises in {len(up)} "
        f"({', '.join(up) or 'none'}), and cannot be told from the original's in the others, by "
        "the paired interval of the difference."
    )


def text(done: Steps, orders: dict[str, Order]) -> list[Block]:
    two, three = tables.encoders(done), tables.classes(done)
    orders |= two.orders | three.orders
    values = done["text_encoders"].values
    blocks: list[Block] = [
        Heading("2. What text encoders keep of reports (section 3.3, Tables 2 and 3, Figures 6-8)"),
        "The paper: CXR-BERT-specialized keeps most (61.1 %), CLIP's tower is second (52.9 %) and "
        "ahead of words in common (41.5 %), whereas its first token knows nothing (7.0 %, which is "
        "chance).",
        f"Here: {values['n']} impressions of {values['reports']}, chance "
        f"{100 * values['chance']:.1f} %. {said(two.orders | three.orders, 'Table')} The small "
        "tower and BERT of this repository learned from captions alone; the paper's encoders read "
        "the web, or reports.",
        *two.tables,
        *three.tables,
    ]
    names = [name for name in read_files(done, "text_encoders") if name.startswith("tsne_")]
    for number, name in enumerate(names, start=6):
        which = name.removeprefix("tsne_").removesuffix(".png").partition("_")[2]
        place = f"Figure {number}" if number <= 8 else "Beyond the paper's figures"
        caption = f"{place}: t-SNE of the impressions by {which}; near is alike."
        blocks.append(figures.of_step(done, "text_encoders", name, caption))
    return blocks


def read_files(done: Steps, step: str) -> list[str]:
    return sorted(json.loads(done[step].read(RECORD))["files"])


def drawn(study: Study, done: Steps, orders: dict[str, Order]) -> list[Block]:
    four, five = adapted.distances(done), adapted.verdicts(done)
    orders |= four.orders | five.orders
    tuned = best_tuned(done)
    phantoms = study.data is None
    return [
        Heading("3. How near what is drawn is to real images (section 3.4, Table 4, Figures 1, 4)"),
        "The paper: projections make images worse, textual inversion does little for the plain "
        "prompt, tuning the U-Net helps most, and its prior costs distance again.",
        f"Here: {study.n} images of each prompt and method against {real(done)}, in the features "
        f"of {study.distance_by}. {said(four.orders, 'Table 4')} The paper does not say which "
        "images its FID compares with.",
        *four.tables,
        figures.first(done, tuned),
        figures.fourth(done, phantoms),
        Heading("4. Do the images show an effusion where they are asked to? (section 3.5, Table 5)"),
        "The paper: the untouched model draws nothing that a classifier sees (AUC 0.514), textual "
        "inversion comes to 0.742, the U-Net without prior to 0.459 and with it to 0.984.",
        f"Here {study.classified_by} judges, {study.n} + {study.n} images. "
        f"{said(five.orders, 'Table 5')} The AUC of the plain prompt against the effusion's can be "
        f"had from the style of the images alone; \"{AGAINST}\" asks for more.",
        *five.tables,
        Heading("5. Copies of what was trained on (not in the paper; Figure 5)"),
        "The paper shows what its U-Net was tuned on beside what it draws, says that the latter "
        "lack diversity, and counts no copies.",
        adapted.copies(done),
        figures.fifth(done, tuned, phantoms),
    ]


def best_tuned(done: Steps) -> str:
    """The tuned U-Net with the least distance; with too few images, the paper's."""
    near: dict[str, Estimate] = {n: one for n in TUNED[1:] if (one := distance(done, n, "both"))}
    return min(near, key=lambda name: near[name].value) if near else "unet"


def real(done: Steps) -> str:
    n = done["reference"].values["n"]
    return f"{n['plain']} real images without a finding and {n['fluid']} with an effusion"


def limits(study: Study) -> list[Block]:
    shared = [
        "One training run of each kind and one seed: intervals are of the images, not of trainings "
        "done again.",
        f"{study.n} images are fewer than the features they are compared in, so that a distance of "
        "one prompt compares methods and means little in itself.",
        "A classifier that was made for real images is asked about drawn ones; what it calls an "
        "effusion, no radiologist has seen.",
    ]
    if study.tier == "full":
        return [*shared]
    return [
        "Phantoms in the place of MIMIC-CXR and CheXpert, a model of 6 million weights in the "
        "place of Stable Diffusion's 1,066 million: figures do not compare, and an order need not "
        "carry over. The untouched model here has seen films without an effusion; Stable Diffusion "
        "had seen the web.",
        f"The classifier and the features are the built-in judge's, a network of seven findings, "
        "in the place of torchxrayvision's DenseNet-121 and Inception-v3.",
        *shared,
        "The text encoders of the paper's Table 2 are not here, except CLIP, by a small tower of "
        "its kind; the projection's encoder is a BERT that has read phantoms' captions and others.",
    ]


def machine(study: Study, done: Steps) -> list[Block]:
    there = facts(done)
    rows = [(name, f"{step.seconds:.0f}") for name, step in done.items()]
    rows.append(("all", f"{sum(step.seconds for step in done.values()):.0f}"))
    command = "python evaluate.py study" + (" --quick" if study.quick else "")
    return [
        f"{command}{' --tier full ...' if study.tier == 'full' else ''}; seed {study.seed} of all "
        f"drawings; steps are kept and found again by what they rest on. Machine: "
        f"{there['machine']}; versions: {there['versions']}.",
        Table(
            "Seconds of each step on this machine, of its last start if it was interrupted.",
            ("step", "seconds"),
            rows,
        ),
    ]


def facts(done: Steps) -> dict[str, object]:
    """What may differ between two runs of the same study."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores, "
        f"{torch.get_num_threads()} threads",
        "versions": f"ldm {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "seconds": {name: step.seconds for name, step in done.items()},
        "keys": {name: step.key for name, step in done.items()},
    }
