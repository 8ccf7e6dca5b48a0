"""The judge: a small DenseNet that detects findings in radiographs (arXiv:1608.06993)."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.blocks import group_norm
from ldm.config import ConfigError, check_numbers, from_dict, to_dict
from ldm.weights import adapters


@dataclass(frozen=True)
class JudgeConfig:
    """The DenseNet that looks for findings; their names are those of captions."""

    findings: tuple[str, ...] = ("pleural effusion",)
    size: int = 128  # pixels
    channels: int = 32  # after the first convolution
    growth: int = 16  # channels that each layer adds
    blocks: tuple[int, ...] = (4, 6, 8, 6)  # layers of each
    groups: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.findings:
            raise ConfigError("findings must name at least one finding")
        if not 0 < sum(self.blocks) <= 256:
            raise ConfigError(f"the blocks {self.blocks} must have 1 to 256 layers together")


class DenseLayer(nn.Module):
    """x joined with the output of a bottleneck and a 3 x 3 convolution (section 3)."""

    def __init__(self, width: int, growth: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width, groups, eps=1e-5)
        self.conv1 = nn.Conv2d(width, 4 * growth, 1, bias=False)
        self.norm2 = group_norm(4 * growth, groups, eps=1e-5)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C + growth, h, w]"""
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class Transition(nn.Module):
    """Half the channels, half the sides."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups, eps=1e-5)
        self.conv = nn.Conv2d(width, width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C / 2, h / 2, w / 2]"""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class Judge(nn.Module):
    """Grey radiographs -> one logit for each finding of the config.

    GroupNorm replaces the paper's BatchNorm, so that a verdict does not depend on the batch. Each
    image is first brought to mean 0 and variance 1, which removes the exposure.
    """

    def __init__(self, cfg: JudgeConfig) -> None:
        super().__init__()
        self.config = cfg
        width = cfg.channels
        layers: list[nn.Module] = [nn.Conv2d(1, width, 7, stride=2, padding=3), nn.MaxPool2d(2)]
        for i, count in enumerate(cfg.blocks):
            for _ in range(count):
                layers.append(DenseLayer(width, cfg.growth, cfg.groups))
                width += cfg.growth
            if i < len(cfg.blocks) - 1:
                layers.append(Transition(width, cfg.groups))
                width //= 2
        self.layers = nn.Sequential(*layers)
        self.norm = group_norm(width, cfg.groups, eps=1e-5)
        self.out = nn.Linear(width, len(cfg.findings))

    def features(self, images: Tensor) -> Tensor:
        """[B, C] from images [B, 1, size, size] in [-1, 1]"""
        size = self.config.size
        if images.shape[1:] != (1, size, size) or images.abs().max() > 1.001:
            raise ValueError(
                f"the judge expects grey images [B, 1, {size}, {size}] in [-1, 1], got "
                f"{list(images.shape)} in [{images.min():.3g}, {images.max():.3g}]"
            )
        x = images - images.mean(dim=(2, 3), keepdim=True)
        x = x / (x.std(dim=(2, 3), keepdim=True) + 1e-3)
        return F.relu(self.norm(self.layers(x))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]"""
        return self.out(self.features(images))


def save_judge(path: Path, judge: Judge) -> None:
    """Weights and config in one safetensors file."""
    adapters.save(path, "judge", judge.state_dict(), to_dict(judge.config))


def load_judge(path: str | Path) -> Judge:
    """The judge in a file or a run folder, in eval mode, float32, on the CPU.

    Raises ValueError, in one line, for anything else.
    """
    tensors, settings = adapters.load(path, "judge")
    try:
        with torch.device("meta"):  # which needs no memory, whatever the sizes
            judge = Judge(from_dict(JudgeConfig, settings))
        judge.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot open the judge {path}: {str(error).splitlines()[0]}") from error
    return judge.eval()
