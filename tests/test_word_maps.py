"""Cross-attention recorded as the U-Net runs; maps of words, and where they lie in phantoms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZES, assert_one_line
from einops import rearrange
from evaluation import assert_refused, measure
from test_bad_input import status
from torch import Tensor

import ldm
from ldm.attention import TransformerBlock
from ldm.config import ConfigError, ModelConfig, from_dict
from ldm.drawing.word_maps import grid_of, recorded, sheet, take_maps, word_map, word_places
from ldm.metrics import classification, estimate
from ldm.metrics.localization import cell_auc, overlap, pointing
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.report import word_localization
from ldm.report.word_localization import WORDS, Located
from ldm.unet import UNet

PROMPT = "Lung x-ray, with pleural effusion."


def test_recorded_weights_are_those_that_the_layer_used() -> None:
    """Weights times values, projected, is what each cross-attention layer returned; the U-Net's
    output stays the same bits, and nothing is recorded after the block."""
    torch.manual_seed(0)
    unet = UNet(from_dict(ModelConfig, SIZES).unet)
    x, context, t = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16), torch.tensor([500, 3])
    before = unet(x, t, context)
    returned = {}
    layers = {n: m.cross_attn for n, m in unet.named_modules() if isinstance(m, TransformerBlock)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda layer, _, y, name=name: returned.update({name: y}))
    with recorded(unet) as found:
        assert torch.equal(unet(x, t, context), before)
    unet(x, t, context)
    assert list(found) == list(layers)
    for name, layer in layers.items():
        (weights,) = found[name]
        v = rearrange(layer.v(context), "B S (N d) -> B N S d", N=weights.shape[1])
        again = layer.out(rearrange(weights @ v, "B N L d -> B L (N d)"))
        torch.testing.assert_close(again, returned[name])
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_maps_are_of_the_prompts_half_of_one_resolution() -> None:
    """The mean over heads, layers and passes, row by row; and what was recorded is taken away."""
    g = torch.Generator().manual_seed(0)
    a, b, other = (torch.rand(2, 3, n, 5, generator=g) for n in (6, 6, 24))
    alone = torch.rand(1, 3, 6, 5, generator=g)  # a step that was not guided
    found = {"a": [a, alone], "fine": [other], "b": [b]}
    maps = take_maps(found, (2, 3), 1)
    expected = (a[1].mean(dim=0) + alone[0].mean(dim=0) + b[1].mean(dim=0)) / 3  # [6, 5]
    torch.testing.assert_close(maps[0, 4, 1, 2], expected[5, 4])
    torch.testing.assert_close(maps[0], rearrange(expected, "(h w) S -> S h w", h=2))
    assert found == {"a": [], "fine": [], "b": []}


def test_grids_are_those_with_cross_attention() -> None:
    """SD v1.4 at 512 x 768 pixels: 96, 48 and 24 cells across, and 12 in the middle."""
    for across, grid in {0: (64, 96), 96: (64, 96), 48: (32, 48), 12: (8, 12)}.items():
        assert grid_of(ModelConfig(), 512, 768, across) == grid
    with pytest.raises(ConfigError, match="at 96, 48, 24, 12 cells across, not at 6"):
        grid_of(ModelConfig(), 512, 768, 6)


def test_a_word_has_the_places_of_its_letters(tiny: LatentDiffusion) -> None:
    """Start is 0; "x", "-", "ray" and "," are four tokens, "ple" and "ural" two of one word."""
    places = [("Lung", [1]), ("x-ray", [2, 4]), ("with", [6]), ("pleural", [7, 8])]
    assert word_places(tiny.text, PROMPT) == [*places, ("effusion", [9, 10])]
    assert word_places(tiny.text, "lung , + x") == [
        ("lung", [1]),
        (",", [2]),
        ("+", [3]),
        ("x", [4]),
    ]
    assert word_places(tiny.text, "lung " * 74 + "pleural end")[-1] == ("pleural", [75])
    maps = torch.arange(12.0)[:, None, None].expand(12, 2, 2)
    assert word_map(maps, [9, 10]).unique().tolist() == [9.5]


def test_a_learned_word_of_several_vectors_is_one_word(start: Path) -> None:
    """Its vectors are tokens of the word, also where it stands twice."""
    text = ldm.load(start).text
    text.words["<Fluid>"] = torch.zeros(3, 16)
    expected = [("a", [1]), ("<fluid>", [2, 3, 4]), ("<fluid>", [5, 6, 7]), ("b", [8])]
    assert word_places(text, "a <fluid> <fluid>, b") == [*expected[:3], ("b", [9])]


def test_a_sheet_shows_each_map_from_its_least_to_its_most() -> None:
    """Red over the highest cell, the picture itself over the lowest; a tile for each word."""
    picture = np.full((64, 64, 1), 255, np.uint8)
    shown = sheet(picture, [("a", torch.tensor([[3.0, 3.5], [3.0, 4.0]])), ("b", torch.ones(1, 1))])
    assert shown.shape == (3, 144, 390)  # 128 + 14 for the word + 2 between
    assert torch.equal(shown[:, 20, 20], torch.ones(3))
    torch.testing.assert_close(shown[:, 100, 130 + 100], torch.tensor([1.0, -0.2, -0.2]))
    torch.testing.assert_close(shown[:, 20, 130 + 100], torch.tensor([1.0, 0.4, 0.4]))
    assert torch.equal(shown[:, 20, 130 + 20], torch.ones(3))


@pytest.fixture
def draw(model: Path, tmp_path: Path) -> Callable[..., int | str | None]:
    """The status of sample.py, which draws two pictures into tmp_path / out."""

    def draw(out: str, *arguments: object) -> int | str | None:
        few = ("--n", 2, "--steps", 2, "--model", model, "--out", tmp_path / out)
        return status("--prompt", PROMPT, *few, *arguments)

    return draw


@pytest.mark.parametrize("more", [(), ("--sampler", "heun", "--guidance", 1)], ids=str)
def test_the_pictures_stay_the_same(draw, tmp_path: Path, capsys, more) -> None:
    """Bit for bit, guided or not; a sheet beside each says that it is synthetic, and is listed."""
    assert draw("plain", *more) == draw("maps", "--word-maps", *more) == 0
    sheets = {"00000_words.png", "00001_words.png"}
    plain, maps = (
        {p.name: p.read_bytes() for p in (tmp_path / o).iterdir()} for o in ("plain", "maps")
    )
    assert maps.keys() - plain.keys() == sheets
    assert {name: maps[name] for name in plain} == plain
    assert str(tmp_path / "maps" / "00001_words.png") in capsys.readouterr().out
    assert "synthetic" in image_files.read_text(tmp_path / "maps" / "00000_words.png")["synthetic"]


REFUSED = {
    "a file that is not there": (("--init", "x.png"), "does not go with --init"),
    "another encoder": (("--text-encoder", "bert"), "does not go with --text-encoder"),
    "weights": (("--prompt-syntax", "a1111"), "does not go with --prompt-syntax"),
    "chunks": (("--long-prompts", "chunks"), "does not go with --long-prompts chunks"),
    "compiled": (("--compile",), "does not go with --compile"),
    "cells": (("--word-maps", 3), "cells across, not at 3"),
    "no number": (("--word-maps", "fine"), "--word-maps: must be a whole number of 1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_word_maps_is_one_line(draw, tmp_path: Path, capsys, case) -> None:
    """Exit status 2, the option's name, and no file."""
    arguments, words = REFUSED[case]
    assert draw("out", "--word-maps", *arguments) == 2
    assert_one_line(capsys.readouterr().err, words)
    assert not (tmp_path / "out").exists()


