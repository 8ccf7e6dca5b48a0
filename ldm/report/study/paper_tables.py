"""The tables of a study, each beside the paper's, from the values of its steps alone.

Every table names its steps; every figure of ours in it is in their values.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldm.metrics.estimate import Estimate
from ldm.report import chambon
from ldm.report.page import Table
from ldm.report.study.cached_steps import Done
from ldm.report.study.rank_agreement import RankAgreement, compare

Steps = Mapping[str, Done]
Figures = dict[str, Estimate | None]
FEW, NONE = "too few images", ""


class Beside(NamedTuple):
    """tables, and how each column of ours orders its rows beside the paper's"""

    tables: list[Table]
    orders: dict[str, RankAgreement]


def table(title: str, steps: Sequence[str], header: Sequence[str], rows: Any) -> Table:
    return Table(f"{title} Steps: {', '.join(steps)}.", header, rows)


def estimate(found: Mapping[str, Any] | None) -> Estimate | None:
    """Of what a step kept of one."""
    return None if not found else Estimate(*(found[name] for name in Estimate._fields))


def show(one: Estimate | None, digits: int = 3) -> str:
    """The value, its interval of 95 %, and n."""
    if one is None:
        return FEW
    value, low, high = (f"{x:.{digits}f}" for x in one[:3])
    return f"{value} ({low} to {high}; {one.n})"


def percent(one: Estimate) -> str:
    value, low, high = (f"{100 * x:.1f}" for x in one[:3])
    return f"{value} ({low} to {high}; {one.n})"


def theirs(figure: float | None, digits: int = 3) -> str:
    return NONE if figure is None else f"{figure:.{digits}f}"


# --- the autoencoder: Tables 1 and 6, Figure 3 ---


def quality(done: Steps, name: str) -> Table:
    """The figures of section 3.2."""
    found = done[name].values
    rows = []
    figures = dict(found["figures"]["sample"])
    figures["cosine"] = reader(found)["cosine"]["sample"]
    for figure, paper in chambon.QUALITY.items():
        one = figures[figure]
        digits = 1 if figure in ("RMSE", "PSNR") else 3
        deviation = "" if one["SD"] is None else f"{one['SD']:.{digits}f}"
        rows.append((figure, show(estimate(one), digits), deviation, *paper))
    header = ("figure", "ours: mean (95 %; n)", "SD", "MIMIC-CXR: mean ± SD", "CheXpert")
    title = "Section 3.2: reconstructions beside their originals; RMSE on a range of 2048."
    return table(title, [name], header, rows)


def reader(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the network says that looks for findings."""
    return next(one for one in found["extractors"].values() if "findings" in one)


def findings(done: Steps, name: str) -> Beside:
    """Tables 1 and 6."""
    found = reader(done[name].values)["findings"]
    result = Beside([], {})
    for figure, title in (("auc", "AUC"), ("accuracy", "Accuracy"), ("f1", "F1 score")):
        rows = []
        ours: dict[str, Figures] = {"original": {}, "sample": {}}
        for finding, one in found.items():
            paper = chambon.FINDINGS.get(finding)
            cells = [f"{one['positive']} of {one['auc']['original']['n']}"]
            for which in ours:
                there = estimate(one[figure][which])
                cells.append(show(there))
                if paper:
                    ours[which][paper] = there
            if figure == "auc":
                cells.append(show(estimate(one["difference"]["sample"])))
            for collection in (chambon.MIMIC, chambon.CHEXPERT):
                pair = getattr(collection[paper], figure) if paper else (None, None)
                cells += map(theirs, pair)
            rows.append((finding, *cells))
        header = ["finding", "with it", "original", "reconstruction"]
        header += ["difference"] if figure == "auc" else []
        header += ["MIMIC: orig.", "recon.", "CheXpert: orig.", "recon."]
        caption = f"Tables 1 and 6: {title}, ours and the paper's."
        result.tables.append(table(caption, [name], header, rows))
        for label, collection in (
            ("Table 1 (MIMIC)", chambon.MIMIC),
            ("Table 6 (CheXpert)", chambon.CHEXPERT),
        ):
            for place, which in enumerate(ours):
                known = {key: getattr(row, figure)[place] for key, row in collection.items()}
                column = "original" if which == "original" else "reconstruction"
                result.orders[f"{label}: {title}, {column}"] = compare(ours[which], known)
    return result


# --- text encoders: Tables 2 and 3 ---


def encoders(done: Steps) -> Beside:
    rows = done["text_encoders"].values["rows"]
    ours = {f"{row['encoder']}@{row['vector']}": estimate(row["macro"]) for row in rows}
    paper = {f"{row['encoder']}@{row['vector']}": row["paper_percent"] for row in rows}
    cells = []
    for row in rows:
        name = f"{row['encoder']}@{row['vector']}"
        macro = ours[name]
        assert macro is not None  # every row has one
        cells.append((row["encoder"], row["vector"], percent(macro), theirs(paper[name], 1)))
    header = ("encoder", "vector of a text", "ours, % (95 %; n)", "paper, %")
    title = (
        "Table 2: macro CheXpert@10. IoU: words in common (the paper's Table 3, Base); eot, mean "
        "and start are the paper's pooler output, mean and CLS hidden state of CLIP."
    )
    return Beside(
        [table(title, ["text_encoders"], header, cells)],
        {"Table 2: macro CheXpert@10": compare(ours, paper)},
    )


def classes(done: Steps) -> Beside:
    """Each encoder by its best vector, as in the paper."""
    rows = best(done["text_encoders"].values["rows"])
    header, result = ["class"], Beside([], {})
    columns: list[tuple[dict[str, Estimate | None], int | None]] = []
    for row in rows:
        header.append(f"{row['encoder']}@{row['vector']}")
        place = None
        if row["paper_percent"] is not None and row["vector"] in ("IoU", "eot", "mean"):
            place = 0 if row["vector"] == "IoU" else 1
            header.append(("paper: Base", "paper: Clip.")[place])
        columns.append(({c: estimate(e) for c, e in row["classes"].items()}, place))
    cells = []
    for name in rows[0]["classes"]:
        line = [name]
        for there, place in columns:
            one = there[name]
            line.append("" if one is None else percent(one))
            if place is not None:
                line.append(theirs(chambon.CLASSES[name][place], 1))
        cells.append(line)
    for there, place in columns:
        if place is not None:
            paper = {name: both[place] for name, both in chambon.CLASSES.items()}
            label = ("words", "CLIP")[place]
            result.orders[f"Table 3: classes, {label}"] = compare(there, paper)
    title = "Table 3: CheXpert@10 by class, % (95 %; n), the best vector of each encoder."
    result.tables.append(table(title, ["text_encoders"], header, cells))
    return result


def best(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each encoder, in their order."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        before = found.get(row["encoder"])
        if before is None or row["macro"]["value"] > before["macro"]["value"]:
            found[row["encoder"]] = row
    return list(found.values())
