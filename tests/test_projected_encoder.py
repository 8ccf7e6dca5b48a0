"""Another encoder in CLIP's place: where its states go, what is drawn, what is refused."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line, projection
from safetensors.torch import load_file, save_file
from test_bad_input import status
from torch import Tensor, nn

import ldm
import sample
from ldm.clip import tokenizer
from ldm.data import DataConfig
from ldm.data.caption_corpus import open_texts
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.text.bert_files import load_bert, save_bert
from ldm.text.projected_encoder import (
    About,
    ProjectedText,
    PromptReader,
    clip_states,
    open_reader,
    replace_text,
)
from ldm.text.projection import Ridge
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights import adapters, export, loading

PROMPTS = ["lung xray, no findings", "a photo of a lung xray with a visible pleural effusion"]


@pytest.fixture(scope="module")
def reader(encoder: Path) -> PromptReader:
    return open_reader(str(encoder), "token", "mean")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, start: Path, encoder: Path) -> Path:
    """A run folder of a ridge regression at document level."""
    return fit(projection(tmp_path_factory.mktemp("p"), start, encoder, {"fit": "ridge"})).parent


def fit(path: Path) -> Path:
    run = load_run(path)
    return Trainer(run, build_method(run)).fit()


# --- where states go ---


def test_both_tokenizers_cut_a_text_as_they_would_alone(reader: PromptReader) -> None:
    """Word by word gives the ids of the whole text, and a place for each of CLIP's tokens."""
    odd = ["", "Größe: 3 µm, [MASK]!", "肺の X線 лёгкие", "it's <b>edema</b>, isn't it?"]
    for text in [*open_texts(DataConfig(phantoms=40)).train, *odd]:
        layout = reader.layout(text)
        assert layout.ids == reader.wordpiece.encode(text)
        tokens = len(tokenizer().encode(text))
        assert layout.places[tokens + 1 :].index(len(layout.ids) - 1) == 0
        assert len(layout.places) == 77
        assert layout.dropped == []


@pytest.mark.parametrize(
    ("text", "ours", "theirs", "expected"),
    [
        ("effusion", 1, 2, [1, 1]),
        ("lung lung", 2, 2, [1, 2]),
        ("qwk", 3, 2, [2, 3]),  # ceil(3/2), ceil(6/2)
        ("2019", 1, 4, [1, 1, 1, 1]),  # unknown to the encoder; four digits to CLIP
        ("\u0301 lung", 1, 3, [0, 0, 1]),  # an accent alone, which the encoder does not see
    ],
)
def test_pieces_of_a_word_are_matched_in_order(
    reader: PromptReader, text: str, ours: int, theirs: int, expected: list[int]
) -> None:
    """CLIP's piece k of n has the state of the encoder's piece ceil(k m / n)."""
    assert len(reader.wordpiece.encode(text)) == ours + 2
    assert len(tokenizer().encode(text)) == theirs
    assert reader.layout(text).places[: theirs + 1] == [0, *expected]


def test_padding_is_matched_with_padding(reader: PromptReader) -> None:
    """CLIP's place i of padding has the encoder's state at i, and [SEP]'s before padding begins."""
    layout = reader.layout("lung qwkz")  # 1 + 4 pieces here, fewer for CLIP
    end, theirs = len(layout.ids) - 1, len(tokenizer().encode("lung qwkz"))
    assert end == 6 > theirs + 1
    assert layout.places[theirs + 1 :] == [max(i, end) for i in range(theirs + 1, 77)]
    states = reader(["lung qwkz"])[0]
    assert torch.equal(states[theirs + 1], states[end])
    assert not torch.equal(states[end], states[end + 1])


def test_states_are_those_of_the_bert_alone(reader: PromptReader, encoder: Path) -> None:
    """Words have the state that the BERT gives them without padding, in any company."""
    long = "a b c d e f g h " * 9  # 72 words
    rows = reader([PROMPTS[0], long])
    bert = load_bert(encoder)[0]
    ids = torch.tensor([reader.wordpiece.encode(PROMPTS[0])])
    alone = bert(ids, torch.ones_like(ids, dtype=torch.bool))[0]
    places = reader.layout(PROMPTS[0]).places
    known = [i for i, place in enumerate(places) if place < len(alone)]
    torch.testing.assert_close(rows[0, known], alone[[places[i] for i in known]])
    torch.testing.assert_close(rows, torch.cat([reader([PROMPTS[0]]), reader([long])]))


def test_a_document_is_projected_to_the_end_of_text(start: Path) -> None:
    """CLIP's side of a document is its state at the first end-of-text, however long the others."""
    text = ldm.load(start).text
    whole, ends = (clip_states(text, PROMPTS, level) for level in ("token", "document"))
    for i, prompt in enumerate(PROMPTS):
        place = len(tokenizer().encode(prompt)) + 1
        torch.testing.assert_close(ends[i, 0], whole[i, place])


