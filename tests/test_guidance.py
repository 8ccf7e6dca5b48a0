"""Classifier-free guidance: one formula, one call, and nothing when it is off."""

from types import SimpleNamespace

import pytest
import torch

from ldm.guidance import guide
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.schedule import NoiseSchedule


class Network:
    """A stand-in that depends on all it is given and counts its calls."""

    def __init__(self):
        self.batches = []

    def __call__(self, x_t, t, context):
        self.batches.append(len(x_t))
        return torch.tanh(
            x_t + t.reshape(-1, 1, 1, 1) / 1000 + context.mean((1, 2)).reshape(-1, 1, 1, 1)
        )


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    x_t, context, negative = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in ((3, 4, 8, 8), (3, 7, 5), (1, 7, 5))
    )
    return x_t, torch.tensor([981, 500, 1]), context, negative


@pytest.mark.parametrize("scale", [3.0, 0.25])
def test_trap_6_the_prompt_weighs_s_and_the_negative_one_the_rest(scale):
    """With eps = context, s = 1 + w: eps = s for the context 1 against 0."""
    one, zero, t = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1)
    found = guide(lambda x_t, t, context: context, one, zero, scale)(one, t).item()
    guesses = {1 - scale: "the prompts are swapped", 1 + scale: "off by one: s is taken for w"}
    guesses[1.0] = "guidance is off, for this scale or by its interval"
    assert found == scale, guesses.get(found)


def test_the_interval_is_one_of_sigma():
    """Guided are the levels with low < sqrt((1 - alpha_bar) / alpha_bar) <= high, no others."""
    pipe = SimpleNamespace(schedule=NoiseSchedule(), predict_eps=lambda x_t, t, context: context)
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    sampling = Sampling(guidance=3.0, interval=(0.5, 4.0))
    denoise = LatentDiffusion.denoiser(pipe, one, zero, sampling)
    ab = pipe.schedule.alpha_bar
    for t in (0, 100, 300, 600, 800, 900, 999):
        sigma = ((1 - ab[t]) / ab[t]).sqrt().item()
        found = denoise(one, torch.tensor([t])).item()
        assert found == (3 if 0.5 < sigma <= 4 else 1), f"the interval of sigma = {sigma:.2f}"


def test_every_image_keeps_its_own_t(inputs):
    """Twice the batch is [x, x] with [t, t]: image i has t[i] in both halves."""
    x_t, t, context, negative = inputs
    found = guide(Network(), context, negative, 3.0)(x_t, t)
    alone = guide(Network(), context[1:2], negative, 3.0)(x_t[1:2], t[1:2])
    torch.testing.assert_close(found[1:2], alone)


def test_outside_of_the_interval_the_network_runs_once(inputs):
    """There the scale is 1, at the price of 1; inside nothing changes."""
    x_t, t, context, negative = inputs
    network = Network()
    whole = guide(network, context, negative, 3.0)(x_t, t)
    partly = guide(network, context, negative, 3.0, lambda t: t[0] > 500)
    assert torch.equal(partly(x_t, t), whole)
    assert torch.equal(partly(x_t, t - 500), network(x_t, t - 500, context))
    assert network.batches == [6, 6, 3, 3]


def test_trap_6_scale_one_is_off(inputs):
    """At s = 1 the network runs once, on the prompts alone, and its result is not touched."""
    x_t, t, context, negative = inputs
    network = Network()
    eps = guide(network, context, negative, scale=1.0)(x_t, t)
    assert network.batches == [3]
    assert torch.equal(eps, network(x_t, t, context))
    assert torch.equal(eps, guide(network, context)(x_t, t))


def test_guiding_v_is_guiding_eps(inputs):
    """v-predictions may be guided before or after they are turned into eps."""
    x_t, t, context, negative = inputs
    schedule, network = NoiseSchedule(prediction="v"), Network()
    before = schedule.to_eps(guide(network, context, negative, 7.5)(x_t, t), x_t, t)

    def eps_network(x_t, t, context):
        return schedule.to_eps(network(x_t, t, context), x_t, t)

    torch.testing.assert_close(guide(eps_network, context, negative, 7.5)(x_t, t), before)


def test_wrong_arguments_are_named(inputs):
    """No negative, or one of another length: one clear sentence each."""
    _, _, context, negative = inputs
    with pytest.raises(ValueError, match="needs a negative context"):
        guide(Network(), context, None, 7.5)
    with pytest.raises(ValueError, match=r"\(1, 6, 5\) does not fit context \(3, 7, 5\)"):
        guide(Network(), context, negative[:, :6], 7.5)
