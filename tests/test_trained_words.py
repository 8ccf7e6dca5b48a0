"""Weights list the words that they were trained on; sample.py says which others a prompt has."""

from pathlib import Path

import pytest
from conftest import adaptation, assert_one_line, fit
from test_bad_input import status
from test_pretraining import write_config

import ldm
from ldm.data import phantom
from ldm.data.datasets import count_words
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights import adapters
from ldm.weights.conversion import main as convert
from ldm.weights.export import export
from ldm.weights.loading import load_parts
from ldm.weights.weight_files import (
    WeightsError,
    join_words,
    trained_words,
    unseen_words,
    words_of,
)

WEIGHTS = Path(__file__).parent.parent / "weights"
KNOWN = {"lung": 9, "x-ray": 9, "of": 8, "a": 8, "effusion": 5, "pleural": 5, "no": 4, "old": 4}


class Captioned:
    """Images of these captions, each of two wordings."""

    def __init__(self, *captions: tuple[str, str]) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def caption(self, index: int, wording: int) -> str:
        return self.captions[index][wording % 2]


@pytest.fixture
def listed(model: Path, tmp_path: Path) -> Path:
    """The tiny twin in a file that lists KNOWN."""
    return export("ours", tmp_path / "listed.safetensors", *load_parts(model), words=KNOWN)[0]


def test_words_are_those_of_a_prompt_in_any_syntax() -> None:
    """Lower case, hyphens inside, no numbers, no brackets or weights."""
    said = words_of("(X-ray:1.2), [a] 65-year old BREAK <lung-xray>; T2 2nd")
    assert said == ["x-ray", "a", "old", "break", "lung-xray", "t2"]


def test_a_word_counts_once_for_an_image_that_has_it_in_any_wording() -> None:
    """By hand: "lung" in 3 + 1 images, "fluid" in one wording of 3; two images are too few."""
    few, other = ("Smith, lung", "lung"), ("a knee", "knee")
    first = Captioned(("lung lung", "fluid"), ("lung", "lung, fluid"), ("fluid", "lung"))
    found = count_words([first, Captioned(few, other, other)])
    assert found == {"fluid": 3, "lung": 4}, "sorted; of 1 or 2 images: none"


def test_a_trained_unet_lists_the_words_of_its_images(start: Path, tmp_path: Path) -> None:
    """All 16 phantoms say "phantom", those with an effusion "effusion"; steps do not change it."""
    run = load_run(write_config(tmp_path, "unet", start, steps=1), ["model.parts=[vae, text]"])
    path = Trainer(run, build_method(run)).fit()
    fluid = sum(bool(p.finding("pleural effusion")) for p in phantom.sample_phantoms(range(16)))
    words = trained_words(tmp_path / "unet")
    assert words is not None
    assert fluid > 2
    assert (words["phantom"], words["effusion"], words.get("horse")) == (16, fluid, None)
    assert ldm.load(path).trained_words == words


def test_training_adds_to_the_list_of_the_start(start: Path, listed: Path, tmp_path: Path) -> None:
    """A U-Net that goes on has both lists, a LoRA its own, one of an unknown model none."""
    (parts,) = export("ours", tmp_path / "begun.safetensors", *load_parts(start), words=KNOWN)
    kinds = [{"finding": "no finding", "images": 3, "suffix": " of horse"}]
    options = {"kinds": kinds, "train": "cross-attention", "prompt": "lung{}"}
    gone_on = trained_words(fit(adaptation(tmp_path / "a", parts, "finetune", options, steps=1)))
    assert gone_on == KNOWN | {"lung": 9 + 3, "of": 8 + 3, "horse": 3}
    unknown = fit(adaptation(tmp_path / "b", start, "finetune", options, steps=1))
    assert trained_words(unknown) is None
    options["train"] = "lora"
    lora = fit(adaptation(tmp_path / "c", parts, "finetune", options, steps=1))
    assert adapters.load(lora, "lora")[1]["words"] == {"horse": 3, "lung": 3, "of": 3}
    pipe = ldm.load(parts)
    adapters.apply(pipe, loras=[f"{lora.parent}:0.5"])
    assert pipe.trained_words == gone_on
    pipe.trained_words = None
    adapters.apply(pipe, loras=[str(lora)])
    assert pipe.trained_words is None


