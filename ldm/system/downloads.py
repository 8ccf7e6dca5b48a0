"""What lies in the place of a file whose download went wrong."""

import re
from pathlib import Path


def mistaken(file: Path) -> str | None:
    """What a file is, if it is a Git LFS pointer or a web page; None for anything else."""
    with file.open("rb") as opened:
        head = opened.read(1024)
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run `git lfs pull`, or download it"
    if re.match(rb"\s*<(!doctype html|html|\?xml)", head, re.IGNORECASE):
        return "is a web page saved under this name: download the file itself, perhaps logged in"
    return None
