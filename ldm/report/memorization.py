"""evaluate.py memorization: does a set of images copy what its model was trained on?"""

import argparse
import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ldm.data.image_sets import ImageSet, open_set, warn_of_shared_patients
from ldm.judging.extractors import open_extractor
from ldm.pictures import image_files
from ldm.report import Report, copy_search, page
from ldm.report.copy_search import Finder, Space, Square, TrainedImages
from ldm.report.page import Block, Picture, Table
from ldm.report.plots import as_png, new

TITLE = "Copies of training images"


class Audited(NamedTuple):
    """blocks: of a page, the first two say most;  table: a CSV"""

    values: dict[str, Any]
    blocks: list[Block]
    table: str


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be compared."""
    asked = open_set(options.fake)
    train = (
        copy_search.open_train(options.train)
        if options.train
        else copy_search.trained_on(asked, options.skip_bad)
    )
    if train is None:
        raise ValueError(
            f"the training set of {options.fake} is not known; name it with --train SET or RUN"
        )
    held_out = copy_search.open_held_out(options.held_out, train)
    warn_of_shared_patients(train, held_out)
    # a run of a LoRA or of a word holds no whole model
    whole = isinstance(train, TrainedImages) and copy_search.hash_of(train.folder)
    model = options.model or (str(train.name) if whole else "weights")
    finder = Finder.open(model, open_extractor(options.extractor, options.weights))
    found = audit(finder, (asked, train, held_out), options.limit, options.skip_bad)
    more = {"memorization.csv": found.table.encode()}
    shown = found.blocks[:2]
    return page.report("memorization", TITLE, found.blocks, found.values, summary=shown, more=more)


def beside(options: argparse.Namespace, asked: ImageSet) -> Audited | None:
    """The audit of a set whose training images are known, for a report on something else.

    That report does not fail if there is nothing to compare with: the audit says so.
    """
    try:
        train = copy_search.trained_on(asked, options.skip_bad)
        if train is None:
            return None
        held_out = copy_search.open_held_out(None, train)
        finder = Finder.open(str(train.folder), open_extractor("judge", options.weights))
        return audit(finder, (asked, train, held_out), options.limit, options.skip_bad)
    except ValueError as error:
        return Audited({"not audited": str(error)}, [f"Copies were not looked for: {error}."], "")


def audit(finder: Finder, sets: Sequence[ImageSet], limit: int | None, skip_bad: bool) -> Audited:
    """sets: generated, trained on, held out"""
    fake = finder.read(sets[0], limit, skip_bad)
    train, held_out = (finder.read(one, finder.room(), skip_bad) for one in sets[1:])
    versions, spaces = finder.find(fake, train, held_out)
    values: dict[str, Any] = {
        "fake": {"set": sets[0].name, "n": len(fake.ids)},
        "train": {"set": sets[1].name, "n": len(train.ids), "with versions": len(versions.ids)},
        "left out of train": len(sets[1]) - len(train.ids),
        "held out": {"set": sets[2].name, "n": len(held_out.ids)},
        "spaces": {space.name: as_json(space) for space in spaces},
    }
    summary, *notes = page.paragraphs(
        "memorization", **values, held_out=values["held out"], rest=values["left out of train"]
    )
    pictures = [histograms(spaces), *(pairs(space, fake, versions) for space in spaces)]
    blocks: list[Block] = [summary, table(spaces), *notes, page.read_from(sets), *pictures]
    return Audited(values, blocks, as_csv(spaces, fake, versions))


def table(spaces: Sequence[Space]) -> Table:
    header = ("space", "copies", "planted found", "changed found", "false alarms", "n")
    cells = []
    for space in spaces:
        shares = (space.audit.copies, space.planted, space.changed, space.false_alarms)
        counts = ", ".join(str(share.n) for share in shares)
        cells.append((space.name, *(share.show(".1f", 100) for share in shares), counts))
    return Table("Copies in each space, % (95 % interval).", header, cells)


def as_json(space: Space) -> dict[str, Any]:
    return {
        "copies": space.audit.copies,
        "planted found": space.planted,
        "changed found": space.changed,
        "false alarms": space.false_alarms,
        "threshold": space.audit.threshold,
        "least distance": float(space.audit.samples.distance.min()),
        "least distance held out": float(space.audit.held_out.distance.min()),
    }


def as_csv(spaces: Sequence[Space], fake: Square, train: Square) -> str:
    """Each image with its nearest training image in each space; names of files only."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "space", "nearest", "distance", "threshold", "copy"])
    for space in spaces:
        found = space.audit
        for name, distance, which in zip(fake.ids, *found.samples, strict=True):
            numbers = (f"{x:.6g}" for x in (distance, found.threshold))
            copy = int(distance < found.threshold)
            writer.writerow([name, space.name, train.ids[which], *numbers, copy])
    return text.getvalue()


def pairs(space: Space, fake: Square, train: Square) -> Picture:
    """The closest pairs, each image above its nearest training image."""
    closest = copy_search.closest(space.audit)
    distance, which = space.audit.samples
    near = [int(which[i]) for i in closest]
    shown = torch.cat([fake.pictures[closest], train.pictures[near]])
    png = image_files.png(image_files.grid(shown, columns=len(closest)), {})
    nearest = "; ".join(
        f"{fake.ids[i]} and {train.ids[j]}: {distance[i]:.3g}"
        for i, j in zip(closest, near, strict=True)
    )
    threshold = space.audit.threshold
    caption = page.passage("closest_pairs", space=space.name, threshold=threshold, nearest=nearest)
    return Picture(f"pairs_{space.name.split()[0]}.png", png, caption)


def histograms(spaces: Sequence[Space]) -> Picture:
    """Distances to the nearest training image: of the images, and of held-out ones."""
    figure = new(4 * len(spaces), 3)
    for axis, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        both = (space.audit.held_out.distance, space.audit.samples.distance)
        style = {"bins": 30, "density": True, "histtype": "step", "linewidth": 1.5}
        axis.hist(both, label=["held out", "generated"], color=["#0072B2", "#D55E00"], **style)
        axis.axvline(space.audit.threshold, color="#000000", linestyle=":", label="1 %")
        axis.set(title=space.name, xlabel="distance to the nearest trained on", yticks=[])
    axis.legend(frameon=False)
    caption = "Distances to the nearest training image; left of the dotted line is a copy."
    return Picture("distances.png", as_png(figure), caption)
