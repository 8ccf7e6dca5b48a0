"""The maps between two text encoders: the paper's network, ridge regression, and their training."""

from pathlib import Path

import pytest
import torch
from conftest import projection
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm.config import ConfigError
from ldm.rng import generator
from ldm.text.projected_encoder import ProjectedText, clip_states
from ldm.text.projection import Ridge, TextProjection, padded_or_cut
from ldm.training.methods.projection_training import TrainProjection
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run

ROOT = Path(__file__).parents[1]


def planted(n: int, width_in: int, width_out: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y = W x + b, W, b in float64"""
    g = torch.Generator().manual_seed(0)
    x, w, b = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in ((n, width_in), (width_out, width_in), (width_out,))
    )
    x = 3 + x * torch.arange(1, width_in + 1)  # neither centred nor of one scale
    return x, x @ w.T + b, w, b


def test_the_network_is_the_papers_read_from_the_right() -> None:
    """It is W2 max(0, layer norm(W1 x + b1)) + b2, written out by hand."""
    projection = TextProjection(3, 5, hidden=4).double()
    first, norm, _, last = projection
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    x = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = x @ first.weight.T + first.bias
    spread = (y.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = (y - y.mean(dim=-1, keepdim=True)) / spread * norm.weight + norm.bias
    torch.testing.assert_close(projection(x), y.clamp(min=0) @ last.weight.T + last.bias)


def test_ridge_recovers_a_planted_linear_map() -> None:
    """From pairs y = W x + b in any batches it finds W and b to 1e-6."""
    x, y, w, b = planted(200, 8, 5)
    ridge = Ridge(8, 5)
    for some in torch.arange(200).split(64):
        ridge.add(x[some], y[some])
    (linear,) = ridge.solve(1e-12)
    # float32, in which it is kept, costs 1e-7
    torch.testing.assert_close(linear.weight.double(), w, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(linear.bias.double(), b, atol=1e-5, rtol=1e-6)


def test_ridge_minimises_its_objective() -> None:
    """At the solution the gradient of mean |y - Wx - b|^2 + r v |W|^2 vanishes."""
    x, y, *_ = planted(30, 4, 3)
    y = y + torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ridge = Ridge(4, 3)
    ridge.add(x[None], y[None])  # [1, 30, width]: any leading axes
    (linear,) = ridge.solve(0.1)
    w, b = (p.detach().double().requires_grad_() for p in (linear.weight, linear.bias))
    variance = x.var(dim=0, unbiased=False).mean()
    objective = (y - x @ w.T - b).square().sum(1).mean() + 0.1 * variance * w.square().sum()
    objective.backward()
    assert w.grad.norm() < 1e-4 * objective.item()
    assert b.grad.norm() < 1e-4 * objective.item()


def test_ridge_refuses_what_it_cannot_decide() -> None:
    """Fewer pairs than inputs without a penalty, none at all, and a negative penalty are errors."""
    x, y, *_ = planted(3, 8, 5)
    few = Ridge(8, 5)
    few.add(x, y)
    with pytest.raises(ValueError, match="3 pairs do not decide a linear map of 8 inputs"):
        few.solve(0.0)
    with pytest.raises(ValueError, match="0 pairs"):
        Ridge(8, 5).solve(1.0)
    with pytest.raises(ValueError, match="0 or more"):
        few.solve(-1.0)


@pytest.mark.parametrize(
    ("width_out", "expected"), [(2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 0])]
)
def test_without_a_projection_the_vector_is_padded_or_cut(
    width_out: int, expected: list[float]
) -> None:
    """The first numbers stay where they are; what is not there is zero."""
    projected = padded_or_cut(3, width_out)(torch.tensor([1.0, 2, 3]))
    assert projected.tolist() == expected


def build(path: Path, *overrides: str) -> TrainProjection:
    method = build_method(load_run(path, overrides))
    assert isinstance(method, TrainProjection)
    return method


@torch.no_grad()
def held_out_error(method: TrainProjection) -> float:
    """Mean squared error on texts that were not trained on."""
    target = clip_states(method.text, method.held_out, method.options.level)
    projected = ProjectedText(method.reader, method.module, method.about())
    return (projected(method.held_out) - target).square().mean().item()


@pytest.mark.parametrize("level", ["document", "token"])
def test_training_lowers_the_error_on_unseen_texts(
    tmp_path: Path, start: Path, encoder: Path, level: str
) -> None:
    """After 30 steps the error on held-out texts is less than half; only the projection changed."""
    options = {"level": level, "layers": 2}
    path = projection(tmp_path, start, encoder, options, steps=30)
    method = build(path)
    assert len(method.held_out) >= 5
    assert not set(method.held_out) & set(method.train)
    before = held_out_error(method)
    frozen = [p.clone() for part in (method.text, method.reader) for p in part.parameters()]
    file = Trainer(load_run(path), method).fit()
    assert held_out_error(method) < before / 2
    now = [p for part in (method.text, method.reader) for p in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))
    assert load_file(file).keys() == method.module.state_dict().keys()


def test_ridge_is_the_best_linear_map_of_the_training_texts(
    tmp_path: Path, start: Path, encoder: Path
) -> None:
    """No small change of its weights lowers the penalty-free error on what it was fitted to."""
    options = {"fit": "ridge", "penalty": 1e-9, "drop_caption": 0.0}
    method = build(projection(tmp_path, start, encoder, options))
    states, target = method._both(torch.arange(1, len(method.train) + 1)).split(method.widths, -1)
    parameters = list(method.module.parameters())
    error = (method.module.double()(states.double()) - target.double()).square().mean()
    gradients = torch.autograd.grad(error, parameters)
    assert error < 0.9 * target.var()
    assert max(g.abs().max() for g in gradients) < 1e-5
    none = build(projection(tmp_path / "none", start, encoder, {"fit": "none"}))
    assert held_out_error(none) > 2 * error


@pytest.mark.parametrize("fit", ["ridge", "none"])
def test_a_closed_form_is_saved_as_it_was_found(
    tmp_path: Path, start: Path, encoder: Path, fit: str
) -> None:
    """The one step of a closed form, averages included, changes no bit; and it wants just that."""
    path = projection(tmp_path, start, encoder, {"fit": fit}, ema=0.9, weight_decay=0.5)
    method = build(path)
    found = {name: x.clone() for name, x in method.module.state_dict().items()}
    saved = load_file(Trainer(load_run(path), method).fit())
    assert all(torch.equal(saved[name], x) for name, x in found.items())
    with pytest.raises(ConfigError, match=r"add train\.steps=1 train\.learning_rate=0"):
        build_method(load_run(path, ["train.steps=2"]))


def test_a_stopped_training_goes_on_to_the_same_bits(
    tmp_path: Path, start: Path, encoder: Path
) -> None:
    """2 steps, then 2 more in another process with an empty cache, are 4 steps."""
    options = {"level": "token"}
    whole = projection(tmp_path / "whole", start, encoder, options)
    parts = projection(tmp_path / "parts", start, encoder, options, save_every=1)
    expected = Trainer(load_run(whole), build(whole)).fit().read_bytes()
    trainer = Trainer(load_run(parts), build(parts))
    trainer.folder.mkdir()
    for step in range(2):
        trainer._step(step)
    trainer._save_checkpoint(2)
    again = load_run(parts, [f"data.cache={tmp_path / 'cache'}"])
    assert Trainer(again, build_method(again)).fit().read_bytes() == expected


def test_texts_are_dropped_at_their_share(tmp_path: Path, start: Path, encoder: Path) -> None:
    """About drop_caption of a batch are the empty text, with its own states and no others'."""
    method = build(projection(tmp_path, start, encoder, {"drop_caption": 0.25}))
    batch = method.draw_batch(400, generator(0, "test"))
    empty = [i for i, text in enumerate(batch.captions) if text == ""]
    assert 70 < len(empty) < 130  # 100 expected, deviation 8.7
    states, target = batch.images.split(method.widths, dim=-1)
    torch.testing.assert_close(states[empty[0]], method.reader([""])[0])
    torch.testing.assert_close(target[empty[0]], clip_states(method.text, [""], "document")[0])
    other = next(i for i, text in enumerate(batch.captions) if text)
    torch.testing.assert_close(states[other], method.reader([batch.captions[other]])[0])


def test_texts_without_room_are_left_out_and_counted(
    tmp_path: Path, start: Path, encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A text too long for CLIP or for the encoder is not learned from; none of it is logged."""
    rows = [f"lung number {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]
    rows += [f"{'lung ' * 80}{letter}" for letter in "abc"]
    (tmp_path / "texts.csv").write_text("caption\n" + "\n".join(rows) + "\n")
    method = build(projection(tmp_path, start, encoder, {}), f"data.path={tmp_path / 'texts.csv'}")
    assert len(method.train) + len(method.held_out) == 60
    assert any("texts are too long: left out" in message for message in caplog.messages)
    assert "lung" not in caplog.text


def test_the_built_in_encoder_tells_unseen_texts_apart(tmp_path: Path) -> None:
    """From 300 phantoms' captions ridge regression explains most of CLIP's text, not its mean."""
    path = projection(tmp_path, ROOT / "weights", ROOT / "weights" / "bert", {"fit": "ridge"})
    method = build(path, "data.phantoms=300", f"data.cache={tmp_path}")
    with torch.no_grad():
        spread = clip_states(method.text, method.held_out, "document").var(0, unbiased=False).mean()
    assert held_out_error(method) < spread / 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "nowhere"}, "nowhere/config.json cannot be read"),
        ({"level": "sentence"}, "method.level is 'sentence'"),
        ({"how": "projection"}, "no projection head"),
        ({"drop_caption": 1.0}, "drop_caption must be from 0 to below 1"),
        ({"layers": 0}, "method.layers must be 1 or more"),
        ({"fit": "ridge", "penalty": -1.0}, "0 or more"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, start: Path, encoder: Path, options: dict, words: str
) -> None:
    """One line, before anything is trained."""
    with pytest.raises(ValueError, match=words) as error:
        build(projection(tmp_path, start, encoder, options))
    assert "\n" not in str(error.value)
