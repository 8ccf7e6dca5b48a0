"""Weights as other programs pack them: they open to the same numbers, or the reason is true."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import assert_same, compvis_state, flat
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.config import ModelConfig
from ldm.pictures import image_files
from ldm.weights import adapters
from ldm.weights.conversion import convert
from ldm.weights.loading import load_parts
from ldm.weights.weight_files import read

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:6ce0161689b3853acaa03779\nsize 9\n"
PAGE = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"
UNET, TEXT = "diffusion_pytorch_model", "model"


@pytest.fixture
def folder(tmp_path: Path, tiny_diffusers: Path) -> Path:
    """A diffusers folder of one's own."""
    return Path(shutil.copytree(tiny_diffusers, tmp_path / "folder"))


@pytest.fixture
def plain(tiny_diffusers: Path) -> dict[str, Tensor]:
    return flat(load_parts(tiny_diffusers)[1])


# --- what is no weights, or weights of something else ---


def zeros(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(2, 2) for name in names}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.safetensors", LFS, "is a Git LFS pointer"),
        ("m.ckpt", LFS, "is a Git LFS pointer"),
        ("m.bin", LFS, "run `git lfs pull`"),
        ("m.ckpt", PAGE, "is a web page"),
        ("m.safetensors", b"\n\n<HTML><body>login</body>", "is a web page"),
        ("m.ckpt", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        ("m.ckpt", b"", "is empty"),
        ("m.safetensors", b"\x10\0\0\0\0\0\0\0{}", "is damaged or not a weights file"),
        ("m.safetensors", b"\x02\0\0\0\0\0\0\0[]", "is damaged or not a weights file"),
    ],
)
def test_a_file_that_is_no_weights_is_named_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("content", "said"), [(LFS, "is a Git LFS pointer"), (PAGE, "a web page")])
def test_a_picture_that_is_no_picture_is_named_alike(tmp_path: Path, content, said: str) -> None:
    (tmp_path / "film.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read the image .*: it .*{said}"):
        image_files.load(tmp_path / "film.png")


@pytest.mark.parametrize("more", [-5000, -1, 7])
def test_a_download_that_broke_off_says_how_much_is_there(tmp_path: Path, more: int) -> None:
    """The header of a safetensors file says where its last tensor ends."""
    file = tmp_path / "m.safetensors"
    save_file({"vae.x": torch.zeros(4000)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:more] if more < 0 else whole + b"x" * more)
    with pytest.raises(ValueError, match=f"has {len(whole) + more:,} bytes .* {len(whole):,}"):
        read(file)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.diffusion_model.a", "conditioner.embedders.0.x"], "is SDXL, with two text towers"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight"], "is a ControlNet"),
        (["model.diffusion_model.joint_blocks.0.x"], "is Stable Diffusion 3"),
        (["double_blocks.0.img_attn.proj.weight"], "is Flux"),
        (["lora_unet_mid_block_attentions_0.lora_down.weight"], "is a LoRA, .* --lora"),
        (["unet.mid.to_q.lora_A.weight"], "is a LoRA"),
        (["emb_params"], "is a new word, .* --embedding"),
        (["<lung-xray>"], "is a new word"),
        (["something.else"], "has an unknown layout"),
    ],
)
def test_other_networks_are_refused_by_their_name(tmp_path: Path, names: list[str], said) -> None:
    save_file(zeros(*names), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("part", "said"), [("text_encoder_2", "is SDXL"), ("transformer", "transformer in the U-Net's")]
)
def test_folders_of_other_networks_are_refused_by_their_name(folder: Path, part: str, said) -> None:
    (folder / part).mkdir()
    with pytest.raises(ValueError, match=said):
        read(folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("lora", "--lora"), ("word", "--embedding"), ("projection", "--text-enc"), ("judge", "draws")],
)
def test_our_small_files_are_no_models(tmp_path: Path, kind: str, said: str) -> None:
    adapters.save(tmp_path / "small.safetensors", kind, zeros("x"), {})
    with pytest.raises(ValueError, match=rf"is a .*{said}.*name the model it belongs to"):
        read(tmp_path / "small.safetensors")


# --- the hub's cache and its names ---


@pytest.mark.parametrize(("count", "main"), [(1, False), (1, True), (2, True)])
def test_a_folder_of_the_hubs_cache_opens(folder: Path, plain, count: int, main: bool) -> None:
    """Its one snapshot, or the one that refs/main names; snapshots are links to blobs."""
    top = folder.parent / "models--a--b"
    (top / "refs").mkdir(parents=True)
    for number in range(count):
        (top / "snapshots" / f"{number:040x}").mkdir(parents=True)
    target = top / "snapshots" / f"{0:040x}"
    for path in folder.rglob("*.*"):
        blob = top / "blobs" / str(abs(hash(path)))
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        link = target / path.relative_to(folder)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(blob)
    if main:
        (top / "refs" / "main").write_text(f"{0:040x}\n")
    assert_same(flat(load_parts(top)[1]), plain)


