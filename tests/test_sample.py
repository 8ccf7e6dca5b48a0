"""sample.py: numbered PNGs that hold what was asked for and say how to draw them again."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_line
from test_bad_input import status

import ldm
import sample
from ldm import lora
from ldm.config import ModelConfig, from_dict
from ldm.drawing import drawing_settings
from ldm.pictures import image_files
from ldm.pictures.image_files import read, to_integers
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import SAMPLERS
from ldm.weights import adapters
from ldm.weights.conversion import main as convert
from ldm.weights.export import save
from ldm.weights.loading import PARTS, load_parts, shapes

ROOT = Path(__file__).parent.parent
PROMPT = "lung xray with edema"


@pytest.fixture
def draw(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Draws into a folder of its own, in 3 steps unless told otherwise, and returns the folder."""

    def draw(*arguments: object, out: str = "out") -> Path:
        few = () if "--from" in arguments else ("--steps", 3)
        given = ("--model", model, "--out", tmp_path / out, *few, *arguments)
        assert status(*given) == 0
        return tmp_path / out

    return draw


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what is drawn ---


def test_pictures_are_numbered_and_say_how_they_were_drawn(
    draw: Callable[..., Path], tiny: LatentDiffusion, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 prompts x 2 from index 7 are 00007.png ... 00010.png and a grid; the paths are printed."""
    prompts = (PROMPT, "no findings")
    given = [x for prompt in prompts for x in ("--prompt", prompt)]
    options = ("--n", 2, "--start", 7, "--seed", 5, "--negative", "edema", "--size", "64x32")
    folder = draw(*given, *options, "--sampler", "heun", "--guidance", "2.5")
    names = ["00007.png", "00008.png", "00009.png", "00010.png", "grid.png"]
    assert capsys.readouterr().out == "".join(f"{folder / name}\n" for name in names)
    assert sorted(path.name for path in folder.iterdir()) == names
    for i, name in enumerate(names):
        text = image_files.read_text(folder / name)
        assert "synthetic" in text["synthetic"]
        expected = {
            "prompt": "\n".join(prompts) if name == "grid.png" else prompts[i // 2],
            "index": "7-10" if name == "grid.png" else str(7 + i),
            "negative": "edema",
            "seed": "5",
            "sampler": "heun",
            "steps": "3",
            "guidance": "2.5",
            "size": "64x32",
            "dtype": "float32",
            "device": tiny.device.type,
            "weights": tiny.weights_hash,
            "model": "tiny.safetensors",
        }
        assert expected.items() <= text.items()
    sheet = image_files.grid([image_files.load(folder / name) for name in names[:4]], columns=2)
    assert np.array_equal(read(folder / "grid.png"), to_integers(sheet))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_what_the_pipeline_draws(
    draw: Callable[..., Path], model: Path, sampler: str
) -> None:
    """Each option arrives where it belongs: the PNG is the pipeline's picture, rounded.

    The same file, as where a tensor lies in it decides the last bits of products.
    """
    options = ("--n", 1, "--start", 2, "--seed", 5, "--negative", "edema", "--size", "64x32")
    guided = ("--guidance", "2.5", "--guidance-interval", "0.5,5")
    folder = draw("--prompt", PROMPT, *options, "--sampler", sampler, *guided)
    settings = Sampling(5, 3, sampler, 2.5, "edema", 32, 64, (0.5, 5.0))
    picture = ldm.load(model).draw([PROMPT], [2], settings)[0]
    assert np.array_equal(read(folder / "00002.png"), to_integers(picture))


def test_defaults_are_those_of_the_model_and_the_help(draw: Callable[..., Path]) -> None:
    """Without options: 4 pictures of the model's size and guidance, 20 steps of dpm++, seed 0."""
    folder = draw("--prompt", PROMPT)
    assert len(list(folder.iterdir())) == 5
    text = image_files.read_text(folder / "00000.png")
    wanted = {"seed": "0", "sampler": "dpm++", "guidance": "7.5", "size": "32x32", "negative": ""}
    assert wanted.items() <= text.items()
    assert drawing_settings.DrawingSettings([PROMPT]).steps == 20


def test_prompts_from_a_file(draw: Callable[..., Path], tmp_path: Path) -> None:
    """One prompt a line, whatever the line ends, is as good as --prompt: the same bytes."""
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf one\r\n\r\n  two  three \n")
    folder = draw("--prompts", tmp_path / "prompts.txt", "--n", 1, out="file")
    other = draw("--prompt", "one", "--prompt", "two three", "--n", 1, out="options")
    assert content(folder) == content(other)
    assert content(folder).keys() == {"00000.png", "00001.png", "grid.png"}


def test_json_is_one_object(draw: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is one line: the paths that were written and the seconds of each part."""
    folder = draw("--prompt", PROMPT, "--n", 1, "--json")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report["paths"] == [str(folder / "00000.png"), str(folder / "grid.png")]
    assert report["seconds"].keys() == {"imports", "load", "text", "steps", "decode", "save"}
    assert all(report["seconds"][part] > 0 for part in ("load", "steps", "decode"))


def test_trajectory_ends_in_the_picture(
    draw: Callable[..., Path], tmp_path: Path, tiny_ckpt: Path, tiny_yaml: Path
) -> None:
    """trajectory.png holds the x0 of 8 steps, ever closer to the picture.

    The last is the picture, because this model ends clean, which is where x0 is.
    """
    config = tmp_path / "clean.yaml"
    config.write_text(tiny_yaml.read_text() + "schedule: {final_alpha_bar: one}\n")
    options = ("--n", 1, "--steps", 12, "--trajectory", "--model", tiny_ckpt, "--config", config)
    folder = draw("--prompt", PROMPT, *options)
    assert content(folder).keys() == {"00000.png", "grid.png", "trajectory.png"}
    strip = read(folder / "trajectory.png")
    frames = [strip[:32, x : x + 32].astype(int) for x in range(0, strip.shape[1], 34)]
    assert len(frames) == 8
    picture = read(folder / "00000.png")
    off = [np.abs(frame - picture).mean() for frame in frames]
    assert off == sorted(off, reverse=True)
    assert off[0] > 10
    assert off[-1] == 0


# --- drawing again ---


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if three pictures filled the memory."""
    monkeypatch.setattr(drawing_settings, "PIXELS_AT_ONCE", 3 * 32 * 32)


@pytest.mark.usefixtures("small_batches")
def test_from_an_image_or_a_grid_draws_the_same_bytes(draw: Callable[..., Path]) -> None:
    """--from 00006.png draws that file again, bit for bit, in its old batch; a grid draws all.

    What was drawn from an image can be drawn from again, as can its grid.
    """
    prompts = ("--prompt", PROMPT, "--prompt", "no findings")
    guided = ("--negative", "edema", "--guidance", 3, "--guidance-interval", "0.5,5")
    old = draw(*prompts, "--n", 4, "--seed", 9, *guided, out="old")
    assert image_files.read_text(old / "grid.png")["guidance interval"] == "0.5,5.0"
    assert content(draw("--from", old / "grid.png", out="all")) == content(old)
    one = draw("--from", old / "00006.png", out="one")
    assert content(one).keys() == {"00006.png", "grid.png"}
    assert content(one)["00006.png"] == content(old)["00006.png"]
    for name in ("00006.png", "grid.png"):
        assert content(draw("--from", one / name, out=f"again {name}")) == content(one)


def test_from_leaves_the_grid_of_the_old_folder_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --out, new pictures go to samples/ and old ones drawn again to redrawn/."""
    monkeypatch.chdir(tmp_path)
    given = ("--model", model, "--steps", 1)
    assert status("--prompt", PROMPT, "--n", 2, *given) == 0
    before = content(Path("samples"))
    assert status("--from", "samples/00001.png", "--model", model) == 0
    assert content(Path("samples")) == before
    assert content(Path("redrawn"))["00001.png"] == before["00001.png"]


def test_from_takes_options_on_top(draw: Callable[..., Path]) -> None:
    """--from grid.png --seed 1 draws what the old command would with --seed 1."""
    given = ("--prompt", PROMPT, "--n", 2, "--start", 3, "--sampler", "ddim", "--size", "32x64")
    old = draw(*given, out="old")
    new = draw("--from", old / "grid.png", "--seed", 1, "--guidance", 2, out="new")
    assert content(new) == content(draw(*given, "--seed", 1, "--guidance", 2, out="direct"))
    assert not np.array_equal(read(new / "00003.png"), read(old / "00003.png"))


def test_other_weights_are_refused_unless_chosen(
    draw: Callable[..., Path],
    tmp_path: Path,
    tiny_ckpt: Path,
    tiny_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """--from with other weights than the image's is an error; with --model it is a warning."""
    config, parts = load_parts(tiny_ckpt, tiny_config)
    parts["vae"] = {name: tensor + 0.01 for name, tensor in parts["vae"].items()}
    other = save(tmp_path / "other.safetensors", config, parts)
    old = draw("--prompt", PROMPT, "--n", 1, out="old")
    capsys.readouterr()
    monkeypatch.setattr(sample, "BUILT_IN", other)
    assert status("--from", old / "00000.png", "--out", tmp_path / "new") == 2
    assert_one_line(capsys.readouterr().err, "was drawn with weights", "name its own with --model")
    assert not (tmp_path / "new").exists()
    new = draw("--from", old / "00000.png", "--model", other, out="new")
    assert not np.array_equal(read(new / "00000.png"), read(old / "00000.png"))
    assert "it will be another picture" in caplog.text


# --- as a program ---


def test_help_answers_without_torch_and_names_every_sampler() -> None:
    """`sample.py --help` imports nothing heavy, so that it answers at once."""
    script = (
        "import sys, runpy; sys.argv = ['sample.py', '--help']\n"
        "try: runpy.run_path('sample.py', run_name='__main__')\n"
        "finally: assert not {'torch', 'numpy', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(sampler in done.stdout for sampler in SAMPLERS)


def test_as_a_program(model: Path, tmp_path: Path) -> None:
    """For real: paths on stdout; on stderr only the words that the prompt has no room for."""
    prompt = "lung " * 75 + "with cardiomegaly"
    options = ["--model", str(model), "--out", str(tmp_path / "out"), "--n", "1", "--steps", "1"]
    command = [sys.executable, "sample.py", "--prompt", prompt, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(tmp_path / "out" / x) for x in ("00000.png", "grid.png")
    ]
    assert_one_line(done.stderr, "these words are ignored: with cardiomegaly")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_from_the_file_to_the_picture(
    dtype: str, model: Path, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """Weights of two bytes take half the disk, and draw in two bytes nearly the same picture."""
    half = tmp_path / "half.safetensors"
    assert convert(["convert", str(model), str(half), "--dtype", dtype]) == 0
    assert half.stat().st_size < 0.55 * model.stat().st_size  # names and config take the rest
    settings = ("--prompt", PROMPT, "--n", 1)
    whole = read(draw(*settings) / "00000.png").astype(int)
    short = draw(*settings, "--model", half, "--dtype", dtype, out="short") / "00000.png"
    assert image_files.read_text(short)["dtype"] == dtype
    difference = np.abs(read(short) - whole).mean()
    assert 0 < difference < 8  # grey levels; white noise would differ by about 85


@pytest.mark.parametrize(
    ("kept", "dtype"),
    [("float16", "float16"), ("bfloat16", "bfloat16"), ("bfloat16", "float16")],
)
@pytest.mark.parametrize("loras", [0, 2])
def test_two_bytes_draw_what_their_float32_values_draw(
    kept: str, dtype: str, loras: int, model: Path, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """The same files, names of the weights included, whether or not a file went through float32:
    two LoRAs are added before the only rounding.
    """
    half, wide = (tmp_path / name / "model.safetensors" for name in ("half", "wide"))
    for path in (half, wide):
        path.parent.mkdir()
    assert convert(["convert", str(model), str(half), "--dtype", kept]) == 0
    assert convert(["convert", str(half), str(wide), "--dtype", "float32"]) == 0
    added: list[object] = []
    for i in range(loras):
        torch.manual_seed(i)
        unet = ldm.load(model).unet
        lora.inject(unet, rank=2, alpha=2)
        tensors = {
            name: 0.1 * torch.randn_like(x) for name, x in adapters.lora_tensors(unet).items()
        }
        adapters.save(tmp_path / f"{i}.safetensors", "lora", tensors, {"rank": 2, "alpha": 2})
        added += ["--lora", tmp_path / f"{i}.safetensors"]
    settings = ("--prompt", PROMPT, "--n", 1, "--steps", 1, "--dtype", dtype, *added)
    found, expected = (
        content(draw(*settings, "--model", path, out=f"from-{path.parent.name}"))
        for path in (half, wide)
    )
    assert found == expected


SMALL = {"context_dim": 64, "heads": 2, "res_blocks": 3}
WIDE = {  # 80 M parameters, of which none holds a twelfth
    "image_size": 32,
    "vae": {"image_channels": 1, "channels": [32], "res_blocks": 1, "patch": 4},
    "text": {"width": 64, "layers": 1, "heads": 2},
    "unet": {"channels": [256, 512], "attention": [False, False], **SMALL},
}
PEAK = """
import re, sys
from pathlib import Path
import sample
from ldm import clip
from ldm.drawing import picture_folder
from ldm.weights import loading

def status(field):
    text = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", text)[1]) * 1024

def instead(*_):
    print(status("VmHWM") - before)
    return []

clip.tokenizer()
picture_folder.draw = instead
Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
before = status("VmRSS")
sample.main(sys.argv[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_two_bytes_are_loaded_without_four(tmp_path: Path) -> None:
    """Until the first step a model takes its own size, and less than half of that again for one
    tensor in float32 and for Python; in float32 it would take twice its size.
    """
    config = from_dict(ModelConfig, WIDE)
    parts = {part: {} for part in PARTS}
    for name, shape in shapes(config, PARTS).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = torch.full(shape, 0.01, dtype=torch.float16)
    size = sum(tensor.nbytes for state in parts.values() for tensor in state.values())
    path = save(tmp_path / "model.safetensors", config, parts)
    given = ["--model", str(path), "--prompt", PROMPT, "--dtype", "float16"]
    command = [sys.executable, "-c", PEAK, *given, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[0])
    path.unlink()  # pytest keeps the folders of three runs
    assert size < peak < 1.5 * size


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (["a <lung-x> film"], ["<lung-x> is no loaded word"]),
        (["a <LUNG> film", "p < 0.05 and q > 1"], []),
        (["<a> and <b>", "<a>"], ["<a> is no loaded word", "<b> is no loaded word"]),
        (["lung (effusion:1.4)"], ["(effusion:1.4) is read as plain text"]),
        (["lung [wires]", "x BREAK y"], ["[wires] is read as plain text"]),
        (["lung BREAK heart"], ["BREAK is read as plain text"]),
        (["chest (PA), 12:30, breaking"], []),
    ],
)
def test_what_a_prompt_may_mean_otherwise_is_said(prompts: list[str], said: list[str]) -> None:
    """A new word that was not loaded, and the marks by which other programs weigh words."""
    found = drawing_settings.prompt_remarks(prompts, ["<lung>"], weighed=False)
    assert [remark[: len(start)] for remark, start in zip(found, said, strict=True)] == said
    weighed = drawing_settings.prompt_remarks(prompts, ["<lung>"], weighed=True)
    assert weighed == [remark for remark in found if "no loaded word" in remark]
