"""Textual projection: maps from the space of one text encoder to that of another."""

import torch
from torch import Tensor, nn


class TextProjection(nn.Sequential):
    """Linear o ReLU o LayerNorm o Linear    (Chambon et al., arXiv:2210.04133, section 2.5)

    Read from the right, as the paper writes "extraction o text_encoder" (section 2.4): the first
    Linear is normalised, then rectified. The paper has 768 numbers on both sides and does not give
    the width between.

    layers: hidden ones, 1 in the paper, which asks for a more complex architecture (section 3.4);
        0 is one linear map, such as ridge regression finds
    Maps [..., width_in] to [..., width_out], each vector by itself.
    """

    def __init__(self, width_in: int, width_out: int, layers: int = 1, hidden: int = 768) -> None:
        parts: list[nn.Module] = []
        width = width_in
        for _ in range(layers):
            parts += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU()]
            width = hidden
        super().__init__(*parts, nn.Linear(width, width_out))


def padded_or_cut(width_in: int, width_out: int) -> TextProjection:
    """No projection: the vector itself, with zeros behind it or without its last numbers."""
    return linear(torch.eye(width_out, width_in), torch.zeros(width_out))


def linear(weight: Tensor, bias: Tensor) -> TextProjection:
    """x -> weight x + bias, in float32."""
    projection = TextProjection(weight.shape[1], weight.shape[0], layers=0)
    projection.load_state_dict({"0.weight": weight, "0.bias": bias})
    return projection


class Ridge:
    """argmin over W, b of mean |y - W x - b|^2 + r v |W|^2, from batches of pairs.

    v is the mean variance of an input, so that the penalty r has no unit. Only sums are kept, in
    float64; the intercept b has no penalty.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        self.count = 0
        self.x, self.y = (torch.zeros(w, dtype=torch.float64) for w in (width_in, width_out))
        self.xx = torch.zeros(width_in, width_in, dtype=torch.float64)
        self.yx = torch.zeros(width_out, width_in, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """x: [..., width_in];  y: [..., width_out]"""
        x, y = (z.detach().reshape(-1, z.shape[-1]).cpu().double() for z in (x, y))
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.yx += y.T @ x

    def solve(self, penalty: float) -> TextProjection:
        """The linear map; raises ValueError if the pairs do not determine one."""
        if not penalty >= 0:
            raise ValueError(f"a ridge penalty must be 0 or more, got {penalty}")
        n, width = max(self.count, 1), len(self.x)
        mean_x, mean_y = self.x / n, self.y / n
        covariance = self.xx / n - mean_x.outer(mean_x)
        crossed = self.yx / n - mean_y.outer(mean_x)
        ridge = penalty * covariance.trace() / width * torch.eye(width, dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge)
        pivots = factor.diagonal().square()
        if failed or pivots.min() < 1e-14 * pivots.max():  # singular but for rounding
            raise ValueError(
                f"{self.count} pairs do not decide a linear map of {width} inputs with a penalty "
                f"of {penalty}; take more texts or a larger penalty"
            )
        weight = torch.cholesky_solve(crossed.T, factor).T
        return linear(weight, mean_y - weight @ mean_x)
