"""Text encoders by name: each reads and pools as its own paper or library does."""

import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import TOY
from open_clip.transformer import TextTransformer
from test_bert_files import small_file, write_bert

import ldm
from ldm.clip import TextEncoder, tokenizer
from ldm.config import TextConfig
from ldm.pipeline import LatentDiffusion
from ldm.report.named_encoders import clip_encoder, open_encoder, with_parts
from ldm.text.bert_files import load_bert
from ldm.text.pooling import embed
from ldm.weights.export import save
from ldm.weights.loading import load_parts

TEXTS = [*(text for texts in TOY.values() for text in texts), "", "effusion " * 100]


@pytest.fixture(scope="module")
def tower(start: Path) -> TextEncoder:
    return ldm.load(start).text


def test_clip_vectors_are_those_of_the_tower_as_stable_diffusion_feeds_it(
    start: Path, tower: TextEncoder
) -> None:
    """Start, first end-of-text, and mean between them, of 77 tokens padded with end-of-text."""
    found, cut = open_encoder(str(start)).embed(TEXTS, ("eot", "mean", "start"))
    tokens = tower.tokenize(TEXTS, log_dropped=False)
    assert tokens.shape == (10, 77)
    with torch.inference_mode():
        hidden = tower(tokens)
    for i, row in enumerate(tokens.tolist()):
        end = row.index(tokenizer().eot_token_id)
        np.testing.assert_allclose(found["eot"][i], hidden[i, end], rtol=1e-4, atol=1e-5)
        mean = hidden[i, : end + 1].mean(0)
        np.testing.assert_allclose(found["mean"][i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["start"][i], hidden[i, 0], rtol=1e-4, atol=1e-5)
    assert cut == 1  # the hundred words


def test_the_first_state_of_clip_knows_no_text(start: Path) -> None:
    """With a causal mask "start" is one vector for every text: chance, as in the paper."""
    vectors = open_encoder(str(start)).embed(TEXTS, ("start", "eot")).vectors
    assert np.ptp(vectors["start"], axis=0).max() < 1e-5
    assert np.ptp(vectors["eot"], axis=0).max() > 0.1


def test_a_text_of_77_tokens_is_not_cut(start: Path) -> None:
    """Both ends included; one word more is cut, and changes no vector."""
    encoder = open_encoder(str(start))
    assert len(encoder.tokens("heart " * 75)) == 77
    found = [encoder.embed(["heart " * n], ("eot", "mean")) for n in (75, 76)]
    assert [there.cut for there in found] == [0, 1]
    for how in ("eot", "mean"):
        assert np.array_equal(found[0].vectors[how], found[1].vectors[how])


def test_bert_vectors_are_those_of_text_features(tmp_path: Path) -> None:
    """Every head the file has, and what `embed` makes of it; what is cut is counted."""
    folder = write_bert(tmp_path, small_file())
    encoder = open_encoder(str(folder))
    assert encoder.hows == ("cls", "mean", "pooler", "projection")
    texts = ["lungs clear", "", "lungs clear lungs clear clear"]
    found, cut = encoder.embed(texts, encoder.hows)
    for how in encoder.hows:
        expected = embed(*load_bert(folder), texts, how)  # type: ignore[arg-type]  # of hows
        assert np.array_equal(found[how], expected)
    assert cut == sum(len(encoder.tokens(text)) > 6 for text in texts) > 0


def test_a_head_that_the_file_lacks_is_no_choice(tmp_path: Path) -> None:
    """A BERT published without pooler and projection has cls and mean alone."""
    heads = ("pooler.", "cls_projection_head.")
    bare = {name: t for name, t in small_file().items() if not name.startswith(heads)}
    assert open_encoder(str(write_bert(tmp_path, bare))).hows == ("cls", "mean")


@pytest.mark.parametrize(("kind", "how"), [("clip", "eot"), ("bert", "cls")])
def test_a_random_control_has_the_model_s_sizes_and_depends_on_the_seed(
    start: Path, tmp_path: Path, kind: str, how: str
) -> None:
    """Of CLIP and of a BERT: tokens and widths of the trained one, other vectors with each seed."""
    path = start if kind == "clip" else write_bert(tmp_path, small_file())
    trained, zero, again, one = (
        open_encoder(name, seed)
        for name, seed in ((f"{path}", 0), *((f"random:{path}", seed) for seed in (0, 0, 1)))
    )
    assert zero.hows == trained.hows
    assert zero.tokens("lungs clear") == trained.tokens("lungs clear")
    expected = zero.embed(["lungs clear"], [how]).vectors[how]
    for encoder, same in ((again, True), (one, False), (trained, False)):
        found = encoder.embed(["lungs clear"], [how]).vectors[how]
        assert found.shape == expected.shape
        assert np.allclose(found, expected, atol=1e-3) == same


def test_a_tower_of_open_clip_keeps_its_activation() -> None:
    """With GELU, as LAION's towers have it, end-of-text is open_clip's own pooled vector."""
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "layers": 2}
    theirs = TextTransformer(**sizes, output_dim=None).eval()  # GELU is its default
    encoder = clip_encoder(with_parts(TextConfig(**sizes), theirs))
    tokens = torch.zeros(len(TOY), 77, dtype=torch.int64)  # it pads with 0
    texts = [texts[0] for texts in TOY.values()]
    for row, text in zip(tokens, texts, strict=True):
        ids = encoder.tokens(text)
        row[: len(ids)] = torch.tensor(ids)
    with torch.inference_mode():
        pooled = theirs(tokens)
    found = encoder.embed(texts, ("eot",)).vectors["eot"]
    np.testing.assert_allclose(found, pooled, rtol=1e-4, atol=1e-5)


def test_open_clip_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of its client's retries is silenced, the error is one line, and logging goes on."""

    def offline(*arguments: object, **options: object) -> None:
        logging.getLogger("retries").critical("not shown")
        raise RuntimeError("Failed to download\nweights")

    monkeypatch.setattr(open_clip, "create_model", offline)
    shown: list[str] = []
    monkeypatch.setattr(logging.Logger, "callHandlers", lambda self, record: shown.append("x"))
    with pytest.raises(ValueError, match="open_clip cannot fetch the weights of ViT-B-32/openai"):
        open_encoder("open_clip:ViT-B-32/openai")
    assert not shown
    logging.getLogger("retries").critical("shown")
    assert shown


def test_a_file_without_a_text_tower_is_refused(start: Path, tmp_path: Path) -> None:
    """Our own files may hold some parts only."""
    config, parts = load_parts(start)
    path = save(tmp_path / "vae.safetensors", config, {"vae": parts["vae"]})
    with pytest.raises(ValueError, match=r"vae\.safetensors has no text tower"):
        open_encoder(str(path))


def test_a_diffusers_folder_is_a_model_and_no_bert(
    tiny: LatentDiffusion, tiny_diffusers: Path
) -> None:
    """Stable Diffusion's layouts give the tower that the pipeline has."""
    found = open_encoder(str(tiny_diffusers)).embed(TEXTS, ("eot",)).vectors["eot"]
    assert np.array_equal(found, clip_encoder(tiny.text).embed(TEXTS, ("eot",)).vectors["eot"])
