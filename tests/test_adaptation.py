"""Adapting a finished model: what is trained, what stays, and what the small files do."""

import copy
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from conftest import adaptation, fit
from safetensors.torch import load_file
from torch import nn

import ldm
import train as train_script
from ldm import lora
from ldm.attention import Attention
from ldm.clip import TextEncoder
from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.datasets import Batch, Phantoms
from ldm.pipeline import LatentDiffusion
from ldm.rng import generator
from ldm.training.methods import model_parts
from ldm.training.methods.adaptation import Instances, Kind, pick
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run, read_log
from ldm.weights import adapters, loading

ROOT = Path(__file__).parents[1]


def test_a_lora_is_its_formula() -> None:
    """W x + (alpha / r) B A x (arXiv:2106.09685, eq. 3): B starts at zero, W is frozen."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"a": Attention(8, 2), "rest": nn.Linear(8, 8)})
    x = torch.randn(3, 5, 8)
    plain, base = network["a"].q(x), copy.deepcopy(network)
    learned = lora.inject(network, rank=2, alpha=6.0)
    layer = network["a"].q
    assert torch.equal(layer(x), plain), "B starts at zero: nothing changes at first"
    assert layer.down.weight.abs().min() > 0, "A does not start at zero, or nothing would learn"
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    assert trained == {id(p) for p in learned.parameters()}, "W is frozen, A and B are trained"
    nn.init.normal_(layer.up.weight)
    change = 6.0 / 2 * x @ layer.down.weight.T @ layer.up.weight.T
    assert torch.allclose(layer(x), plain + change, atol=1e-5), "the scale is alpha / r"
    tensors = {n: t.detach() for n, t in adapters.lora_tensors(network).items()}
    adapters.merge_lora(base, tensors, scale=6.0 / 2)
    assert torch.allclose(base["a"].q(x), layer(x), atol=1e-5), "merged once, W + (alpha / r) B A"
    adapters.merge_lora(base, tensors, scale=-6.0 / 2)
    assert torch.allclose(base["a"].q(x), plain, atol=1e-5), "merging with -scale undoes it"


@pytest.mark.parametrize(("rate", "learned"), [(0.0, [*"abcd"]), (1.0, [""] * 4)])
def test_instances_and_prior_have_captions_of_their_own(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch, rate: float, learned: list[str]
) -> None:
    """drop_caption empties those of instances; the prior is learned with its class's prompt."""
    monkeypatch.setattr(LatentDiffusion, "draw", lambda *_: [torch.zeros(1, 32, 32)])
    options = {"prior_weight": 1.0, "prior_images": 1, "prior_prompt": "prior"}
    path = adaptation(tmp_path, start, "finetune", {**options, "drop_caption": rate})
    method, seen = build_method(load_run(path)), []
    encode = method.encode_captions
    monkeypatch.setattr(method, "encode_captions", lambda c: seen.append([*c]) or encode(c))
    captions = [*"abcd", *["prior"] * 4]
    method.loss(Batch(torch.zeros(8, 8, 8, 8), captions, captions), generator(0, "x"))
    assert seen[0] == learned, "drop_caption of the instances"
    assert seen[1:] == [["prior"] * 4], "the prior's caption is its own"


def test_only_the_new_word_is_trained(tmp_path: Path, start: Path) -> None:
    """After textual inversion every weight of the model is bit for bit what it was."""
    run = load_run(adaptation(tmp_path, start, "textual_inversion", {"vectors": 2}))
    method = build_method(run)
    before = copy.deepcopy([m.state_dict() for m in (method.unet, method.pipe.text)])
    vectors = method.module.vectors.detach().clone()
    path = Trainer(run, method).fit()
    for module, old in zip((method.unet, method.pipe.text), before, strict=True):
        assert module.state_dict().keys() == old.keys()
        assert all(torch.equal(now, old[name]) for name, now in module.state_dict().items())
    assert not torch.equal(method.module.vectors, vectors)
    assert path.stat().st_size < 4096
    assert torch.equal(load_file(path)["vectors"], method.module.vectors)


