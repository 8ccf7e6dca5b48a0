"""Noise is a function of (seed, index, step), and behaves like noise."""

import pytest
import torch

from ldm import rng

SHAPE = (4, 16, 16)


def test_a_row_of_noise_is_the_same_alone_and_in_any_batch() -> None:
    """Image 7 has the same noise, bit for bit, alone, in a batch of 16 and in another order."""
    alone = rng.gaussian(5, [7], 3, SHAPE)[0]
    assert torch.equal(rng.gaussian(5, range(16), 3, SHAPE)[7], alone)
    assert torch.equal(rng.gaussian(5, [9, 7, 2], 3, SHAPE)[1], alone)


def test_drawing_neither_reads_nor_moves_the_global_generator() -> None:
    """Noise does not depend on what else was drawn before, and changes nothing for others."""
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), rng.gaussian(5, [7], 3, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(rng.gaussian(5, [7], 3, SHAPE), first)


def test_every_part_of_the_key_counts() -> None:
    """Another seed, purpose, index or step is another stream, even with the same digits."""
    keys = [
        (seed, purpose, index, step)
        for seed in (0, 1, 10, -1)
        for purpose in ("noise", "batch", "noise1")
        for index in (0, 1, 10, 11)
        for step in (-1, 0, 1, 10, 11)
    ]
    assert len({rng.generator(*key).initial_seed() for key in keys}) == len(keys)
    rows = [
        rng.gaussian(seed, [i], step, SHAPE) for seed in (0, 1) for i in (0, 1) for step in (0, 1)
    ]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == len(rows)


def test_streams_stay_what_they_were() -> None:
    """The key of image 7's first noise hashes to the same seed in every version.

    sha256(b"0|noise|7|-1")[:8] as a signed little-endian number; pictures are drawn again from it.
    """
    assert rng.generator(0, "noise", 7, -1).initial_seed() == 6609335614413800900


@pytest.mark.parametrize("neighbours", ["seeds", "indices", "steps"])
def test_noise_is_unit_gaussian_and_unrelated_to_its_neighbours(neighbours: str) -> None:
    """Mean 0, variance 1, fourth moment 3, and no correlation between one row and the next.

    Over N independent numbers these estimates have standard deviations of 1, sqrt(2), sqrt(96)
    and, for the correlation, 1, each over sqrt(N); 5 of them are allowed.
    """
    many = range(64)
    rows = {
        "seeds": lambda: torch.cat([rng.gaussian(seed, [0], 0, SHAPE) for seed in many]),
        "indices": lambda: rng.gaussian(0, many, 0, SHAPE),
        "steps": lambda: torch.cat([rng.gaussian(0, [0], step, SHAPE) for step in many]),
    }[neighbours]()
    x = rows.double().flatten(1)
    bound = 5 / x.numel() ** 0.5
    assert abs(x.mean()) < bound
    assert abs(x.square().mean() - 1) < bound * 2**0.5
    assert abs(x.pow(4).mean() - 3) < bound * 96**0.5
    each = (x[1:] * x[:-1]).mean(dim=1)  # one pair of neighbours: 1 / sqrt(numbers in a row)
    assert each.abs().max() < 5 / x.shape[1] ** 0.5
    assert abs(each.mean()) < bound * (64 / 63) ** 0.5
