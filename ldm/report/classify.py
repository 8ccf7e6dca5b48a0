"""evaluate.py classify: do synthetic radiographs show what their prompts ask for?"""

import argparse
from collections.abc import Sequence
from typing import Any

from ldm.data.image_sets import ImageSet, open_set, patients, warn_of_shared_patients
from ldm.judging.extractors import open_extractor
from ldm.metrics.estimate import Estimate
from ldm.report import Report, anatomy_survey, finding_calls, memorization, page, train_on_synthetic
from ldm.report.finding_calls import Judged, Verdict
from ldm.report.page import Block, Table

TITLE = "Are synthetic radiographs what their prompts say?"


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be measured."""
    if options.train and not options.real:
        raise ValueError(
            "--train-on-synthetic needs real images to try the classifiers on; name them with "
            "--real"
        )
    sets = [open_set(source) for source in (options.fake, options.real) if source]
    if options.real:
        warn_of_shared_patients(*sets)
    extractor = open_extractor(options.extractor, options.weights)
    if extractor.head is None:
        raise ValueError(f"{extractor.name} names no findings; use judge or densenet121-res224-all")
    judged = [
        finding_calls.judge_images(s, extractor, options.limit, options.skip_bad) for s in sets
    ]
    findings, left_out = finding_calls.choose(judged[0], extractor, options.findings)
    found = {
        finding: [finding_calls.verdict(one, finding, extractor) for one in judged]
        for finding in findings
    }
    names = ["fake", "real"][: len(sets)]
    values: dict[str, Any] = {
        "extractor": str(extractor),
        "threshold": extractor.threshold,
        "prompts": judged[0].prompts,
        "left out": left_out,
        "findings": {
            finding: {name: estimates(v) for name, v in zip(names, row, strict=True)}
            for finding, row in found.items()
        },
    }
    for name, one in zip(names, judged, strict=True):
        values[name] = {"set": one.name, "n": len(one.indices), "synthetic": one.synthetic}
    more: list[Block] = []
    for name, one in zip(names, judged, strict=True):
        groups = finding_calls.by_group(one, findings, extractor)
        values[name]["groups"] = groups
        if any(groups.values()):
            caption = page.passage("finding_groups", name=name)
            more.append(Table.of(caption, "group", groups))
    if options.train:
        table, learned = train(sets, judged, findings)
        values |= learned
        more.append(table)
    if options.anatomy:
        tried = anatomy_survey.trial()
        surveys = {
            name: anatomy_survey.survey(asked, one.indices, tried.believed)
            for name, asked, one in zip(names, sets, judged, strict=True)
        }
        values["anatomy"] = {"trial": tried.measured, "believed": tried.believed, **surveys}
        more += anatomy_survey.tables(tried, surveys)
    if audited := memorization.beside(options, sets[0]):
        values["memorization"] = audited.values
        more += audited.blocks
    sentences = page.paragraphs("classify", **{"real": None, **values}, left_out=left_out)
    tables = finding_calls.tables(found, names, extractor)
    pictures = [finding_calls.roc_picture(found, judged, names, extractor)]
    for finding in findings:
        pictures += finding_calls.disagreements(sets[0], judged[0], finding, extractor)
    prompts = [finding_calls.prompt_table(judged[0], extractor)] if judged[0].prompts else []
    read = page.read_from(sets)
    blocks: list[Block] = [*sentences, *tables, read, *more, *pictures, *prompts]
    summary = [sentences[0], *sentences[2:], *tables, *more]
    return page.report("classify", TITLE, blocks, values, summary=summary)


def train(
    sets: Sequence[ImageSet], judged: Sequence[Judged], findings: Sequence[str]
) -> tuple[Table, dict[str, Any]]:
    """Classifiers of each finding, trained on the fake and on the real set, tried on the latter."""
    fake, real = judged
    if shared := len(fake.hashes & real.hashes):
        raise ValueError(
            f"{shared} images are in both {fake.name} and {real.name}: a classifier would be tried "
            "on its training images; name sets that share none"
        )
    names, unknown = patients(sets[1], real.indices)
    learned = {f: train_on_synthetic.learn(fake, real, names, f) for f in findings}
    values = {f: result and result.values() for f, result in learned.items()}
    table = train_on_synthetic.table(learned, unknown)
    return table, {"learned": values, "patients not known": unknown}


def estimates(verdict: Verdict | None) -> dict[str, Estimate] | None:
    """{name in the JSON file: figure}"""
    if verdict is None:
        return None
    rivals = {"AUC, other findings": verdict.rivals} if verdict.rivals else {}
    figures = {"asked": verdict.asked, "called": verdict.called, "AUC": verdict.auc}
    return figures | rivals | verdict.decisions
