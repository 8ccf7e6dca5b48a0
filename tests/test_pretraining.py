"""Every part trains from scratch through train.py, on phantoms, and resumes; its loss by hand."""

import copy
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import SIZES, assert_one_line, fit, golden, reference_names, relative_l2
from pseudo import unit
from torch import Tensor

import ldm
import train as train_script
from ldm import rng
from ldm.config import ConfigError
from ldm.data.datasets import Batch
from ldm.loss import diffusion_loss
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.training.methods import pretraining
from ldm.training.methods.pretraining import TrainUNet
from ldm.training.trainer import Trainer
from ldm.training.training_run import RunConfig, build_method, load_run, read_log
from ldm.vae import Posterior
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


@pytest.fixture
def unet_run(start, tmp_path) -> RunConfig:
    """A U-Net's run, from parts that exist."""
    cache = f"data.cache={start.parent / 'cache'}"
    return load_run(write_config(tmp_path, "unet", start), [cache])


def vae_loss(tmp_path: Path, **weights: float) -> tuple[float, Tensor, float]:
    """The loss of a VAE whose decoder returns its latents, its images x, and the KL in the log.

    The posterior has the mean x, [8, 1, 8, 8], and everywhere the log variance log 9.
    """
    off = {"absolute": 0.0, "gradient": 0.0, "kl": 0.0}
    run = load_run(write_config(tmp_path, "vae", None))
    method = pretraining.TrainVAE(replace(run, method={**off, **weights}))
    x = torch.linspace(-1, 1, 512).reshape(8, 1, 8, 8)
    posterior = Posterior(x, torch.full_like(x, math.log(9)))
    method.vae = SimpleNamespace(encode=lambda _: posterior, decode=lambda z: z)
    loss, figures = method.loss(Batch(x, [], []), torch.Generator().manual_seed(0))
    return loss.item(), x, figures["kl"]


def test_the_vae_learns_from_samples_of_its_posterior(tmp_path) -> None:
    """z = mean + 3 noise: the squared error of a decoder that returns z is 9, not that of means."""
    loss, *_ = vae_loss(tmp_path)
    assert loss == pytest.approx(9, abs=2.5)  # 512 numbers: 4 standard errors


def test_the_vaes_kl_is_a_mean_over_latent_numbers_with_its_weight(tmp_path) -> None:
    """The loss rises by method.kl times the KL of a latent number, not by that of all 64."""
    without, x, *_ = vae_loss(tmp_path)
    loss, _, kl = vae_loss(tmp_path, kl=100.0)
    each = (x.square().mean().item() + 9 - 1 - math.log(9)) / 2
    assert kl == pytest.approx(each, rel=1e-4), "KL: the mean over latent numbers"
    assert loss - without == pytest.approx(100 * each, rel=1e-4), "KL with its weight in the loss"


def test_the_saved_scale_is_one_over_the_std_of_latents(tmp_path) -> None:
    """scale_factor = 1 / std of the means, far from 1 as well: scaled latents have variance 1."""
    method = build_method(load_run(write_config(tmp_path, "vae", None)))
    method.draw_batch = lambda *_: Batch(torch.zeros(1, 1, 32, 32), [], [])
    for std in (0.02, 30.0):
        mean = std * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        method.vae.encode = lambda _, mean=mean: Posterior(mean, mean)
        method.save(tmp_path / "x.safetensors")
        scale = loading.load_parts(tmp_path / "x.safetensors")[0].scale_factor
        assert scale * mean.std().item() == pytest.approx(1, rel=1e-2), "scale_factor is 1 / std"


def test_the_contrast_reads_a_prompt_at_its_end_of_text(tmp_path, start, monkeypatch) -> None:
    """CLIP (arXiv:2103.00020, section 2.4): at the first one, not at the 77th token, a padding."""
    method, seen = build_method(load_run(write_config(tmp_path, "text", start))), []
    places = torch.arange(77.0).reshape(1, 77, 1).expand(2, 77, 16)
    method.module["text"].forward = lambda tokens: places
    method.module["image"].forward = lambda x: torch.ones(len(x), 16)
    monkeypatch.setattr(
        pretraining, "contrastive_loss", lambda x, *_: (seen.append(x[:, 0].tolist()), torch.eye(2))
    )
    batch = Batch(torch.zeros(2, 1, 32, 32), ["lung", "clear lung"], ["a", "b"])
    method.loss(batch, torch.Generator())
    assert seen == [[2, 3]], "the token read is the first end of text"


