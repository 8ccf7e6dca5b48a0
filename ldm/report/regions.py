"""evaluate.py regions: does a model draw the regions and modalities that it is asked for?"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ldm.data.image_sets import ImageSet, open_set
from ldm.drawing.drawing_settings import SYNTHETIC
from ldm.judging.extractors import Extractor, open_extractor
from ldm.metrics import fid
from ldm.metrics.classification import auc, share_of_groups, wilson, wilson_of_groups
from ldm.metrics.estimate import Estimate
from ldm.metrics.nearest_images import nearest
from ldm.pipeline import Sampling
from ldm.report import Report, page, region_calls
from ldm.report.adapted_models import APART, AdaptedModel
from ldm.report.image_sheets import COLUMNS, TitledImage, titled_rows
from ldm.report.page import Block, Heading, Picture, Table
from ldm.report.region_calls import Asked, Calls, call
from ldm.weights import loading

TITLE = "Regions and modalities, asked for by prompt"
QUICK, LEAST = 4, 10  # pictures of a prompt; of each set, for a distance
MODEL, PHANTOMS, REAL = "drawn", "phantoms", "real"
Pictures = Mapping[str, list[list[Tensor]]]  # {whose: of each prompt}
Found = Mapping[str, list[Calls | None]]  # {whose: of each prompt}
Rights = list[dict[str, NDArray[np.bool_]]]  # of each prompt


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for what cannot be measured."""
    count = QUICK if options.quick else options.n
    asked, pipe = region_calls.prompts(), loading.load(options.model)
    sets = [open_set(options.real)] if options.real else []
    train = open_set(options.train) if options.train else None
    judge, bones = (open_extractor(n, options.weights) for n in ("judge_body", "judge_bones"))
    side, guidance = pipe.config.image_size, pipe.config.guidance
    how = Sampling(options.seed, options.steps, guidance=guidance, height=side, width=side)
    # beside the report, so that a run that was stopped goes on
    artist = AdaptedModel(pipe, options.out.with_name(f"{options.out.name}.drawn"), how)
    words = [one.words(options.phantoms) for one in asked]
    pictures = {
        MODEL: [list(artist.draw([text] * count, APART * i)) for i, text in enumerate(words)],
        PHANTOMS: [load(one.twins(count), range(count)) for one in asked],
    }
    for real in sets:
        pictures[REAL] = [load(real, fitting(real, one, count)) for one in asked]
    found = {
        whose: [call(judge, some) if some else None for some in each]
        for whose, each in pictures.items()
    }
    facts = {"options": options, "count": count, "side": side, "guidance": guidance}
    blocks: list[Block] = [*page.paragraphs("regions", **facts), page.read_from(sets)]
    values: dict[str, Any] = {"n": count, "model": options.model}
    hits = {whose: rights(each, judge, asked) for whose, each in found.items()}
    blocks += [Heading("What is named"), *naming(hits, words, values)]
    blocks += [shuffled(found[MODEL], judge, asked, values), confusion(found[MODEL], judge, words)]
    blocks += [Heading("Fractures"), fractures(found, hits, judge, asked, values)]
    named = {
        whose: [
            [image for image, is_right in zip(some, one["region"], strict=True) if is_right]
            for some, one in zip(pictures[whose], hits[whose], strict=True)
        ]
        for whose in (MODEL, PHANTOMS)
    }
    blocks += [Heading("Bones"), skeletons(named, bones, asked, words, values)]
    blocks += [Heading("Distances"), distances(found, words, values)]
    blocks += [Heading("Pictures"), *sheet(pictures[MODEL], words)]
    if train:
        blocks.append(neighbours(train, judge, pictures, found, words))
    return page.report("regions", TITLE, blocks, values)


def load(images: ImageSet, numbers: Sequence[int]) -> list[Tensor]:
    return [images.load(i) for i in numbers]