def test_figures_of_maps_by_hand() -> None:
    """Two of six cells: the highest is inside, one of the two highest, 7 of 8 pairs in order."""
    mask = np.array([[1, 1, 0], [0, 0, 0]], bool)
    scores = np.array([[9, 5, 6], [1, 2, 3]], float)
    assert (pointing(scores, mask), overlap(scores, mask)) == (1, 1 / 3)
    assert cell_auc(scores, mask) == 7 / 8 == classification.auc(scores.ravel(), mask.ravel()).value
    assert (pointing(-scores, mask), overlap(-scores, mask), cell_auc(-scores, mask)) == (
        0,
        0,
        1 / 8,
    )
    assert overlap(mask * 1.0, mask) == 1
    flat = np.ones((2, 3))  # chance: 2/3 of a cell is hit of the two
    assert (pointing(flat, mask), cell_auc(flat, mask)) == (1 / 3, 0.5)
    assert overlap(flat, mask) == pytest.approx((2 / 3) / (4 - 2 / 3))


class Forged(torch.nn.Module):
    """In the place of q or k: the same for every batch."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        return self.values[: x.shape[1]].expand(len(x), -1, -1)


def test_a_forged_model_points_where_it_was_told(start: Path) -> None:
    """Cell (1, 2) looks at token 5 alone, all other cells at all 77 tokens alike."""
    pipe = ldm.load(start)
    height, width = grid = grid_of(pipe.config, 32, 32, 0)
    q, k = torch.zeros(height * width, 32), torch.zeros(77, 32)
    q[width + 2], k[5] = 1.0, 100.0
    for module in pipe.unet.modules():
        if isinstance(module, TransformerBlock):
            module.cross_attn.q, module.cross_attn.k = Forged(q), Forged(k)
    context = pipe.encode_text(["a", "b"])
    maps = word_localization.look(pipe, torch.zeros(2, 1, 32, 32), context, grid, 0, 0)
    expected = torch.full(grid, 1 / 77)
    expected[1, 2] = 1
    for each in maps:
        torch.testing.assert_close(each[5], expected)
        assert pointing(each[5].numpy(), expected.numpy() == 1) == 1
        assert pointing(each[4].numpy(), expected.numpy() == 1) == 0


def test_the_verdict_names_what_is_better_and_worse() -> None:
    """Of maps that are the mask, noise beside it, and its opposite; n is that of the images."""
    masks = np.zeros((6, 3, 3), bool)
    masks[:, 0, :2] = True
    tilt = np.linspace(0, 0.5, 9).reshape(3, 3)
    maps = {WORDS: masks - tilt, "like": masks - 2 * tilt, "opposite": -1.0 * masks}
    figures = word_localization.compare(Located("a", maps, masks, torch.zeros(6, 1, 8, 8), 0))
    assert figures[WORDS]["AUC"] == (1, 1, 1, 6)
    assert (figures["opposite"]["gain"].value, figures["opposite"]["pointing"].n) == (1, 6)
    said = word_localization.verdict({"n": 6, **figures})
    assert "better than: opposite. Not told apart from it: like." in said
    turned = {WORDS: figures["opposite"], "mask": {"gain": estimate.mean([-1, -1])}}
    assert "better than none of the others. It is worse than: mask." in word_localization.verdict(
        turned
    )


def test_the_command_writes_the_same_bytes_twice(start: Path, tmp_path: Path, capsys) -> None:
    """n phantoms of each finding, a picture that says synthetic; bad input is one line."""
    command = ("word-maps", "--model", start, "--n", 3, "--findings", "cardiomegaly", "nodule")
    values = measure(capsys, *command, "--out", tmp_path / "out")
    assert values["nodule"]["n"] == values["nodule"][WORDS]["AUC"]["n"] == 3
    assert values["cardiomegaly"]["chance"]["AUC"]["value"] == 0.5
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    measure(capsys, *command, "--out", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert b"Synthetic" in first["word_maps.png"]
    refused = ("word-maps", "--model", start, "--out", tmp_path / "new", "--quick")
    assert_refused(capsys, tmp_path, "no such phantom finding", *refused, "--findings", "gout")
    assert_refused(capsys, tmp_path, "cells across, not at 3", *refused, "--cells", 3)
