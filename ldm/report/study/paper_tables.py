"""The tables of a study, each beside the paper's, from the values of its steps alone.

Every table names its steps; each of our figures in it is in their values.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldm.metrics.estimate import Estimate
from ldm.report import chambon
from ldm.report.page import Table
from ldm.report.study.adapted_rows import METHODS
from ldm.report.study.cached_steps import Done, estimate_of
from ldm.report.study.rank_agreement import RankAgreement, compare

Steps = Mapping[str, Done]
NAMES = [method.name for method in METHODS]
LABELS = {method.name: f"{method.group}: {method.label}" for method in METHODS}
PROMPTS = {"plain": "lung xray", "fluid": "... pleural effusion", "style": "in the style of"}
KINDS = ("AUC", "accuracy", "F1", "precision", "recall")  # as chambon.VERDICTS has them
AGAINST = "AUC, other findings"


class Comparison(NamedTuple):
    """tables, and how each column of ours orders its rows beside the paper's"""

    tables: list[Table]
    orders: dict[str, RankAgreement]


def table(title: str, steps: Sequence[str], header: Sequence[str], rows: Any) -> Table:
    return Table(f"{title} Steps: {', '.join(steps)}.", header, rows)


def show(one: Estimate | None, form: str = ".3f", scale: float = 1) -> str:
    """The value, its interval of 95 %, and n."""
    if one is None:
        return "too few images"
    value, low, high = (f"{scale * x:{form}}" for x in one[:3])
    return f"{value} ({low} to {high}; {one.n})"


def published(figure: float | None, form: str = ".3f") -> str:
    return "" if figure is None else f"{figure:{form}}"


# --- the autoencoder: Tables 1 and 6, Figure 3 ---


def quality(done: Steps, name: str) -> Table:
    """The figures of section 3.2."""
    values = done[name].values
    figures = values["figures"]["sample"] | {"cosine": classifier(values)["cosine"]["sample"]}
    rows = []
    for figure, paper in chambon.QUALITY.items():
        one, form = figures[figure], ".1f" if figure in ("RMSE", "PSNR") else ".3f"
        rows.append((figure, show(estimate_of(one), form), published(one["SD"], form), *paper))
    header = ("figure", "ours: mean (95 %; n)", "SD", "MIMIC-CXR: mean ± SD", "CheXpert")
    title = "Section 3.2: reconstructions beside their originals; RMSE on a range of 2048."
    return table(title, [name], header, rows)


