"""evaluate.py memorization: does a set of images copy what its model was trained on?"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ldm.report import Report
from ldm.report.images import SETS, options_of_sets
from ldm.report.plots import as_png, new

if TYPE_CHECKING:
    from torch import Tensor

    from ldm.data.image_sets import ImageSet
    from ldm.report.copy_search import Finder, Space, Square
    from ldm.report.page import Block, Picture, Table

ABOUT = "Does a set of images copy what its model was trained on? Nearest neighbours, calibrated."
TITLE = "Copies of training images"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("fake", metavar="FAKE", help=SETS)
    what = "what was trained on: a set or a run folder; images of sample.py know their run"
    add("--train", metavar="SET", help=what)
    what = "images like it that were not trained on; the val split, or phantoms, where there are"
    add("--held-out", metavar="SET", help=what)
    what = "weights of the autoencoder that samples pass through (the run's, or weights)"
    add("--model", metavar="PATH", help=what)
    add("--extractor", default="judge", metavar="NAME", help="for the space of features (judge)")
    options_of_sets(parser)


class Audited(NamedTuple):
    """blocks: of a page, the first two say most;  table: a CSV"""

    values: dict[str, Any]
    blocks: list[Block]
    table: str


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be compared."""
    from ldm.data.image_sets import open_set, warn_of_shared_patients
    from ldm.judging.extractors import open_extractor
    from ldm.report import copy_search, page
    from ldm.report.copy_search import TrainedImages

    asked = open_set(options.fake)
    taught = (
        copy_search.open_train(options.train)
        if options.train
        else copy_search.trained_on(asked, options.skip_bad)
    )
    if taught is None:
        raise ValueError(
            f"what {options.fake} was trained on is not known; name it with --train SET or RUN"
        )
    unseen = copy_search.open_held_out(options.held_out, taught)
    warn_of_shared_patients(taught, unseen)
    whole = isinstance(taught, TrainedImages) and copy_search.hash_of(
        taught.folder
    )  # no LoRA, no word
    model = options.model or (str(taught.name) if whole else "weights")
    finder = copy_search.Finder.open(model, open_extractor(options.extractor, options.weights))
    found = audit(finder, (asked, taught, unseen), options.limit, options.skip_bad)
    files = page.files("memorization", TITLE, found.blocks, found.values)
    files["memorization.csv"] = found.table.encode()
    return Report(page.text(TITLE, found.blocks[:2]), found.values, files)


def beside(options: argparse.Namespace, asked: ImageSet) -> Audited | None:
    """The audit of a set whose training images are known, for a report on something else.

    If there is nothing to compare with, the report is not to fail for it: it says so.
    """
    from ldm.judging.extractors import open_extractor
    from ldm.report import copy_search

    try:
        taught = copy_search.trained_on(asked, options.skip_bad)
        if taught is None:
            return None
        unseen = copy_search.open_held_out(None, taught)
        finder = copy_search.Finder.open(
            str(taught.folder), open_extractor("judge", options.weights)
        )
        return audit(finder, (asked, taught, unseen), options.limit, options.skip_bad)
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
    what, *how = about(values)
    blocks = [what, table(spaces), *how, histograms(spaces)]
    blocks += [pairs(space, fake, versions) for space in spaces]
    return Audited(values, blocks, rows(spaces, fake, versions))


def about(values: dict[str, Any]) -> list[Block]:
    fake, train, held_out = values["fake"], values["train"], values["held out"]
    rest, changed = values["left out of train"], train["with versions"] - train["n"]
    without = f", without {rest} for which there is no room" if rest else ""
    return [
        f"{fake['n']} images of {fake['set']} against {train['n']} that were trained on "
        f"({train['set']}{without}) and {changed} changed versions of these. A "
        "copy is nearer to one of them than 1 % of the images are that were not trained on "
        f"({held_out['set']}, n = {held_out['n']}), so about 1 % is what no copying looks like.",
        "Held-out and planted images passed through the autoencoder first, as samples do. Planted "
        "are training images themselves, and slightly shifted, zoomed and exposed ones: the share "
        "found is how well copies are found at all. False alarms: each half of the held-out images "
        "by the threshold of the other half. Intervals are Wilson's, 95 %.",
        "Pictures and this page hold images that were trained on, and the names of their files: if "
        "these are of patients, so are page and tables.",
    ]


