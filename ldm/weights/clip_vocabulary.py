"""CLIP's vocabulary as the files that transformers' tokenizer reads, from open_clip's own."""

import json

from ldm.clip import tokenizer

SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # theirs


def files(pad: str) -> dict[str, str]:
    """{file of a folder tokenizer/: its text}; pad: the token that fills a prompt's 77 places"""
    bpe = tokenizer()
    start, end = SPECIAL.values()
    vocabulary = {SPECIAL.get(token, token): number for token, number in bpe.encoder.items()}
    merges = [" ".join(pair) for pair in sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.get)]
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad}
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    return {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
        "tokenizer_config.json": json.dumps({**settings, "do_lower_case": True}, indent=2) + "\n",
    }
