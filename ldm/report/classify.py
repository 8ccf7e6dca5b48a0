"""evaluate.py classify: are synthetic radiographs what their prompts say?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ldm.report import Report
from ldm.report.images import SETS, as_json, options_of_sets
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.report.page import Block
    from ldm.report.verdicts import Verdict

ABOUT = "Are synthetic radiographs what their prompts say? (arXiv:2210.04133, section 2.8)"
TITLE = "Are synthetic radiographs what their prompts say?"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = f"{SETS}; PNGs without labels are read by the prompts that sample.py wrote into them"
    add("fake", metavar="FAKE", help=what)
    what = "which to measure (all that the extractor looks for)"
    add("--finding", dest="findings", nargs="+", type=cli.line, metavar="FINDING", help=what)
    what = "a set with labels, measured beside FAKE: what the classifier can do"
    add("--real", metavar="SET", help=what)
    add(
        "--extractor", default="judge", metavar="NAME", help="judge, densenet121-res224-all (judge)"
    )
    what = "also train classifiers on FAKE and on --real, and try both on --real"
    add("--train-on-synthetic", dest="train", action="store_true", help=what)
    what = "also count lungs, and look for the heart's side, after a trial on phantoms"
    add("--anatomy", action="store_true", help=what)
    options_of_sets(parser)


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be measured."""
    from ldm.data.image_sets import open_set, patients, warn_of_shared_patients
    from ldm.judging.extractors import open_extractor
    from ldm.report import (
        anatomy_survey,
        memorization,
        page,
        train_on_synthetic,
        verdicts,
    )

    if options.train and not options.real:
        raise ValueError("--train-on-synthetic wants real images to try it on; name them by --real")
    sets = [open_set(source) for source in (options.fake, options.real) if source]
    if options.real:
        warn_of_shared_patients(*sets)
    extractor = open_extractor(options.extractor, options.weights)
    if extractor.head is None:
        raise ValueError(f"{extractor.name} names no findings; use judge or densenet121-res224-all")
    judged = [verdicts.judge_images(s, extractor, options.limit, options.skip_bad) for s in sets]
    findings, left_out = verdicts.choose(judged[0], extractor, options.findings)
    found = {
        finding: [verdicts.verdict(one, finding, extractor) for one in judged]
        for finding in findings
    }
    names = ["fake", "real"][: len(sets)]
    values: dict[str, Any] = {
        "extractor": str(extractor),
        "threshold": extractor.threshold,
        "prompts": judged[0].prompts,
        "left out": left_out,
        "findings": {
            finding: {name: verdict_as_json(v) for name, v in zip(names, row, strict=True)}
            for finding, row in found.items()
        },
    }
    for name, one in zip(names, judged, strict=True):
        values[name] = {"set": one.name, "n": len(one.indices), "synthetic": one.synthetic}
    more: list[Block] = []
    if options.train:
        if both := len(judged[0].hashes & judged[1].hashes):
            raise ValueError(
                f"{both} images are in both {sets[0].name} and {sets[1].name}: a classifier would "
                "be tried on what it learned; name sets that share none"
            )
        names_of_patients, unknown = patients(sets[1], judged[1].indices)
        taught = {
            f: train_on_synthetic.learn(judged[0], judged[1], names_of_patients, f)
            for f in findings
        }
        values["learned"] = {f: result and result.values() for f, result in taught.items()}
        values["patients not known"] = unknown
        more.append(train_on_synthetic.table(taught, unknown))
    if options.anatomy:
        tried = anatomy_survey.trial()
        surveys = {
            name: anatomy_survey.survey(asked, one.indices, tried.believed)
            for name, asked, one in zip(names, sets, judged, strict=True)
        }
        values["anatomy"] = {
            "trial": tried.measured,
            "believed": tried.believed,
            **surveys,
        }
        more += anatomy_survey.tables(tried, surveys)
    if audited := memorization.beside(options, sets[0]):
        values["memorization"] = audited.values
        more += audited.blocks
    sentences = about(values)
    tables = verdicts.tables(found, names)
    pictures = [verdicts.roc_picture(found, judged, names, extractor)]
    for finding in findings:
        pictures += verdicts.disagreements(sets[0], judged[0], finding, extractor)
    prompts = [verdicts.prompt_table(judged[0], extractor)] if judged[0].prompts else []
    blocks: list[Block] = [*sentences, *tables, *more, *pictures, *prompts]
    files = page.files("classify", TITLE, blocks, values)
    return Report(page.text(TITLE, [sentences[0], *sentences[2:], *tables, *more]), values, files)


def about(values: dict[str, Any]) -> list[str]:
    """What was measured; then how to read it; then what was left out."""
    fake, real = values["fake"], values.get("real")
    sets = f"Fake: {fake['set']}, n = {fake['n']}, {fake['synthetic']} of them say they are "
    sets += "synthetic; what they should show is told by their "
    sets += "prompts." if values["prompts"] else "labels."
    if real:
        sets += f" Real: {real['set']}, n = {real['n']}: what the classifier can do."
    sentences = [
        f"{sets} Classifier: {values['extractor']}, positive above {values['threshold']:g}.",
        "Each figure has its interval of 95 % and its n: DeLong's for an AUC, Wilson's for the "
        "others. An AUC against all other images can be had from their style alone, where films "
        "with a finding and films without come from different places; the AUC against images of "
        "other findings asks more. A classifier that cannot see a finding in real films says "
        "nothing of drawn ones. n of F1 are the images with the finding or called so, of precision "
        "the ones called so, of recall the ones with it.",
    ]
    if values["left out"]:
        names = ", ".join(values["left out"])
        sentences.append(f"Left out, with fewer than two images with it or without it: {names}.")
    return sentences


def verdict_as_json(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    estimates = {"asked": verdict.asked, "called": verdict.called, "AUC": verdict.auc}
    if verdict.rivals:
        estimates["AUC, other findings"] = verdict.rivals
    return as_json(estimates | verdict.decisions)