def test_a_hub_cache_of_our_layout_opens_and_gives_parts(
    tmp_path: Path, tiny_diffusers, plain
) -> None:
    inside = tmp_path / "models--a--b" / "snapshots" / "1"
    inside.mkdir(parents=True)
    convert(tiny_diffusers, inside / "model.safetensors")
    assert_same(flat(load_parts(tmp_path / "models--a--b")[1]), plain)
    mixed = load_parts(tiny_diffusers, parts={"vae": inside, "text": inside})[1]
    assert_same(flat(mixed), plain)


def test_an_index_that_nothing_needs_is_passed_over(folder: Path, plain) -> None:
    (folder / "text_encoder" / "pytorch_model.bin.index.json").write_text(
        '{"weight_map": {"a": "b"}}'
    )
    assert_same(flat(load_parts(folder)[1]), plain)


def test_several_snapshots_ask_for_a_name(tmp_path: Path) -> None:
    for number in "12":
        (tmp_path / "snapshots" / number).mkdir(parents=True)
    with pytest.raises(ValueError, match="holds 2 snapshots; name one"):
        read(tmp_path)


def test_a_name_of_the_hub_is_not_downloaded() -> None:
    with pytest.raises(ValueError, match="nothing is downloaded"):
        read("CompVis/stable-diffusion-v1-4")


# --- files of a part ---


def rename(folder: Path, ending: str) -> None:
    """Each part's x.safetensors becomes x.ENDING.safetensors."""
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name(f"{path.stem}.{ending}.safetensors"))


def shard(folder: Path, first: str, index: str) -> None:
    """The U-Net in two files, as save_pretrained writes with a small max_shard_size."""
    whole = folder / "unet" / f"{UNET}.safetensors"
    state = load_file(whole)
    whole.unlink()
    names, places = sorted(state), {}
    for number, some in enumerate((names[:40], names[40:]), 1):
        name = first.format(f"0000{number}-of-00002")
        save_file({n: state[n] for n in some}, whole.parent / name)
        places |= dict.fromkeys(some, name)
    (whole.parent / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def also_worse(folder: Path, ending: str) -> None:
    """Beside the plain files, some of another variant that must not be taken."""
    for path in list(folder.rglob("*.safetensors")):
        path.with_name(f"{path.stem}.{ending}.safetensors").write_bytes(LFS)


PACKINGS: dict[str, Callable[[Path], None]] = {
    "fp16": lambda f: rename(f, "fp16"),
    "non_ema": lambda f: rename(f, "non_ema"),
    "plain first": lambda f: also_worse(f, "fp16"),
    "fp16 before others": lambda f: (rename(f, "fp16"), also_worse(f, "non_ema")),
    "shards": lambda f: shard(f, f"{UNET}-{{}}.safetensors", f"{UNET}.safetensors.index.json"),
    "shards of a variant": lambda f: (
        shard(f, f"{UNET}.fp16-{{}}.safetensors", f"{UNET}.safetensors.index.fp16.json"),
        [(f / p / f"{n}.safetensors").rename(f / p / f"{n}.fp16.safetensors") for p, n in OTHERS],
    ),
    "CLIP of transformers 5.6": lambda f: save_file(
        {n.removeprefix("text_model."): t for n, t in load_file(f / TOWER).items()}, f / TOWER
    ),
}
OTHERS = [("vae", UNET), ("text_encoder", TEXT)]
TOWER = "text_encoder/model.safetensors"


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_opens_to_the_same_weights(folder: Path, plain, packing: str) -> None:
    PACKINGS[packing](folder)
    for path in folder.rglob("*.fp16.non_ema.*"):
        path.unlink()
    assert_same(flat(load_parts(folder)[1]), plain)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: [p.unlink() for p in (f / "unet").glob("*.safetensors")], "unet holds no weig"),
        (
            lambda f: (
                [also_worse(f, v) for v in "ab"] and (f / "unet" / f"{UNET}.safetensors").unlink()
            ),
            "only variants: a, b; keep one",
        ),
        (
            lambda f: (PACKINGS["shards"](f), next((f / "unet").glob("*2-o*")).unlink()),
            "names .*2",
        ),
        (
            lambda f: (PACKINGS["shards"](f), next((f / "unet").glob("*.json")).write_text("{}")),
            "is no index of shards|reads|lacks",
        ),
    ],
)
def test_a_part_without_its_files_says_what_is_there(folder: Path, change, said: str) -> None:
    change(folder)
    with pytest.raises(ValueError, match=said):
        load_parts(folder)


