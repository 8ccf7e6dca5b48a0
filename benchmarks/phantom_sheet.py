"""A sheet of phantoms: every region from the front and the side, then CT, MR and ultrasound.

    python benchmarks/phantom_sheet.py OUT.png [--each 4] [--size 128] [--seed 0] [--real FOLDER]

With --real, as many real images stand to the right of each row where FOLDER (with `body` and
`nih_cxr`, each with a labels.csv) has some of that region and modality.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image_sets import open_set
from ldm.data.phantom.selection import SCANNED, usual
from ldm.pictures import image_files

NAMES = {"xray": "x-ray", "ct": "CT", "mr": "MRI", "ultrasound": "ultrasound"}


def rows() -> list[tuple[str, str, str]]:
    """(region, modality, settings) of each row."""
    films = [(r, "xray", f"view={v}") for r in usual("xray") for v in ("frontal", "lateral")]
    slices = [(r, m, "") for m in ("ct", "mr") for r in usual(m)]
    return [*films, *slices, *((r, "ultrasound", "") for r in SCANNED)]


def squares(images: list[Tensor], size: int) -> list[Tensor]:
    """[size, size] each, padded with black."""
    made = []
    for image in images:
        grey = image_files.to_channels(image, 1)
        rest = [max(grey.shape[1:]) - n for n in grey.shape[1:]]
        sides = (rest[1] // 2, rest[1] - rest[1] // 2, rest[0] // 2, rest[0] - rest[0] // 2)
        padded = F.pad(grey, sides, value=-1.0)
        made.append(F.interpolate(padded[None], (size, size), mode="area")[0, 0])
    return made


def real(folder: Path, region: str, modality: str, count: int, seed: int) -> list[Tensor]:
    """Some real images of a region, drawn by chance."""
    found = []
    for name in ("body", "nih_cxr"):
        with (folder / name / "labels.csv").open() as file:
            for row in csv.DictReader(file):
                kind = row.get("region") or "chest", row.get("modality") or "x-ray"
                if kind == (region, NAMES[modality]):
                    found.append(folder / name / "images" / row["filename"])
    picked = np.random.default_rng(seed).permutation(len(found))[:count]
    return [image_files.load(str(found[i])) for i in picked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    n, size, lines = options.each, options.size, []
    for region, modality, rest in rows():
        where = ",".join(filter(None, (f"region={region},modality={modality}", rest)))
        asked = open_set(f"phantoms:{n}:{options.seed}:{where}", size)
        line = [asked.load(i)[0] for i in range(n)]
        if options.real:
            line += squares(real(options.real, region, modality, n, options.seed), size)
            line += [torch.full((size, size), -1.0)] * (2 * n - len(line))
        lines.append(torch.cat(line, 1))
    half = (len(lines) + 1) // 2  # two columns of rows
    lines += [torch.full_like(lines[0], -1.0)] * (2 * half - len(lines))
    sheet = torch.cat([torch.cat(lines[:half]), torch.cat(lines[half:])], 1)
    text = {"synthetic": "Computed phantoms; with --real, real images beside them."}
    image_files.save(sheet[None], options.out, text)


if __name__ == "__main__":
    main()
