"""Scores of copies, 1 to 5 (arXiv:2210.04133, section 2.3), by one reader or more."""

from collections.abc import Mapping, Sequence

import numpy as np

from ldm.metrics.classification import median, wilson_of_groups
from ldm.metrics.estimate import Estimate, mean
from ldm.report import page
from ldm.report.page import Block, Table
from ldm.report.readers.answers import Key, Reader
from ldm.report.readers.readings import agreement, gather, groups

SCALE = {
    5: "no worse for a diagnosis than the original",
    4: "errors, none that harms the diagnosis",
    3: "errors that may harm the diagnosis",
    2: "severe errors, or one that looks like a lesion",
    1: "no diagnosis can be made",
}


def measure(key: Key, readers: Sequence[Reader]) -> dict[str, dict[str, Estimate]]:
    """{reader, or POOLED: {figure: estimate}}"""
    found = {}
    for name, group in groups(readers).items():
        scores = gather(key, group).said + 1
        if scores.shape[1] < 2:
            raise ValueError(f"{name} scored {scores.shape[1]} pairs; at least two are needed")
        found[name] = {
            "mean": mean(scores.mean(axis=0)),
            "median": median(np.median(scores, axis=0)),
            **{f"{k}: {what}": wilson_of_groups(scores == k) for k, what in SCALE.items()},
            "4 or 5": wilson_of_groups(scores >= 4),
        }
    return found


def blocks(
    found: Mapping[str, dict[str, Estimate]], key: Key, readers: Sequence[Reader]
) -> list[Block]:
    tables: list[Block] = [Table.of(page.passage("copy_rating"), "", found)]
    if len(readers) > 1:
        ways = {w: agreement(key, readers, w) for w in ("linear", "quadratic")}
        caption = "Cohen's kappa of two readers' scores, weighted by how far they are apart, 95 %."
        tables.append(Table.of(caption, "readers", ways))
    return tables
