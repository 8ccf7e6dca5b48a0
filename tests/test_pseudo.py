"""The generator behind the goldens: if it drifts, no parity test means anything."""

import hashlib

from pseudo import fill


def test_the_first_weight_has_the_published_hash():
    """fill() gives the bits that the goldens were made from."""
    weight = fill("model.diffusion_model.input_blocks.0.0.weight", (320, 4, 3, 3))
    assert (
        hashlib.sha256(weight.tobytes()).hexdigest()
        == "64288c2a6ab1be2ec25f0573a0615b29b9ad92ecb76a5e2ec6c0862325727869"
    )