def test_one_vector_is_as_good_as_77_copies(start: Path) -> None:
    """The U-Net sees no difference between one vector and a prompt full of it."""
    unet = ldm.load(start).unet
    g = torch.Generator().manual_seed(0)
    x, one = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 1, 16, generator=g)
    t = torch.tensor([3, 700])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t, one), unet(x, t, one.expand(-1, 77, -1)))


# --- too long, unknown, strange ---


@pytest.mark.parametrize("level", ["document", "token"])
def test_words_without_room_are_named(
    encoder: Path, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """10,000 words: a log tells all that were dropped, and the rest is read as if alone."""
    reader = open_reader(str(encoder), level, "mean")[0]
    room = {"document": 98, "token": 75}[level]
    found = reader(["lung " * 9000 + "heart " * 1000])
    assert torch.equal(found, reader(["lung " * room]))
    assert caplog.messages[0].endswith("lung heart" + " heart" * 999)
    assert caplog.messages[0].count("lung") == 9000 - room
    assert len(caplog.messages) == 1


def test_unknown_words_are_named(reader: PromptReader, caplog: pytest.LogCaptureFixture) -> None:
    """Other scripts are read without an error, and the log says that they mean nothing."""
    assert reader(["肺 lung xray лёгкие"]).isfinite().all()
    assert caplog.messages == ["not in the encoder's vocabulary: 肺 лёгкие"]
    caplog.clear()
    assert reader(["", "\x00\x07\u200b lung\ttwo\nthree"], log_dropped=False).isfinite().all()
    assert caplog.messages == []


def test_a_reader_with_too_few_positions_is_refused(encoder: Path, tmp_path: Path) -> None:
    """An encoder that cannot hold CLIP's 77 places cannot read at token level."""
    bert, wordpiece = load_bert(encoder)
    bert.position_embedding.weight.data = bert.position_embedding.weight.data[:64]
    object.__setattr__(bert.config, "context_length", 64)
    save_bert(tmp_path, bert, wordpiece)
    with pytest.raises(ValueError, match="64 positions and CLIP 77"):
        open_reader(str(tmp_path), "token", "mean")
    assert open_reader(str(tmp_path), "document", "cls")[0](["lung"]).shape == (1, 1, 16)


# --- drawing ---


class Turned(nn.Module):
    """Reads with CLIP itself, and then turns and moves its space: an exact linear pair."""

    def __init__(self, pipe: LatentDiffusion) -> None:
        super().__init__()
        self.text = pipe.text
        g = torch.Generator().manual_seed(0)
        self.map, self.move = torch.randn(16, 16, generator=g), torch.randn(16, generator=g)

    def forward(self, texts: list[str], log_dropped: bool = True) -> Tensor:
        return clip_states(self.text, texts, "token") @ self.map + self.move


def test_an_exact_linear_pair_draws_clips_own_picture(start: Path) -> None:
    """Where the encoder's states are a linear map of CLIP's, ridge regression draws CLIP's picture.

    0.01 of a range of 2, about one grey level: the map is kept in float32.
    """
    pipe = ldm.load(start)
    sampling = Sampling(steps=3, guidance=2.0, height=32, width=32)
    expected = pipe.draw(PROMPTS, [0, 1], sampling)
    turned, texts = Turned(pipe), open_texts(DataConfig(phantoms=40)).train
    ridge = Ridge(16, 16)
    with torch.no_grad():
        ridge.add(turned(texts), clip_states(pipe.text, texts, "token"))
    about = About("", "", "", "token", "mean", "ridge", 16, 0, 32)
    pipe.other_text = ProjectedText(turned, ridge.solve(1e-10), about)
    drawn = pipe.draw(PROMPTS, [0, 1], sampling)
    assert (drawn - expected).abs().max() < 0.01
    pipe.other_text = ProjectedText(turned, nn.Identity(), about)
    assert (pipe.draw(PROMPTS, [0, 1], sampling) - expected).abs().max() > 0.1


def test_sample_draws_with_a_projection_and_says_so(
    start: Path, run: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--text-encoder gives another picture; --from draws it again only with the same one."""
    given = ("--prompt", PROMPTS[1], "--n", 1, "--steps", 2, "--model", start)
    assert status(*given, "--out", tmp_path / "clip") == 0
    assert status(*given, "--out", tmp_path / "bert", "--text-encoder", run) == 0
    clip, bert = (tmp_path / name / "00000.png" for name in ("clip", "bert"))
    assert not torch.equal(image_files.load(clip), image_files.load(bert))
    text = image_files.read_text(bert)
    assert text["text encoder"].startswith(f"{encoder.name} ")
    assert text["text encoder"].endswith("document level, mean, ridge")
    assert "text encoder" not in image_files.read_text(clip)
    assert text["weights"].startswith(image_files.read_text(clip)["weights"] + "+")
    again = ("--from", bert, "--out", tmp_path / "again", "--text-encoder", run, "--model", start)
    assert status(*again) == 0
    assert (tmp_path / "again" / "00000.png").read_bytes() == bert.read_bytes()


def test_from_without_the_projection_is_refused(
    start: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """--from says that a text encoder is missing; a picture of CLIP's is none of the prompt's."""
    monkeypatch.setattr(sample, "BUILT_IN", start)
    drawn = ("--prompt", "lung", "--n", 1, "--steps", 1, "--text-encoder", run)
    assert status(*drawn, "--out", tmp_path) == 0
    assert status("--from", tmp_path / "00000.png", "--out", tmp_path / "new") == 2
    assert_one_line(capsys.readouterr().err, "was drawn with weights", "--text-encoder")
    assert not (tmp_path / "new").exists()


# --- what is refused ---


def broken(case: str, run: Path, start: Path, encoder: Path, folder: Path) -> tuple[Path, Path]:
    """A projection that cannot be used, and the model to use it with."""
    tensors, facts = adapters.load(run, "projection")
    bad, model = folder / "bad.safetensors", start
    there = shutil.copytree(encoder, folder / "encoder")
    facts["encoder"] = str(there)
    if case in ("vocab.txt", "config.json"):
        (there / case).unlink()
    if case == "no encoder":
        shutil.rmtree(there)
    if case == "other vocab":
        lines = (there / "vocab.txt").read_text().split("\n")
        lines[5:7] = lines[6:4:-1]
        (there / "vocab.txt").write_text("\n".join(lines))
    if case == "other encoder":
        state = load_file(there / "model.safetensors")
        save_file({name: x + 0.01 for name, x in state.items()}, there / "model.safetensors")
    if case == "other CLIP":
        config, parts = loading.load_parts(start)
        parts["text"] = {name: x + 0.01 for name, x in parts["text"].items()}
        model = export.save(folder / "other.safetensors", config, parts)
    if case == "other tensors":
        tensors["0.weight"] = tensors["0.weight"][:, :-1].contiguous()
    if case == "infinite":
        tensors["0.weight"][0, 0] = math.inf  # which a ReLU may hide
    if case in ("wide", "endless"):
        facts["width"] = 2**50 if case == "wide" else 2**63
    if case == "a head it lacks":
        facts["how"] = "projection"
    if case == "unknown level":
        facts["level"] = "sentence"
    adapters.save(bad, "projection", tensors, facts)
    return {"a model": start, "nothing": folder / "nothing"}.get(case, bad), model


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("vocab.txt", ["vocab.txt cannot be read"]),
        ("config.json", ["config.json cannot be read"]),
        ("no encoder", ["encoder", "cannot be read"]),
        ("other vocab", ["projects from the encoder", "train the projection again"]),
        ("other encoder", ["projects from the encoder", "train the projection again"]),
        ("other CLIP", ["projects to the text tower", "train it for this one"]),
        ("other tensors", ["holds other tensors"]),
        ("infinite", ["cannot open", "0.weight is not finite"]),
        ("wide", ["holds other tensors than its own settings say"]),
        ("endless", ["width must be at most 2^53"]),
        ("a head it lacks", ["no projection head"]),
        ("unknown level", ["level is 'sentence'"]),
        ("a model", ["holds no projection", "configs/projection_document.yaml"]),
        ("nothing", ["cannot open", "nothing"]),
    ],
)
def test_an_unusable_projection_is_refused(
    case: str, words: list[str], run: Path, start: Path, encoder: Path, tmp_path: Path, capsys
) -> None:
    """sample.py ends with one line that names the fault, exit status 2, and no picture."""
    path, model = broken(case, run, start, encoder, tmp_path)
    given = ("--prompt", "lung", "--n", 1, "--steps", 1, "--model", model)
    assert status(*given, "--text-encoder", path, "--out", tmp_path / "out") == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert not (tmp_path / "out").exists()


def test_a_learned_word_and_another_encoder_exclude_each_other(start: Path, run: Path) -> None:
    """The encoder does not know the word, and would read its letters instead."""
    pipe = ldm.load(start)
    pipe.text.words["<lung-xray>"] = torch.zeros(1, 16)
    with pytest.raises(ValueError, match=r"does not know <lung-xray>; use one or the other"):
        replace_text(pipe, str(run))
