"""Small copies of the published layouts of chest film sets, made from forged_sets.json.

They have the real names of folders, files and columns, and no row and no pixel of a real set:
films are grey squares, DICOM files are empty. Within them are the traps of each set: a film that
is missing, one in no list, uncertain marks, lateral films, unknown sex, reports without an
impression, printed and Spanish labels, films to exclude, readers who disagree, masks.
"""

import gzip
import json
from pathlib import Path

from PIL import Image

SETS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def forge(folder: Path, *names: str) -> dict[str, Path]:
    """Makes the sets of these names, or all; {name: its folder}"""
    made = {name: folder / name for name in names or SETS}
    for name, root in made.items():
        for film in SETS[name]["films"]:
            path = root / film
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".dcm", ".dicom"):
                path.touch()
            else:
                Image.new("L", (16, 16), 128).save(path)
        for file, lines in SETS[name]["files"].items():
            path, content = root / file, "".join(f"{line}\n" for line in lines).encode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return made
