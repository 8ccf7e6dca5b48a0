"""The page of a study: what the paper found, what was found here, and what that is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ldm.metrics.estimate import Estimate
from ldm.report import Report, page
from ldm.report.page import Block, Heading, Table
from ldm.report.study import adapted_tables, paper_figures, paper_tables
from ldm.report.study.adapted_tables import AGAINST, distance
from ldm.report.study.cached_steps import RECORD
from ldm.report.study.paper_tables import Steps
from ldm.report.study.rank_agreement import RankAgreement
from ldm.report.study.study_settings import Study
from ldm.report.study.study_summary import (
    RULE,
    counted,
    facts,
    headline,
    limits,
    machine,
    opening,
    order_table,
    warnings,
)

TITLE = "Adapting latent diffusion to chest radiographs: the study of arXiv:2210.04133, repeated"
RECONSTRUCTIONS = {"reconstruction": "", "reconstruction_films": ", films"}
TUNED = ("unet_no_findings", "unet", "unet_prior")


def report(study: Study, done: Steps) -> Report:
    """The page in every form; in tables.md and tables.json nothing depends on the machine."""
    told, orders = blocks(study, done), orders_of(done)
    values = {"orders": {k: {**o._asdict(), "words": o.words} for k, o in orders.items()}}
    everything = values | {name: step.values for name, step in done.items()}
    whole = [*told, Heading("How it was made"), *machine(study, done)]
    files = page.files("study", TITLE, whole, facts(done))
    files["machine.json"] = files.pop("study.json")
    only_tables = [block for block in told if isinstance(block, Table | Heading)]
    files["tables.md"] = page.markdown(TITLE, only_tables).encode()
    files["tables.json"] = (json.dumps(everything, indent=1) + "\n").encode()
    short = [*warnings(study), *headline(done), counted(orders), order_table(orders)]
    return Report(page.text(TITLE, short), values, files)


def blocks(study: Study, done: Steps) -> list[Block]:
    """All that does not depend on the machine."""
    orders = orders_of(done)
    return [
        *opening(study),
        Heading("Summary"),
        *warnings(study),
        *headline(done),
        counted(orders),
        order_table(orders),
        RULE,
        *autoencoder(done),
        *text(done),
        *drawn(study, done),
        Heading("What this study cannot say"),
        *limits(study, done),
    ]


def orders_of(done: Steps) -> dict[str, RankAgreement]:
    """Of every column that the paper has, too."""
    found: dict[str, RankAgreement] = {}
    for name, what in RECONSTRUCTIONS.items():
        if name in done:
            found |= {
                f"{key}{what}": one for key, one in paper_tables.findings(done, name).orders.items()
            }
    for beside in (
        paper_tables.encoders,
        paper_tables.classes,
        adapted_tables.distances,
        adapted_tables.verdicts,
    ):
        found |= beside(done).orders
    return found


def said(orders: Mapping[str, RankAgreement], start: str) -> str:
    """The orders of one table, in a sentence each."""
    return " ".join(f"{name}: {one}." for name, one in orders.items() if name.startswith(start))


def autoencoder(done: Steps) -> list[Block]:
    told: list[Block] = [
        Heading("1. What the autoencoder lets through (section 3.2, Tables 1 and 6, Figure 3)"),
        "The paper: reconstructions are good (SSIM 0.93), and a classifier says nearly the same of "
        "them as of the originals; some AUCs rise a little, notably that of effusion (0.877 to "
        "0.881), others fall, as that of lung lesion (0.766 to 0.728).",
    ]
    for name in RECONSTRUCTIONS:
        if name not in done:
            continue
        quality, found = paper_tables.quality(done, name), paper_tables.findings(done, name)
        told += [quality, reread(done, name)]
        told += [said(areas(found.orders), "Table"), *found.tables]
        caption = "Figure 3: distributions of the figures of each pair."
        told.append(paper_figures.of_step(done, name, "distributions.png", caption))
        caption = (
            "Figure 3: originals, reconstructions (synthetic) and what was added or lost: the "
            "worst, the median and the best pair."
        )
        told.append(paper_figures.of_step(done, name, "triples.png", caption))
    return told


def areas(orders: Mapping[str, RankAgreement]) -> dict[str, RankAgreement]:
    """Those of the AUCs; accuracy and F1 hang on a threshold."""
    return {name: one for name, one in orders.items() if "AUC" in name}


def reread(done: Steps, name: str) -> str:
    """In how many findings the AUC changed, by the paired intervals."""
    found = paper_tables.reader(done[name].values)["findings"]
    changes = {
        key: paper_tables.estimate(one["difference"]["sample"]) for key, one in found.items()
    }
    down = [key for key, one in changes.items() if one and one.high < 0]
    up = [key for key, one in changes.items() if one and one.low > 0]
    return (
        f"Here ({done[name].values['n']} images), of {len(found)} findings the AUC falls in "
        f"{len(down)} ({', '.join(down) or 'none'}), rises in {len(up)} "
        f"({', '.join(up) or 'none'}), and cannot be told from the original's in the others, by "
        "the paired interval of the difference."
    )


def text(done: Steps) -> list[Block]:
    two, three = paper_tables.encoders(done), paper_tables.classes(done)
    values = done["text_encoders"].values
    told: list[Block] = [
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
        told.append(paper_figures.of_step(done, "text_encoders", name, caption))
    return told


def read_files(done: Steps, step: str) -> list[str]:
    return sorted(json.loads(done[step].read(RECORD))["files"])


def drawn(study: Study, done: Steps) -> list[Block]:
    four, five = adapted_tables.distances(done), adapted_tables.verdicts(done)
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
        paper_figures.first(done, tuned),
        paper_figures.fourth(done, phantoms),
        Heading(
            "4. Do the images show an effusion where they are asked to? (section 3.5, Table 5)"
        ),
        "The paper: the untouched model draws nothing that a classifier sees (AUC 0.514), textual "
        "inversion comes to 0.742, the U-Net without prior to 0.459 and with it to 0.984.",
        f"Here {study.classified_by} judges, {study.n} + {study.n} images. "
        f"{said(five.orders, 'Table 5')} The AUC of the plain prompt against the effusion's can be "
        f'had from the style of the images alone; "{AGAINST}" asks for more.',
        *five.tables,
        Heading("5. Copies of what was trained on (not in the paper; Figure 5)"),
        "The paper shows what its U-Net was tuned on beside what it draws, says that the latter "
        "lack diversity, and counts no copies.",
        adapted_tables.copies(done),
        paper_figures.fifth(done, tuned, phantoms),
    ]


def best_tuned(done: Steps) -> str:
    """The tuned U-Net with the least distance; with too few images, the paper's."""
    near: dict[str, Estimate] = {n: one for n in TUNED[1:] if (one := distance(done, n, "both"))}
    return min(near, key=lambda name: near[name].value) if near else "unet"


def real(done: Steps) -> str:
    n = done["reference"].values["n"]
    return f"{n['plain']} real images without a finding and {n['fluid']} with an effusion"
