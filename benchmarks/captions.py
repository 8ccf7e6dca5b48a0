"""The captions of a table's films, one a line, as training words them: prompts for sample.py.

python benchmarks/captions.py labels.csv val > captions.txt
"""

from __future__ import annotations

import argparse
import sys

from ldm.data import DataConfig
from ldm.data.file_dataset import Files
from ldm.system import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", metavar="CSV")
    parser.add_argument("split")
    options = parser.parse_args()
    films = Files(DataConfig(path=options.table, split=options.split), channels=1)
    print("\n".join(films.caption(i, wording=i) for i in range(len(films))))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "captions.py"))
