"""Short hashes that name what was kept, so that nothing is taken for what it is not."""

import hashlib
import json
from pathlib import Path


def digest(value: object) -> str:
    """12 hex digits; the same for equal values of what JSON knows."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def code_version(*paths: str | Path) -> str:
    """12 hex digits of the contents of source files."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:12]