def test_the_distance_from_the_first_word_is_reported(tmp_path: Path, start: Path) -> None:
    """It is the Euclidean distance of the vectors from the concept's own, in log and summary."""
    run = load_run(adaptation(tmp_path, start, "textual_inversion", {"concept": "lung"}))
    method = build_method(run)
    table = method.pipe.text.token_embedding.weight
    (token,) = method.pipe.text.tokenize(["lung"])[0, 1:2]
    assert torch.equal(method.module.vectors[0], table[token])
    Trainer(run, method).fit()
    far = (method.module.vectors[0] - table[token]).norm().item()
    assert far > 0
    assert f"{far:.3g} from 'lung'" in method.summary()
    assert read_log(tmp_path / "run" / "log.jsonl")[0]["distance"] == 0


@pytest.mark.parametrize(
    ("method", "options", "flags", "prompt"),
    [
        ("finetune", {}, "--model {run}", "a photo of a lung xray X"),
        ("finetune", {"train": "lora"}, "--model {start} --lora {run}", "a photo of a lung xray X"),
        ("finetune", {"kinds": []}, "--model {run}", "a photo of a lung xray"),
        (
            "textual_inversion",
            {"template": "style", "word": "<y>"},
            "--model {start} --embedding {run}",
            "a photo in the style of <y> X",
        ),
    ],
)
def test_what_was_learned_is_drawn_and_told_how_to_draw(
    tmp_path: Path, start: Path, method: str, options: dict, flags: str, prompt: str
) -> None:
    """The summary names the model, the small file and a prompt of the kinds; previews show all."""
    learned = build_method(load_run(adaptation(tmp_path, start, method, options)))
    flags = flags.format(run=tmp_path / "run", start=start)
    assert learned.summary().endswith(f'; {flags} --prompt "{prompt}"')
    assert learned.shown == list(dict.fromkeys([prompt.removesuffix(" X"), prompt]))
    asked = []
    learned.pipe.draw = lambda prompts, *_: asked.extend(prompts) or torch.zeros(4, 1, 32, 32)
    learned.preview()
    assert asked == [p for p in learned.shown for _ in range(4)]


def test_a_word_works_in_the_middle_of_a_prompt(start: Path) -> None:
    """A new word with the vectors of old ones gives the text of the old ones, to the last bit."""
    text = ldm.load(start).text
    ids = text.tokenize(["pleural effusion"])[0, 1:]
    ids = ids[: ids.tolist().index(49407)]
    text.words["<fluid>"] = text.token_embedding.weight[ids].detach()
    one, other = (
        text(text.tokenize([f"a photo of a lung with {word} on the left"]))
        for word in ("<fluid>", "pleural effusion")
    )
    assert torch.equal(one, other)
    assert torch.equal(text.tokenize(["a lung"]), TextEncoder.tokenize(text, ["a lung"]))


def test_the_gradient_of_a_word_has_the_same_bits_each_time(start: Path) -> None:
    """Many places add to the one vector of a word, always in the same order; by indexing, threads
    would add in any, and two trainings with one seed would differ.
    """
    text = ldm.load(start).text
    vectors = torch.randn(1, text.config.width, generator=torch.Generator().manual_seed(0))
    text.words["<fluid>"] = vectors.requires_grad_()
    tokens = torch.full((256, 77), text.config.vocab_size)  # the word's own id
    weights = torch.randn(256, 77, text.config.width, generator=torch.Generator().manual_seed(1))

    def gradient() -> torch.Tensor:
        return torch.autograd.grad((text._embed(tokens) * weights).sum(), vectors)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(20))


