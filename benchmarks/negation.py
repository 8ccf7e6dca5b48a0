"""In what share of drawn phantoms does the judge see a finding, by prompt: named, denied, unsaid?

    while read -r prompt; do
        python sample.py --prompt "$prompt" --n 50 --seed 5 --out "drawn/$((i++))"
    done < prompts.txt
    python benchmarks/negation.py drawn/* [--phantoms 400]

Image i of every prompt begins at the same noise. Seen is what has a higher score than ALARMS of the
phantoms of unseen seeds without the finding. Below the rows of the prompts: the same share of the
phantoms that have it, and the judge's AUC for it.
"""

from __future__ import annotations

import sys

import numpy as np

from ldm.data.image_sets import open_set
from ldm.judging.extractors import open_extractor
from ldm.metrics.classification import auc, wilson
from ldm.report.finding_calls import cases, judge_images
from ldm.system import cli

FINDINGS = ("pleural effusion", "cardiomegaly")
ALARMS = 0.95  # the judge's own threshold, 0.5, never sees cardiomegaly


def main() -> int:
    parser = cli.Parser("negation", "Findings that the judge sees, by prompt.")
    parser.add_argument("folders", nargs="+", help="that sample.py wrote, each of one prompt")
    parser.add_argument("--phantoms", type=cli.whole(4), default=400)
    parser.add_argument("--weights", default="weights", help="the folder of the judge")
    options = parser.parse_args()
    judge = open_extractor("judge", options.weights)
    columns = [judge.findings.index(finding) for finding in FINDINGS]
    real = judge_images(open_set(f"phantoms:{options.phantoms}"), judge)
    thresholds, figures = [], []
    for finding, column in zip(FINDINGS, columns, strict=True):
        places, truth, _ = cases(real, finding)
        scores = real.scores[places, column]
        thresholds.append(np.quantile(scores[~truth], ALARMS))
        seen = wilson(int((scores[truth] > thresholds[-1]).sum()), int(truth.sum()))
        figures.append(f"phantoms with {finding}: seen {seen}, AUC {auc(scores, truth)}")
    print("| prompt | n |", " | ".join(FINDINGS), "|\n|---|---|---|---|")
    for folder in options.folders:
        drawn = judge_images(open_set(folder), judge)
        hits = (drawn.scores[:, columns] > thresholds).sum(axis=0)
        shares = [wilson(int(count), len(drawn.scores)).show(".2f") for count in hits]
        print("|", ", ".join(drawn.prompts), f"| {len(drawn.scores)} |", " | ".join(shares), "|")
    print(*figures, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "negation"))
