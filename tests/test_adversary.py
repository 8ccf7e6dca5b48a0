"""The autoencoder's adversary: its losses, and that each network learns its own side alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import SIZES, fit
from test_pretraining import write_config
from torch import nn

from ldm.config import ConfigError
from ldm.loss import adaptive_weight, hinge_loss, reconstruction_terms
from ldm.training.methods.model_parts import take_fitting
from ldm.training.methods.patch_adversary import PatchAdversary
from ldm.training.methods.pretraining import TrainVAE, detail_loss
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run, read_log
from ldm.weights import loading


def test_the_hinge_stops_where_images_are_told_apart() -> None:
    """Zero beyond the margins of 1, a straight line before them."""
    assert hinge_loss(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -7.0])) == 0
    assert hinge_loss(torch.zeros(3), torch.zeros(5)) == 1
    assert hinge_loss(torch.tensor([-1.0, 1.0]), torch.tensor([0.0])) == pytest.approx(1.0)


def test_the_adaptive_weight_makes_both_pull_equally() -> None:
    """Weighted, the adversary's gradient at the last layer is as long as the errors' is."""
    torch.manual_seed(0)
    last = nn.Conv2d(3, 2, 3)
    y = last(torch.randn(4, 3, 8, 8))
    error, fooled = (y - 1).square().mean(), 50 * y.sin().mean()
    weight = adaptive_weight(error, fooled, last.weight)
    one, other = (
        torch.autograd.grad(x, last.weight, retain_graph=True)[0] for x in (error, weight * fooled)
    )
    assert other.norm().item() == pytest.approx(one.norm().item(), rel=1e-4)


def test_a_patch_is_seventy_pixels_wide() -> None:
    """An output depends on 70 pixels across (arXiv:1611.07004), and 2 beside them for the mean that
    is taken from fine detail; but for the norms' statistics.
    """
    adversary = PatchAdversary(1, 8)
    adversary.norms = nn.ModuleList(nn.Identity() for _ in adversary.norms)
    x = torch.randn(1, 1, 160, 160, requires_grad=True)
    adversary(x)[0, 0, 8, 8].backward()
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == 70 + 2 * 2


def adversarial(tmp_path: Path, **options) -> TrainVAE:
    path = write_config(tmp_path, "vae", None)
    config = yaml.safe_load(path.read_text())
    config["method"] = {"crop": 32, "adversary": 0.5, "adversary_width": 8, **options}
    path.write_text(yaml.safe_dump(config))
    return build_method(load_run(path))


def test_each_network_has_the_gradient_of_its_own_loss(tmp_path) -> None:
    """In one backward pass the adversary learns from the hinge, the autoencoder to fool it."""
    method = adversarial(tmp_path)
    batch = method.draw_batch(4, torch.Generator().manual_seed(0))
    x = batch.images
    last = nn.init.normal_(method.vae.decoder.conv_out.weight, std=0.05)  # begins at zero
    loss, figures = method.loss(batch, torch.Generator().manual_seed(1))
    loss.backward()
    found = {name: p.grad.clone() for name, p in method.module.named_parameters()}
    method.module.zero_grad()

    posterior = method.vae.encode(x)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    y = method.vae.decode(posterior.sample(noise))
    hinge_loss(method.adversary(x), method.adversary(y.detach())).backward()
    for name, p in method.adversary.named_parameters():
        torch.testing.assert_close(found[f"adversary.{name}"], p.grad, rtol=1e-3, atol=1e-6)
    terms, options = reconstruction_terms(y, x), method.options
    errors = terms["squared"] + options.absolute * terms["absolute"]
    errors = errors + options.gradient * terms["gradient"]
    fooled = -method.adversary(y).mean()
    weight = 0.5 * adaptive_weight(errors, fooled, last)
    assert figures["weight"] == pytest.approx(weight.item(), rel=1e-3)
    kl = options.kl * posterior.kl().mean() / posterior.mean[0].numel()
    (errors + weight * fooled + kl).backward()
    for name, p in method.vae.named_parameters():
        torch.testing.assert_close(found[f"vae.{name}"], p.grad, rtol=1e-3, atol=1e-6)


def test_the_adversary_is_not_in_the_weights(tmp_path) -> None:
    """A run with an adversary writes the same file as one without; it resumes with it."""
    adversarial(tmp_path)
    path = tmp_path / "vae.yaml"
    for steps in (2, 3):
        run = load_run(path, [f"train.steps={steps}", "train.save_every=1"])
        Trainer(run, build_method(run)).fit()
    _, states = loading.load_parts(tmp_path / "vae")
    assert states.keys() == {"vae"}
    assert not any("adversary" in name for name in states["vae"])
    assert len(read_log(tmp_path / "vae" / "log.jsonl")) == 3


def test_padding_is_no_error_of_the_autoencoder(tmp_path) -> None:
    """What the decoder makes of padding has no part in the loss, and means are over the rest."""
    method = adversarial(tmp_path, adversary=0.0, kl=0.0)
    batch = method.draw_batch(4, torch.Generator().manual_seed(0))
    mask = torch.ones_like(batch.images, dtype=torch.bool)[:, :1]
    mask[..., :8] = False
    found = []
    for beyond in (0.0, 9.0):

        def decode(z: torch.Tensor, beyond=beyond) -> torch.Tensor:
            return torch.where(mask, batch.images + 0.5, beyond)

        method.vae.decode = decode
        loss, figures = method.loss(batch._replace(masks=mask), torch.Generator())
        found.append(loss.item())
    assert found[0] == found[1]
    assert figures["psnr"] == pytest.approx(10 * torch.tensor(4 / 0.25).log10().item(), abs=0.01)


def test_tensors_that_fit_are_taken_over(tmp_path, caplog) -> None:
    """With fewer latent channels all is kept but the layers around the latent."""
    start = write_config(tmp_path, "vae", None, steps=1)
    fit(start)
    first = (tmp_path / "vae").rename(tmp_path / "first")
    sizes = {**SIZES, "vae": {**SIZES["vae"], "latent_channels": 2}}
    sizes["unet"] = {**SIZES["unet"], "in_channels": 2, "out_channels": 2}
    path = write_config(tmp_path, "vae", first)
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(sizes))
    run = load_run(path, ["model.parts=[vae]"])
    with pytest.raises(ConfigError, match=r"other sizes than.* model\.fitting=true"):
        build_method(run)
    method = build_method(replace(run, model=replace(run.model, fitting=True)))
    _, states = loading.load_parts(first)
    own = method.vae.state_dict()
    other = {n for n in own if own[n].shape != states["vae"][n].shape}
    assert other
    assert all("conv_" in name or "quant" in name or "shortcut" in name for name in other)
    assert all(torch.equal(own[n], states["vae"][n]) for n in own.keys() - other)
    with pytest.raises(ConfigError, match="no tensor of its vae has the sizes"):
        take_fitting(nn.Linear(2, 3), states["vae"], "vae")


def test_fine_detail_of_the_same_amplitude_is_no_loss() -> None:
    """Detail halved costs log 2 everywhere, bright or faint; elsewhere than in x it is no help."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 64, 64)
    x[..., 32:] *= 0.2
    above = x - F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    assert detail_loss(x, x) == 0
    assert detail_loss(x - above, x) > 0.3
    assert detail_loss(0.5 * x, x).item() == pytest.approx(math.log(2), abs=0.01)
    assert detail_loss(x + 0.7, x).item() == pytest.approx(0, abs=0.01)  # no matter how bright
    assert detail_loss(x.flip(-1), x) > 1  # as much in all, but on the other side
