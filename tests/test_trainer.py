"""One step of the training loop by hand: AdamW, clipping, the average, what is random."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldm.data.datasets import Batch
from ldm.training.trainer import EMA, Trainer
from ldm.training.training_run import RunConfig, TrainConfig

SLOPE = [[3.0, -4.0]]  # the gradient of the weight; that of the bias is 12


class Slope:
    """A loss with the same gradient at every step, whose batches and losses are noted."""

    def __init__(self) -> None:
        self.module = nn.Linear(2, 1)
        nn.init.constant_(self.module.weight, 1.0)
        nn.init.constant_(self.module.bias, 1.0)
        self.drawn: list[float] = []
        self.noise: list[float] = []
        self.shown: list[Tensor] = []

    def settings(self):
        return {}

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        self.drawn.append(torch.rand((), generator=generator).item())
        return Batch(torch.zeros(1), [""], ["x"])

    def loss(self, batch: Batch, generator: torch.Generator):
        self.noise.append(torch.rand((), generator=generator).item())
        layer = self.module
        return (layer.weight * torch.tensor(SLOPE)).sum() + 12 * layer.bias.sum(), {}

    def preview(self):
        self.shown.append(self.module.weight.detach().clone())
        return torch.zeros(1, 8, 8), "nothing"

    def summary(self) -> str:
        return ""

    def save(self, path: Path) -> None:
        save_file(self.module.state_dict(), path)


def fit(folder: Path, **train) -> Slope:
    settings = {"out": str(folder), "steps": 2, "warmup": 1, "learning_rate": 0.1, "ema": 0.0}
    method = Slope()
    Trainer(RunConfig(TrainConfig(**{**settings, "sample_every": 0, **train})), method).fit()
    return method


def adamw(gradients: list[float], rates: list[float], decay: float = 0.0) -> float:
    """AdamW (arXiv:1711.05101, algorithm 2) from 1 with beta_1 0.9, beta_2 0.99 and eps 1e-8."""
    weight, m, v = 1.0, 0.0, 0.0
    for n, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        weight -= rate * decay * weight
        weight -= rate * (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.99**n)) + 1e-8)
    return weight


def test_a_step_is_adamw_with_decay_of_matrices_alone(tmp_path: Path) -> None:
    """By hand, two steps; the second has half the rate, as the cosine has it."""
    layer = fit(tmp_path, clip=1e9, weight_decay=0.5).module
    alone = adamw([12.0, 12.0], [0.1, 0.05])
    assert layer.bias.item() == pytest.approx(alone), "no weight decay of a bias, rate by cosine"
    decayed = adamw([3.0, 3.0], [0.1, 0.05], decay=0.5)
    assert layer.weight[0, 0].item() == pytest.approx(decayed), "weight decay of a matrix: 0.5"


def test_adam_forgets_by_beta_2_of_0_99(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient of 12 and then of 1: the second step hangs on both betas."""
    scales = [1.0, 1 / 12]
    loss = Slope.loss

    def shrinking(self, batch, generator):
        value, figures = loss(self, batch, generator)
        return value * scales[len(self.noise) - 1], figures

    monkeypatch.setattr(Slope, "loss", shrinking)
    found = fit(tmp_path, clip=1e9).module.bias.item()
    assert found == pytest.approx(adamw([12.0, 1.0], [0.1, 0.05])), (
        "gradients zeroed between steps, beta_1 0.9, beta_2 0.99"
    )


def test_gradients_are_clipped_to_the_norm_of_all(tmp_path: Path, monkeypatch) -> None:
    """Of norm 13 = |3, -4, 12|: to train.clip = 1.3 each is divided by ten."""
    seen = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: (
            seen.extend(p.grad.flatten().tolist() for g in self.param_groups for p in g["params"]),
            step(self),
        ),
    )
    fit(tmp_path, steps=1, clip=1.3)
    assert seen == [pytest.approx([0.3, -0.4]), pytest.approx([1.2])], "gradients clipped"
    seen.clear()
    fit(tmp_path / "more", steps=1, clip=1e9, accumulate=4)
    assert seen == [pytest.approx([3, -4]), pytest.approx([12])], "accumulate: a mean of batches"


def test_the_average_warms_up() -> None:
    """shadow <- d shadow + (1 - d) weight, d = min(decay, (1 + n) / (10 + n)): by hand, 3 steps."""
    weight = nn.Parameter(torch.zeros(1))
    ema, expected = EMA([weight], 0.99), 0.0
    for n in range(3):
        weight.data.fill_(n + 1.0)
        ema.update(n)
        d = (1 + n) / (10 + n)
        expected = d * expected + (1 - d) * (n + 1)
    assert ema.shadow[0].item() == pytest.approx(expected), "warm-up of the decay"


def test_the_average_has_the_weights_after_the_step(tmp_path: Path) -> None:
    """After one step with d = 1/10 it is (1 + 9 w) / 10, w being the new weight, 0.9; it is what
    is saved and what previews are drawn with; training goes on with the weights themselves.
    """
    method = fit(tmp_path, steps=1, clip=1e9, weight_decay=0.0, ema=0.9, sample_every=1)
    assert method.module.weight[0, 0].item() == pytest.approx(0.9), "the weight itself goes on"
    saved = load_file(tmp_path / "model.safetensors")["weight"][0, 0].item()
    assert saved == pytest.approx(0.1 + 0.9 * 0.9), "the average after the step is saved"
    shown = method.shown[0][0, 0].item()
    assert shown == pytest.approx(saved), "a preview is drawn with the average"


def test_every_batch_and_every_loss_has_random_numbers_of_its_own(tmp_path: Path) -> None:
    """Two steps of two batches: four batches and four noises, all different; again the same."""
    first, again = (fit(tmp_path / name, accumulate=2) for name in "ab")
    for what in ("drawn", "noise"):
        numbers = getattr(first, what)
        assert len(set(numbers)) == 4, f"{what}: each step and batch has its own random numbers"
        assert numbers == getattr(again, what), "the same seed, the same numbers"
