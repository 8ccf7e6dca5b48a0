"""The U-Net of weights made for inpainting, as runwayml's of SD 1.5 and Stability AI's of SD 2."""

import torch
from torch import Tensor

from ldm.config import ConfigError
from ldm.unet import UNet


class InpaintingUNet(UNet):
    """Beside x_t it sees what is known: the mask, and the latent of the picture without the hole.

    They are joined with x_t as channels (LDM, arXiv:2112.10752, section 4.5).

    known: [1, 1 + C_z, h, w], set by drawing/image_editing.py while it repaints; None: nothing is
    """

    known: Tensor | None = None

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """As of UNet; raises ConfigError where nothing is to be repainted."""
        if self.known is None:
            raise ConfigError("these weights are for inpainting: give --init and --mask")
        known = self.known.to(x).expand(len(x), -1, -1, -1)
        return super().forward(torch.cat([x, known], dim=1), t, context)