def fitting(images: ImageSet, asked: Asked, count: int) -> list[int]:
    """The first images of the set that are what is asked for; of a fracture, those labelled so."""
    labelled = asked.finding
    numbers = (
        i
        for i in range(len(images))
        if asked.fits(images.attributes(i))
        and (not labelled or images.findings(i).get(labelled, False))
    )
    return [i for i, _ in zip(numbers, range(count), strict=False)]


def rights(found: Sequence[Calls | None], judge: Extractor, asked: Sequence[Asked]) -> Rights:
    return [
        region_calls.right(calls, judge, one) if calls else {}
        for calls, one in zip(found, asked, strict=True)
    ]


def naming(hits: Mapping[str, Rights], words: Sequence[str], values: dict[str, Any]) -> list[Block]:
    """Region, modality and view by the judge, a row for each prompt, and one for all."""
    tables: list[Block] = []
    for attribute in ("region", "modality", "view"):
        columns: dict[str, dict[str, object]] = {}
        for whose, each in hits.items():
            known = {w: h[attribute] for w, h in zip(words, each, strict=True) if attribute in h}
            columns[whose] = {w: wilson(int(h.sum()), len(h)) for w, h in known.items()}
            columns[whose][f"all of {len(known)} prompts"] = pooled(list(known.values()))
        values[attribute] = columns
        caption = page.passage("regions_named", attribute=attribute)
        tables.append(Table.of(caption, "prompt", columns))
    return tables


def pooled(hits: Sequence[NDArray[np.bool_]]) -> Estimate:
    """The share of all; the groups, not the cases, are taken as drawn."""
    if len({len(each) for each in hits}) == 1:
        return wilson_of_groups(np.stack(hits).T)
    return share_of_groups([each.sum() for each in hits], [len(each) for each in hits])


def shuffled(
    found: Sequence[Calls | None], judge: Extractor, asked: Sequence[Asked], values: dict[str, Any]
) -> str:
    """The region by another prompt's: each prompt has the pictures of every other one in turn."""
    sums, counts = [], []
    for i, calls in enumerate(found):
        others = [one.region for j, one in enumerate(asked) if j != i]
        named = region_calls.named(calls, judge, "region") if calls else []
        sums.append(sum(word == other for other in others for word in named) / len(others))
        counts.append(len(named))
    values["shuffled"] = share_of_groups(sums, counts)
    return page.passage("regions_shuffled", share=values["shuffled"])


def confusion(found: Sequence[Calls | None], judge: Extractor, words: Sequence[str]) -> Table:
    rows = [
        (text, ", ".join(f"{name} ({n})" for name, n in seen.most_common(4)))
        for text, calls in zip(words, found, strict=True)
        if calls and (seen := region_calls.confused(calls, judge))
    ]
    return Table(page.passage("regions_confused"), ("prompt", "called"), rows)


def fractures(
    found: Found,
    hits: Mapping[str, Rights],
    judge: Extractor,
    asked: Sequence[Asked],
    values: dict[str, Any],
) -> Table:
    """AUC of the judge's score for a fracture, asked for against the same region without.

    Of pictures whose region is named right: of others it would tell the regions apart.
    """
    column, columns = judge.findings.index("fracture"), dict[str, dict[str, object]]()
    broken = [i for i, one in enumerate(asked) if one.finding]
    for whose, each in found.items():
        columns[whose] = {}
        for i in broken:
            one, same = asked[i], asked[i]._replace(prompt="", finding="")
            plain = next(j for j, a in enumerate(asked) if a._replace(prompt="") == same)
            pair = [
                calls.scores[hits[whose][j]["region"], column]
                for j in (plain, i)
                if (calls := each[j])
            ]
            if len(pair) < 2 or min(map(len, pair)) < 2:
                columns[whose][one.region] = "too few images"
                continue
            columns[whose][one.region] = auc(
                np.concatenate(pair), np.repeat([0, 1], [*map(len, pair)])
            )
    values["fractures"] = columns
    return Table.of(page.passage("regions_fractures"), "region", columns)


