"""Weights for inpainting: they open, see mask and masked latent in SD's order, and need both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_line, assert_same, flat
from PIL import Image
from pseudo import fill

import ldm
import sample
from ldm.config import ConfigError, ModelConfig
from ldm.drawing import compositing, image_editing
from ldm.drawing.latent_editing import PictureBatch
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system import cli
from ldm.unet import UNet
from ldm.weights.conversion import convert
from ldm.weights.loading import load_parts

FIRST = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_state) -> Path:
    """A CompVis file whose first convolution takes nine channels."""
    path = tmp_path_factory.mktemp("inpainting") / "sd-inpainting.ckpt"
    width = len(tiny_state[FIRST])
    more = {FIRST: torch.from_numpy(fill(FIRST, (width, 9, 3, 3)))}
    torch.save({"state_dict": tiny_state | more}, path)
    return path


@pytest.fixture
def pipe(file: Path, tiny_yaml: Path) -> LatentDiffusion:
    return ldm.load(file, tiny_yaml)


def test_both_layouts_open(tmp_path: Path, file: Path, tiny_config: ModelConfig) -> None:
    """A diffusers folder says in_channels 9; there and back changes no bit."""
    config, parts = load_parts(file, tiny_config)
    assert (config.unet.in_channels, config.unet.beside) == (4, 5)
    convert(file, tmp_path / "folder", config=tiny_config)
    said = json.loads((tmp_path / "folder" / "unet" / "config.json").read_text())
    assert said["in_channels"] == 9
    again, back = load_parts(tmp_path / "folder")
    assert again.unet == config.unet
    assert_same(flat(back), flat(parts))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_network_sees_noise_mask_and_the_picture_without_the_hole(
    pipe: LatentDiffusion, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """x_t, the mask (1: repaint) and the latent of the picture with a mid-grey hole, in this order
    (the repaint of latent-diffusion's inpainting pipelines); outside the hole no pixel changes."""
    seen: list[torch.Tensor] = []
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda s, x, t, c: seen.append(x) or forward(s, x, t, c))
    top = 2**bits - 1
    rows = np.random.default_rng(0).integers(0, top + 1, (64, 64, 1))
    picture = rows.astype(np.uint8 if bits == 8 else np.uint16)
    alpha = np.zeros((64, 64))
    alpha[16:40, 24:48] = 1
    sampling = Sampling(steps=2, sampler="ddim", guidance=3.0, height=64, width=64)
    batch = PictureBatch(pipe, ["lung"], [0], sampling)
    (result,) = image_editing.inpaint(batch, picture, alpha)
    assert (result[alpha == 0] == picture[alpha == 0]).all()
    assert (result[alpha == 1] != picture[alpha == 1]).any()
    assert {tuple(x.shape[:2]) for x in seen} == {(2, 9)}
    inside = compositing.window(alpha > 0, pipe.config.image_size).inside
    shown, hole = alpha[inside], picture[inside].copy()
    hole[shown > 0] = top // 2 + 1
    latent = image_editing.encode(pipe, hole)[0]
    padded = compositing.padded(shown, pipe.config.multiple)
    cells = compositing.to_latents(padded, pipe.config.vae.factor)[0, 0].float()
    for x in seen:
        assert torch.equal(x[0, 4], cells)
        torch.testing.assert_close(x[0, 5:], latent)
        assert torch.equal(x[0, 4:], x[1, 4:])
    assert pipe.unet.known is None


def test_without_a_mask_they_draw_nothing(
    tmp_path: Path, file: Path, tiny_yaml: Path, pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit status 2 and no picture; with --init and --mask the same weights paint."""
    with pytest.raises(ConfigError, match="these weights are for inpainting"):
        pipe.draw(["lung"], [0], Sampling(steps=1, height=32, width=32))
    order = ["--model", str(file), "--config", str(tiny_yaml), "--prompt", "lung", "--n", "1"]
    order += ["--steps", "2", "--out", str(tmp_path / "out")]
    assert cli.run(lambda: sample.main(order), "sample.py") == 2
    assert_one_line(capsys.readouterr().err, "for inpainting: give --init and --mask")
    assert not list(tmp_path.rglob("*.png"))
    film = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    for name, pixels in (("film.png", film), ("mask.png", mask)):
        Image.fromarray(pixels).save(tmp_path / name)
    order += ["--init", str(tmp_path / "film.png"), "--mask", str(tmp_path / "mask.png")]
    assert cli.run(lambda: sample.main(order), "sample.py") == 0
    painted = np.asarray(Image.open(tmp_path / "out" / "00000.png"))
    assert (painted[mask == 0] == film[mask == 0]).all()
