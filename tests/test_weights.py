"""Weights: names and shapes of every layout, what is read from them, and what is refused."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import (
    OLD_NAMES,
    POSITION_IDS,
    assert_same,
    compvis_state,
    flat,
    reference_names,
    state_of,
    write_diffusers,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.config import ConfigError, ModelConfig
from ldm.weights import loading, tensor_names
from ldm.weights.conversion import convert
from ldm.weights.diffusers_configs import read_configs
from ldm.weights.export import save
from ldm.weights.loading import load_parts, weights_hash
from ldm.weights.weight_files import WeightsError, read

IN_PROJ = "transformer.resblocks.0.attn.in_proj_weight"


def config_of(size: str, tiny_config: ModelConfig) -> ModelConfig:
    return tiny_config if size == "tiny" else ModelConfig()


# --- names and shapes ---


@pytest.mark.parametrize(("size", "ours", "theirs"), [("tiny", 438, 446), ("sd_v1_4", 1082, 1130)])
def test_every_tensor_has_its_place(
    tiny_config: ModelConfig, size: str, ours: int, theirs: int
) -> None:
    """The tables name each tensor of the reference once, in both layouts, and in the same pairs."""
    config, want = config_of(size, tiny_config), reference_names(size)
    compvis, diffusers = (
        tensor_names.names(config, "compvis"),
        tensor_names.names(config, "diffusers"),
    )
    pairs = [pair for name in compvis for pair in zip(compvis[name], diffusers[name], strict=True)]
    assert (len(compvis), len(pairs)) == (ours, theirs)
    known_extra = want["compvis_to_diffusers"].pop(POSITION_IDS)
    assert known_extra == "text_encoder/text_model.embeddings.position_ids"
    assert dict(pairs) == want["compvis_to_diffusers"]
    for name, sources in want["open_clip"].items():
        assert list(compvis[f"text.{name}"]) == sources


@pytest.mark.parametrize("size", ["tiny", "sd_v1_4"])
def test_our_networks_have_the_shapes_of_the_reference(tiny_config: ModelConfig, size: str) -> None:
    """On the meta device, every tensor of ours has its sources' shape, or their rows stacked."""
    config, want = config_of(size, tiny_config), reference_names(size)
    shapes = loading.shapes(config, loading.PARTS)
    names = tensor_names.names(config, "compvis")
    assert shapes.keys() == names.keys()
    for name, sources in names.items():
        height, *rest = want["compvis"][sources[0]]
        assert shapes[name] == (height * len(sources), *rest), name


@pytest.mark.parametrize("size", ["tiny", "sd_v1_4"])
def test_averages_are_named_after_the_live_weights(tiny_config: ModelConfig, size: str) -> None:
    """model_ema.* drops the dots of the live names, so it is built from them."""
    want = reference_names(size)["ema_to_live"]
    assert {tensor_names.ema_name(live): live for live in want.values()} == want


# --- reading ---