def test_what_training_tools_keep_beside_a_model_is_left_out(
    tmp_path: Path, tiny_state, tiny_config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """And said, with its count; the flattened CLIP of merged files opens, too."""
    inner = "cond_stage_model.transformer."
    state = {n.replace(f"{inner}text_model.", inner): t for n, t in tiny_state.items()}
    more = zeros("embedding_manager.string_to_param_dict.*", "first_stage_model.loss.logvar")
    torch.save({"state_dict": state | more}, tmp_path / "m.ckpt")
    torch.save({"state_dict": tiny_state}, tmp_path / "plain.ckpt")
    found = flat(load_parts(tmp_path / "m.ckpt", tiny_config)[1])
    assert "2 tensors are no part of the model: embedding_manager" in caplog.text
    assert_same(found, flat(load_parts(tmp_path / "plain.ckpt", tiny_config)[1]))


# --- parts from elsewhere ---


@cache
def other_state() -> dict[str, Tensor]:
    return compvis_state("tiny", "other")


def compvis_part(path: Path, prefix: str, keep: str = "", **wrapped: str) -> Path:
    """One part of other weights, without its prefix or with `keep` in its place."""
    state = other_state()
    own = {keep + n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    torch.save({"state_dict": own} if wrapped else own, path)
    return path


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("vae", lambda f: compvis_part(f / "vae.ckpt", "first_stage_model.", wrapped="yes")),
        ("vae", lambda f: compvis_part(f / "vae.pt", "first_stage_model.")),
        ("vae", lambda f: compvis_part(f / "v.pt", "first_stage_model.", "first_stage_model.")),
        ("vae", lambda f: f / "other.ckpt"),
        ("vae", lambda f: f / "other"),
        ("vae", lambda f: f / "other" / "vae"),
        ("vae", lambda f: f / "other" / "vae" / f"{UNET}.safetensors"),
        ("unet", lambda f: compvis_part(f / "unet.pt", "model.diffusion_model.")),
        ("unet", lambda f: f / "other" / "unet"),
        ("text", lambda f: compvis_part(f / "t.pt", "cond_stage_model.transformer.text_model.")),
        ("text", lambda f: compvis_part(f / "t.pt", "cond_stage_model.transformer.")),
        ("text", lambda f: f / "other" / "text_encoder"),
        ("text", lambda f: f / "ours.safetensors"),
    ],
)
def test_a_part_comes_from_any_file_that_holds_it(
    tmp_path: Path, tiny_diffusers: Path, tiny_config: ModelConfig, part: str, make
) -> None:
    """The others stay; alone, wrapped, with the prefix of a whole model, in a folder."""
    torch.save({"state_dict": other_state()}, tmp_path / "other.ckpt")
    convert(tmp_path / "other.ckpt", tmp_path / "other", config=tiny_config)
    convert(tmp_path / "other.ckpt", tmp_path / "ours.safetensors", config=tiny_config)
    mixed = load_parts(tiny_diffusers, parts={part: make(tmp_path)})[1]
    plain, other = (
        load_parts(tiny_diffusers)[1],
        load_parts(tmp_path / "other.ckpt", tiny_config)[1],
    )
    assert_same(flat(mixed), flat({**plain, part: other[part]}))


def test_a_folder_may_lack_the_weights_of_a_part_from_elsewhere(folder: Path, plain) -> None:
    """Only its config.json stays; convert writes a whole model."""
    vae = folder.parent / "vae.safetensors"
    (folder / "vae" / f"{UNET}.safetensors").rename(vae)
    with pytest.raises(ValueError, match="vae holds no weights"):
        load_parts(folder)
    convert(folder, folder.parent / "whole.safetensors", others={"vae": vae})
    assert_same(flat(load_parts(folder.parent / "whole.safetensors")[1]), plain)


@pytest.mark.parametrize("where", ["nowhere.ckpt", "author/name", "unet.pt"])
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, tiny_diffusers, where: str) -> None:
    compvis_part(tmp_path / "unet.pt", "model.diffusion_model.")
    path = where if "/" in where else tmp_path / where
    with pytest.raises(ValueError, match=r"does not exist|holds no vae of these sizes: it has"):
        load_parts(tiny_diffusers, parts={"vae": path})