def tiny_batch(run: RunConfig, size: int = 512, **method) -> tuple[TrainUNet, Batch]:
    """A method and a batch whose latents have mean 2 and variance 9."""
    method = TrainUNet(replace(run, method={"drop_caption": 0.0, **method}))
    moments = torch.tensor([2.0, math.log(9)]).repeat_interleave(4)
    latents = moments[None, :, None, None].expand(size, -1, 8, 8)
    return method, Batch(latents, ["a", "b"] * (size // 2), ["x"] * size)


def test_the_unet_learns_from_scaled_samples_of_the_posterior(unet_run) -> None:
    """Trap 2: x0 = scale_factor (mean + std noise), with other noise than eps; each image its t."""
    method, batch = tiny_batch(unet_run)
    method.pipe.scale_factor = 0.5
    x0, eps, t = method.draw_diffusion_inputs(batch.images, torch.Generator().manual_seed(0))
    noise = (x0 / 0.5 - 2) / 3  # 131,072 numbers: five standard errors
    assert abs(noise.mean()) < 0.014, "x0 is scale_factor times (mean + noise)"
    assert abs(noise.std() - 1) < 0.01, "x0 has the std of the posterior, scaled"
    assert abs((noise * eps).mean()) < 0.014, "the posterior's noise is independent of eps"
    assert t.unique().numel() > 300, "each image has its own t"
    assert 0 <= t.min() < 20 < 980 < t.max() < 1000, "t over the whole schedule"


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.25, 90, 170), (1.0, 512, 512)])
def test_captions_are_dropped_by_a_coin_for_each(
    unet_run, monkeypatch, rate: float, least: int, most: int
) -> None:
    """Of 512 captions in a batch a share of method.drop_caption is "", the others stay in place."""
    method, batch = tiny_batch(unet_run, drop_caption=rate)
    batch, seen = batch._replace(captions=[str(i) for i in range(512)]), []
    monkeypatch.setattr(pretraining, "diffusion_loss", lambda *_: torch.zeros(1))
    monkeypatch.setattr(method, "encode_captions", seen.extend)
    method.loss(batch, torch.Generator().manual_seed(0))
    assert least <= seen.count("") <= most, "captions are dropped, each by a coin of its own"
    assert all(now in ("", old) for now, old in zip(seen, batch.captions, strict=True))


def test_the_text_reaches_the_loss(unet_run) -> None:
    """Other captions give another loss."""
    method, batch = tiny_batch(unet_run, size=4)
    losses = [
        method.loss(batch._replace(captions=captions), torch.Generator().manual_seed(0))[0]
        for captions in (["a", "b"] * 2, ["b", "a"] * 2)
    ]
    assert losses[0] != losses[1]


def test_long_captions_reach_the_unet_in_chunks(unet_run) -> None:
    """Each piece is encoded as a prompt of its own, and joined; short captions are padded by "".

    Other methods, which read the end of 77 tokens, refuse it.
    """
    method = TrainUNet(replace(unet_run, data=replace(unet_run.data, long_captions="chunks")))
    pieces = ["clear lungs and " * 25, "heart " * 75, "no nodule"]
    found = method.encode_captions([" ".join(pieces), "clear lungs"])
    alone = method.pipe.encode_text([*pieces, "clear lungs", "", ""], log_dropped=False)
    torch.testing.assert_close(found, alone.reshape(2, 3 * 77, -1))
    batch = method.draw_batch(2, torch.Generator().manual_seed(0))
    loss, _ = method.loss(batch._replace(captions=[pieces[0] * 3, ""]), torch.Generator())
    assert loss.isfinite()
    with pytest.raises(ConfigError, match=r"data\.long_captions=chunks is for"):
        load_run("configs/scratch_text.yaml", ["data.long_captions=chunks"])


def test_min_snr_weighs_each_image_as_the_schedule_says(unet_run, monkeypatch) -> None:
    """The loss is the mean of weight(t) x loss of an image, at the t of that image."""
    method, batch = tiny_batch(unet_run, min_snr=5.0)
    each, seen = torch.arange(512.0), []
    monkeypatch.setattr(pretraining, "diffusion_loss", lambda *a: seen.append(a[4]) or each)
    found, _ = method.loss(batch, torch.Generator().manual_seed(0))
    expected = (each * method.pipe.schedule.min_snr_weight(seen[0], 5.0)).mean()
    torch.testing.assert_close(found, expected)


def test_black_borders_are_learned_where_they_are_wanted(unet_run) -> None:
    """Half of the image is padding: method.borders alone decides whether its errors count."""
    losses = []
    for borders in (False, True):
        method, batch = tiny_batch(unet_run, 4, borders=borders)
        mask = torch.zeros(4, 1, *batch.images.shape[2:], dtype=torch.bool)
        mask[..., :1] = True
        for masks in (None, mask):
            losses.append(method.loss(batch._replace(masks=masks), rng.generator(0, "x"))[0])
    assert losses[0] != losses[1]
    assert losses[2] == losses[3] == losses[0]


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


@pytest.mark.parametrize("gain", [0.0, 1e30])
def test_latents_that_no_scale_fits_are_refused(chain, tmp_path, gain: float) -> None:
    """All equal, or not finite although the weights are: an error, and no file."""
    method = build_method(load_run(chain / "vae.yaml"))
    for parameter in method.vae.parameters():
        parameter.data.fill_(gain)
    with pytest.raises(FloatingPointError, match="latents have a standard deviation of"):
        method.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


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


def test_a_picture_is_told_from_the_denial_of_what_it_shows(chain, monkeypatch) -> None:
    """The cross-entropy of two similarities over the temperature, by hand; no pair, no loss."""
    run = load_run(chain / "text.yaml", ["method.denied=[fracture]", "method.temperature=0.5"])
    method = build_method(run)
    batch = Batch(
        torch.zeros(2, 1, 8, 8), ["a hand", "a foot"], ["a", "b"], [{"fracture": True}, {}]
    )
    vectors = {True: [0.0, 3.0], False: [2.0, 0.0]}  # of a denial, and of what shows the fracture

    def embed(texts):
        return torch.tensor([vectors["," in text] for text in texts])

    monkeypatch.setattr(method, "embed_captions", embed)
    pictures = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    loss, figures = method.denial_loss(batch, pictures, rng.generator(0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp((0.8 - 0.6) / 0.5)))
    assert figures == {"told apart": 0.0}
    nothing = method.denial_loss(batch._replace(findings=[{}, {}]), pictures, rng.generator(0))
    assert nothing == (0, {"told apart": 0.5})  # each batch has the same figures


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
        (
            [UNET, "method.drop_caption=.nan"],
            "method.drop_caption must be a finite number, got nan",
        ),
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
