"""evaluate.py study: the whole of Chambon et al. (arXiv:2210.04133), repeated by one command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ldm.report import Report
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.report.study.study_settings import Study

ABOUT = "Repeat the study of arXiv:2210.04133: every table and figure, as one page. It resumes."


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "the built-in world, or Stable Diffusion v1.4 with real films and reports (laptop)"
    add("--tier", choices=["laptop", "full"], default="laptop", help=what)
    add("--quick", action="store_true", help="fewer images, shorter trainings; labelled as such")
    add("--model", metavar="PATH", help="what is adapted (the built-in base; full: sd-v1-4.ckpt)")
    add("--data", metavar="CSV", help="real films: filename, labels, split (phantoms)")
    add("--reports", metavar="CSV", help="impressions with labels (Open-I of torchxrayvision)")
    what = "text encoders to compare, as in evaluate.py text-encoders"
    add("--encoders", nargs="+", type=cli.line, metavar="ENCODER", help=what)
    add("--encoder", metavar="FOLDER", help="the BERT of textual projection (weights/bert)")
    what = "of Fréchet distances (judge; full: inception)"
    add("--distance-by", metavar="NAME", help=what)
    what = "of findings (judge; full: densenet121-res224-all)"
    add("--classified-by", metavar="NAME", help=what)
    add("--weights", metavar="FOLDER", help="of these two (weights)")
    add("--n", type=cli.whole(1), metavar="N", help="images of each prompt (100; quick: 20)")
    add("--guidance", type=cli.finite, metavar="S", help="of all drawings (4; full: the model's)")
    what = "of all drawings (20)"
    add("--sampling-steps", type=cli.whole(1), metavar="N", help=what)
    add("--size", type=cli.whole(8), metavar="PIXELS", help="of a side (the model's)")
    what = "settings of every training, as for train.py: train.steps=1"
    add("--training", nargs="+", metavar="KEY=VALUE", help=what)
    add("--seed", type=cli.whole(), metavar="N", help="of all drawings (2000)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (cpu)")


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any work, for a world that lacks something."""
    return make(study_of(options))


def make(study: Study) -> Report:
    """Every step that is not there yet, and the page of all."""
    from ldm.report.study import cached_steps, study_page, study_plan
    from ldm.weights.loading import load_parts

    planned = study_plan.plan(study, load_parts(study.model)[0])
    return study_page.report(study, cached_steps.run(planned, study.out / "steps"))


def study_of(options: argparse.Namespace) -> Study:
    """The defaults of the tier, and over them what was asked for."""
    import dataclasses

    from ldm.report.study.study_settings import QUICK, Study, check_full

    study = QUICK if options.quick else Study()
    if options.tier == "full":
        check_full(options.model, options.data, options.reports)
        study = dataclasses.replace(
            study,
            tier="full",
            distance_by="inception",
            classified_by="densenet121-res224-all",
            guidance=None,
            encoders=("words", f"CLIP={options.model}", f"random:{options.model}"),
        )
    given = {name: value for name, value in vars(options).items() if value is not None}
    names = {field.name for field in dataclasses.fields(Study)} - {"tier", "quick"}
    asked: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if name in names
    }
    return dataclasses.replace(study, **asked)