def table(spaces: Sequence[Space]) -> Table:
    from ldm.report.page import Table

    header = ("space", "copies", "planted found", "changed found", "false alarms", "n")
    cells = [
        (
            space.name,
            *map(_percent, (space.audit.copies, space.planted, space.changed, space.false_alarms)),
            f"{space.audit.copies.n}, {space.planted.n}, {space.changed.n}, {space.false_alarms.n}",
        )
        for space in spaces
    ]
    return Table("Copies in each space, % (95 % interval).", header, cells)


def _percent(estimate: Any) -> str:
    value, low, high = (100 * part for part in estimate[:3])
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def as_json(space: Space) -> dict[str, Any]:
    estimates = {
        "copies": space.audit.copies,
        "planted found": space.planted,
        "changed found": space.changed,
        "false alarms": space.false_alarms,
    }
    return {
        **{name: estimate._asdict() for name, estimate in estimates.items()},
        "threshold": space.audit.threshold,
        "least distance": float(space.audit.samples.distance.min()),
        "least distance held out": float(space.audit.held_out.distance.min()),
    }


def rows(spaces: Sequence[Space], fake: Square, train: Square) -> str:
    """A CSV: each image with its nearest training image in each space; names of files only."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "space", "nearest", "distance", "threshold", "copy"])
    for space in spaces:
        found = space.audit
        for name, distance, which in zip(fake.ids, *found.samples, strict=True):
            copy = int(distance < found.threshold)
            near = (f"{distance:.6g}", f"{found.threshold:.6g}", copy)
            writer.writerow([name, space.name, train.ids[which], *near])
    return text.getvalue()


def pairs(space: Space, fake: Square, train: Square) -> Picture:
    """The closest pairs, the image above what it is nearest to."""
    import torch

    from ldm.pictures import image_files
    from ldm.report.copy_search import closest
    from ldm.report.page import Picture

    first = closest(space.audit)
    which = [int(space.audit.samples.which[i]) for i in first]
    shown: Tensor = torch.cat([fake.pictures[first], train.pictures[which]])
    name = f"pairs_{space.name.split()[0]}.png"
    nearest = "; ".join(
        f"{fake.ids[i]} and {train.ids[j]}: {space.audit.samples.distance[i]:.3g}"
        for i, j in zip(first, which, strict=True)
    )
    caption = (
        f"The closest pairs in {space.name}: above, generated (synthetic); below, trained on. "
        f"Distances, of which a copy is below {space.audit.threshold:.3g}: {nearest}."
    )
    return Picture(name, image_files.png(image_files.grid(shown, columns=len(first)), {}), caption)


def histograms(spaces: Sequence[Space]) -> Picture:
    """Distances to the nearest training image: of the images, and of held-out ones."""
    from ldm.report.page import Picture

    figure = new(4 * len(spaces), 3)
    for axis, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        both = (space.audit.held_out.distance, space.audit.samples.distance)
        style = {"bins": 30, "density": True, "histtype": "step", "linewidth": 1.5}
        axis.hist(both, label=["held out", "generated"], color=["#0072B2", "#D55E00"], **style)
        axis.axvline(space.audit.threshold, color="#000000", linestyle=":", label="1 %")
        axis.set(title=space.name, xlabel="distance to the nearest trained on", yticks=[])
    axis.legend(frameon=False)
    caption = "Distances to the nearest image trained on; left of the dotted line is a copy."
    return Picture("distances.png", as_png(figure), caption)
