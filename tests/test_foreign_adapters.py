"""New words and LoRAs of other programs: each layout gives the same change, or says why not."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_same
from safetensors.torch import load_file, save_file
from torch import Tensor

import ldm
from ldm import lora
from ldm.clip import tokenizer
from ldm.pipeline import LatentDiffusion
from ldm.weights import adapters
from ldm.weights.conversion import main

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0."
LAYERS = {  # name in diffusers: name here
    f"{BLOCK}attn1.to_q": "unet.down.0.attn.0.blocks.0.self_attn.q.weight",
    f"{BLOCK}attn2.to_out.0": "unet.down.0.attn.0.blocks.0.cross_attn.out.weight",
    "mid_block.attentions.0.proj_in": "unet.mid.attn.0.proj_in.weight",
    "down_blocks.0.resnets.0.conv1": "unet.down.0.res.0.conv1.weight",
}
KEY = "text_model.encoder.layers.1.self_attn.k_proj"  # the second third of a stacked matrix
STACKED = "text.transformer.resblocks.1.attn.in_proj_weight"


@pytest.fixture
def pipe(tiny_diffusers: Path) -> LatentDiffusion:
    return ldm.load(tiny_diffusers)


def weights(pipe: LatentDiffusion) -> dict[str, Tensor]:
    parts = {"unet": pipe.unet, "text": pipe.text}
    return {f"{p}.{n}": t.clone() for p, m in parts.items() for n, t in m.state_dict().items()}


def matrices(pipe: LatentDiffusion) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer in diffusers: A and B of rank 2}"""
    g, state, found = torch.Generator().manual_seed(0), weights(pipe), {}
    for layer, ours in LAYERS.items():
        out, *into = state[ours].shape
        up = [out, 2] + [1] * (len(into) - 1)
        found[layer] = torch.randn(2, *into, generator=g), torch.randn(up, generator=g)
    width = state[STACKED].shape[1]
    found[KEY] = torch.randn(2, width, generator=g), torch.randn(width, 2, generator=g)
    return found


def expected(pipe: LatentDiffusion, scale: float) -> dict[str, Tensor]:
    """W + scale B A, each product by torch's own convolution where A is a kernel."""
    state = weights(pipe)
    for layer, (down, up) in matrices(pipe).items():
        change = torch.einsum("or,r...->o...", up.flatten(1).double(), down.double())
        if layer == KEY:
            state[STACKED][len(up) : 2 * len(up)] += scale * change
        else:
            ours = LAYERS[layer]
            state[ours] = (state[ours].double() + scale * change).float()
    return state


