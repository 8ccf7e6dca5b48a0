"""A sheet of phantoms: every region from the front and the side, then CT, MR and ultrasound.

    python benchmarks/phantom_sheet.py OUT.png [--each 4] [--size 128] [--seed 0] [--real FOLDER]

With --real, as many real images stand to the right of each row where FOLDER (with `body` and
`nih_cxr`, each with a labels.csv) has some of that region and modality.
"""

import argparse
from pathlib import Path

import torch
from phantom_transfer import real_files

from ldm.data.image_sets import open_set
from ldm.data.phantom.selection import SCANNED, usual
from ldm.pictures import image_files

NAMES = {"xray": "x-ray", "ct": "CT", "mr": "MRI", "ultrasound": "ultrasound"}


def rows() -> list[tuple[str, str, str]]:
    """(region, modality, settings) of each row."""
    films = [(r, "xray", f"view={v}") for r in usual("xray") for v in ("frontal", "lateral")]
    slices = [(r, m, "") for m in ("ct", "mr") for r in usual(m)]
    return [*films, *slices, *((r, "ultrasound", "") for r in SCANNED)]


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
            files = real_files(options.real, region, NAMES[modality], n, options.seed)
            grey = [image_files.to_channels(image_files.load(file), 1) for file in files]
            line += [image_files.fit_padded(image, size)[0][0] for image in grey]
            line += [torch.full((size, size), -1.0)] * (2 * n - len(line))
        lines.append(torch.cat(line, 1))
    half = (len(lines) + 1) // 2  # two columns of rows
    lines += [torch.full_like(lines[0], -1.0)] * (2 * half - len(lines))
    sheet = torch.cat([torch.cat(lines[:half]), torch.cat(lines[half:])], 1)
    text = {"synthetic": "Computed phantoms; with --real, real images beside them."}
    image_files.save(sheet[None], options.out, text)


if __name__ == "__main__":
    main()
