"""Weights of words and long prompts: the parser, and states against ones computed by hand."""

from pathlib import Path

import pytest
import torch
from conftest import assert_one_line

import ldm
import sample
from ldm.clip import tokenizer
from ldm.config import ConfigError
from ldm.data.file_dataset import pieces_of
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.text import weighted_prompts
from ldm.text.weighted_prompts import WeightedPrompts, parse


@pytest.fixture
def pipe(model: Path) -> LatentDiffusion:
    return ldm.load(model)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("lung xray", [("lung xray", 1)]),
        ("lung (xray)", [("lung ", 1), ("xray", 1.1)]),
        ("a [b] c", [("a ", 1), ("b", 1 / 1.1), (" c", 1)]),
        ("((a))", [("a", 1.1**2)]),
        ("(a:1.5)", [("a", 1.5)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1), (" c", 0.5)]),
        ("(a: .5 )x", [("a", 0.5), ("x", 1)]),
        ("(a:-1)", [("a", -1)]),
        (r"a \(b\) \[c\] \\", [("a (b) [c] \\", 1)]),
        ("(a", [("a", 1.1)]),
        ("[a (b", [("a ", 1 / 1.1), ("b", 1)]),
        ("a) b]", [("a) b]", 1)]),
        ("at 12:30, 1:2", [("at 12:30, 1:2", 1)]),
        ("a BREAK b", [("a ", 1), ("BREAK", 0), (" b", 1)]),
        ("BREAKING Bad", [("BREAKING Bad", 1)]),
        ("", []),
    ],
)
def test_brackets_weigh_what_is_in_them(prompt: str, pieces: list[tuple[str, float]]) -> None:
    found = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


@torch.no_grad()
@pytest.mark.parametrize("syntax", ["a1111", "comfyui"])
def test_states_are_weighted_as_each_program_says(pipe: LatentDiffusion, syntax: str) -> None:
    """By hand: of a row of 77 states, those of the weighted words; a1111 keeps the mean of all."""
    z, empty = pipe.encode_text(["lung with fluid", ""])
    ids = tokenizer().encode("lung with fluid")
    w = torch.ones(77, 1)
    w[1 + len(ids) - len(tokenizer().encode("fluid")) : 1 + len(ids)] = 1.5
    want = w * z * (z.mean() / (w * z).mean()) if syntax == "a1111" else empty + w * (z - empty)
    weighted_prompts.use(pipe, ["lung with (fluid:1.5)"], syntax, None)
    (found,) = pipe.encode_text(["lung with (fluid:1.5)"])
    torch.testing.assert_close(found, want)
    assert not torch.equal(found, z)


@torch.no_grad()
def test_a_prompt_without_marks_is_the_same(pipe: LatentDiffusion) -> None:
    plain = pipe.encode_text(["lung xray, no findings", ""])
    for syntax in weighted_prompts.SYNTAXES:
        encoder = WeightedPrompts(pipe.text, ["lung xray, no findings"], syntax, long=True)
        torch.testing.assert_close(encoder(["lung xray, no findings", ""]), plain)


@torch.no_grad()
def test_long_prompts_are_encoded_in_windows_of_75(pipe: LatentDiffusion) -> None:
    """100 words: 75 in the first window, 25 in the second; a short prompt gets an empty one."""
    words = "lung " * 75, "film " * 25
    first, second, short, empty = pipe.encode_text([*words, "knee", ""], log_dropped=False)
    weighted_prompts.use(pipe, ["".join(words), ""], None, "chunks")
    found = pipe.encode_text(["".join(words), "knee"])
    assert found.shape[1] == 154
    torch.testing.assert_close(found[0], torch.cat([first, second]))
    torch.testing.assert_close(found[1], torch.cat([short, empty]))


def test_no_token_of_an_endless_word_is_lost(pipe: LatentDiffusion) -> None:
    encoder = WeightedPrompts(pipe.text, [word := "x" * 900], None, long=True)
    found = [token for window in encoder.windows(word) for token, _ in window]
    assert found == tokenizer().encode(word)
    assert max(map(len, encoder.windows(word))) <= 75


def test_windows_end_where_those_of_training_do(pipe: LatentDiffusion) -> None:
    """Words of several tokens stay whole, as in data.long_captions=chunks."""
    prompt = "pneumothorax without cardiomegaly, " * 30
    encoder = WeightedPrompts(pipe.text, [prompt], None, long=True)
    found = [[token for token, _ in window] for window in encoder.windows(prompt)]
    pieces = pieces_of(prompt, 75)
    assert len(pieces) > 2
    assert found == [tokenizer().encode(piece) for piece in pieces]


@torch.no_grad()
def test_break_ends_a_window(pipe: LatentDiffusion) -> None:
    left, right = pipe.encode_text(["lung", "knee"])
    encoder = WeightedPrompts(pipe.text, ["lung BREAK knee"], "a1111", long=True)
    torch.testing.assert_close(encoder(["lung BREAK knee"])[0], torch.cat([left, right]))


def test_a_picture_is_drawn_again_without_the_others(tmp_path: Path, model: Path) -> None:
    """A short prompt beside a long one had as many windows as that, and has them again."""
    order = ["--model", str(model), "--n", "1", "--steps", "1", "--long-prompts", "chunks"]
    order += ["--prompt", "lung " * 90, "--prompt", "knee", "--out", str(tmp_path / "a")]
    assert sample.main(order) == 0
    again = ["--from", str(tmp_path / "a" / "00001.png"), "--model", str(model)]
    assert sample.main([*again, "--out", str(tmp_path / "b")]) == 0
    pair = [tmp_path / folder / "00001.png" for folder in "ab"]
    assert pair[0].read_bytes() == pair[1].read_bytes()


def test_what_is_cut_is_said(pipe: LatentDiffusion, caplog: pytest.LogCaptureFixture) -> None:
    WeightedPrompts(pipe.text, ["lung " * 100], "a1111", long=False)
    assert "only the first of 2 windows is read" in caplog.text
    with pytest.raises(ConfigError, match="unknown prompt syntax 'x'"):
        WeightedPrompts(pipe.text, ["lung"], "x", long=False)


def test_the_picture_says_how_its_prompt_was_read(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--from draws it again, bit for bit; without the options another picture comes out."""
    words = "(pleural effusion:1.5) " + "lung " * 80
    order = ["--model", str(model), "--n", "1", "--steps", "2", "--prompt", words]
    ways = {"a": [], "b": ["--prompt-syntax", "a1111", "--long-prompts", "chunks"]}
    for name, options in ways.items():
        assert sample.main([*order, *options, "--out", str(tmp_path / name)]) == 0
    paths = [tmp_path / name / "00000.png" for name in ways]
    text = image_files.read_text(paths[1])
    assert (text["prompt syntax"], text["long prompts"]) == ("a1111", "chunks 2")
    again = ["--from", str(paths[1]), "--model", str(model), "--out", str(tmp_path / "again")]
    assert cli.run(lambda: sample.main(again), "sample.py") == 0
    assert (tmp_path / "again" / "00000.png").read_bytes() == paths[1].read_bytes()
    assert (image_files.load(paths[0]) != image_files.load(paths[1])).any()
    capsys.readouterr()
    wrong = ["--prompt", "x", "--prompt-syntax", "sd"]
    with pytest.raises(SystemExit) as stopped:
        sample.main(wrong)
    assert stopped.value.code == 2
    assert_one_line(capsys.readouterr().err, "--prompt-syntax")
