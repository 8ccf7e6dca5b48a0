"""The tables of a study, each beside the paper's, from the values of its steps alone.

Every table names its steps; each of our figures in it is in their values.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldm.metrics.estimate import Estimate
from ldm.report import chambon, page
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


Cells = Mapping[str, Estimate | float | str | None]  # of a column, by the key of the row
Columns = list[tuple[str, Cells]]  # with their headers


def table(
    title: str,
    steps: Sequence[str],
    header: str,
    labels: Mapping[str, str],
    columns: Columns,
    form: str = ".3f",
    scale: float = 1,
) -> Table:
    """labels: {key of a row: its first cell}, below `header`;  scale: of estimates alone"""
    rows = [
        (label, *(show(cells[key], form, scale) if key in cells else "" for _, cells in columns))
        for key, label in labels.items()
    ]
    headers = (header, *(name for name, _ in columns))
    return Table(f"{title} Steps: {', '.join(steps)}.", headers, rows)


def show(cell: Estimate | float | str | None, form: str = ".3f", scale: float = 1) -> str:
    """An estimate with its interval of 95 % and its n; None is one of too few images."""
    if isinstance(cell, Estimate):
        value, low, high = (f"{scale * x:{form}}" for x in cell[:3])
        return f"{value} ({low} to {high}; {cell.n})"
    if cell is None:
        return "too few images"
    return cell if isinstance(cell, str) else f"{cell:{form}}"


def published(rows: Mapping[str, Sequence[float | None]], place: int) -> dict[str, float]:
    """A column of one of the paper's tables, without empty cells."""
    return {key: figure for key, row in rows.items() if (figure := row[place]) is not None}


# --- the autoencoder: Tables 1 and 6, Figure 3 ---


def quality(done: Steps, name: str) -> Table:
    """The figures of section 3.2."""
    values = done[name].values
    figures = values["figures"]["sample"] | {"cosine": classifier(values)["cosine"]["sample"]}
    rows = []
    for figure, paper in chambon.QUALITY.items():
        one, form = figures[figure], ".1f" if figure in ("RMSE", "PSNR") else ".3f"
        deviation = "" if one["SD"] is None else show(one["SD"], form)
        rows.append((figure, show(estimate_of(one), form), deviation, *paper))
    header = ("figure", "ours: mean (95 %; n)", "SD", "MIMIC-CXR: mean ± SD", "CheXpert")
    title = "Section 3.2: reconstructions beside their originals; RMSE on a range of 2048."
    return Table(f"{title} Steps: {name}.", header, rows)


