"""The maps between two text encoders: the paper's network, and ridge regression."""

import pytest
import torch
from torch import Tensor, nn

from ldm.models.projection import Ridge, TextProjection, padded_or_cut


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


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_are_hidden_layers(layers: int) -> None:
    """Each hidden layer is as wide as asked for, and none of them is one linear map."""
    projection = TextProjection(384, 768, layers, hidden=64)
    widths = [p.in_features for p in projection if isinstance(p, nn.Linear)]
    assert widths == [384] + [64] * layers
    assert sum(isinstance(p, nn.ReLU) for p in projection) == layers
    assert projection(torch.zeros(2, 77, 384)).shape == (2, 77, 768)


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
