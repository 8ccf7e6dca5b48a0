"""Reads and writes the folder of a BERT: config.json, vocab.txt and weights."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.config import ConfigError, from_dict
from ldm.system import atomic, cli
from ldm.text.bert import Bert, BertConfig
from ldm.text.wordpiece import WordPiece
from ldm.weights import weight_files
from ldm.weights.export import write_safetensors
from ldm.weights.weight_files import Tensors, WeightsError

FILES = ("model.safetensors", "pytorch_model.bin")  # preferred first
# sizes, embeddings, block, heads: {ours: theirs}; * is weight and bias
# required: another value is another network, though all weights may fit; absent, it is BERT's
# tensorflow: {its spelling: PyTorch's};  copies: second copies of a tensor, which some files hold
NAMES = json.loads(Path(__file__).with_name("bert_names.json").read_text(encoding="utf-8"))
SIZES, HEADS = NAMES["sizes"], NAMES["heads"]
UNUSED = ("embeddings.position_ids", "cls.seq_relationship.")  # 0, 1, 2, ...; next sentence or not
OTHER = "it is not of the model in config.json"


def load_bert(folder: str | Path) -> tuple[Bert, WordPiece]:
    """A published BERT (arXiv:1810.04805) and its tokenizer: float32, eval mode, on the CPU.

    It has those of the pooler, the masked-LM head and CXR-BERT's projection that the file has.
    Raises ValueError, in one line, for anything that is not a BERT or not complete.
    """
    folder = Path(folder)
    values = _read_config(folder / "config.json")
    wordpiece = WordPiece.load(folder)
    if wordpiece.size != values["vocab_size"]:
        raise WeightsError(
            f"{folder / 'vocab.txt'} has {wordpiece.size} tokens and config.json says "
            f"{values['vocab_size']}; take both from the same model"
        )
    tensors = _plain(folder, weight_files.open_all(folder, FILES))
    config = _with_heads(folder, values, tensors)
    with torch.device("meta"):
        bert = Bert(config)
    bert.load_state_dict(_state(folder, bert, tensors), assign=True)
    return bert.eval(), wordpiece


def save_bert(
    folder: Path, bert: Bert, wordpiece: WordPiece, dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that `load_bert` opens, and Hugging Face's BertForMaskedLM.

    The weights come last: a folder that has them is whole.
    """
    config = bert.config
    values = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()} | {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "type_vocab_size": config.segments,
        "layer_norm_eps": config.eps,
        "pad_token_id": wordpiece.pad,
    }
    if config.projection is not None:
        values |= {"model_type": "cxr-bert", "projection_size": config.projection}
    for name, text in (
        ("config.json", json.dumps(values, indent=1)),
        ("tokenizer_config.json", json.dumps({"do_lower_case": wordpiece.lower})),
        ("vocab.txt", "\n".join(wordpiece.ids)),
    ):
        with atomic.whole_file(folder / name) as path:
            path.write_text(text + "\n", encoding="utf-8")
    state = bert.state_dict()
    tensors = {
        theirs if theirs.startswith("cls") else f"bert.{theirs}": state[ours].to(dtype)
        for ours, theirs in names(config).items()
    }
    write_safetensors(folder / FILES[0], tensors, {"format": "pt"})


def names(config: BertConfig) -> dict[str, str]:
    """{our name: Hugging Face's}, without its prefix `bert.`"""
    places = [(NAMES["embeddings"], "", "")]
    for i in range(config.layers):
        places.append((NAMES["block"], f"blocks.{i}.", f"encoder.layer.{i}."))
    places += [(table, "", "") for head, table in HEADS.items() if getattr(config, head)]
    return {
        (place + ours).replace("*", leaf): (their_place + theirs).replace("*", leaf)
        for table, place, their_place in places
        for ours, theirs in table.items()
        for leaf in (("weight", "bias") if "*" in ours else ("",))
    }


def _read_config(path: Path) -> dict[str, Any]:
    """The settings in config.json; raises WeightsError if they describe another network."""
    try:
        values = cli.parse_json(cli.regular(path).read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror}); name the folder of a BERT, which has its "
            "config.json, vocab.txt and weights"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    absent = [key for key in SIZES.values() if not isinstance(values, dict) or key not in values]
    if absent:
        raise WeightsError(
            f"{path} lacks {weight_files.some(absent)}: it is not the config of a BERT"
        )
    for key, allowed in NAMES["required"].items():
        if key in values and values[key] not in allowed:
            raise WeightsError(
                f"{path} says {key} {values[key]!r}, but only {' and '.join(map(repr, allowed))} "
                "can be loaded; use another model"
            )
    return values


def _with_heads(folder: Path, values: dict[str, Any], tensors: Tensors) -> BertConfig:
    """The config, with each head of which the file has any tensor."""
    tops = {name.partition(".")[0] for name in tensors}
    has = {
        head: any(name.partition(".")[0] in tops for name in table.values())
        for head, table in HEADS.items()
    }
    sizes = (SIZES | NAMES["optional sizes"]).items()
    settings = {ours: values[theirs] for ours, theirs in sizes if theirs in values}
    settings |= {"pooler": has["pooler"], "masked_lm": has["masked_lm"]}
    if has["projection"]:
        settings["projection"] = values.get("projection_size", 128)
    try:
        return from_dict(BertConfig, settings)
    except ConfigError as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be used: {error}") from error


def _plain(file: Path, tensors: Tensors) -> Tensors:
    """The tensors under one spelling: no prefix `bert.`, no names of TensorFlow's."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("bert.")
        for old, new in NAMES["tensorflow"].items():
            short = short.replace(old, new)
        if short in plain:
            raise WeightsError(f"{file} holds {short} twice, once as {name}; save it anew")
        if not short.startswith(UNUSED):
            plain[short] = tensor
    return plain


def _state(file: Path, bert: Bert, tensors: Tensors) -> dict[str, Tensor]:
    """{our name: tensor} of all that `bert` has; the file must hold these and no others."""
    for copy, original in NAMES["copies"].items():
        if copy in tensors:
            second = tensors.pop(copy)
            if not torch.equal(second(), tensors.setdefault(original, second)()):
                raise WeightsError(
                    f"{copy} in {file} differs from {original}; a head of its own cannot be used"
                )
    rows = names(bert.config)
    weight_files.check_names(file, rows.values(), tensors, OTHER)
    return {
        ours: weight_files.fit(file, rows[ours], tensors[rows[ours]](), like.shape, OTHER).float()
        for ours, like in bert.state_dict().items()
    }
