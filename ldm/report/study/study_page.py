"""The page of a study: what the paper found, what was found here, and what that is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ldm.metrics.estimate import Estimate, as_json
from ldm.report import Report, page
from ldm.report.page import Block, Heading, Table
from ldm.report.study import paper_figures, paper_tables
from ldm.report.study import study_summary as summary
from ldm.report.study.paper_tables import AGAINST, Comparison, Steps, distance
from ldm.report.study.rank_agreement import RankAgreement
from ldm.report.study.study_settings import Study

TITLE = "Adapting latent diffusion to chest radiographs: the study of arXiv:2210.04133, repeated"
RECONSTRUCTIONS = {"reconstruction": "", "reconstruction_films": ", films"}
TUNED = ("unet", "unet_prior")  # on an effusion


def report(study: Study, done: Steps) -> Report:
    """The page in every form; in tables.md and tables.json nothing depends on the machine."""
    found = comparisons(done)
    orders, sections = orders_of(found), blocks(study, done, found)
    values = {"orders": {name: {**o._asdict(), "words": o.words} for name, o in orders.items()}}
    everything = values | {name: step.values for name, step in done.items()}
    whole = [*sections, Heading("How it was made"), *summary.machine_blocks(study, done)]
    files = page.files("study", TITLE, whole, summary.machine(done))
    files["machine.json"] = files.pop("study.json")
    only_tables = [block for block in sections if isinstance(block, Table | Heading)]
    files["tables.md"] = page.markdown(TITLE, only_tables).encode()
    files["tables.json"] = (json.dumps(as_json(everything), indent=1) + "\n").encode()
    return Report(page.text(TITLE, summary.results(study, done, orders)), values, files)


def comparisons(done: Steps) -> dict[str, Comparison]:
    """{section of the paper, or step: its tables}, of all that have columns in the paper, too."""
    reread = {name: paper_tables.findings(done, name) for name in RECONSTRUCTIONS if name in done}
    return reread | {
        "encoders": paper_tables.encoders(done),
        "classes": paper_tables.classes(done),
        "distances": paper_tables.distances(done),
        "verdicts": paper_tables.verdicts(done),
    }


def orders_of(found: Mapping[str, Comparison]) -> dict[str, RankAgreement]:
    return {
        f"{column}{RECONSTRUCTIONS.get(name, '')}": order
        for name, each in found.items()
        for column, order in each.orders.items()
    }


def blocks(study: Study, done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    """All that does not depend on the machine."""
    return [
        summary.opening(study),
        Heading("Summary"),
        *summary.results(study, done, orders_of(found)),
        summary.RULE,
        *autoencoder(done, found),
        *text(done, found),
        *drawn(study, done, found),
        Heading("What this study cannot say"),
        *summary.limits(study, done),
    ]


def sentences(*found: Comparison, only: str = "") -> str:
    """A sentence for each column;  only: those whose name contains it"""
    orders = {name: order for each in found for name, order in each.orders.items()}
    return " ".join(f"{name}: {order}." for name, order in orders.items() if only in name)


def autoencoder(done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    section: list[Block] = [
        Heading("1. What the autoencoder lets through (section 3.2, Tables 1 and 6, Figure 3)"),
        "The paper: reconstructions are good (SSIM 0.93), and a classifier says nearly the same of "
        "them as of the originals; some AUCs rise a little, notably that of effusion (0.877 to "
        "0.881), others fall, as that of lung lesion (0.766 to 0.728).",
    ]
    captions = {
        "distributions": "Figure 3: distributions of the figures of each pair.",
        "triples": "Figure 3: originals, reconstructions (synthetic) and what was added or lost: "
        "the worst, the median and the best pair.",
    }
    for name in RECONSTRUCTIONS:
        if name in done:
            section += [paper_tables.quality(done, name), auc_changes(done, name)]
            # accuracy and F1 depend on a threshold
            section += [sentences(found[name], only="AUC"), *found[name].tables]
            section += [
                paper_figures.picture_of(done, name, f"{stem}.png", caption)
                for stem, caption in captions.items()
            ]
    return section


def auc_changes(done: Steps, name: str) -> str:
    """In how many findings the AUC changed, by the paired intervals."""
    found = paper_tables.classifier(done[name].values)["findings"]
    changes = {key: one["difference"]["sample"] for key, one in found.items()}
    down = [key for key, one in changes.items() if one.high < 0]
    up = [key for key, one in changes.items() if one.low > 0]
    return (
        f"Here ({done[name].values['n']} images), of {len(found)} findings the AUC falls in "
        f"{len(down)} ({', '.join(down) or 'none'}), rises in {len(up)} "
        f"({', '.join(up) or 'none'}), and cannot be told from the original's in the others, by "
        "the paired interval of the difference."
    )


def text(done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    two, three = found["encoders"], found["classes"]
    values = done["text_encoders"].values
    section: list[Block] = [
        Heading("2. What text encoders keep of reports (section 3.3, Tables 2 and 3, Figures 6-8)"),
        "The paper: CXR-BERT-specialized keeps most (61.1 %), CLIP's tower is second (52.9 %) and "
        "ahead of words in common (41.5 %), whereas its first token knows nothing (7.0 %, which is "
        "chance).",
        f"Here: {values['n']} impressions of {values['reports']}, chance "
        f"{100 * values['chance']:.1f} %. {sentences(two, three)} The small tower and BERT of this "
        "repository learned from captions alone; the paper's encoders read the web, or reports.",
        *two.tables,
        *three.tables,
    ]
    files = sorted(done["text_encoders"].record["files"])
    names = [name for name in files if name.startswith("tsne_")]
    for number, name in enumerate(names, start=6):
        which = name.removeprefix("tsne_").removesuffix(".png").partition("_")[2]
        place = f"Figure {number}" if number <= 8 else "Beyond the paper's figures"
        caption = f"{place}: t-SNE of the impressions by {which}; near is alike."
        section.append(paper_figures.picture_of(done, "text_encoders", name, caption))
    return section


def drawn(study: Study, done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    four, five = found["distances"], found["verdicts"]
    tuned, phantoms = best_tuned(done), study.data is None
    n = done["reference"].values["n"]
    real = f"{n['plain']} real images without a finding and {n['fluid']} with an effusion"
    return [
        Heading("3. How near what is drawn is to real images (section 3.4, Table 4, Figures 1, 4)"),
        "The paper: projections make images worse, textual inversion does little for the plain "
        "prompt, tuning the U-Net helps most, and its prior costs distance again.",
        f"Here: {study.n} images of each prompt and method against {real}, in the features "
        f"of {study.distance_by}. {sentences(four)} The paper does not say which "
        "images its FID compares with.",
        *four.tables,
        paper_figures.original_and_tuned(done, tuned),
        paper_figures.every_method(done, phantoms),
        Heading(
            "4. Do the images show an effusion where they are asked to? (section 3.5, Table 5)"
        ),
        "The paper: the untouched model draws nothing that a classifier sees (AUC 0.514), textual "
        "inversion comes to 0.742, the U-Net without prior to 0.459 and with it to 0.984.",
        f"Here {study.classified_by} judges, {study.n} + {study.n} images. {sentences(five)} "
        "The AUC of the plain prompt against the effusion's can be "
        f'had from the style of the images alone; "{AGAINST}" asks for more.',
        *five.tables,
        Heading("5. Copies of what was trained on (not in the paper; Figure 5)"),
        "The paper shows what its U-Net was tuned on beside what it draws, says that the latter "
        "lack diversity, and counts no copies.",
        paper_tables.copies(done),
        paper_figures.trained_and_drawn(done, tuned, phantoms),
    ]


def best_tuned(done: Steps) -> str:
    """The tuned U-Net with the least distance; with too few images, the paper's."""
    near: dict[str, Estimate] = {n: one for n in TUNED if (one := distance(done, n, "both"))}
    return min(near, key=lambda name: near[name].value) if near else "unet"
