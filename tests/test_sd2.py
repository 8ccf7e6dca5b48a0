"""Stable Diffusion 2.x: its networks are those of diffusers, and its files open."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same, flat, relative_l2

import ldm
from benchmarks.sd2_goldens import inputs, twin
from ldm.clip import TextEncoder
from ldm.config import ModelConfig
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.cli import load_config
from ldm.weights import loading
from ldm.weights.conversion import convert
from ldm.weights.export import export, save
from ldm.weights.loading import load_parts
from ldm.weights.weight_files import open_tensors

ROOT = Path(__file__).parents[1]
GOLDEN = dict(np.load(Path(__file__).parent / "goldens" / "sd2.npz"))
TWIN = str(ROOT / "tests" / "sd2.yaml")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("sd2") / "twin.safetensors", *twin())


@pytest.fixture(scope="module")
def pipe(file: Path) -> LatentDiffusion:
    return ldm.load(file)


@torch.no_grad()
def test_the_unet_equals_diffusers(pipe: LatentDiffusion) -> None:
    """Heads of one width on every level (SD 1.x: of one number), linear projections."""
    given = inputs()
    found = pipe.unet(given["x"], torch.tensor([3, 500]), given["context"])
    assert relative_l2(found, torch.from_numpy(GOLDEN["unet"])) < 1e-5


@torch.no_grad()
def test_the_text_tower_equals_transformers(pipe: LatentDiffusion) -> None:
    """Exact GELU; the last of open_clip's blocks is left out, as SD 2.x does."""
    assert relative_l2(pipe.text(inputs()["tokens"]), torch.from_numpy(GOLDEN["text"])) < 1e-5


def test_four_guided_steps_that_predict_v_equal_diffusers(pipe: LatentDiffusion) -> None:
    given = inputs()
    sampling = Sampling(steps=4, sampler="ddim", guidance=7.5, height=32, width=32)
    denoise = pipe.denoiser(given["context"], given["negative"], sampling)
    found = pipe.sample_from(given["x"], denoise, sampling, lambda step: given["x"])
    assert relative_l2(found, torch.from_numpy(GOLDEN["latents"])) < 5e-5


def test_prompts_are_padded_as_open_clip_does() -> None:
    """With 0 after one end-of-text; SD 1.x repeats end-of-text."""
    from open_clip.tokenizer import SimpleTokenizer

    prompts = ["", "a chest x-ray", "lung " * 90]
    with torch.device("meta"):
        tower = TextEncoder(load_config(ModelConfig, TWIN).text)
    assert torch.equal(tower.tokenize(prompts, log_dropped=False), SimpleTokenizer()(prompts))


@pytest.mark.parametrize("name", ["sd2", "sd2_base"])
def test_the_configs_have_the_published_sizes(name: str) -> None:
    """865.91 M and 340.39 M weights, as Stability AI's code and the hub's files count them."""
    config = load_config(ModelConfig, ROOT / "configs" / f"{name}.yaml")
    counts = {"unet": 0, "vae": 0, "text": 0}
    for tensor, shape in loading.shapes(config, loading.PARTS).items():
        counts[tensor.partition(".")[0]] += math.prod(shape)
    assert counts == {"unet": 865_910_724, "vae": 83_653_863, "text": 340_387_840}
    assert config.schedule.prediction == ("v" if name == "sd2" else "eps")
    assert [config.unet.heads_of(width) for width in config.unet.channels] == [5, 10, 20, 20]


def test_a_compvis_file_of_ours_opens_and_has_their_shapes(tmp_path: Path, file: Path) -> None:
    """It keeps its config; the U-Net's projections are linear, the autoencoder's attention not."""
    convert(file, tmp_path / "own.ckpt")
    found = {name: read().shape for name, read in open_tensors(tmp_path / "own.ckpt")[0].items()}
    shapes = {
        n.rpartition(".proj_")[0][-20:]: len(s) for n, s in found.items() if ".proj_out.w" in n
    }
    assert {n: k for n, k in shapes.items() if "attn_1" in n} == {
        n: 4 for n in shapes if "attn_1" in n
    }
    assert {k for n, k in shapes.items() if "attn_1" not in n} == {2}
    assert_same(flat(load_parts(tmp_path / "own.ckpt")[1]), flat(load_parts(file)[1]))


@pytest.mark.parametrize("layout", ["compvis", "diffusers"])
def test_there_and_back_changes_no_bit(tmp_path: Path, file: Path, layout: str) -> None:
    target = tmp_path / ("x.ckpt" if layout == "compvis" else "folder")
    convert(file, target)
    given = load_config(ModelConfig, TWIN) if layout == "compvis" else None
    config, parts = load_parts(target, given)
    assert_same(flat(parts), flat(load_parts(file)[1]))
    assert config.schedule.prediction == "v"
    assert config.text.openclip
    assert config.unet.heads_of(64) == 4


def test_a_compvis_file_asks_for_its_sizes(tmp_path: Path) -> None:
    """It does not say whether it predicts eps or v; a last block and heads are left out."""
    config, parts = twin()
    export("compvis", tmp_path / "mapped.ckpt", config, parts)
    state = {name: read() for name, read in open_tensors(tmp_path / "mapped.ckpt")[0].items()}
    start = "cond_stage_model.model.transformer.resblocks."
    state |= {f"{start}23.ln_1.weight": torch.zeros(64)}
    state |= {"cond_stage_model.model.text_projection": torch.zeros(64, 64)}
    torch.save({"state_dict": state}, tmp_path / "v2-1.ckpt")
    for wrong in (None, ModelConfig()):
        with pytest.raises(ValueError, match=r"is of SD 2\.x; name its sizes"):
            load_parts(tmp_path / "v2-1.ckpt", wrong)
    assert_same(flat(load_parts(tmp_path / "v2-1.ckpt", config)[1]), flat(parts))


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("unet", {"attention_head_dim": [2, 3]}, "differ in width|does not split"),
        ("unet", {"attention_head_dim": [2]}, "cannot be used"),
        ("unet", {"attention_head_dim": [0, 0]}, "attention_head_dim is"),
        ("unet", {"in_channels": 8}, "takes 8 channels, which no SD does"),
        ("text_encoder", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
    ],
)
def test_settings_of_no_sd_are_refused(tmp_path: Path, file: Path, part, change, said) -> None:
    convert(file, tmp_path / "folder")
    path = tmp_path / "folder" / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=said):
        load_parts(tmp_path / "folder")


@pytest.mark.parametrize(("rescaled", "first"), [(False, 951), (True, 999), (None, 951)])
def test_a_schedule_that_ends_in_noise_starts_there(tmp_path: Path, file: Path, rescaled, first):
    """rescale_betas_zero_snr of a scheduler: pure noise is t = 999 (arXiv:2305.08891)."""
    convert(file, tmp_path / "folder")
    path = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    said = json.loads(path.read_text()) | {"rescale_betas_zero_snr": rescaled}
    path.write_text(json.dumps(said))
    pipe = ldm.load(tmp_path / "folder")
    assert pipe.timesteps(20)[0] == first
    assert (pipe.schedule.alpha_bar[-1] < 1e-6) == bool(rescaled)
