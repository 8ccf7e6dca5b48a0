"""What the methods of training make of a batch: their losses, by hand or by stand-ins."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import adaptation
from test_pretraining import write_config
from torch import Tensor

from ldm import rng
from ldm.config import ConfigError
from ldm.data.datasets import Batch
from ldm.training.methods import model_parts, pretraining
from ldm.training.methods.pretraining import TrainUNet
from ldm.training.training_run import RunConfig, build_method, load_run
from ldm.vae import Posterior
from ldm.weights import loading


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


def test_the_diffusion_loss_of_a_perfect_network_is_zero(unet_run, monkeypatch) -> None:
    """A U-Net that returns the target itself has loss 0; one that returns 0, its mean square."""
    method = TrainUNet(unet_run)
    schedule, targets = method.pipe.schedule, []
    original = schedule.target
    monkeypatch.setattr(
        schedule, "target", lambda *args: targets.append(original(*args)) or targets[-1]
    )
    batch = method.draw_batch(8, torch.Generator().manual_seed(0))
    method.module.forward = lambda x, t, context: torch.zeros_like(x)
    zero, _ = method.loss(batch, torch.Generator().manual_seed(1))
    assert zero.item() == pytest.approx(targets[0].square().mean().item())
    method.module.forward = lambda x, t, context: targets[0]
    perfect, _ = method.loss(batch, torch.Generator().manual_seed(1))
    assert perfect.item() == 0


def tiny_batch(run: RunConfig, size: int = 512, **method) -> tuple[TrainUNet, Batch]:
    """A method and a batch whose latents have mean 2 and variance 9."""
    method = TrainUNet(replace(run, method={"drop_caption": 0.0, **method}))
    moments = torch.tensor([2.0, math.log(9)]).repeat_interleave(4)
    latents = moments[None, :, None, None].expand(size, -1, 8, 8)
    return method, Batch(latents, ["a", "b"] * (size // 2), ["x"] * size)


def test_the_unet_learns_from_scaled_samples_of_the_posterior(unet_run, monkeypatch) -> None:
    """Trap 2: x0 = scale_factor (mean + std noise), not the bare mean, not unscaled."""
    method, batch = tiny_batch(unet_run)
    seen = {}
    monkeypatch.setattr(
        pretraining, "diffusion_loss", lambda *a: seen.update(x0=a[2]) or a[2][:, 0]
    )
    method.pipe.scale_factor = 0.5
    method.loss(batch, torch.Generator().manual_seed(0))
    x0 = seen["x0"] / 0.5
    assert x0.mean().item() == pytest.approx(2, abs=0.05)  # 131,072 numbers: 6 standard errors
    assert x0.std().item() == pytest.approx(3, abs=0.05)


def test_the_noise_of_the_posterior_is_not_that_of_the_loss(unet_run) -> None:
    """x0 is drawn with other numbers than eps: else x_t would hold twice the one noise.

    And every image has a t of its own, over the whole schedule.
    """
    method, batch = tiny_batch(unet_run)
    x0, eps, t = method.draw_diffusion_inputs(batch.images, torch.Generator().manual_seed(0))
    noise = (x0 / method.pipe.scale_factor - 2) / 3
    together = (noise * eps).mean().item()
    assert abs(together) < 0.02, "the posterior's noise is independent of eps"
    assert t.unique().numel() > 300, "each image has its own t"
    assert 0 <= t.min() < 20 < 980 < t.max() < 1000, "t over the whole schedule"


def test_every_caption_is_dropped_by_a_coin_of_its_own(unet_run) -> None:
    """Of 512 a share of 0.25 is dropped, in one batch: not all of them or none."""
    method, _ = tiny_batch(unet_run)
    captions = [str(i) for i in range(512)]
    for seed in range(3):
        kept = method.drop_captions(captions, 0.25, torch.Generator().manual_seed(seed))
        assert kept.count("") == pytest.approx(128, abs=40), "a coin for each caption"
        assert all(k in ("", c) for k, c in zip(kept, captions, strict=True)), "in their order"


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


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 8)])
def test_captions_are_dropped_at_the_asked_rate(unet_run, monkeypatch, rate, expected) -> None:
    """drop_caption = 1 trains on empty prompts only, 0 on none."""
    method, seen = TrainUNet(replace(unet_run, method={"drop_caption": rate})), []
    encode = method.pipe.encode_text
    monkeypatch.setattr(
        method.pipe, "encode_text", lambda p, log_dropped: seen.extend(p) or encode(p)
    )
    method.loss(method.draw_batch(8, torch.Generator().manual_seed(0)), torch.Generator())
    assert seen.count("") == expected


def finetuning(tmp_path: Path, start: Path, monkeypatch, **options) -> list[list[str]]:
    """The captions that the U-Net sees in a loss of four instances and four images of the prior."""
    monkeypatch.setattr(model_parts.LatentDiffusion, "draw", lambda *_: [torch.zeros(1, 32, 32)])
    options |= {"prior_weight": 1.0, "prior_images": 1, "prior_prompt": "prior"}
    method, seen = build_method(load_run(adaptation(tmp_path, start, "finetune", options))), []
    encode = method.encode_captions
    method.encode_captions = lambda captions: seen.append(list(captions)) or encode(captions)
    captions = [*"abcd", *["prior"] * 4]
    method.loss(Batch(torch.zeros(8, 8, 8, 8), captions, captions), rng.generator(0, "x"))
    return seen


def test_the_prior_is_learned_with_its_own_caption(tmp_path, start, monkeypatch) -> None:
    """DreamBooth, eq. 2: instances with their prompts, the model's own images with the class's."""
    seen = finetuning(tmp_path, start, monkeypatch)
    assert seen == [[*"abcd"], ["prior"] * 4], "the prior's caption is the prior's"


def test_adaptation_drops_captions_of_instances(tmp_path, start, monkeypatch) -> None:
    """method.drop_caption=1 empties all of them, and none of the prior's."""
    seen = finetuning(tmp_path, start, monkeypatch, drop_caption=1.0)
    assert seen == [[""] * 4, ["prior"] * 4], "drop_caption"