def test_ckpt_tensors_arrive_under_our_names(
    tiny_ckpt: Path, tiny_config: ModelConfig, tiny_state: dict[str, Tensor]
) -> None:
    """Values are those of the file; q, k and v lie below each other in the text tower."""
    config, parts = load_parts(tiny_ckpt, tiny_config)
    assert config == tiny_config
    conv_in = tiny_state["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(parts["unet"]["conv_in.weight"], conv_in)
    layer = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn."
    stacked = torch.cat([tiny_state[f"{layer}{x}_proj.weight"] for x in "qkv"])
    assert torch.equal(parts["text"][IN_PROJ], stacked)


@pytest.mark.parametrize(
    "form", ["safetensors", "bare", "legacy", "no_extras", "diffusers", "bin", "old_names", "ours"]
)
def test_every_layout_gives_the_same_weights(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig, tiny_state: dict, form: str
) -> None:
    """However the weights are kept, what is loaded is equal bit for bit, and so is its hash."""
    path, config = tmp_path / "model", tiny_config
    if form == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(tiny_state, path)
    elif form == "bare":
        torch.save(tiny_state, path)
    elif form == "legacy":
        torch.save({"state_dict": tiny_state}, path, _use_new_zipfile_serialization=False)
    elif form == "no_extras":
        compvis = ("model.diff", "first_stage", "cond_stage")
        state = {k: v for k, v in tiny_state.items() if k.startswith(compvis)}
        del state[POSITION_IDS]
        torch.save({"state_dict": state}, path)
    elif form == "ours":
        save(path, *load_parts(tiny_ckpt, tiny_config))
        config = None
    else:
        suffix = ".bin" if form == "bin" else ".safetensors"
        write_diffusers(path, "tiny", tiny_state, suffix)
        if form == "old_names":
            rename_old(path / "vae" / "diffusion_pytorch_model.safetensors")
        config = None
    expected = load_parts(tiny_ckpt, tiny_config)[1]
    found_config, found = load_parts(path, config)
    assert found_config == tiny_config
    assert_same(flat(found), flat(expected))
    assert weights_hash(found) == weights_hash(expected)


def rename_old(file: Path) -> None:
    state = load_file(file)
    for name in [name for name in state if ".attentions." in name]:
        new = name
        for now, before in OLD_NAMES.items():
            new = new.replace(f".{now}.", f".{before}.")
        state[new] = state.pop(name).clone()
    assert any("proj_attn" in name for name in state)
    file.unlink()  # it may be mapped: never rewrite in place
    save_file(state, file)


def test_trap_8_attention_is_convolution_here_and_linear_there(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """The VAE's attention is [C, C, 1, 1] in CompVis files and ours, [C, C] in diffusers folders.

    proj_in and proj_out of the U-Net are 1 x 1 convolutions in both.
    """
    ours = load_parts(tiny_ckpt, tiny_config)[1]
    assert ours["vae"]["encoder.mid.attn.0.q.weight"].shape == (64, 64, 1, 1)
    convert(tiny_ckpt, tmp_path / "folder", config=tiny_config)
    vae = load_file(tmp_path / "folder/vae/diffusion_pytorch_model.safetensors")
    assert vae["encoder.mid_block.attentions.0.to_q.weight"].shape == (64, 64)
    unet = load_file(tmp_path / "folder/unet/diffusion_pytorch_model.safetensors")
    assert unet["mid_block.attentions.0.proj_in.weight"].shape == (64, 64, 1, 1)
    assert_same(flat(load_parts(tmp_path / "folder")[1]), flat(ours))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast_on_loading_and_kept_on_converting(
    tmp_path: Path, tiny_config: ModelConfig, tiny_state: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """A float16 file loads as float32 with the same values, and converts without changing dtype."""
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tiny_state.items()}
    for name in tiny_state:
        if name.startswith(("betas", "alphas", "sqrt", "log", "posterior")):
            half[name] = tiny_state[name]  # not weights: written anew, in float32
    torch.save({"state_dict": half}, tmp_path / "half.ckpt")
    tensors = flat(load_parts(tmp_path / "half.ckpt", tiny_config)[1])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    expected = half["model.diffusion_model.out.2.weight"].float()
    assert torch.equal(tensors["unet.conv_out.weight"], expected)
    convert(tmp_path / "half.ckpt", tmp_path / "half.safetensors", config=tiny_config)
    convert(tmp_path / "half.safetensors", tmp_path / "back.ckpt")
    assert_same(state_of(tmp_path / "back.ckpt"), half)


def test_averaged_weights_are_taken_on_request(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig, tiny_state: dict[str, Tensor]
) -> None:
    """ema=True takes model_ema.* for the U-Net; where there is none, that is an error."""
    to_live = reference_names("tiny")["ema_to_live"]
    other = compvis_state("tiny", salt="averaged")
    state = tiny_state | {name: other[live] for name, live in to_live.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    torch.save({"state_dict": state}, tmp_path / "full.ckpt")
    torch.save({"state_dict": other}, tmp_path / "other.ckpt")
    live = load_parts(tmp_path / "full.ckpt", tiny_config)[1]
    averaged = load_parts(tmp_path / "full.ckpt", tiny_config, ema=True)[1]
    want_live, want_averaged = (
        load_parts(path, tiny_config)[1] for path in (tiny_ckpt, tmp_path / "other.ckpt")
    )
    assert_same(flat(live), flat(want_live))
    assert_same(flat(averaged), flat({**want_live, "unet": want_averaged["unet"]}))
    with pytest.raises(WeightsError, match="holds no averaged weights"):
        load_parts(tiny_ckpt, tiny_config, ema=True)


def test_a_file_of_ours_may_hold_one_part(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """A VAE alone can be saved, hashed and opened, but not written in another layout."""
    vae = {"vae": load_parts(tiny_ckpt, tiny_config)[1]["vae"]}
    path = save(tmp_path / "vae", tiny_config, vae)
    assert path == tmp_path / "vae" / "model.safetensors"
    config, parts = load_parts(path)
    assert config == tiny_config
    assert_same(flat(parts), flat(vae))
    assert read(path).layout == "ours"
    with pytest.raises(WeightsError, match=r"missing there: text\."):
        convert(path, tmp_path / "vae.ckpt")


def test_hash_sees_every_bit(tiny_ckpt: Path, tiny_config: ModelConfig) -> None:
    """The hash changes with one bit of one tensor, and with a tensor's name."""
    parts = load_parts(tiny_ckpt, tiny_config)[1]
    digest = weights_hash(parts)
    assert len(digest) == 16
    vae = dict(parts["vae"])
    changed = vae["quant.bias"].clone()
    changed[0] = torch.nextafter(changed[0], torch.tensor(1.0))
    assert weights_hash({**parts, "vae": vae | {"quant.bias": changed}}) != digest
    vae["quant.gain"] = vae.pop("quant.bias")
    assert weights_hash({**parts, "vae": vae}) != digest


# --- strictness ---


QUANT = "first_stage_model.quant_conv."


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"{QUANT}bias", None, f"lacks {QUANT}bias"),
        ("lora.up", torch.ones(2), "holds lora.up, which the model has no"),
        (f"{QUANT}bias", torch.ones(7), rf"{QUANT}bias in .* is torch.float32 \[7\], expected"),
        (f"{QUANT}bias", torch.ones(8).int(), f"{QUANT}bias in .* is torch.int32"),
        (
            "model.diffusion_model.input_blocks.0.0.weight",
            torch.ones(64),
            "expected floating point",
        ),
        (f"{QUANT}weight", torch.ones(64), f"{QUANT}weight in .* expected floating point"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, tiny_config: ModelConfig, tiny_state: dict, name: str, tensor, message: str
) -> None:
    """A missing, unknown, misshapen or integer tensor is refused by name."""
    state = {k: t for k, t in (tiny_state | {name: tensor}).items() if t is not None}
    torch.save({"state_dict": state}, tmp_path / "bad.ckpt")
    with pytest.raises(WeightsError, match=message):
        load_parts(tmp_path / "bad.ckpt", tiny_config)


def test_other_sizes_ask_for_a_config(tiny_ckpt: Path) -> None:
    """Without a config a CompVis file is SD v1.4, and a smaller model is told what to do."""
    with pytest.raises(WeightsError, match="name the right config"):
        load_parts(tiny_ckpt)


def test_folders_of_another_network_are_refused(tmp_path: Path, tiny_diffusers: Path) -> None:
    """A setting that changes the network, like ReLU in the text tower, is not passed over."""
    folder = shutil.copytree(tiny_diffusers, tmp_path / "folder")
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act = 'relu'"):
        load_parts(folder)


ABSURD = [0, -1, 10**7, 10**400, 1e300, float("inf"), "x", [], [0], [10**400] * 2, [1] * 10**5]


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_no_setting_of_a_folder_is_without_bounds(
    tmp_path: Path, tiny_diffusers: Path, part: str
) -> None:
    """Any setting with any absurd value: the model of before, or an error about the config."""
    folder = shutil.copytree(tiny_diffusers, tmp_path / "folder")
    file = folder / part / "config.json"
    settings, config = json.loads(file.read_text()), read(folder).config
    for changed in [{name: value} for name in settings for value in ABSURD]:
        file.write_text(json.dumps(settings | changed))
        with suppress(ConfigError):
            assert read_configs(folder) == config, changed
    file.write_text("[" * 10**5)
    with pytest.raises(ConfigError, match="is not JSON: it nests too deep"):
        read_configs(folder)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="it is no regular file"):
        read_configs(folder)
