"""The autoencoder in tiles of whole rows: the same image in a third of the memory.

A 3 x 3 convolution of a tile needs one more row above and below. GroupNorm (arXiv:1803.08494) needs
the mean and variance of the whole map: they are taken over all tiles before any is normalised, so
there is no seam, and the result differs from the plain one by rounding alone. A map is a list of
tiles, each freed after its last use: about one map is in memory, where the plain autoencoder holds
the input, its norm, its SiLU and the output at once.
"""

import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.blocks import ResBlock
from ldm.vae import VAE, Decoder, Encoder, VAELevel

AT_ONCE = 2**23  # numbers in a tile, 32 MB in float32: smaller tiles compute more rows twice

Layer = Callable[[Tensor], Tensor]


def use(vae: VAE) -> None:
    """Encode and decode in tiles from now on; for drawing, not for training."""
    vae.encoder.forward = functools.partial(encode, vae.encoder)  # type: ignore[method-assign]
    vae.decoder.forward = functools.partial(decode, vae.decoder)  # type: ignore[method-assign]


def encode(encoder: Encoder, image: Tensor) -> Tensor:
    """Encoder.forward in tiles."""
    tiles = cut(encoder.conv_in(F.pixel_unshuffle(image, encoder.patch)))
    for level in encoder.down:
        tiles = cut(torch.cat(run_level(cast(VAELevel, level), tiles), dim=2))
    # whole: it is a factor of 8 smaller, and attention needs all of it
    x = encoder.mid(torch.cat(tiles, dim=2))
    return encoder.conv_out(F.silu(encoder.norm_out(x)))


def decode(decoder: Decoder, z: Tensor) -> Tensor:
    """Decoder.forward in tiles."""
    tiles = cut(decoder.mid(decoder.conv_in(z)))
    for level in decoder.up:
        tiles = run_level(cast(VAELevel, level), tiles)
    activate = norm_silu(decoder.norm_out, tiles)
    image = torch.cat(sweep(tiles, lambda x: decoder.conv_out(activate(x))), dim=2)
    return F.pixel_shuffle(image, decoder.patch)


def run_level(level: VAELevel, tiles: list[Tensor]) -> list[Tensor]:
    """The level's res blocks and resampling; empties the list `tiles`, as all functions below."""
    for block in level.res:
        tiles = run_block(cast(ResBlock, block), tiles)
    # two rows: Downsample takes them in pairs
    return tiles if level.resample is None else sweep(tiles, level.resample, halo=2)


def run_block(block: ResBlock, tiles: list[Tensor]) -> list[Tensor]:
    """The block's two convolutions in two sweeps; the first also carries the skip connection."""
    width = block.conv1.out_channels
    activate1 = norm_silu(block.norm1, tiles)

    def first(x: Tensor) -> Tensor:
        skipped = block.skip(x) if hasattr(block, "skip") else x
        return torch.cat([block.conv1(activate1(x)), skipped], dim=1)

    both = sweep(tiles, first)
    activate2 = norm_silu(block.norm2, [x[:, :width] for x in both])

    def second(x: Tensor) -> Tensor:
        return block.conv2(activate2(x[:, :width])) + x[:, width:]

    return sweep(both, second)


def sweep(tiles: list[Tensor], layer: Layer, halo: int = 1) -> list[Tensor]:
    """The layer, of one convolution at most, applied to the whole map; empties the list `tiles`.

    halo: rows that are computed in addition above and below each tile, and cut off
    """
    done: list[Tensor] = []
    above = tiles[0][:, :, :0]
    while tiles:
        here = tiles.pop(0)
        below = tiles[0][:, :, :halo] if tiles else here[:, :, :0]
        y = layer(torch.cat([above, here, below], dim=2))
        rows = above.shape[2] + here.shape[2] + below.shape[2]
        start, stop = (y.shape[2] * n // rows for n in (above.shape[2], rows - below.shape[2]))
        done += cut(y[:, :, start:stop])
        above = here[:, :, -halo:].clone()
    return done


def cut(x: Tensor) -> list[Tensor]:
    """Tiles [B, C, rows, w] of a map [B, C, h, w], each a copy; the number of rows is even."""
    rows = max(2, AT_ONCE // x[:, :, 0].numel() // 2 * 2)
    return [tile.clone() for tile in x.split(rows, dim=2)]


def norm_silu(norm: nn.GroupNorm, tiles: list[Tensor]) -> Layer:
    """silu(norm(x)) of a tile x, with the mean and variance of all tiles."""
    split = (norm.num_groups, -1)
    wide = torch.promote_types(tiles[0].dtype, torch.float32)
    moments = [
        torch.var_mean(x.to(wide).unflatten(1, split), dim=(2, 3, 4), correction=0) for x in tiles
    ]
    variance, mean = (torch.stack(each) for each in zip(*moments, strict=True))  # [tiles, B, G]
    rows = mean.new_tensor([x.shape[2] for x in tiles])
    share = (rows / rows.sum())[:, None, None]
    whole_mean = (share * mean).sum(0)
    whole_variance = (share * (variance + (mean - whole_mean) ** 2)).sum(0)
    std = (whole_variance + norm.eps).sqrt()
    scale = norm.weight.unflatten(0, split) / std[..., None]  # [B, G, C / G]
    shift = norm.bias.unflatten(0, split) - whole_mean[..., None] * scale
    scale, shift = (x.flatten(1)[:, :, None, None] for x in (scale, shift))
    return lambda x: F.silu(torch.addcmul(shift, x, scale).to(x.dtype), inplace=True)
