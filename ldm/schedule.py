"""The forward process of a variance-preserving diffusion model, in discrete time.

    x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps        ab_t = alpha_bar[t],  t = 0 ... T-1

ab_t falls from nearly 1 (a clean picture) to nearly 0 (noise); DDPM (arXiv:2006.11239), section 2.
Everything that depends on t is computed in float64 and cast once, as a factor of x:
1 - alpha_bar[0] = 0.00085 loses three of its seven digits if it is formed in float32.

t = -1 is the end. As data it is the clean picture, alpha_bar 1 (`add_noise`, `snr`); as the place
where samplers stop it is `final_alpha_bar`, which SD v1 sets to alpha_bar[0] (`at`).
"""

import torch
from torch import Tensor

PREDICTIONS = ("eps", "v")
FINALS = ("first", "one")
NEAR_ZERO = 2.0**-24  # of alpha_bar; at 0 itself eps is x_t and says nothing of x0
SPACINGS = ("leading", "trailing")


def scaled(factor: Tensor, x: Tensor) -> Tensor:
    """factor [B], float64 on the CPU, times x [B, ...], in the precision and on the device of x."""
    # cast before moving: Apple's GPU has no float64
    factor = factor.to(x.dtype).to(x.device)
    return factor.reshape(-1, *[1] * (x.ndim - 1)) * x