def test_a_word_that_does_not_fit_is_named(start: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new word of several vectors that is cut in the middle is told to be lost."""
    text = ldm.load(start).text
    text.words["<fluid>"] = torch.zeros(3, text.config.width)
    text.tokenize(["lung " * 73 + "<fluid> heart"])
    assert caplog.messages[0].endswith("ignored: <fluid> heart")
    caplog.clear()
    text.tokenize(["lung " * 72 + "<fluid> heart"])
    assert caplog.messages[0].endswith("ignored: heart")


@pytest.mark.parametrize("what", ["all", "cross-attention", "lora"])
def test_only_what_was_asked_for_is_trained(tmp_path: Path, start: Path, what: str) -> None:
    """VAE and text tower stay; of the U-Net all, the cross-attention, or LoRAs beside it."""
    path = fit(adaptation(tmp_path, start, "finetune", {"train": what}))
    before = loading.load_parts(start)[1]
    if what == "lora":
        facts = adapters.load(path, "lora")[1]
        assert (facts["rank"], facts["alpha"]) == (4, 4.0)
        assert path.stat().st_size < start.stat().st_size / 4
        return
    after = loading.load_parts(path)[1]
    for part in ("vae", "text"):
        assert all(torch.equal(after[part][name], old) for name, old in before[part].items())
    moved = {n for n, old in before["unet"].items() if not torch.equal(after["unet"][n], old)}
    inside = {n for n in before["unet"] if ".cross_attn." in n}
    assert moved == (inside if what == "cross-attention" else set(before["unet"]))


def test_a_prior_weight_of_zero_is_off_bit_for_bit(tmp_path: Path, start: Path) -> None:
    """It gives the weights of a run that says nothing of a prior, and draws no class image."""
    plain = fit(adaptation(tmp_path / "plain", start, "finetune", {}))
    options = {"prior_weight": 0.0, "prior_prompt": "a heart", "prior_images": 3}
    assert fit(adaptation(tmp_path / "zero", start, "finetune", options)).read_bytes() == (
        plain.read_bytes()
    )
    options["prior_weight"] = 1e-3
    some = fit(adaptation(tmp_path / "some", start, "finetune", options))
    assert some.read_bytes() != plain.read_bytes()


def test_the_loss_is_that_of_instances_plus_the_weighted_prior(tmp_path: Path, start: Path) -> None:
    """Both are in the log, and loss = instance + weight x prior (arXiv:2208.12242, eq. 2)."""
    fit(adaptation(tmp_path, start, "finetune", {"prior_weight": 0.5, "prior_images": 3}))
    for row in read_log(tmp_path / "run" / "log.jsonl"):
        assert row["loss"] == pytest.approx(row["instance"] + 0.5 * row["prior"], rel=1e-6)
        assert row["instance"] != row["prior"]


def test_class_images_are_the_start_models_and_are_drawn_once(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They equal what the untouched model draws; another run, another rate, finds them drawn."""
    options = {"prior_weight": 1.0, "prior_images": 3, "prior_prompt": "a chest"}
    run = load_run(adaptation(tmp_path / "a", start, "finetune", options))
    method = build_method(run)
    drawn = ldm.load(start).draw(["a chest"], [1], method.sampling(method.pipe.config.guidance))
    kept = method.prior.dataset.images(torch.tensor([1]))
    torch.testing.assert_close(kept, drawn, rtol=0, atol=1.01 / 255)
    Trainer(run, method).fit()
    monkeypatch.setattr(LatentDiffusion, "draw", lambda *_: pytest.fail("drawn again"))
    build_method(load_run(adaptation(tmp_path / "b", start, "finetune", options, seed=0, steps=9)))
    other = load_run(adaptation(tmp_path / "c", start, "finetune", {**options, "prior_images": 4}))
    with pytest.raises(pytest.fail.Exception):
        build_method(other)


def test_small_files_change_the_model_that_they_are_for(tmp_path: Path, start: Path) -> None:
    """`apply` teaches words and adds LoRAs; the hash in PNGs then names them, in any folder."""
    word = fit(adaptation(tmp_path / "word", start, "textual_inversion", {}))
    small = fit(adaptation(tmp_path / "lora", start, "finetune", {"train": "lora"}))
    pipe, plain = (ldm.load(start) for _ in range(2))
    adapters.apply(pipe, [str(word)], [str(small.parent)])
    assert "<lung-xray>" in pipe.text.words
    assert pipe.weights_hash.startswith(plain.weights_hash)
    assert pipe.weights_hash.count("+") == 2
    a, b = (m.unet.state_dict() for m in (pipe, plain))
    assert any(not torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(ValueError, match="a second meaning"):
        adapters.apply(pipe, [str(word)])


def test_small_files_of_another_model_are_refused(
    tmp_path: Path, start: Path, tiny: LatentDiffusion
) -> None:
    """Another width, other layers, or a file that is something else: one line says which."""
    word = fit(adaptation(tmp_path / "word", start, "textual_inversion", {}))
    small = fit(adaptation(tmp_path / "lora", start, "finetune", {"train": "lora"}))
    kept = copy.deepcopy(tiny.unet.state_dict())
    with pytest.raises(ValueError, match="of width 16, this text tower of"):
        adapters.apply(tiny, [str(word)])
    with pytest.raises(ValueError, match="of another model"):
        adapters.apply(tiny, [], [str(small)])
    assert all(torch.equal(t, kept[n]) for n, t in tiny.unet.state_dict().items())
    with pytest.raises(ValueError, match="vectors is no matrix of a LoRA"):
        adapters.apply(tiny, [], [str(word)])
    (tmp_path / "no").write_text("no")
    with pytest.raises(ValueError, match="cannot open"):
        adapters.apply(tiny, [str(tmp_path / "no")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "text"}, "method.train is 'text'; choose one of"),
        ({"prior_weight": -1}, "method.prior_weight must be 0"),
        ({"kinds": [{"finding": "Effusion", "images": 99}]}, "asks for 99 images with pleural"),
        ({"train": "lora", "rank": 0}, "rank"),
        ({"prior_weight": float("nan")}, "method.prior_weight must be a finite number"),
        ({"drop_caption": 10}, "method.drop_caption must be from 0 to 1, got 10"),
        ({"variants": 0}, "method.variants must be 1"),
        ({"prompt": "a chest xray"}, "'a chest xray', which has no {} where the suffixes"),
        ({"priorweight": 1}, "did you mean 'prior_weight'"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, start: Path, options: dict, message: str) -> None:
    """Each is refused before anything is drawn or trained, by name."""
    with pytest.raises(ValueError, match=message):
        build_method(load_run(adaptation(tmp_path, start, "finetune", options)))


@pytest.mark.parametrize("name", ["textual_inversion", "unet_no_findings", "unet", "unet_prior"])
def test_the_shipped_configs_run(tmp_path: Path, name: str, monkeypatch, capsys) -> None:
    """Two steps of each on the built-in base, with no data at hand, end in a file."""
    monkeypatch.chdir(ROOT)
    few = ["train.steps=2", "data.phantoms=40", f"data.cache={tmp_path}/cache"]
    few.append("train.sample_every=0")
    if name == "unet_prior":
        few.append("method.prior_images=2")
    few += [f"train.out={tmp_path}/run", "--json"]
    assert train_script.main([f"configs/{name}.yaml", *few]) == 0
    (path,) = json.loads(capsys.readouterr().out)["paths"]
    assert Path(path).exists()


def test_checkpointing_changes_memory_and_nothing_else(tmp_path: Path, start: Path) -> None:
    """The gradients with blocks computed twice are the same bits."""
    kept = []
    for on in (False, True):
        run = load_run(adaptation(tmp_path, start, "finetune", {}, checkpointing=on))
        method = build_method(run)
        batch = method.draw_batch(2, generator(0, "batch", 0))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t
        ):
            loss, _ = method.loss(batch, generator(0, "loss", 0))
        loss.backward()
        kept.append((sum(sizes), [p.grad for p in method.unet.parameters()]))
    (much, a), (little, b) = kept
    assert little < much / 2
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("precision", "checkpointing", "prior"),
    [("float32", False, 0.0), ("float32", True, 1.0), ("bfloat16", True, 0.0)],
)
def test_a_unet_updated_in_the_backward_pass_has_the_same_bits(
    tmp_path: Path, start: Path, precision: str, checkpointing: bool, prior: float
) -> None:
    """No weight changes before all that needs it is done: not with blocks computed twice, nor with
    two passes before one backward pass.
    """
    how = {"precision": precision, "checkpointing": checkpointing, "clip": 1e9, "steps": 2}
    options = {"prior_weight": prior, "prior_images": 2}
    found = []
    for name, at_once in (("plain", False), ("at_once", True)):
        how["update_in_backward"] = at_once
        config = adaptation(tmp_path / name, start, "finetune", options, **how)
        found.append(fit(config).read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("method", "options", "hints"),
    [
        ("finetune", {"prior_weight": 1.0}, {"in_backward=true", "train=lora"}),
        ("finetune", {"train": "lora"}, set()),
        ("textual_inversion", {}, set()),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_it_starts(
    tmp_path: Path, start: Path, monkeypatch, method: str, options: dict, hints: set[str]
) -> None:
    """The message says how much memory is needed, and what helps: not a LoRA in place of a LoRA."""
    monkeypatch.setattr(model_parts.devices, "available", lambda _: 10**6)
    with pytest.raises(ConfigError, match=r"this run needs about .* 0\.001 GB are avail") as e:
        build_method(load_run(adaptation(tmp_path, start, method, options, ema=0.9)))
    for hint in ("checkpointing=true", "ema=0", "accumulate", "data.size"):
        assert hint in str(e.value)
    assert {hint for hint in ("in_backward=true", "train=lora") if hint in str(e.value)} == hints
    assert not list((start.parent / "cache").glob("prior*-64"))  # nothing was drawn first


def test_the_estimate_leaves_out_gradients_that_are_not_kept(
    tmp_path: Path, start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two moments of each weight, and all gradients, or the largest alone."""
    told = []
    for at_once in (False, True):
        how = {"update_in_backward": at_once, "clip": 1e9}
        with caplog.at_level(logging.INFO, "ldm.training.methods.model_parts"):
            method = build_method(load_run(adaptation(tmp_path, start, "finetune", {}, **how)))
        told.append(float(re.findall(r"optimizer ([\d.e-]+),", caplog.text)[-1]) * 1e9)
    sizes = [p.nbytes for p in method.unet.parameters()]
    assert told == [
        pytest.approx(3 * sum(sizes), rel=0.01),
        pytest.approx(2 * sum(sizes) + max(sizes), rel=0.01),
    ]


def test_the_estimate_of_activations_is_what_is_kept(tmp_path: Path, start: Path) -> None:
    """Counted without memory, it is what a real forward pass keeps, give or take 15 %.

    Attention keeps a little less with the kernel of a real device.
    """
    method = build_method(load_run(adaptation(tmp_path, start, "finetune", {})))
    own = {p.untyped_storage().data_ptr() for p in method.unet.parameters()}
    kept = {}
    g = torch.Generator().manual_seed(0)
    x, context = torch.randn(3, 4, 8, 8, generator=g), torch.randn(3, 77, 16, generator=g)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        method.unet(x, torch.tensor([1, 2, 3]), context.requires_grad_())
    real = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    assert model_parts.activation_bytes(method.pipe, 3, 32) == pytest.approx(real, rel=0.15)


def test_instances_are_those_with_the_fewest_other_findings(tmp_path: Path) -> None:
    """Five with an effusion, alone where that can be had; none that has anything for no finding."""
    phantoms = Phantoms(DataConfig(phantoms=60, size=16, cache=str(tmp_path)), channels=1)
    fluid, normal = pick(phantoms, Kind("Effusion", 5)), pick(phantoms, Kind("No Finding", 5))
    assert [sum(phantoms.findings(i).values()) for i in fluid] == [1] * 5
    assert not any(any(phantoms.findings(i).values()) for i in normal)
    with pytest.raises(ConfigError, match="asks for 50 images with pleural effusion"):
        pick(phantoms, Kind("pleural effusion", 50))
    kinds = [Kind("No Finding", 2), Kind("Effusion", 1, " with fluid")]
    some = Instances(phantoms, kinds, ["lung{}", "chest{} of a man"])
    assert some.indices == [*normal[:2], fluid[0]]
    assert some.caption(0, 0) == "lung"
    assert some.caption(2, 3) == "chest with fluid of a man"


def test_instances_may_vary_but_not_their_prompts(tmp_path: Path, start: Path) -> None:
    """With method.variants=3 each image is there three times, each time a little different."""
    one, three = (
        build_method(load_run(adaptation(tmp_path, start, "finetune", {"variants": n}))).instances
        for n in (1, 3)
    )
    assert len(three) == 3 * len(one)
    x, y, z = three.images(torch.arange(3))
    assert not torch.equal(x, y)
    assert not torch.equal(y, z)
    for i in range(len(three)):
        assert three.caption(i, 0) == one.caption(i // 3, 0)
        assert three.sample_id(i) == one.sample_id(i // 3)


def test_images_vary_only_where_the_data_may(tmp_path: Path, start: Path) -> None:
    """With data.augment=false each image is there once, as it is, whatever method.variants says."""
    path = adaptation(tmp_path, start, "finetune", {"variants": 3})
    plain = build_method(load_run(path, ["data.augment=false"])).instances
    one = build_method(load_run(path, ["method.variants=1"])).instances
    assert len(plain) == len(one) == 4
    assert torch.equal(plain.images(torch.arange(4)), one.images(torch.arange(4)))


def test_class_images_of_another_number_keep_their_latents(tmp_path: Path, start: Path) -> None:
    """A run with fewer images of the prior reads the latents of the first few of many."""
    found = []
    for count in (3, 2, 3):
        options = {"prior_weight": 1.0, "prior_images": count, "prior_prompt": "a rib"}
        method = build_method(load_run(adaptation(tmp_path, start, "finetune", options)))
        found.append(method.prior.images(torch.arange(2)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