def kohya(folder: Path, pairs: Any, alpha: float) -> Path:
    content = {}
    for layer, (down, up) in pairs.items():
        name = ("lora_te_" if layer == KEY else "lora_unet_") + layer.replace(".", "_")
        content |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        content[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(content, folder / "k.safetensors")
    return folder / "k.safetensors"


def diffusers(folder: Path, pairs: Any, alpha: float, ends=("lora_A", "lora_B")) -> Path:
    content, said = {}, {f"{part}.lora_alpha": alpha for part in ("unet", "text_encoder")}
    for layer, (down, up) in pairs.items():
        name = ("text_encoder." if layer == KEY else "unet.") + layer
        content |= {f"{name}.{ends[0]}.weight": down, f"{name}.{ends[1]}.weight": up}
    facts = {"lora_adapter_metadata": json.dumps(said)} if alpha != 2 else None
    save_file(content, folder / "d.safetensors", facts)
    return folder / "d.safetensors"


def old_diffusers(folder: Path, pairs: Any, alpha: float) -> Path:
    return diffusers(folder, pairs, alpha, ("lora.down", "lora.up"))


def peft(folder: Path, pairs: Any, alpha: float) -> Path:
    content = {}
    for layer, (down, up) in pairs.items():
        name = f"base_model.model.{layer.removeprefix('text_model.')}"
        content |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(content, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": alpha}))
    return folder


@pytest.mark.parametrize("alpha", [2.0, 0.5])
@pytest.mark.parametrize("write", [kohya, diffusers, old_diffusers, peft])
def test_a_lora_of_any_program_is_added_whole(tmp_path: Path, pipe, write, alpha: float) -> None:
    """alpha / r B A, on attention, convolutions and one of the text tower's stacked matrices.

    The same files gave U-Net and text tower outputs equal to those of diffusers 0.42 and peft 0.21
    to 2e-6 of their norm (benchmarks/interop.py).
    """
    path, want = write(tmp_path, matrices(pipe), alpha), expected(pipe, alpha / 2)
    before = pipe.weights_hash
    adapters.apply(pipe, loras=[str(path)])
    found = weights(pipe)
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-6, atol=1e-6, msg=name)
    assert pipe.weights_hash != before


def test_the_hash_of_the_weights_knows_a_loras_alpha(tmp_path: Path, tiny_diffusers: Path) -> None:
    """peft keeps it in adapter_config.json, beside the same tensors."""
    hashes = set()
    for alpha in (2.0, 4.0):
        pipe = ldm.load(tiny_diffusers)
        adapters.apply(pipe, loras=[str(peft(tmp_path, matrices(pipe), alpha))])
        hashes.add(pipe.weights_hash)
    assert len(hashes) == 2


def test_a_share_of_a_lora_and_two_loras_add_up(tmp_path: Path, pipe) -> None:
    """FILE:0.25 twice is FILE:0.5; their hash says the share."""
    path, want = kohya(tmp_path, matrices(pipe), 2.0), expected(pipe, 0.5)
    adapters.apply(pipe, loras=[f"{path}:0.25", f"{path}:0.25"])
    for name, tensor in weights(pipe).items():
        torch.testing.assert_close(tensor, want[name], rtol=1e-5, atol=1e-5, msg=name)
    assert pipe.weights_hash.endswith("x0.25")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"lora_unet_x.hada_w1_a": (2, 2)}, "it is a LoHa"),
        ({"lora_unet_x.lokr_w1": (2, 2)}, "it is a LoKr"),
        ({"unet.x.lora_A.weight": (2, 2), "unet.x.dora_scale": (2,)}, "it is a DoRA"),
        ({"lora_unet_x.lora_down.weight": (2, 2)}, "no layer unet/x with a down and an up"),
        ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (2, 8)}, "with a down and an up"),
        ({"something": (2, 2)}, "something is no matrix of a LoRA"),
        (
            {
                f"unet.{BLOCK}attn1.to_q.lora_A.weight": (2, 8),
                f"unet.{BLOCK}attn1.to_q.lora_B.weight": (8, 3),
            },
            "of one rank",
        ),
        ({f"unet.{BLOCK}attn1.to_q.lora_{x}.weight": (4,) for x in "AB"}, "of one rank"),
        ({}, "it holds no matrix"),
        ({f"unet.{BLOCK}attn1.to_q.lora_{x}.weight": (0, 0) for x in "AB"}, "of one rank"),
        (
            {f"unet.{BLOCK}attn1.to_q.lora_{x}.weight": (3, 3) for x in "AB"},
            r"self_attn\.q\.weight is \[\d+, \d+\] here, \[3, 3\] there",
        ),
    ],
)
def test_what_is_no_lora_of_this_model_changes_nothing(tmp_path: Path, pipe, content, said) -> None:
    save_file({n: torch.zeros(shape) for n, shape in content.items()}, tmp_path / "x.safetensors")
    before = weights(pipe)
    with pytest.raises(ValueError, match=said):
        adapters.apply(pipe, loras=[str(tmp_path / "x.safetensors")])
    assert_same(weights(pipe), before)


@pytest.mark.parametrize("shape", [(2,), (2, 2, 2)])
def test_a_lora_of_ours_with_matrices_that_are_none_is_refused(tmp_path: Path, pipe, shape) -> None:
    layer = next(n for n, m in pipe.unet.named_modules() if isinstance(m, torch.nn.Linear))
    tensors = {f"{layer}.{which}": torch.zeros(shape) for which in ("down", "up")}
    adapters.save(tmp_path / "x.safetensors", "lora", tensors, {"alpha": 1, "rank": 1})
    with pytest.raises(ValueError, match="is of another model"):
        adapters.apply(pipe, loras=[str(tmp_path / "x.safetensors")])


