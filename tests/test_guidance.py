"""Classifier-free guidance: one formula, one call, and nothing when it is off."""

import pytest
import torch

from ldm.guidance import guide
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


def test_outside_of_the_interval_the_network_runs_once(inputs):
    """There the scale is 1, at the price of 1; inside nothing changes."""
    x_t, t, context, negative = inputs
    network = Network()
    whole = guide(network, context, negative, 3.0)(x_t, t)
    partly = guide(network, context, negative, 3.0, lambda t: t[0] > 500)
    assert torch.equal(partly(x_t, t), whole)
    assert torch.equal(partly(x_t, t - 500), network(x_t, t - 500, context))
    assert network.batches == [6, 6, 3, 3]


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_trap_6_the_scale_is_one_plus_w(inputs, scale):
    """(1 + w) eps(x, c) - w eps(x), arXiv:2207.12598 eq. 6, with w = s - 1."""
    x_t, t, context, negative = inputs
    w = scale - 1
    network = Network()
    expected = (1 + w) * network(x_t, t, context) - w * network(x_t, t, negative.expand(3, 7, 5))
    torch.testing.assert_close(guide(network, context, negative, scale)(x_t, t), expected)


def test_trap_6_scale_one_is_off(inputs):
    """At s = 1 the network runs once, on the prompts alone, and its result is not touched."""
    x_t, t, context, negative = inputs
    network = Network()
    eps = guide(network, context, negative, scale=1.0)(x_t, t)
    assert network.batches == [3]
    assert torch.equal(eps, network(x_t, t, context))
    assert torch.equal(eps, guide(network, context)(x_t, t))


def test_both_passes_are_one_call(inputs):
    """Guidance doubles the batch, not the number of calls."""
    x_t, t, context, negative = inputs
    network = Network()
    guide(network, context, negative, scale=7.5)(x_t, t)
    assert network.batches == [6]


def test_one_negative_prompt_serves_the_whole_batch(inputs):
    """A negative context of batch 1 is the same as B copies of it."""
    x_t, t, context, negative = inputs
    one, many = (
        guide(Network(), context, n, 3.0)(x_t, t) for n in (negative, negative.repeat(3, 1, 1))
    )
    assert torch.equal(one, many)


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
