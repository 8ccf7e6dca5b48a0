"""Writes into the built-in models which words they were trained on, and in how many images.

    python benchmarks/trained_words.py NIH [--weights weights] [--cache cache]

NIH is the CSV of the films. The data are those of the recipe in weights/README.md; the captions of
phantoms are those of the present code. No tensor changes. `train.py` does the same for its models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors import safe_open

from ldm.data.datasets import count_words, open_datasets
from ldm.system import cli
from ldm.training.training_run import load_run
from ldm.weights.export import CHECKSUMS, write_safetensors
from ldm.weights.weight_files import TRAINED_WORDS, Words, join_words


def count(films: str, cache: str, exclude: str) -> Words:
    """Of a U-Net in the recipe."""
    data = [f"data.path={films}", "data.share=0.6", f"data.cache={cache}"]
    run = load_run("configs/scratch_unet.yaml", [*data, f"data.exclude=[{exclude}]"])
    datasets = [dataset for dataset, _ in open_datasets(run.data, 1)]
    print(f"without {exclude or 'nothing'}:", *(dataset.count for dataset in datasets))
    return count_words(datasets)


def write(file: Path, words: Words) -> None:
    """Replace the words in a file's metadata."""
    with safe_open(file, framework="pt") as handle:
        metadata = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
    metadata.pop(CHECKSUMS, None)
    write_safetensors(file, tensors, metadata | {TRAINED_WORDS: json.dumps(words)})
    print(f"{file}: {len(words)} words")


def main() -> int:
    parser = cli.Parser("trained_words", "The words that the built-in models were trained on.")
    parser.add_argument("films", metavar="NIH", help="the CSV of the films")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--cache", default="cache")
    options = parser.parse_args()
    base = count(options.films, options.cache, "Effusion")
    default = count(options.films, options.cache, "")
    write(options.weights / "base.safetensors", base)
    write(options.weights / "model.safetensors", join_words(base, default) or {})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "trained_words"))