class NoiseSchedule:
    """alpha_bar[t] of Stable Diffusion and what follows from it.

    beta is linear in its square root, as in SD ("scaled linear"); alpha_bar_t = prod (1 - beta_s),
    s <= t (DDPM, arXiv:2006.11239, section 2).

    steps: T, the number of noise levels the network was trained on
    final_alpha_bar: where a sampler ends. "first": at alpha_bar[0], as SD v1 does, which keeps a
        trace of predicted noise; "one": at a clean picture
    zero_terminal_snr: sqrt(alpha_bar) is shifted and scaled to end at 0 (arXiv:2305.08891,
        algorithm 1); the network must predict v, as nothing is to learn of eps in pure noise
    """

    def __init__(
        self,
        steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        prediction: str = "eps",
        final_alpha_bar: str = "first",
        zero_terminal_snr: bool = False,
    ) -> None:
        if steps < 1 or not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                "a schedule needs steps >= 1 and 0 < beta_start <= beta_end < 1, "
                f"got {steps}, {beta_start}, {beta_end}"
            )
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction {prediction!r}; use one of {PREDICTIONS}")
        if zero_terminal_snr and prediction == "eps":
            raise ValueError("a schedule with zero_terminal_snr needs the prediction v, got eps")
        if final_alpha_bar not in FINALS:
            raise ValueError(f"unknown final_alpha_bar {final_alpha_bar!r}; use one of {FINALS}")
        self.steps = steps
        self.prediction = prediction
        self.beta = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)  # [T] float64
        if zero_terminal_snr:
            root = self.alpha_bar.sqrt()
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
            self.alpha_bar = root.square().clamp(min=NEAR_ZERO)
            self.beta = 1 - self.alpha_bar / torch.cat([root.new_ones(1), self.alpha_bar[:-1]])
        self.final = 1.0 if final_alpha_bar == "one" else float(self.alpha_bar[0])

    def at(self, t: Tensor, like: Tensor | None = None) -> Tensor:
        """alpha_bar_t for samplers: at t = -1, their end, the schedule's `final_alpha_bar`.

        t: [B] integers;  returns float64 [B], or [B, 1, ...] of the dtype and device of `like`
        """
        alpha_bar = self._look_up(t, at_end=self.final)
        return alpha_bar if like is None else scaled(alpha_bar, like.new_ones([1] * like.ndim))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps    (DDPM, arXiv:2006.11239, eq. 4)

        x0, eps: [B, ...];  t: [B] integers, -1 means clean: x0 itself, wherever samplers end
        """
        sqrt_ab, sqrt_rest = self._scales(t)
        return scaled(sqrt_ab, x0) + scaled(sqrt_rest, eps)

    def predict_x0(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x0 = (x_t - sqrt(1 - ab_t) eps) / sqrt(ab_t)    (DDPM, arXiv:2006.11239, eq. 15)"""
        sqrt_ab, sqrt_rest = self._scales(t)
        return scaled(1 / sqrt_ab, x_t - scaled(sqrt_rest, eps))

    def predict_eps(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """eps = (x_t - sqrt(ab_t) x0) / sqrt(1 - ab_t), for t >= 0; no network runs here"""
        sqrt_ab, sqrt_rest = self._scales(t)
        return scaled(1 / sqrt_rest, x_t - scaled(sqrt_ab, x0))

    def velocity(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """v = sqrt(ab_t) eps - sqrt(1 - ab_t) x0

        Progressive distillation (arXiv:2202.00512), section 4: alpha_t eps - sigma_t x0 there.
        """
        sqrt_ab, sqrt_rest = self._scales(t)
        return scaled(sqrt_ab, eps) - scaled(sqrt_rest, x0)

    def v_to_eps(self, v: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """eps = sqrt(ab_t) v + sqrt(1 - ab_t) x_t    (arXiv:2202.00512, appendix D)"""
        sqrt_ab, sqrt_rest = self._scales(t)
        return scaled(sqrt_ab, v) + scaled(sqrt_rest, x_t)

    def to_eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The predicted noise, whatever the network predicts."""
        return output if self.prediction == "eps" else self.v_to_eps(output, x_t, t)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The tensor that the network is trained to return: eps or v."""
        return eps if self.prediction == "eps" else self.velocity(x0, eps, t)

    def snr(self, t: Tensor) -> Tensor:
        """ab_t / (1 - ab_t), float64 [B]; infinite at t = -1"""
        alpha_bar = self._look_up(t, at_end=1.0)
        return alpha_bar / (1 - alpha_bar)

    def min_snr_weight(self, t: Tensor, gamma: float = 5.0) -> Tensor:
        """The weight of the loss at t that amounts to min(SNR, gamma) on the error of x0.

            min(SNR, gamma) / SNR  for eps,    min(SNR, gamma) / (SNR + 1)  for v
            (Min-SNR, arXiv:2303.09556, section 3.4)

        returns float32 [B] on the device of t
        """
        snr = self.snr(t)
        ratio = snr if self.prediction == "eps" else snr + 1  # |error of target|^2 / |of x0|^2
        return (snr.clamp(max=gamma) / ratio).float().to(t.device)

    def timesteps(self, n: int, spacing: str = "leading") -> Tensor:
        """n strictly descending timesteps for a sampler, int64 [n] on the CPU.

        "leading": floor(i T / n) + 1, i = n-1 ... 0, as SD v1: 981, 961 ... 1 for 50 of 1000. SD
            strides by T // n, which gives more than n steps when n does not divide T; dividing
            last gives n. For n = T the 1 is left out: there is no t = T.
        "trailing": round(i T / n) - 1, i = n ... 1: 999, 979 ... 19. It starts at T - 1, where x_t
            is closest to the noise it is started from (arXiv:2305.08891, table 2).
        """
        if not 1 <= n <= self.steps:
            raise ValueError(f"cannot take {n} of {self.steps} timesteps; use 1 to {self.steps}")
        if spacing == "leading":
            return torch.arange(n).flip(0) * self.steps // n + (n < self.steps)
        if spacing == "trailing":
            return (torch.arange(n, 0, -1) * self.steps / n).round().long() - 1
        raise ValueError(f"unknown spacing {spacing!r}; use one of {SPACINGS}")

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(ab_t) and sqrt(1 - ab_t), 1 and 0 at t = -1: float64 [B]"""
        alpha_bar = self._look_up(t, at_end=1.0)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _look_up(self, t: Tensor, at_end: float) -> Tensor:
        """alpha_bar[t], and `at_end` at t = -1"""
        t = t.cpu()
        if t.min() < -1 or t.max() >= self.steps:
            raise ValueError(
                f"timesteps must be -1 ... {self.steps - 1}, got {int(t.min())} to {int(t.max())}"
            )
        return torch.where(t < 0, at_end, self.alpha_bar[t])
