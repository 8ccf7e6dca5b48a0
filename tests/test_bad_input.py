"""Bad input to sample.py: one line that says what to do, exit status 2, and nothing is left."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line
from PIL import Image

import sample
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.system import cli

PROMPT = ("--prompt", "lung xray")


def status(*arguments: object) -> int | str | None:
    """The exit status of `python sample.py ...`."""
    try:
        return cli.run(lambda: sample.main([str(argument) for argument in arguments]), "sample.py")
    except SystemExit as stop:  # argparse
        return stop.code


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A picture that sample.py drew."""
    folder = tmp_path_factory.mktemp("drawn")
    assert status(*PROMPT, "--model", model, "--n", 1, "--steps", 1, "--out", folder) == 0
    return folder / "00000.png"


class Evil:
    """Unpickling this would run a shell command that leaves a witness."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.witness}'",)


def as_zip(content: object) -> bytes:
    """The bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


BAD_WEIGHTS: dict[str, tuple[Callable[[bytes, Evil], bytes], str]] = {
    "empty": (lambda whole, evil: b"", "is empty"),
    "text": (lambda whole, evil: b"not weights\n", "was refused"),
    "truncated": (lambda whole, evil: whole[: len(whole) // 2], "is damaged"),
    "cut off": (lambda whole, evil: whole[: len(whole) // 2], "download it again"),
    "corrupt": (lambda whole, evil: whole[:4] + bytes(200) + whole[204:], "bad."),
    "pickle": (lambda whole, evil: pickle.dumps({"state_dict": evil}), "could run code"),
    "zip": (lambda whole, evil: as_zip({"state_dict": {}, "callbacks": evil}), "could run code"),
}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(("bad.ckpt", case) for case in BAD_WEIGHTS if case != "cut off"),
        *(("bad.safetensors", case) for case in ("cut off", "corrupt")),
    ],
)
def test_bad_weights_are_one_line_and_run_nothing(
    tmp_path: Path,
    model: Path,
    tiny_ckpt: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    case: str,
) -> None:
    """Weights that cannot be opened whole: status 2, one line, no folder, no command was run."""
    evil, path = Evil(tmp_path / "witness"), tmp_path / name
    pickle.loads(pickle.dumps(evil))  # the bait is live
    (tmp_path / "witness").unlink()
    damage, message = BAD_WEIGHTS[case]
    path.write_bytes(damage((tiny_ckpt if path.suffix == ".ckpt" else model).read_bytes(), evil))
    before = sorted(tmp_path.rglob("*"))
    assert status(*PROMPT, "--model", path, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_one_line(shown.err, message)
    assert sorted(tmp_path.rglob("*")) == before


BAD_INPUT: dict[str, tuple[tuple[object, ...], str]] = {
    "nothing to draw": ((), "nothing to draw; give --prompt, --prompts or --from"),
    "empty prompt": (("--prompt", " \t\n"), "--prompt: is empty"),
    "prompt of bytes": (("--prompt", "lung \udcff"), "characters that are not text"),
    "no weights": ((*PROMPT, "--model", "absent.ckpt"), "absent.ckpt does not exist"),
    "no prompt file": (("--prompts", "absent.txt"), "absent.txt: No such file"),
    "a folder for a prompt file": (("--prompts", "."), "cannot read the prompts in ."),
    "blank prompt file": (("--prompts", "blank.txt"), "blank.txt contains no prompt"),
    "binary prompt file": (("--prompts", "foreign.png"), "foreign.png is not UTF-8 text"),
    "shortened option": ((*PROMPT, "--samp", "ddim"), "unrecognized arguments: --samp"),
    "unknown sampler": ((*PROMPT, "--sampler", "magic"), "unknown sampler 'magic'; known: ddpm"),
    "unknown device": ((*PROMPT, "--device", "gpu"), "unknown device 'gpu'; available: "),
    "no such device": ((*PROMPT, "--device", "cuda:99"), "device cuda:99 is not available"),
    "second CPU": ((*PROMPT, "--device", "cpu:1"), "device cpu:1 is not available"),
    "unknown dtype": ((*PROMPT, "--dtype", "int8"), "unknown dtype 'int8'; known: float32"),
    "zero steps": (
        (*PROMPT, "--steps", 0),
        "--steps: must be a whole number of 1 or more, got '0'",
    ),
    "too many steps": ((*PROMPT, "--steps", 1001), "at most 1000 steps, not 1001"),
    "zero images": ((*PROMPT, "--n", 0), "--n: must be a whole number of 1 or more, got '0'"),
    "endless images": ((*PROMPT, "--n", 10**20), "--n: must be at most 1000000, got '10000"),
    "many images": (("--prompts", "many.txt", "--n", 10**6), "draw at most 1,000,000 images"),
    "negative start": ((*PROMPT, "--start", -1), "--start: must be a whole number of 0 or more"),
    "seed": ((*PROMPT, "--seed", "x"), "--seed: must be a whole number, got 'x'"),
    "guidance nan": ((*PROMPT, "--guidance", "nan"), "must be a finite number, got 'nan'"),
    "guidance word": ((*PROMPT, "--guidance", "much"), "must be a finite number, got 'much'"),
    "interval turned round": (
        (*PROMPT, "--guidance-interval", "3,1"),
        "--guidance-interval: must be LOW,HIGH with 0 <= LOW < HIGH, got '3,1'",
    ),
    "size 0": ((*PROMPT, "--size", 0), "--size: must be pixels as N or WxH, got '0'"),
    "odd size": ((*PROMPT, "--size", "32x33"), "multiples of 4, not 32x33"),
    "missing config": ((*PROMPT, "--config", "absent.yaml"), "cannot read the config absent.yaml"),
    "other config": ((*PROMPT, "--config", "other.yaml"), "name the right config"),
    "no averaged weights": ((*PROMPT, "--ema"), "holds no averaged weights"),
    "a file for a folder": ((*PROMPT, "--out", "empty.txt"), "empty.txt: it is a file"),
    "below a file": ((*PROMPT, "--out", "empty.txt/new"), "cannot write into empty.txt/new"),
    "endless name": ((*PROMPT, "--out", f"new/{'x' * 300}"), "ame too long"),
    "weights in a pipe": ((*PROMPT, "--model", "pipe"), "cannot read pipe: it is no regular file"),
    "sizes in a pipe": ((*PROMPT, "--config", "pipe"), "the config pipe: it is no regular file"),
    "prompts in a pipe": (("--prompts", "pipe"), "the prompts in pipe: it is no regular file"),
    "a word in a pipe": ((*PROMPT, "--embedding", "pipe"), "pipe as a word: it is no regular"),
    "a LoRA in a pipe": ((*PROMPT, "--lora", "pipe"), "pipe as a lora: it is no regular"),
    "an image in a pipe": ((*PROMPT, "--init", "pipe"), "the image pipe: it is no regular file"),
    "from a device": (("--from", "/dev/zero"), "the image /dev/zero: it is no regular file"),
    "from nothing": (("--from", "absent.png"), "cannot read the image absent.png: No such file"),
    "from no image": (("--from", "blank.txt"), "cannot read the image blank.txt: not an image"),
    "from foreign": (("--from", "foreign.png"), "foreign.png was not drawn by ldm"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    tiny_ckpt: Path,
    tiny_yaml: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    """Exit status 2, one line on stderr that says what is wrong, nothing on stdout or the disk."""
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("blank.txt").write_text(" \n\n")
    Path("many.txt").write_text("lung\nbone\n")
    os.mkfifo("pipe")
    Path("other.yaml").write_text("unet: {channels: [64, 64], attention: [true, false]}")
    Image.new("L", (32, 32)).save("foreign.png")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD_INPUT[case]
    given = ("--model", tiny_ckpt, "--config", tiny_yaml, "--out", "new/out")
    assert status(*given, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_one_line(shown.err, message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [
        *({"index": text} for text in ("3-2", "many", f"0-{10**20}")),
        *({"batch": text} for text in ("5-9", "9-5", "0-100000")),
        {"index": "0-9999999"},
        *({key: "a\x1b[2Jb"} for key in ("prompt", "negative", "weights", "sampler")),
        {"negative": "a\u202eb"},
        *({"edit": text} for text in ("[" * 10**5, '{"invert": "\\u001b[2J"}')),
        *({"guidance interval": text} for text in ("2,1", "much")),
        *({"steps": "0"}, {"guidance": "nan"}, {"size": "32x"}, {"sampler": "magic"}),
        {"seed": None},
    ],
    ids=str,
)
def test_from_a_changed_png_is_one_line(
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str | None],
) -> None:
    """PNG text that says what cannot be drawn is refused as such, before any work."""
    text = {k: v for k, v in (image_files.read_text(drawn) | change).items() if v is not None}
    image_files.save(image_files.load(drawn), tmp_path / "x.png", text)
    assert status("--from", tmp_path / "x.png", "--out", tmp_path / "new") == 2
    assert_one_line(capsys.readouterr().err, "x.png was changed or is incomplete")
    assert not (tmp_path / "new").exists()


# --- trouble on the way ---


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried"), 2, "out of memory"),
        (OSError(28, "No space left on device", "x.png"), 2, "x.png: No space left on device"),
        (FloatingPointError("not\nfinite"), 2, "not finite"),
        (KeyboardInterrupt(), 130, None),
    ],
    ids=repr,
)
def test_trouble_on_the_way_is_one_line(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str | None,
) -> None:
    """Memory, disk and numbers that give out: one line, status 2; an interrupt: silence and 130."""

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(LatentDiffusion, "sample_latents", fail)
    assert status(*PROMPT, "--model", model, "--out", tmp_path / "out") == code
    shown = capsys.readouterr().err
    if message is None:
        assert shown == ""
    else:
        assert_one_line(shown, message)
    assert not (tmp_path / "out").exists()


def test_mistakes_of_the_program_keep_their_traceback() -> None:
    """An error that no input explains is not dressed up as one."""

    def fail() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cli.run(fail, "sample.py")