def test_a_list_travels_with_the_unet(listed: Path, model: Path, tmp_path: Path) -> None:
    """`convert` keeps it, --unet brings its own, and a damaged one is refused in one line."""
    copy = tmp_path / "copy.safetensors"
    assert convert(["convert", str(listed), str(copy), "--dtype", "float16"]) == 0
    assert trained_words(copy) == KNOWN
    assert ldm.load(model, parts={"unet": listed}).trained_words == KNOWN
    assert ldm.load(listed, parts={"unet": model}).trained_words is None
    export("ours", tmp_path / "bad.safetensors", *load_parts(model), words={"lung": "many"})
    with pytest.raises(WeightsError, match="list of words"):
        ldm.load(tmp_path / "bad.safetensors")


def test_joined_lists_add_up_and_unknown_stays_unknown() -> None:
    """Two trainings in turn."""
    assert join_words({"a": 1, "b": 2}, {"b": 3}) == {"a": 1, "b": 5}
    assert join_words(None, KNOWN) is None
    assert join_words(KNOWN, None) is None


def test_the_line_names_unknown_words_alone() -> None:
    """Once each, with the prompts that have them; none for known, new or empty words."""
    prompts = ["a horse, 12 years", "x-ray of the horse", "pleural effusion which is <mine>"]
    assert unseen_words(prompts, KNOWN, ["<mine>"]) == (
        "hardly or never trained on: horse, years (at most 2 images, in 2 of 3 prompts); "
        "a model of: lung, x-ray, effusion, pleural"
    )
    assert unseen_words(["Lung with pleural effusion"], KNOWN) == ""
    assert "(at most 2 images);" in unseen_words(["horse"], KNOWN), "one prompt is not counted"


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about words since the last call."""
    found = [text for text in caplog.messages if "trained on" in text]
    caplog.clear()
    return found


def test_an_unknown_word_is_said_and_strict_draws_nothing(
    listed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Drawn with one line, weighted, of a file or negative; with --strict status 2 and no file."""
    few = ("--n", 1, "--steps", 1, "--model", listed, "--out")
    (tmp_path / "many.txt").write_text("x-ray of a horse\nlung\nhorse\n", encoding="utf-8")
    asked = "(horse:1.2) BREAK [effusion]"
    cases = [
        ("--prompt", asked, "--prompt-syntax", "a1111"),
        ("--prompt", "lung", "--negative", "horse"),
        ("--prompts", tmp_path / "many.txt"),
    ]
    for i, case in enumerate(cases):
        assert status(*few, tmp_path / f"{i}", *case) == 0
        (said,) = warned(caplog)
        assert "trained on: horse (" in said
        assert (tmp_path / f"{i}" / "00000.png").exists()
    assert "in 2 of 3 prompts" in said
    capsys.readouterr()
    assert status(*few, tmp_path / "none", "--strict", "--prompt", asked) == 2
    assert_one_line(capsys.readouterr().err, "horse", "--strict")
    assert not (tmp_path / "none").exists()
    known = ("--strict", "--prompt", "effusion of the lung")
    assert status(*few, tmp_path / "all", *known) == 0
    assert warned(caplog) == []


def test_without_a_list_nothing_is_said(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As of Stable Diffusion's weights; --strict cannot be kept then, so it is refused."""
    given = ("--n", 1, "--steps", 1, "--model", model, "--prompt", "a horse", "--out")
    assert status(*given, tmp_path / "out") == 0
    assert warned(caplog) == []
    capsys.readouterr()
    assert status(*given, tmp_path / "none", "--strict") == 2
    assert_one_line(capsys.readouterr().err, "keeps no list")
    assert not (tmp_path / "none").exists()


def test_the_shipped_lists_are_those_of_the_card() -> None:
    """The base has never seen an effusion; the default has, and both know cardiomegaly."""
    base, default = (trained_words(WEIGHTS / f"{n}.safetensors") or {} for n in ("base", "model"))
    assert "effusion" not in base
    assert base["cardiomegaly"] > 0
    assert default["effusion"] > 0
    assert all(default[word] > count for word, count in base.items()), "it goes on from the base"