def classifier(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the network that looks for findings."""
    return next(one for one in values["extractors"].values() if "findings" in one)


def findings(done: Steps, name: str) -> Comparison:
    """Tables 1 and 6."""
    found = classifier(done[name].values)["findings"]
    names = {key: chambon.FINDINGS[key] for key in found if key in chambon.FINDINGS}
    cases = {key: f"{one['positive']} of {one['auc']['original'].n}" for key, one in found.items()}
    papers = {
        "MIMIC": ("Table 1 (MIMIC)", chambon.MIMIC),
        "CheXpert": ("Table 6 (CheXpert)", chambon.CHEXPERT),
    }
    result = Comparison([], {})
    for figure, title in (("auc", "AUC"), ("accuracy", "Accuracy"), ("f1", "F1 score")):
        ours = {
            column: {key: one[figure][which] for key, one in found.items()}
            for which, column in (("original", "original"), ("sample", "reconstruction"))
        }
        columns: Columns = [("with it", cases), *ours.items()]
        if figure == "auc":
            changes = {key: one["difference"]["sample"] for key, one in found.items()}
            columns.append(("difference", changes))
        for collection, (label, rows) in papers.items():
            paper = {key: getattr(rows[named], figure) for key, named in names.items()}
            for place, (column, figures) in enumerate(ours.items()):
                theirs = published(paper, place)
                columns.append(("recon." if place else f"{collection}: orig.", theirs))
                result.orders[f"{label}: {title}, {column}"] = compare(figures, theirs)
        caption = f"Tables 1 and 6: {title}, ours and the paper's."
        labels = {key: key for key in found}
        result.tables.append(table(caption, [name], "finding", labels, columns))
    return result


# --- text encoders: Tables 2 and 3 ---


def encoders(done: Steps) -> Comparison:
    values = done["text_encoders"].values
    rows = {f"{row['encoder']}@{row['vector']}": row for row in values["rows"]}
    ours = {key: row["macro"] for key, row in rows.items()}
    paper = published({key: [row["paper_percent"]] for key, row in rows.items()}, 0)
    columns: Columns = [
        ("vector of a text", {key: row["vector"] for key, row in rows.items()}),
        ("ours, % (95 %; n)", ours),
        ("paper, %", paper),
    ]
    labels = {key: row["encoder"] for key, row in rows.items()}
    title = page.passage("table_2")
    shown = table(title, ["text_encoders"], "encoder", labels, columns, ".1f", 100)
    return Comparison([shown], {"Table 2: macro CheXpert@10": compare(ours, paper)})


def classes(done: Steps) -> Comparison:
    """Each encoder by its best vector, as in the paper."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in done["text_encoders"].values["rows"]:
        before = best.setdefault(row["encoder"], row)
        if row["macro"].value > before["macro"].value:
            best[row["encoder"]] = row
    columns: Columns = []
    orders = {}
    for encoder, row in best.items():
        columns.append((f"{encoder}@{row['vector']}", row["classes"]))
        if row["paper_percent"] is not None and row["vector"] in ("IoU", "eot", "mean"):
            place = 0 if row["vector"] == "IoU" else 1
            paper = published(chambon.CLASSES, place)
            columns.append((("paper: Base", "paper: Clip.")[place], paper))
            orders[f"Table 3: classes, {('words', 'CLIP')[place]}"] = compare(row["classes"], paper)
    labels = {name: name for name in next(iter(best.values()))["classes"]}
    title = "Table 3: CheXpert@10 by class, % (95 %; n), the best vector of each encoder."
    shown = table(title, ["text_encoders"], "class", labels, columns, ".1f", 100)
    return Comparison([shown], orders)


# --- adapted models: Tables 4 and 5, and copies, which the paper did not count ---


def distance(done: Steps, name: str, kind: str) -> Estimate | None:
    return done[name].values["distances"].get(kind)


def verdict(done: Steps, name: str, kind: str) -> Estimate | None:
    return done[name].values["verdict"].get(kind)


def distances(done: Steps) -> Comparison:
    """Table 4."""
    labels = LABELS | {"reference": "as many other real ones"}
    columns: Columns = []
    orders = {}
    for place, (kind, prompt) in enumerate(PROMPTS.items()):
        drawn = [name for name in labels if kind in done[name].values["distances"]]
        ours = {name: distance(done, name, kind) for name in drawn}
        paper = published(chambon.FID, place)
        columns += [(prompt, ours), ("paper", paper)]
        orders[f"Table 4: {prompt}"] = compare(ours, paper)
    columns.append(("both", {name: distance(done, name, "both") for name in labels}))
    title = page.passage("table_4")
    return Comparison([table(title, [*labels], "model", labels, columns)], orders)


def verdicts(done: Steps) -> Comparison:
    """Table 5, in two parts."""
    labels = LABELS | {"reference": "real images"}
    columns: Columns = []
    orders = {}
    for place, kind in enumerate(KINDS):
        ours = {name: verdict(done, name, kind) for name in labels}
        paper = published(chambon.VERDICTS, place)
        columns += [(kind, ours), ("paper", paper)]
        orders[f"Table 5: {kind}"] = compare(ours, paper)
    columns.insert(4, (AGAINST, {name: verdict(done, name, AGAINST) for name in NAMES}))
    title = "Table 5{}: a classifier on images drawn with and without an effusion."
    parts = {"": columns[:5], ", continued": columns[5:]}
    tables = [
        table(title.format(part), [*labels], "model", labels, some) for part, some in parts.items()
    ]
    return Comparison(tables, orders)


def copies(done: Steps) -> Table:
    """The copies of the models that learned from images."""
    found = done["copies"].values
    columns: Columns = [
        (f"{kind}, {place}", {name: spaces[place][kind] for name, spaces in found.items()})
        for kind in ("copies", "planted found")
        for place in ("pixels", "latents", "features")
    ]
    labels = {name: LABELS[name] for name in found}
    return table(page.passage("copies"), ["copies"], "model", labels, columns, ".1f", 100)
