"""The losses by hand."""

import math

import pytest
import torch
from torch import Tensor

from ldm import loss
from ldm.schedule import NoiseSchedule


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x0, eps, out = torch.randn(3, 2, 4, 2, 2, generator=g)
    return x0, eps, out, torch.tensor([10, 900])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_diffusion_loss_is_the_mean_square_to_the_target(prediction: str) -> None:
    """mean (target - U-Net(x_t, t, text))^2 of each image; the target is eps, or v."""
    schedule, (x0, eps, out, t) = NoiseSchedule(prediction=prediction), batch()
    seen: list[Tensor] = []
    found = loss.diffusion_loss(
        lambda *given: seen.extend(given) or out, schedule, x0, eps, t, torch.tensor(7.0)
    )
    ab = schedule.alpha_bar[t].float().reshape(2, 1, 1, 1)
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    assert torch.allclose(seen[0], x_t, atol=1e-4), "the network sees x_t, the noised picture"
    assert torch.equal(seen[1], t), "the network sees t"
    assert seen[2] == 7, "the network sees the text"
    target = eps if prediction == "eps" else ab.sqrt() * eps - (1 - ab).sqrt() * x0
    mean = ((out - target) ** 2).mean(dim=(1, 2, 3))
    assert torch.allclose(found, mean, rtol=1e-3), f"mean square to the target {prediction}"


def test_a_mask_leaves_the_mean_over_what_it_keeps() -> None:
    """One position of four: the mean of its squares, not a quarter of that."""
    x0, eps, out, t = batch()
    mask = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, 1] = True
    found = loss.diffusion_loss(lambda *_: out, NoiseSchedule(), x0, eps, t, out, mask)
    assert torch.allclose(found, ((out - eps) ** 2)[..., 0, 1].mean(dim=1)), "the mean over a mask"


def test_the_prior_is_added_with_its_weight() -> None:
    """DreamBooth, eq. 2: L + lambda L_prior; the first term keeps its weight of 1."""
    assert loss.prior_preservation(torch.tensor(2.0), torch.tensor(10.0), 0.3) == 5.0


def test_reconstruction_terms_see_edges_along_both_axes() -> None:
    """A step of 1 down one axis of 4 x 4: 4 of 12 differences are 1, in either direction."""
    x = torch.zeros(1, 1, 4, 4)
    for axis in (-1, -2):
        y = x.clone()
        y.narrow(axis, 2, 2).fill_(1.0)
        terms = loss.reconstruction_terms(y, x)
        assert terms["gradient"].item() == pytest.approx(4 / 12), f"edges along axis {axis}"
        assert terms["squared"] == terms["absolute"] == 0.5


def test_clips_loss_is_the_mean_of_two_cross_entropies_by_hand() -> None:
    """Of cosine similarities over the temperature, by rows and columns; lengths are no matter."""
    prompts = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    pictures = torch.tensor([[1.0, 0.0, 0.0], [math.sqrt(3), 5.0, 0.0]])
    cosine = [[1.0, math.sqrt(3 / 28)], [0.0, 5 / math.sqrt(28)]]
    heat = [[math.exp(c / 0.5) for c in row] for row in cosine]
    rows = [-math.log(heat[i][i] / sum(heat[i])) for i in range(2)]
    columns = [-math.log(heat[i][i] / (heat[0][i] + heat[1][i])) for i in range(2)]
    found, logits = loss.contrastive_loss(prompts, pictures, torch.eye(2), 0.5)
    expected = torch.tensor(cosine) / 0.5
    assert torch.allclose(logits, expected), "cosine similarities over the temperature"
    both = (sum(rows) + sum(columns)) / 4
    assert found.item() == pytest.approx(both, rel=1e-5), "both directions, rows and columns"


def test_equal_captions_share_the_target() -> None:
    """Of three pairs two have one caption: their rows want 1/2 and 1/2, not their own alone."""
    equal = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found, _ = loss.contrastive_loss(torch.eye(3), torch.eye(3), equal, 0.5)
    assert found.item() == pytest.approx(math.log(math.exp(2) + 2) - (1 + 1 + 2) / 3)
