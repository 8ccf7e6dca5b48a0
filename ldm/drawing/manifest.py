"""The manifest that CheXGenBench reads: python -m ldm.drawing.manifest drawn

CheXGenBench (arXiv:2505.10496, https://github.com/Raman1121/CheXGenBench) measures synthetic chest
radiographs that a CSV lists with their prompts.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from ldm.data import DataConfig
from ldm.data.film_rows import read_rows
from ldm.pictures import image_files
from ldm.system import cli
from ldm.system.atomic import whole_file

# README: prompt_INFO.csv with `prompt` and `img_savename`. By default metrics/fid.py reads
# `annotated_prompt` and `img_savename`, metrics/img_text_alignment_scores.py `annotated_prompt` and
# `synthetic_filename`.
PROMPT, PICTURE = ("prompt", "annotated_prompt"), ("img_savename", "synthetic_filename")


def write_manifest(folder: Path) -> tuple[Path, int, int]:
    """Lists the PNGs of a folder, and of folders in it, that hold a prompt; sheets are left out.

    Returns the CSV, the number of its rows, and of images without a prompt or not PNG.
    Raises ValueError, writing nothing, if no image is left.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name one that sample.py wrote")
    images, rows = read_rows(folder, DataConfig(path=str(folder)))[0], []
    for path in (Path(image["path"]) for image in images):
        is_png = path.suffix.lower() == ".png"
        if prompt := image_files.read_text(path).get("prompt") if is_png else None:
            rows.append([prompt] * 2 + [path.relative_to(folder).as_posix()] * 2)
    if not rows:
        raise ValueError(f"{folder} has no PNG that holds a prompt; name a folder of sample.py")
    target = folder / "prompt_INFO.csv"
    with whole_file(target) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*PROMPT, *PICTURE], *rows])
    return target, len(rows), len(images) - len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = cli.Parser("manifest", "Write the CSV of drawn images that CheXGenBench reads.")
    parser.add_argument("folder", type=cli.folder, help="of pictures that sample.py drew")
    target, listed, left_out = write_manifest(parser.parse_args(arguments).folder)
    sys.stdout.write(f"{target}: {listed} images; {left_out} without a prompt or not PNG\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "manifest"))
