"""evaluate.py reader-study: ask readers, score what they say, plan how many to ask."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ldm.report import Report
from ldm.report.images import SETS
from ldm.system import cli

ABOUT = "Can readers tell real from synthetic? Make a page to ask on, score answers, plan."
WAYS = {
    "make": "One HTML file that works offline, blinded, and the key to it.",
    "score": "Rates, d', AUC, agreement, repeats and time, with intervals.",
    "plan": "How many images and readers for how narrow an interval?",
}


def arguments(parser: argparse.ArgumentParser) -> Sequence[argparse.ArgumentParser]:
    """Returns the parsers of the ways, which take the options that all subcommands have."""
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    parsers = {name: ways.add_parser(name, description=w, help=w) for name, w in WAYS.items()}
    make_arguments(parsers["make"])
    score_arguments(parsers["score"])
    plan_arguments(parsers["plan"])
    return list(parsers.values())


def make_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("real", nargs="?", metavar="REAL", help=SETS)
    add("synthetic", nargs="?", metavar="SYNTHETIC", help="the same")
    add("--pairs", metavar="ORIGINAL", help="a set whose copies by the autoencoder are scored")
    add("--n", type=cli.whole(2), default=50, metavar="N", help="images of each set (50)")
    add("--repeats", type=cli.whole(0), default=10, metavar="N", help="shown a second time (10)")
    add("--catch", type=cli.whole(0), default=4, metavar="N", help="obviously fake ones (4)")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of choice and order (0)")
    add("--size", type=cli.whole(16), metavar="N", help="pixels (the smallest image's, or 512)")
    add("--same-path", action="store_true", help="real images pass the autoencoder, too")
    add("--model", default="weights", metavar="PATH", help="whose autoencoder (weights)")


def score_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("key", nargs="?", metavar="KEY", help="key.json of the study")
    add("answers", nargs="*", metavar="ANSWERS", help="a file of each reader")
    add("--incomplete", action="store_true", help="score readers who have not finished")
    add("--counts", metavar="FILE", help="published counts in place of answers, as JSON")


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rate", type=cli.finite, default=0.5, metavar="P", help="called fake (0.5)")
    add("--d-prime", type=cli.finite, default=1.0, metavar="D", help="expected (1)")
    add("--kappa", type=cli.finite, default=0.4, metavar="K", help="between readers (0.4)")
    add("--readers", type=cli.whole(2), default=3, metavar="N", help="(3)")
    add("--rate-within", type=cli.finite, default=0.1, metavar="W", help="half width (0.1)")
    add("--d-prime-within", type=cli.finite, default=0.5, metavar="W", help="half width (0.5)")
    add("--kappa-within", type=cli.finite, default=0.15, metavar="W", help="half width (0.15)")


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for what cannot be made or scored."""
    from ldm.report.readers import study_making, study_planning, study_scoring

    ways: dict[str, Any] = {"make": study_making, "score": study_scoring, "plan": study_planning}
    report: Report = ways[options.way].run(options)
    return report