@pytest.mark.parametrize(
    "settings", ['{"alpha_pattern": {"x": 1}}', '{"use_rslora": true}', "[", '{"lora_alpha": [1]}']
)
def test_settings_of_peft_that_are_not_known_are_refused(tmp_path: Path, pipe, settings) -> None:
    folder = peft(tmp_path, matrices(pipe), 2.0)
    (folder / "adapter_config.json").write_text(settings)
    with pytest.raises(ValueError, match=r"is not known here|cannot be read|no number"):
        adapters.apply(pipe, loras=[str(folder)])


@pytest.mark.parametrize("program", ["kohya", "diffusers", "peft"])
def test_a_lora_of_ours_is_written_for_other_programs(
    tmp_path: Path, tiny_diffusers: Path, tiny_yaml: Path, program: str
) -> None:
    """Read back through the readers of this file, which were compared with those programs."""
    pipe, other = (ldm.load(tiny_diffusers) for _ in range(2))
    unet = copy.deepcopy(pipe.unet)
    lora.inject(unet, rank=2, alpha=6)
    tensors = {n: torch.randn(t.shape) for n, t in adapters.lora_tensors(unet).items()}
    adapters.save(tmp_path / "own.safetensors", "lora", tensors, {"alpha": 6, "rank": 2})
    target = tmp_path / ("folder" if program == "peft" else "x.safetensors")
    order = ["lora", str(tmp_path / "own.safetensors"), str(target), "--to", program]
    assert main([*order, "--config", str(tiny_yaml)]) == 0
    adapters.apply(pipe, loras=[str(tmp_path / "own.safetensors")])
    adapters.apply(other, loras=[str(target)])
    found, want = weights(other), weights(pipe)
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-6, atol=1e-6, msg=name)


def test_a_lora_is_merged_into_converted_weights(tmp_path: Path, tiny_diffusers, pipe) -> None:
    """The file draws as the model with --lora does, in its own precision."""
    path = kohya(tmp_path, matrices(pipe), 2.0)
    target = tmp_path / "merged.safetensors"
    order = ["convert", str(tiny_diffusers), str(target), "--lora", f"{path}:0.5"]
    assert main(order) == 0
    merged, want = weights(ldm.load(target)), expected(pipe, 0.5)
    for name in want:
        torch.testing.assert_close(merged[name], want[name], rtol=1e-6, atol=1e-6, msg=name)
    assert (
        main([*order[:2], str(tmp_path / "half.safetensors"), *order[3:], "--dtype", "float16"])
        == 0
    )
    half = load_file(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}


# --- new words ---


def vectors(pipe: LatentDiffusion, count: int = 2) -> Tensor:
    return torch.arange(count * pipe.config.text.width).reshape(count, -1) / 100


