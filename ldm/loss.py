"""The losses, each with its equation; the KL divergence is in vae.py, min-SNR in schedule.py."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.schedule import NoiseSchedule
from ldm.unet import UNet


def diffusion_loss(
    unet: UNet,
    schedule: NoiseSchedule,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    context: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """mean (target - U-Net(x_t, t, text))^2 of each image; the target is eps, or v.

    DDPM (arXiv:2006.11239) eq. 14; with text, LDM (arXiv:2112.10752) eq. 3.

    x0, eps: [B, C, h, w];  t: [B];  context: [B, S, D];  returns [B]
    mask: [B, 1, h, w], true where the mean is taken; None: everywhere
    """
    error = unet(schedule.add_noise(x0, eps, t), t, context) - schedule.target(x0, eps, t)
    part = 1.0 if mask is None else mask / mask.float().mean(dim=(1, 2, 3), keepdim=True)
    return (error.square() * part).mean(dim=(1, 2, 3))


def prior_preservation(instance: Tensor, prior: Tensor, weight: float) -> Tensor:
    """L(new images) + lambda L(the model's own images of the class)

    DreamBooth (arXiv:2208.12242), eq. 2: one teaches something new, one keeps what a model was.
    """
    return instance + weight * prior


def reconstruction_terms(y: Tensor, x: Tensor) -> dict[str, Tensor]:
    """How far decoded images y are from the images x: "squared", "absolute" and "gradient".

    squared: mean (y - x)^2;  absolute: mean |y - x|;  gradient: the same of the differences between
    neighbours, down and across, which keeps edges. It takes the place of LDM's perceptual term
    (arXiv:2112.10752, section 3.1), which needs a network trained on photographs.

    x, y: [B, C, H, W];  returns scalars
    """
    squared = F.mse_loss(y, x)  # in this order: it decides the last bits of the gradient of y
    across, down = (F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (-1, -2))
    return {"squared": squared, "gradient": across + down, "absolute": F.l1_loss(y, x)}


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """(mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2: D learns to tell images from copies.

    Geometric GAN (arXiv:1705.02894); the autoencoder's term is -mean D(y).  real, fake: D(x), D(y)
    """
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def adaptive_weight(errors: Tensor, fooled: Tensor, last: Tensor) -> Tensor:
    """|grad of the errors' loss| / (|grad of -mean D(y)| + 1e-6), by the decoder's last weights.

    VQGAN (arXiv:2012.09841), eq. 7, and LDM (arXiv:2112.10752), section G: both then pull equally.
    """
    a, b = (torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (errors, fooled))
    return a / (b + 1e-6)


def contrastive_loss(
    prompts: Tensor, pictures: Tensor, equal: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """CLIP's loss (arXiv:2103.00020, figure 3): which of the prompts belongs to which picture?

    The mean of two cross-entropies over cosine similarities, rows and columns. Captions repeat, so
    the target of a row is spread evenly over all pairs with an equal caption.

    prompts, pictures: [B, D];  equal: [B, B], 1 where captions are equal, else 0
    returns the loss and the logits [B, B], similarities / temperature
    """
    logits = F.normalize(prompts, dim=1) @ F.normalize(pictures, dim=1).T / temperature
    target = equal / equal.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, logits
