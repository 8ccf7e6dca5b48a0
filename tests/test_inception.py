"""Inception-v3 against pytorch-fid's, on pseudo-random weights of the published file's names.

Goldens: what pytorch-fid 0.3.0 computed in float64; no trained weights are needed for that.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import golden, relative_l2
from pseudo import fill, unit
from torch import Tensor

from ldm.judging.inception import SIZE, Inception

OTHERS = {"odd": (96, 140), "large": (512, 400), "exact": (299, 299)}
SUMS = {"odd": 5733035, "large": 89657352, "exact": 36375281}  # of the reference's pixels


@pytest.fixture(scope="module")
def network() -> Inception:
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(weights(network), assign=True)
    return network.eval()


def weights(network: Inception) -> dict[str, Tensor]:
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):  # the half makes up for the ReLU over 90 layers
            state[name] = torch.from_numpy(0.5 * (1 + unit(name, tuple(tensor.shape), std=0.1)))
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        else:
            state[name] = torch.from_numpy(fill(name, tuple(tensor.shape)))
    return state


def picture(name: str, height: int, width: int) -> Tensor:
    """uint8 values as the goldens' rule makes them: blocks of 16 pixels, noise and a level."""
    blocks = (3, -(-height // 16), -(-width // 16))
    key = f"inception.{name}"
    a = unit(f"{key}.coarse", blocks).astype(np.float64).repeat(16, axis=1).repeat(16, axis=2)
    b, c = unit(f"{key}.fine", (3, height, width)), unit(f"{key}.level", (3, 1, 1))
    values = (
        128 + 45 * a[:, :height, :width] + 15 * b.astype(np.float64) + 25 * c.astype(np.float64)
    )
    return torch.from_numpy(np.floor(values).clip(0, 255) / 127.5 - 1).float()


@torch.inference_mode()
def features(network: Inception, *pictures: Tensor) -> Tensor:
    """Resized as pytorch-fid does: bilinear, not antialiased."""
    return network(F.interpolate(torch.stack(pictures), (SIZE, SIZE), mode="bilinear"))


def test_pool3_equals_the_reference(network: Inception) -> None:
    """Four images give pytorch-fid's features; torchvision's own blocks would be 16 % off."""
    pictures = [picture(f"image{i}", 128, 128) for i in range(4)]
    want = golden("inception")
    found = features(network, *pictures)
    assert relative_l2(found, want["pool3"]) < 5e-6
    assert relative_l2(found, want["torchvision_plain.pool3"]) > 0.1


@pytest.mark.parametrize("name", OTHERS)
def test_any_size_is_resized_as_the_reference_does(network: Inception, name: str) -> None:
    """Odd sides, 512 x 400 (aliased, as the reference) and 299 (unchanged) give its features."""
    found = features(network, picture(name, *OTHERS[name]))
    assert relative_l2(found[0], golden("inception")[f"{name}.pool3"]) < 5e-6