WORDS = {  # file: content of vectors, and the word that it teaches
    "lung-x.pt": (lambda v: {"string_to_token": {"*": 265}, "string_to_param": {"*": v}}, "lung-x"),
    "other.pt": (lambda v: {"string_to_param": {"*": v}, "name": "inner", "step": 500}, "other"),
    "fork.pt": (lambda v: {"string_to_param": {"<a>": v, "<b>": v[:1]}}, "<b>"),
    "emb.safetensors": (lambda v: {"emb_params": v}, "emb"),
    "half.safetensors": (lambda v: {"emb_params": v.half()}, "half"),
    "clip.safetensors": (lambda v: {"clip_l": v}, "clip"),
    "learned_embeds.safetensors": (lambda v: {"<lung>": v}, "<lung>"),
    "learned_embeds.bin": (lambda v: {"<lung>": v[0]}, "<lung>"),
    "two.bin": (lambda v: {"<lung>": v[0], "<heart>": v[1]}, "<heart>"),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_of_any_program_is_learned(tmp_path: Path, pipe, name: str) -> None:
    make, word = WORDS[name]
    content = make(vectors(pipe))
    (save_file if name.endswith("safetensors") else torch.save)(content, tmp_path / name)
    adapters.apply(pipe, words=[str(tmp_path / name)])
    assert word in pipe.text.words
    state = pipe.encode_text([f"a photo of {word}"])
    count = len(pipe.text.words[word])
    place = 1 + len(tokenizer().encode("a photo of"))
    tokens = pipe.text.tokenize([f"a photo of {word.upper()}"])[0, place : place + count]
    embedded = pipe.text._embed(tokens[None])[0]
    torch.testing.assert_close(embedded, pipe.text.words[word], rtol=1e-3, atol=1e-3)
    assert state.isfinite().all()


def test_a_word_in_brackets_may_stand_beside_letters(pipe: LatentDiffusion) -> None:
    pipe.text.words["<lung>"] = vectors(pipe)
    tokens = pipe.text.tokenize(["two <lung>s"])[0].tolist()
    assert tokens[2:4] == [pipe.text.config.vocab_size, pipe.text.config.vocab_size + 1]


@pytest.mark.parametrize("prompt", ["a lungs", "a plung", "a lung_2", "along"])
def test_a_word_is_no_part_of_a_longer_one(pipe, prompt: str) -> None:
    plain = pipe.text.tokenize([prompt])
    pipe.text.words["lung"] = vectors(pipe)
    assert torch.equal(pipe.text.tokenize([prompt]), plain)
    assert not torch.equal(pipe.text.tokenize(["a Lung, seen"]), plain)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sdxl.safetensors", {"clip_l": torch.ones(1, 4), "clip_g": torch.ones(1, 4)}, "SDXL"),
        ("lora.safetensors", {"a.weight": torch.ones(2, 2, 2)}, "it holds no word but a.weight"),
        ("empty.pt", {"string_to_param": {}}, "it holds no word but nothing"),
        ("list.pt", [torch.ones(2)], "it holds no table of tensors"),
        ("odd.pt", {"string_to_param": 3}, "it holds no word"),
        ("wide.safetensors", {"emb_params": torch.ones(1, 5)}, "of width 5, this text tower of"),
        ("void.safetensors", {"emb_params": torch.ones(1, 0)}, "it holds no word but emb_params"),
        ("number.pt", {3: torch.ones(1, 4)}, "it holds no word but 3"),
        (
            "nan.pt",
            {"emb_params": torch.full((1, 4), math.nan)},
            "the vectors of 'nan' are not fin",
        ),
    ],
)
def test_what_is_no_word_is_refused(tmp_path: Path, pipe, name: str, content, said: str) -> None:
    (save_file if name.endswith("safetensors") else torch.save)(content, tmp_path / name)
    with pytest.raises(ValueError, match=said) as refused:
        adapters.apply(pipe, words=[str(tmp_path / name)])
    assert "\n" not in str(refused.value)
    assert not pipe.text.words


def test_a_words_pickle_runs_nothing(tmp_path: Path, pipe) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for name, content in (("w.pt", {"string_to_param": {"*": Evil()}}), ("w.bin", Evil())):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=r"cannot open .*w\.\w+ as a word: it names"):
            adapters.apply(pipe, words=[str(tmp_path / name)])
        with pytest.raises(ValueError, match="it names"):
            adapters.apply(pipe, loras=[str(tmp_path / name)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("program", "name"), [("diffusers", "<lung>"), ("a1111", "lung-x")])
def test_a_word_of_ours_is_written_for_other_programs(tmp_path: Path, pipe, program, name) -> None:
    adapters.save(
        tmp_path / "own.safetensors", "word", {"vectors": vectors(pipe)}, {"word": "<lung>"}
    )
    target = tmp_path / "lung-x.safetensors"
    assert main(["word", str(tmp_path / "own.safetensors"), str(target), "--to", program]) == 0
    ((word, found),) = adapters.read_words(target).items()
    assert word == name
    assert torch.equal(found, vectors(pipe))


@pytest.mark.parametrize("kind", ["words", "loras"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "nowhere.pt"])
def test_a_small_file_that_broke_off_is_one_line(
    tmp_path: Path, pipe, kind: str, name: str
) -> None:
    content = {"string_to_param": {"*": vectors(pipe)}} if name == "x.pt" else {"x": vectors(pipe)}
    if name != "nowhere.pt":
        (save_file if name.endswith("safetensors") else torch.save)(content, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"cannot open .*{name} as a (word|lora): ") as refused:
        adapters.apply(pipe, **{kind: [str(tmp_path / name)]})
    assert "\n" not in str(refused.value)
