"""Writes into a file of weights which words its U-Net was trained on, and in how many images.

    python benchmarks/trained_words.py FILE CONFIG [key=value ...] [--after FILE]

For models that are older than the list, which `train.py` writes itself. CONFIG and the settings are
those of the training; --after: the model that it went on from. No tensor changes. The captions are
those that the data and the code have now.
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
from ldm.weights.weight_files import TRAINED_WORDS, join_words, trained_words


def main() -> int:
    parser = cli.Parser("trained_words", "The words that a model was trained on.")
    parser.add_argument("file", type=Path, help="a .safetensors file of ours, to be replaced")
    parser.add_argument("config", help="of its training")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="its settings")
    parser.add_argument("--after", metavar="FILE", help="the model whose U-Net it went on from")
    options = parser.parse_args()
    before = trained_words(options.after) if options.after else {}
    if before is None:
        parser.error(f"{options.after} keeps no list of words; write that one first")
    with safe_open(options.file, framework="pt") as handle:
        metadata = handle.metadata() or {}
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
    run = load_run(options.config, options.overrides)
    datasets = [dataset for dataset, _ in open_datasets(run.data, 1)]
    print(*(dataset.count for dataset in datasets), sep="; ")
    words = join_words(before, count_words(datasets)) or {}
    metadata.pop(CHECKSUMS, None)  # written anew
    write_safetensors(options.file, tensors, metadata | {TRAINED_WORDS: json.dumps(words)})
    print(f"{options.file}: {len(words)} words")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "trained_words"))
