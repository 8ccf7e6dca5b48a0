"""evaluate.py study: the whole of Chambon et al. (arXiv:2210.04133), repeated by one command.

study_settings  its data, its models, and how many images of each kind
study_plan      the steps, in the order of the paper
cached_steps    a cache of steps: a finished one is found again by its inputs
step_work       the work of each step, from the settings alone
adapted_rows    how the model of each row of Table 4 is made and opened
paper_tables    the tables, each beside the paper's
paper_figures   the paper's Figures 1, 4 and 5 with our images
rank_agreement  agreement of two studies on the order of the same rows
study_page      the page: what the paper found, what was found here, the summary, how it was made
"""

import argparse
import dataclasses

from ldm.report import Report
from ldm.report.study import cached_steps, study_page, study_plan
from ldm.report.study.study_settings import QUICK, Study, check_full
from ldm.system import cli
from ldm.weights.loading import load_parts


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any work, for settings that lack something."""
    return make(study_of(options))


def make(study: Study) -> Report:
    """Takes every step that is not done yet; returns the page of all."""
    planned = study_plan.plan(study, load_parts(study.model)[0])
    return study_page.report(study, cached_steps.run(planned, study.out / "steps"))


def study_of(options: argparse.Namespace) -> Study:
    """The defaults of the tier, replaced by the options that are given."""
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
    given = cli.given(vars(options), Study)
    listed = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return dataclasses.replace(study, **given | listed)