def skeletons(
    pictures: Pictures,
    judge: Extractor,
    asked: Sequence[Asked],
    words: Sequence[str],
    values: dict[str, Any],
) -> Table:
    """Bones seen of those that belong there, where the judge is believed.

    pictures: those whose region is named right; of others a judge of bones knows nothing
    """
    columns: dict[str, dict[str, object]] = {}
    for i, one in enumerate(asked):
        if not one.bones:
            continue
        trial = region_calls.try_bones(judge, one, region_calls.TRIED)
        left_out = [f"{b} {trial.areas[b].value:.2f}" for b in trial.areas if b not in trial.least]
        row: dict[str, object] = {"left out, AUC": ", ".join(left_out)}
        columns[words[i]] = row
        for whose in (MODEL, PHANTOMS) if trial.least else ():
            if not pictures[whose][i]:
                row[f"{whose}, share of bones"] = "no picture is named right"
                continue
            calls = call(judge, pictures[whose][i])
            seen = region_calls.bones_seen(calls, judge, trial.least)
            each = [f"{b} {s:.2f}" for b, s in zip(trial.least, seen.mean(0), strict=True)]
            row[f"{whose}, share with each"] = ", ".join(each)
            row[f"{whose}, share of bones"] = wilson_of_groups(seen.T)
            row[f"{whose}, with all of them"] = wilson(int(seen.all(1).sum()), len(seen))
        row["there and seen"], row["not there, not seen"] = trial.there or "", trial.lacking or ""
    values["bones"] = columns
    keys = dict.fromkeys(key for row in columns.values() for key in row)
    rows = {key: {name: row.get(key, "") for name, row in columns.items()} for key in keys}
    facts = {"tried": region_calls.TRIED, "least": region_calls.BELIEVED}
    return Table.of(page.passage("regions_bones", **facts), "prompt", rows)


def distances(found: Found, words: Sequence[str], values: dict[str, Any]) -> Table:
    """KID in the judge's features, drawn against others of the class; floor: these in halves."""
    columns: dict[str, dict[str, object]] = {}
    for whose in [name for name in found if name != MODEL]:
        to, floor = (columns.setdefault(f"{a} {whose}", {}) for a in ("drawn to", "halves of"))
        for text, drawn, others in zip(words, found[MODEL], found[whose], strict=True):
            if not (drawn and others and min(drawn.n, others.n) >= LEAST):
                to[text] = "too few images"
                continue
            to[text] = fid.jackknife(fid.kid, others.features, drawn.features)
            halves = others.features[::2], others.features[1::2]
            floor[text] = fid.jackknife(fid.kid, *halves) if len(halves[1]) >= LEAST else "too few"
    values["distances"] = columns
    return Table.of(page.passage("regions_distances", least=LEAST), "prompt", columns)


def sheet(drawn: Sequence[Sequence[Tensor]], words: Sequence[str]) -> list[Picture]:
    """The first pictures of each prompt, nothing chosen."""
    rows = {
        text.replace(" of ", "\nof ", 1): [TitledImage(image, "") for image in some[:COLUMNS]]
        for text, some in zip(words, drawn, strict=True)
    }
    return [Picture("regions.png", titled_rows(rows, SYNTHETIC), page.passage("regions_sheet"))]


def neighbours(
    train: ImageSet, judge: Extractor, pictures: Pictures, found: Found, words: Sequence[str]
) -> Picture:
    """The first picture of each prompt beside the training image nearest to its features."""
    seen = call(judge, load(train, range(len(train))))
    firsts = np.stack([calls.features[0] for calls in found[MODEL] if calls])
    near = nearest(firsts, seen.features)
    rows: dict[str, list[TitledImage]] = {}
    for i, text in enumerate(words):
        pair = [TitledImage(pictures[MODEL][i][0], text.removeprefix("phantom "))]
        image, name = train.load(int(near.which[i])), train.sample_id(int(near.which[i]))
        pair.append(TitledImage(image, f"{name}, {near.distance[i]:.3g}"))
        rows.setdefault(f"row {i // (COLUMNS // 2) + 1}", []).extend(pair)
    caption = page.passage("regions_neighbours", train=train)
    return Picture("nearest.png", titled_rows(rows, caption), caption)
