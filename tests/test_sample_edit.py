"""sample.py --init: edited files are what was asked for, say how they came about, and are safe."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line
from PIL import Image
from test_bad_input import status
from test_latent_editing import OTHER, PROMPT, picture
from test_sample import content

from ldm.drawing import compositing, edited_pictures, image_editing, outpainting
from ldm.drawing.latent_editing import PictureBatch
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling

Run = Callable[..., Path]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """init.png, 16-bit grey of 80 x 64 pixels, and mask.png for it."""
    folder = tmp_path / "given"
    folder.mkdir()
    image_files.save(picture(64, 80, bits=16), folder / "init.png", {})
    mask = np.zeros((64, 80, 1), np.uint8)
    mask[20:40, 30:60], mask[40:44, 30:60] = 255, 100
    image_files.save(mask, folder / "mask.png", {})
    return folder


@pytest.fixture
def run(model: Path, tmp_path: Path, given: Path) -> Run:
    """Edits given/init.png in two steps unless told otherwise; returns the folder of results."""

    def run(*arguments: object, out: str = "out", init: str = "init.png") -> Path:
        few = () if "--from" in arguments else ("--steps", 2, "--prompt", PROMPT)
        options = ("--model", model, "--init", given / init, "--out", tmp_path / out)
        assert status(*options, *few, *arguments) == 0
        return tmp_path / out

    return run


def way(name: str, mask: Path) -> tuple[object, ...]:
    """The options of one way of editing."""
    return {
        "image to image": ("--strength", "0.5"),
        "inversion": ("--invert", OTHER),
        "inpainting": ("--mask", mask, "--grow", 3, "--resample", 2),
        "outpainting": ("--outpaint", "0,0,4,0", "--resample", 1),
    }[name]


WAYS = ["image to image", "inversion", "inpainting", "outpainting"]


# --- what is made ---


@pytest.mark.parametrize("name", WAYS)
def test_files_are_what_the_functions_make(
    run: Run, given: Path, tiny: LatentDiffusion, name: str
) -> None:
    """Each option arrives where it belongs; depth and channels are kept, and so is the size."""
    ddim = name == "inversion"
    sampling = Sampling(7, 2, "ddim" if ddim else "heun", 2.5, "edema")
    told = ("--seed", 7, "--guidance", 2.5, "--negative", "edema", "--start", 3)
    sampler = () if ddim else ("--sampler", "heun")
    folder = run(*way(name, given / "mask.png"), *told, *sampler)
    assert [path.name for path in folder.iterdir()] == ["00003.png"]
    init = image_files.read(given / "init.png")
    alpha = compositing.alpha_of(image_files.read(given / "mask.png"), 3)
    batch = PictureBatch(tiny, [PROMPT], [3], sampling)
    if name == "image to image":
        (expected,) = image_editing.image_to_image(batch, init, 0.5)
    elif name == "inversion":
        (expected,) = image_editing.counterfactual(batch, init, [OTHER])
    elif name == "inpainting":
        (expected,) = image_editing.inpaint(batch, init, alpha, 2)
    else:
        board, known = outpainting.place(init, (84, 64), (0, 0))
        boxes = outpainting.plan(known, 32)
        *_, expected = outpainting.outpaint(batch, board, known, boxes)
    found = image_files.read(folder / "00003.png")
    assert found.dtype == np.uint16
    assert np.array_equal(found, expected)
    if name == "inpainting":
        assert np.array_equal(found[alpha == 0], init[alpha == 0])
        assert (alpha > 0).mean() < 0.5


def test_defaults_are_those_of_the_help(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """One image for a prompt; strength 0.6; inversion in 50 steps of ddim without guidance.

    A size far from the model's is warned of.
    """
    folder = run()
    assert content(folder).keys() == {"00000.png"}
    odd = "editing 80x64 pixels with a model trained at 32: expect odd anatomy"
    assert odd in caplog.messages
    text = image_files.read_text(folder / "00000.png")
    assert json.loads(text["edit"])["strength"] == 0.6
    assert text["sampler"] == "dpm++"
    inverted = run("--invert", "--steps", 50, "--strength", "0.05", out="inverted")
    text = image_files.read_text(inverted / "00000.png")
    assert {"sampler": "ddim", "steps": "50", "guidance": "1.0"}.items() <= text.items()


def test_jpegs_can_be_edited(run: Run, given: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A JPEG is as good as a PNG; as a mask it is cut in the middle, which is told."""
    Image.fromarray(picture(64, 80, 3)).save(given / "init.jpg")
    mask = np.zeros((64, 80), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(given / "mask.jpg", quality=30)
    wavers = image_files.read(given / "mask.jpg")[..., 0]
    assert ((wavers > 0) & (wavers < 255)).any()
    folder = run("--mask", given / "mask.jpg", init="init.jpg")
    found, init = image_files.read(folder / "00000.png"), image_files.read(given / "init.jpg")
    assert np.array_equal(found[mask == 0], init[mask == 0])
    assert any("mask.jpg is a JPEG with noisy levels" in message for message in caplog.messages)


# --- what the files say ---


@pytest.mark.parametrize("name", WAYS)
def test_files_say_what_was_done_but_not_with_which_file(run: Run, given: Path, name: str) -> None:
    """The PNG says that it is synthetic, not that it shows no patient; hashes, no names."""
    folder = run(*way(name, given / "mask.png"))
    text = image_files.read_text(folder / "00000.png")
    assert "synthetic" in text["synthetic"]
    assert "may be of a patient" in text["synthetic"]
    edit = json.loads(text["edit"])
    assert edit["way"] == name
    assert edit["init"] == edited_pictures.digest(image_files.read(given / "init.png"))
    if name == "inpainting":
        assert edit["mask"] == edited_pictures.digest(image_files.read(given / "mask.png"))
    assert not any("init.png" in line or str(given) in line for line in text.values())


@pytest.mark.parametrize("name", WAYS)
def test_from_an_edit_and_its_image_draws_the_same_bytes(run: Run, given: Path, name: str) -> None:
    """--from with the same --init and --mask; only they have to be given again."""
    old = run(*way(name, given / "mask.png"), "--negative", "edema", "--seed", 4)
    mask = ("--mask", given / "mask.png") if name == "inpainting" else ()
    assert content(run("--from", old / "00000.png", *mask, out="again")) == content(old)


def test_from_an_edit_says_what_is_missing(
    run: Run, given: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the image, without the mask, and with others, in one line each."""
    old = run(*way("inpainting", given / "mask.png")) / "00000.png"
    capsys.readouterr()
    image_files.save(picture(64, 80, seed=1), given / "other.png", {})
    init, mask = ("--init", given / "init.png"), ("--mask", given / "mask.png")
    other = given / "other.png"
    for options, words in (
        ((), "is an edit; give the image it was made from with --init and its mask with --mask"),
        (init, "was made with --mask of the hash"),
        (("--init", other, *mask), "was made with --init of the hash"),
        ((*init, "--mask", other), "other.png is another"),
    ):
        assert status("--from", old, "--model", model, "--out", given / "new", *options) == 2
        assert_one_line(capsys.readouterr().err, words)
    assert not (given / "new").exists()


# --- outpainting that is stopped ---


def test_a_stopped_outpainting_goes_on_to_the_same_bytes(
    run: Run, model: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while a window is painted, given again; in the end only the result is left."""
    options = ("--canvas", "96x64", "--at", "16,0", "--resample", 1)
    whole = run(*options, out="whole")
    inpaint, windows = image_editing.inpaint, []

    def stop(*args: object) -> list[compositing.Levels]:
        windows.append(args)
        if len(windows) == 3:
            raise KeyboardInterrupt
        return inpaint(*args)

    monkeypatch.setattr(image_editing, "inpaint", stop)
    command = ("--model", model, "--init", given / "init.png", "--out", tmp_path / "out", *options)
    assert status(*command, "--steps", 2, "--prompt", PROMPT) == 130
    assert {".00000.outpaint.npz", "00000.preview.png"} == content(tmp_path / "out").keys()
    assert content(run(*options)) == content(whole)
    painted = image_files.read(whole / "00000.png")
    assert np.array_equal(painted[:, 16:], image_files.read(given / "init.png"))


# --- refusals ---


def damage(folder: Path) -> None:
    """Files that cannot be edited, or not with init.png."""
    levels = np.zeros((64, 80), np.uint8)
    Image.fromarray(np.dstack([levels] * 3 + [levels // 2])).save(folder / "alpha.png")
    Image.fromarray(levels).convert("P").save(folder / "palette.png")
    Image.fromarray(levels).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(levels[:63]).save(folder / "small.png")
    Image.fromarray(levels).save(folder / "black.png")
    Image.fromarray(255 - levels).save(folder / "white.png")
    (folder / "text.png").write_text("no image")


BAD = {
    "mask of another size": (("--mask", "small.png"), "the mask is 80x63 and the image 80x64"),
    "empty mask": (("--mask", "black.png"), "the mask is empty"),
    "full mask": (("--mask", "white.png"), "the mask is full: nothing is kept", "without --init"),
    "mask with alpha": (("--mask", "alpha.png"), "alpha.png has an alpha channel; flatten it"),
    "no such mask": (("--mask", "none.png"), "none.png: No such file"),
    "alpha": (("--init", "alpha.png"), "alpha.png has an alpha channel; flatten it first"),
    "palette": (("--init", "palette.png"), "palette.png has colours of mode P"),
    "cmyk": (("--init", "cmyk.jpg"), "cmyk.jpg has colours of mode CMYK"),
    "no image": (("--init", "text.png"), "text.png: not an image"),
    "small": (("--init", "small.png"), "the image is 80x63; editing needs 64 pixels"),
    "negative margin": (("--outpaint", "0,0,-8,0"), "--outpaint: must be LEFT,TOP,RIGHT,BOTTOM"),
    "three margins": (("--outpaint", "0,0,8"), "--outpaint: must be LEFT,TOP,RIGHT,BOTTOM"),
    "no margin": (("--outpaint", "0,0,0,0"), "no larger than the image"),
    "small canvas": (("--canvas", "64x64", "--at", "0,0"), "smaller than the image, 80x64"),
    "off the canvas": (("--canvas", "90x90", "--at", "20,0"), "does not lie on the canvas"),
    "endless canvas": (("--canvas", "999999", "--at", "0,0"), "needs about 1.6e+04 GB", "smaller"),
    "nowhere": (("--canvas", "90x90"), "--canvas WxH and --at X,Y go together"),
    "no strength": (("--strength", "0"), "--strength must be above 0 and at most 1, got 0.0"),
    "strength": (("--strength", "1.5"), "--strength must be above 0 and at most 1, got 1.5"),
    "two ways": (("--mask", "mask.png", "--outpaint", "8,8,8,8"), "are different edits"),
    "strong mask": (("--mask", "mask.png", "--strength", "0.5"), "are different edits"),
    "grown nothing": (("--grow", "3"), "--grow and --invert-mask change --mask; give a mask, too"),
    "resampled nothing": (("--resample", "3"), "--resample is for repainting"),
    "size": (("--size", "128"), "--size is for drawing, and --init for editing"),
    "trajectory": (("--trajectory",), "--trajectory is for drawing"),
    "many inversions": (("--invert", "--n", "2"), "--invert uses no noise"),
    "another way up": (
        ("--invert", "--sampler", "heun"),
        "inversion needs the sampler ddim, got heun",
    ),
    "too many steps": (("--steps", "1001"), "at most 1000 steps, not 1001"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: Path, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Exit status 2, one line that says what, and no folder of results."""
    damage(given)
    options, *words = BAD[case]
    named = [given / x if str(x).endswith((".png", ".jpg")) else x for x in options]
    out = tmp_path / "out"
    command = ("--model", model, "--init", given / "init.png", "--prompt", PROMPT, "--out", out)
    assert status(*command, *named) == 2
    assert_one_line(capsys.readouterr().err.splitlines(keepends=True)[-1], *words)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--mask", "--strength", "--outpaint", "--grow", "--invert"])
def test_options_of_editing_need_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Without --init they are refused at once, by name."""
    value = {"--mask": ("x.png",), "--outpaint": ("1,1,1,1",), "--invert": ()}.get(option, ("1",))
    assert status("--prompt", PROMPT, "--out", tmp_path / "out", option, *value) == 2
    assert_one_line(capsys.readouterr().err, f"{option} edits an image; give it with --init")


def test_an_image_too_large_for_memory_is_refused_before_any_work(
    model: Path, given: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an estimate, in one line; a small part of it may still be repainted."""
    image_files.save(picture(600, 800), given / "large.png", {})
    mask = np.zeros((600, 800, 1), np.uint8)
    mask[300:310, 300:310] = 255
    image_files.save(mask, given / "few.png", {})
    monkeypatch.setattr(edited_pictures, "available", lambda _: 10**8)
    command = ("--model", model, "--init", given / "large.png", "--prompt", PROMPT, "--steps", 1)
    assert status(*command, "--out", given / "out") == 2
    assert_one_line(capsys.readouterr().err, "editing 800x600 pixels at once needs about 0.")
    assert not (given / "out").exists()
    assert status(*command, "--out", given / "out", "--mask", given / "few.png") == 0


def test_the_given_image_is_never_replaced(
    model: Path, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--init edited/00000.png is not written over, by whatever name --out has."""
    init = given / "00000.png"
    (given / "init.png").rename(init)
    before = init.read_bytes()
    out = given / ".." / given.name
    assert status("--model", model, "--init", init, "--prompt", PROMPT, "--out", out) == 2
    assert_one_line(
        capsys.readouterr().err, "the result would replace", "another folder with --out"
    )
    assert init.read_bytes() == before
