"""A table of drawn pictures and their prompts:  python -m ldm.drawing.manifest samples

It writes prompt_INFO.csv into the folder, with the columns that the scripts of CheXGenBench read
(arXiv:2505.10496; github.com/Raman1121/CheXGenBench): `prompt` and `img_savename` by its README,
"Generating Synthetic Data"; `annotated_prompt` by default in metrics/fid.py, and with
`synthetic_filename` in metrics/img_text_alignment_scores.py. Those compare with MIMIC-CXR's test
set, so draw its prompts.
"""

import csv
import logging
import sys
from pathlib import Path

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.film_rows import read_rows
from ldm.pictures import image_files
from ldm.system import cli
from ldm.system.atomic import whole_file

log = logging.getLogger(__name__)

NAME = "prompt_INFO.csv"
COLUMNS = ("prompt", "img_savename", "annotated_prompt", "synthetic_filename")


def write(folder: Path) -> int:
    """Write the table; returns its rows. ConfigError where no picture says its prompt."""
    pictures, _ = read_rows(folder, DataConfig(path=str(folder), split=None))
    told = [(image_files.read_text(row["path"]).get("prompt"), row["path"]) for row in pictures]
    rows = [(prompt, Path(path).relative_to(folder)) * 2 for prompt, path in told if prompt]
    if not rows:
        raise ConfigError(f"{folder}: no picture says its prompt; name a folder of sample.py")
    with whole_file(folder / NAME) as path, path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    left_out = len(told) - len(rows)
    log.info("%s: %d pictures, %d without a prompt left out", folder / NAME, len(rows), left_out)
    return len(rows)


def main() -> int:
    parser = cli.Parser("manifest", "prompt_INFO.csv of a folder of drawn pictures.")
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "manifest", logging.INFO))
