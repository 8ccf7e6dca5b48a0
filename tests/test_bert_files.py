"""A published BERT in every form that it comes in, and what is refused."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_same
from safetensors.torch import load_file, save_file
from test_bert import SMALL, VOCAB, pseudo_state
from test_safe_pickle import Call
from torch import Tensor

from ldm.text.bert import Bert
from ldm.text.bert_files import load_bert, names, save_bert
from ldm.text.wordpiece import WordPiece

SMALL_JSON = {
    "model_type": "cxr-bert",
    "hidden_act": "gelu",
    "vocab_size": 8,
    "max_position_embeddings": 6,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "projection_size": 4,
}


def small_file(**changes: Any) -> dict[str, Tensor]:
    """The tensors of a small CXR-BERT, as its file names them."""
    return {names(SMALL)[ours]: tensor for ours, tensor in pseudo_state(SMALL).items()} | changes


def write_bert(folder: Path, tensors: dict[str, Tensor], suffix: str = ".safetensors") -> Path:
    (folder / "config.json").write_text(json.dumps(SMALL_JSON))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    if suffix == ".safetensors":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name if name.startswith("cls") else f"bert.{name}": t for name, t in tensors.items()}


def tensorflow_style(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    spelled = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, old in spelled.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    return tensors


def with_extras(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {
        "embeddings.position_ids": torch.arange(6)[None],
        "cls.seq_relationship.weight": torch.zeros(2, 8),
        "cls.predictions.decoder.weight": tensors["embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
    }


def without_bias(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = with_extras(tensors)
    del tensors["cls.predictions.bias"]
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("lower", [True, False])
def test_what_is_saved_opens_as_it_was(tmp_path: Path, dtype: torch.dtype, lower: bool) -> None:
    """Weights, sizes, heads and tokenizer come back, in half precision rounded once."""
    bert = Bert(SMALL)
    save_bert(tmp_path, bert, WordPiece(VOCAB, lower), dtype)
    found, wordpiece = load_bert(tmp_path)
    assert found.config == SMALL
    assert_same(found.state_dict(), {n: t.to(dtype).float() for n, t in bert.state_dict().items()})
    assert (list(wordpiece.ids), wordpiece.lower) == (VOCAB, lower)


def test_saved_tensors_have_the_names_of_bert_for_masked_lm(tmp_path: Path) -> None:
    """The encoder lies under `bert.`, the head beside it: so Hugging Face's class finds them."""
    config = replace(SMALL, projection=None)
    save_bert(tmp_path, Bert(config), WordPiece(VOCAB))
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"bert", "cls"}
    assert {
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.attention.self.query.bias",
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.weight",
    } <= tensors.keys()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize(
    "spell", [dict, prefixed, tensorflow_style, with_extras, without_bias], ids=lambda f: f.__name__
)
def test_trap_3_every_spelling_gives_the_same_tensors(
    tmp_path: Path, spell: Callable[[dict[str, Tensor]], dict[str, Tensor]], suffix: str
) -> None:
    """Prefix, gamma and beta, extras, pickle or safetensors: the model is bit for bit the same."""
    bert, wordpiece = load_bert(write_bert(tmp_path, spell(small_file()), suffix))
    assert bert.config == SMALL
    assert_same(bert.state_dict(), pseudo_state(SMALL))
    assert not bert.training
    assert wordpiece.encode("No effusions") == [2, 5, 6, 7, 3]


def test_a_file_without_heads_gives_an_encoder(tmp_path: Path) -> None:
    """Pooler, masked-LM head and projection are there if the file has them; half becomes float."""
    whole = small_file()
    encoder = {n: t.half() for n, t in whole.items() if n.startswith(("embeddings", "encoder"))}
    bert, _ = load_bert(write_bert(tmp_path, encoder))
    assert (bert.pooler, bert.masked_lm, bert.projection) == (None, None, None)
    assert bert.token_embedding.weight.dtype == torch.float32


def test_a_malicious_pickle_is_refused(tmp_path: Path) -> None:
    """A pytorch_model.bin that would run a command is refused by name, and nothing runs."""
    witness = tmp_path / "it ran"
    write_bert(tmp_path, small_file(x=Call(os.system, f"touch '{witness}'")), ".bin")
    with pytest.raises(ValueError, match=r"was refused: it names \w+\.system") as error:
        load_bert(tmp_path)
    assert "\n" not in str(error.value)
    assert not witness.exists()


def bad(config: dict | str | None = None, vocab: Any = VOCAB, **tensors: Any) -> Any:
    """Writes a folder that differs in these; a tensor that is None is left out."""

    def write(folder: Path) -> None:
        file = small_file(**{name.replace("__", "."): x for name, x in tensors.items()})
        write_bert(folder, {name: x for name, x in file.items() if x is not None})
        text = config if isinstance(config, str) else json.dumps(SMALL_JSON | (config or {}))
        (folder / "config.json").write_text(text)
        (folder / "vocab.txt").write_text("\n".join(vocab))

    return write


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (write_bert(folder, small_file()) / name).unlink(missing_ok=True)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (without("config.json"), r"config\.json cannot be read"),
    "no vocab": (without("vocab.txt"), r"vocab\.txt cannot be read"),
    "no weights": (
        without("model.safetensors"),
        r"holds no weights; fetch model\.safetensors or pytorch_model\.bin",
    ),
    "damaged": (
        lambda folder: (write_bert(folder, {}) / "model.safetensors").write_bytes(b"no weights"),
        "damaged",
    ),
    "not JSON": (bad(config="{"), "not JSON"),
    "a list": (bad(config="[]"), "not the config of a BERT"),
    "another activation": (bad(config={"hidden_act": "gelu_new"}), "hidden_act 'gelu_new'"),
    "RoBERTa": (bad(config={"model_type": "roberta"}), "model_type 'roberta'"),
    "relative": (bad(config={"position_embedding_type": "relative_key"}), "'relative_key'"),
    "a decoder": (bad(config={"is_decoder": True}), "is_decoder True"),
    "a size in words": (bad(config={"hidden_size": "wide"}), "width must be int"),
    "heads": (bad(config={"num_attention_heads": 3}), "does not split into 3 heads"),
    "another vocabulary": (bad(vocab=[*VOCAB, "more"]), r"has 9 tokens and config\.json says 8"),
    "another embedding": (
        bad(config={"vocab_size": 9}, vocab=[*VOCAB, "more"]),
        r"word_embeddings\.weight in .* \[8, 8\], expected floating point \[9, 8\]",
    ),
    "a layer less": (bad(config={"num_hidden_layers": 2}), r"lacks encoder\.layer\.1"),
    "a tensor less": (bad(pooler__dense__bias=None), r"lacks pooler\.dense\.bias"),
    "a tensor more": (bad(classifier=torch.ones(2)), "holds classifier"),
    "integers": (bad(pooler__dense__bias=torch.arange(8)), r"int64 \[8\], expected floating"),
    "twice": (bad(bert__pooler__dense__bias=torch.ones(8)), r"pooler\.dense\.bias twice"),
    "an untied head": (
        bad(cls__predictions__decoder__weight=torch.ones(8, 8)),
        "differs from embeddings",
    ),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_folders_give_one_line(tmp_path: Path, kind: str) -> None:
    """A folder that is not a BERT, or not whole, is refused in one line with file and reason."""
    write, message = BAD_FOLDERS[kind]
    write(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_bert(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
