"""Every part trains from scratch through train.py, on phantoms, and resumes."""

import copy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SIZES, assert_one_line, fit, golden, reference_names, relative_l2
from pseudo import unit

import ldm
import train as train_script
from ldm.config import ConfigError
from ldm.loss import diffusion_loss
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run, read_log
from ldm.weights import loading, tensor_names

ROOT = Path(__file__).parents[1]


def write_config(folder: Path, method: str, start: Path | None, **train) -> Path:
    (folder / "sizes.yaml").write_text(yaml.safe_dump(SIZES))
    settings = {"steps": 20, "batch_size": 8, "learning_rate": 3e-3, "warmup": 2, "save_every": 10}
    config = {
        "train": {"method": method, "out": str(folder / method), **settings, **train},
        "data": {"phantoms": 16, "size": 32, "cache": str(folder / "cache")},
        "model": {"config": str(folder / "sizes.yaml"), "path": start and str(start)},
    }
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """The three parts trained one after the other, a few steps each."""
    folder = tmp_path_factory.mktemp("chain")
    start = None
    for method in ("vae", "text", "unet"):
        fit(write_config(folder, method, start, steps=40 if method == "vae" else 20))
        start = folder / method
    return folder


def test_loss_and_gradients_equal_the_reference(tiny: LatentDiffusion) -> None:
    """One training step of the tiny twin: the loss, the norm of each of 286 gradients, and four
    gradients whole, to 1e-5 relative L2, as one pass of a network.
    """
    want = golden("tiny_train")
    unet = copy.deepcopy(tiny.unet).requires_grad_(True)
    x0, eps = (torch.from_numpy(unit(f"train.{x}", (2, 4, 16, 16))) for x in ("x0", "noise"))
    context = torch.from_numpy(unit("unet.context", (2, 77, 64)))
    loss = diffusion_loss(unet, tiny.schedule, x0, eps, want["t"], context).mean()
    loss.backward()
    assert relative_l2(loss.detach(), want["loss"]) < 1e-5

    prefix = "model.diffusion_model."
    theirs = {ours: names[0] for ours, names in tensor_names.names(tiny.config, "compvis").items()}
    gradients = {
        theirs[f"unet.{name}"].removeprefix(prefix): parameter.grad
        for name, parameter in unet.named_parameters()
    }
    order = [n.removeprefix(prefix) for n in reference_names("tiny")["compvis"] if prefix in n]
    norms = torch.tensor([gradients[name].double().norm() for name in order])
    assert relative_l2(norms, want["grad_norm"]) < 1e-5
    whole = [name for name in want if name.startswith("grad/")]
    assert len(whole) == 4
    for name in whole:
        assert relative_l2(gradients[name.removeprefix("grad/")], want[name]) < 1e-5, name


@pytest.mark.parametrize("method", ["vae", "text", "unet"])
def test_every_part_learns(chain, method: str) -> None:
    """The mean loss of the last quarter is below that of the first."""
    losses = [row["loss"] for row in read_log(chain / method / "log.jsonl")]
    quarter = len(losses) // 4
    assert sum(losses[-quarter:]) < sum(losses[:quarter])


def test_the_last_file_is_a_whole_model_with_the_parts_trained_before(chain) -> None:
    """It opens without any remembered flag; VAE and text tower are bit for bit what they were."""
    pipe, before = ldm.load(chain / "unet"), loading.load_parts(chain / "text")[1]
    assert pipe.config.schedule.prediction == "v"
    for part, module in (("vae", pipe.vae), ("text", pipe.text)):
        assert all(torch.equal(x, before[part][k]) for k, x in module.state_dict().items())


def test_the_latent_scale_gives_unit_variance(chain) -> None:
    """Scaled latents of the training images have standard deviation 1 within 10 %."""
    pipe = ldm.load(chain / "unet")
    method = build_method(load_run(chain / "vae.yaml"))
    images = method.draw_batch(16, torch.Generator().manual_seed(1)).images
    std = (pipe.vae.encode(images).mean * pipe.scale_factor).std().item()
    assert std == pytest.approx(1, abs=0.1)


