"""The losses that have an equation: what each part of a latent diffusion model is trained on."""

from __future__ import annotations

from torch import Tensor

from ldm.schedule import NoiseSchedule
from ldm.unet import UNet


def diffusion_loss(
    unet: UNet, schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor, context: Tensor
) -> Tensor:
    """mean (target - U-Net(x_t, t, text))^2 of each image    (LDM, arXiv:2112.10752, eq. 3)

    x0, eps: [B, C, h, w];  t: [B];  context: [B, S, D];  returns [B]
    """
    error = unet(schedule.add_noise(x0, eps, t), t, context) - schedule.target(x0, eps, t)
    return error.square().mean(dim=(1, 2, 3))