def classifier(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the network that looks for findings."""
    return next(one for one in values["extractors"].values() if "findings" in one)


def findings(done: Steps, name: str) -> Comparison:
    """Tables 1 and 6."""
    found = classifier(done[name].values)["findings"]
    names = {finding: chambon.FINDINGS.get(finding, "") for finding in found}  # the paper's
    result = Comparison([], {})
    papers = {"Table 1 (MIMIC)": chambon.MIMIC, "Table 6 (CheXpert)": chambon.CHEXPERT}
    columns = {"original": "original", "sample": "reconstruction"}
    for figure, title in (("auc", "AUC"), ("accuracy", "Accuracy"), ("f1", "F1 score")):
        rows = []
        for finding, one in found.items():
            shown = [one[figure][which] for which in columns]
            shown += [one["difference"]["sample"]] if figure == "auc" else []
            cells = [finding, f"{one['positive']} of {one['auc']['original'].n}", *map(show, shown)]
            for paper in papers.values():
                row = paper.get(names[finding])
                cells += map(published, getattr(row, figure) if row else (None, None))
            rows.append(cells)
        header = ["finding", "with it", *columns.values()]
        header += ["difference"] if figure == "auc" else []
        header += ["MIMIC: orig.", "recon.", "CheXpert: orig.", "recon."]
        caption = f"Tables 1 and 6: {title}, ours and the paper's."
        result.tables.append(table(caption, [name], header, rows))
        for label, paper in papers.items():
            for place, (which, column) in enumerate(columns.items()):
                result.orders[f"{label}: {title}, {column}"] = compare(
                    {
                        chambon.FINDINGS.get(key, ""): one[figure][which]
                        for key, one in found.items()
                    },
                    {key: getattr(row, figure)[place] for key, row in paper.items()},
                )
    return result


# --- text encoders: Tables 2 and 3 ---


def encoders(done: Steps) -> Comparison:
    rows = done["text_encoders"].values["rows"]
    names = [f"{row['encoder']}@{row['vector']}" for row in rows]
    cells = [
        (
            *(row["encoder"], row["vector"]),
            *(show(row["macro"], ".1f", 100), published(row["paper_percent"], ".1f")),
        )
        for row in rows
    ]
    header = ("encoder", "vector of a text", "ours, % (95 %; n)", "paper, %")
    title = (
        "Table 2: macro CheXpert@10. IoU: words in common (the paper's Table 3, Base); eot, mean "
        "and start are the paper's pooler output, mean and CLS hidden state of CLIP."
    )
    order = compare(
        {name: row["macro"] for name, row in zip(names, rows, strict=True)},
        {name: row["paper_percent"] for name, row in zip(names, rows, strict=True)},
    )
    tables = [table(title, ["text_encoders"], header, cells)]
    return Comparison(tables, {"Table 2: macro CheXpert@10": order})


def classes(done: Steps) -> Comparison:
    """Each encoder by its best vector, as in the paper."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in done["text_encoders"].values["rows"]:
        before = best.setdefault(row["encoder"], row)
        if row["macro"].value > before["macro"].value:
            best[row["encoder"]] = row
    header, orders = ["class"], {}
    cells = {name: [name] for name in next(iter(best.values()))["classes"]}
    for encoder, row in best.items():
        header.append(f"{encoder}@{row['vector']}")
        for name, line in cells.items():
            line.append(show(row["classes"][name], ".1f", 100))
        if row["paper_percent"] is not None and row["vector"] in ("IoU", "eot", "mean"):
            place = 0 if row["vector"] == "IoU" else 1
            header.append(("paper: Base", "paper: Clip.")[place])
            for name, line in cells.items():
                line.append(published(chambon.CLASSES[name][place], ".1f"))
            paper = {name: both[place] for name, both in chambon.CLASSES.items()}
            label = f"Table 3: classes, {('words', 'CLIP')[place]}"
            orders[label] = compare(row["classes"], paper)
    title = "Table 3: CheXpert@10 by class, % (95 %; n), the best vector of each encoder."
    return Comparison([table(title, ["text_encoders"], header, list(cells.values()))], orders)


# --- adapted models: Tables 4 and 5, and copies, which the paper did not count ---


def distance(done: Steps, name: str, kind: str) -> Estimate | None:
    found: Estimate | None = done[name].values["distances"].get(kind)
    return found


def verdict(done: Steps, name: str, kind: str) -> Estimate | None:
    found: Estimate | None = done[name].values["verdict"].get(kind)
    return found


def distances(done: Steps) -> Comparison:
    """Table 4."""
    rows, orders = [], {}
    for name in NAMES:
        cells = [LABELS[name]]
        for kind, paper in zip(PROMPTS, chambon.FID[name], strict=True):
            drawn = kind in done[name].values["distances"]
            cells += [show(distance(done, name, kind)) if drawn else "", published(paper)]
        rows.append([*cells, show(distance(done, name, "both"))])
    floor = [show(distance(done, "reference", kind)) for kind in ("plain", "fluid", "both")]
    rows.append(["as many other real ones", floor[0], "", floor[1], "", "", "", floor[2]])
    header = ["model", *(cell for prompt in PROMPTS.values() for cell in (prompt, "paper")), "both"]
    title = (
        "Table 4: Fréchet distance of what is drawn to real images of its kind, ours (95 %; n), "
        "and the paper's FID, which has another scale; the last column is of both prompts."
    )
    for place, (kind, prompt) in enumerate(PROMPTS.items()):
        orders[f"Table 4: {prompt}"] = compare(
            {name: distance(done, name, kind) for name in NAMES},
            {name: chambon.FID[name][place] for name in NAMES},
        )
    return Comparison([table(title, [*NAMES, "reference"], header, rows)], orders)


def verdicts(done: Steps) -> Comparison:
    """Table 5, in two parts."""
    result = Comparison([], {})
    for part, kinds, more in (("", KINDS[:2], [AGAINST]), (", continued", KINDS[2:], [])):
        rows = []
        for name in NAMES:
            paper = dict(zip(KINDS, chambon.VERDICTS.get(name, (None,) * len(KINDS)), strict=True))
            cells = [LABELS[name]]
            for kind in kinds:
                cells += [show(verdict(done, name, kind)), published(paper[kind])]
            rows.append([*cells, *(show(verdict(done, name, kind)) for kind in more)])
        cells = ["real images"]
        for kind in kinds:
            cells += [show(verdict(done, "reference", kind)), ""]
        rows.append([*cells, *("" for _ in more)])
        title = f"Table 5{part}: a classifier on images drawn with and without an effusion."
        header = ["model", *(cell for kind in kinds for cell in (kind, "paper")), *more]
        result.tables.append(table(title, [*NAMES, "reference"], header, rows))
    for place, kind in enumerate(KINDS):
        ours = {name: verdict(done, name, kind) for name in NAMES}
        theirs = {name: row[place] for name, row in chambon.VERDICTS.items()}
        result.orders[f"Table 5: {kind}"] = compare(ours, theirs)
    return result


def copies(done: Steps) -> Table:
    """The copies of the models that learned from images."""
    kinds, places = ("copies", "planted found"), ("pixels", "latents", "features")
    rows = [
        (
            LABELS[name],
            *(show(space[kind], ".1f", 100) for kind in kinds for space in spaces.values()),
        )
        for name, spaces in done["copies"].values.items()
    ]
    header = ["model", *(f"{kind}, {place}" for kind in kinds for place in places)]
    title = (
        "Not in the paper: copies, % (95 %; n): images nearer to one that was trained on, or to a "
        "little changed version, than 1 % of unseen images are; planted: training images "
        "themselves, through the autoencoder, that are found."
    )
    return table(title, ["copies"], header, rows)