def test_a_decoder_learns_alone_for_the_latents_that_a_unet_knows(chain, tmp_path) -> None:
    """method.encoder=false: latents and their scale keep every bit, images do not."""
    override = [f"train.out={tmp_path / 'decoder'}", "method.encoder=false", "train.steps=2"]
    override += [f"model.path={chain / 'unet'}", "model.parts=[vae, text, unet]"]
    override += ["data.phantom_seed=500"]  # images whose latents have another scale
    run = load_run(chain / "vae.yaml", override)
    old, new = ldm.load(chain / "unet"), ldm.load(Trainer(run, build_method(run)).fit())
    image = torch.rand(1, old.config.vae.image_channels, 32, 32)
    latents = old.encode_images(image)
    assert torch.equal(new.encode_images(image), latents)
    assert not torch.equal(new.decode(latents), old.decode(latents))


def test_the_size_trained_at_is_the_size_drawn(chain, tmp_path) -> None:
    """A model trained at 64 px on the parts of one of 32 px draws 64 px unless told otherwise."""
    run = load_run(write_config(tmp_path, "unet", chain / "text", steps=1))
    run = replace(run, data=replace(run.data, size=64))
    Trainer(run, build_method(run)).fit()
    assert ldm.load(tmp_path / "unet").config.image_size == 64


def test_a_missing_part_is_named(tmp_path) -> None:
    """A U-Net cannot be trained without a VAE; the message says what to do."""
    with pytest.raises(ConfigError, match="no vae; train it first"):
        build_method(load_run(write_config(tmp_path, "unet", None)))


VAE, TEXT, UNET = (f"configs/scratch_{method}.yaml" for method in ("vae", "text", "unet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "cannot read the config nowhere.yaml"),
        ([VAE, "train.stesp=3"], "did you mean 'steps'"),
        ([VAE, "train.steps=many"], "train.steps"),
        ([VAE, "train.steps=0"], "train.steps must be 1 or more, got 0"),
        ([VAE, "train.method=gan"], "unknown train.method 'gan'"),
        ([VAE, "method.krop=3"], "did you mean 'crop'"),
        ([VAE, "data.path=/nowhere"], "no folder"),
        ([VAE, "model.path=/nowhere"], "/nowhere"),
        ([VAE, "data.size=50"], "data.size must be a positive multiple of 8 (the VAE), got 50"),
        ([VAE, "method.crop=0"], "method.crop must be a positive multiple of 8 (the VAE), got 0"),
        ([VAE, "method.kl=-1"], "method.kl must be 0 (off) or more, got -1.0"),
        ([VAE, "train.clip=0"], "train.clip must be a norm above 0"),
        ([TEXT, "method.pixels=0"], "method.pixels must be 1 or more"),
        ([TEXT, "method.channels=12"], "method.channels must be a multiple of 8"),
        ([TEXT, "method.temperature=0"], "method.temperature above 0"),
        ([UNET, "method.prompts=[]"], "method.prompts needs at least one"),
        ([UNET, "method.drop_caption=10"], "method.drop_caption must be from 0 to 1, got 10.0"),
        ([UNET, "method.drop_caption=.nan"], "method.drop_caption must be from 0 to 1, got nan"),
        ([UNET, "method.min_snr=-5"], "method.min_snr must be 0 (off) or more, got -5.0"),
        ([UNET, "data.size=72"], "multiple"),
        ([UNET, "model.parts=[vea]"], "model.parts names vea"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Every mistake in a config or an override gets one clear line, and nothing is written.

    A negative weight would train in reverse, to no complaint.
    """
    monkeypatch.chdir(ROOT)
    arguments = [*arguments, f"train.out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    assert cli.run(lambda: train_script.main(arguments), "train.py") == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vae", "text", "unet"])
def test_a_killed_training_goes_on_with_the_same_command(chain, tmp_path, method: str) -> None:
    """train.py, killed after its first checkpoint, resumes and ends in the same bits."""
    start = {"vae": None, "text": chain / "vae", "unet": chain / "text"}[method]
    folders = [tmp_path / name for name in ("whole", "killed")]
    commands = []
    for folder in folders:
        folder.mkdir()
        path = write_config(folder, method, start, steps=40, save_every=5)
        commands.append([sys.executable, "train.py", str(path)])
    subprocess.run(commands[0], cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(commands[1], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (folders[1] / method / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folders[1] / method / "model.safetensors").exists()
    subprocess.run(commands[1], cwd=ROOT, check=True, capture_output=True)
    one, two = ((folder / method / "model.safetensors").read_bytes() for folder in folders)
    assert one == two
