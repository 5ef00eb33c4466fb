"""Run an `AutoencoderKL` over large pictures in tiles that share the statistics of every GroupNorm.

All tiles go through the network in step. Where a GroupNorm stands, mean and variance are pooled over the
whole picture, so that tiles do not drift apart in tone. Tiles wait on the CPU for their turn.

The layout of the tiles is that of the "VAEHook" script, read in cswry/OSEDiff. The script averages the
variances of padded tiles; here each pixel counts once and the spread between tiles counts too, which makes
the statistics those of the untiled picture. As in the script, attention looks no further than its tile.

A GPU then needs memory for one tile. A CPU gains little, because the tiles wait in that same memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError

_ENCODER_PAD_PX = 32
_DECODER_PAD = 11
_GRID = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTiles(Config):
    """How large a picture may be before its autoencoder works in tiles.

    Attributes:
        encoder_px: side of a tile when encoding; a picture up to 64 px larger goes whole.
        decoder_cells: side of a tile when decoding, latent cells; up to 22 more go whole.
    """

    encoder_px: int = 1024
    decoder_cells: int = 224

    def __post_init__(self) -> None:
        for name, side in (("encoder_px", self.encoder_px), ("decoder_cells", self.decoder_cells)):
            if side < _GRID or side % _GRID:
                raise ConfigError(f"{name} is a multiple of {_GRID}, got {side}")


def needs_tiles(tiles: VaeTiles, longer_side: int, *, decoding: bool) -> bool:
    """Whether this many pixels (encoding) or latent cells (decoding) are more than one tile holds."""
    tile, pad = (tiles.decoder_cells, _DECODER_PAD) if decoding else (tiles.encoder_px, _ENCODER_PAD_PX)
    return longer_side > tile + 2 * pad


def encode_tiled(vae: Any, images: Tensor, tiles: VaeTiles) -> Tensor:
    """Moments (B,2C,H/f,W/f) of the posterior of images (B,3,H,W) in [-1,1], in the dtype of the images.

    Sides must be multiples of f, the pixels per latent cell.
    """
    return _run(vae, images, tiles.encoder_px, _ENCODER_PAD_PX, _encode)


def decode_tiled(vae: Any, latents: Tensor, tiles: VaeTiles) -> Tensor:
    """Images (B,3,h*f,w*f) in about [-1,1] from unscaled latents (B,C,h,w), in the dtype of the latents."""
    return _run(vae, latents, tiles.decoder_cells, _DECODER_PAD, _decode)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tile lies along one side: what it reads, and the part of it that is its own."""

    start: int
    end: int
    own_start: int
    own_end: int

    def own(self, length: int) -> slice:
        """The own part inside the tile when its side is `length` at some depth of the network."""
        scale = length / (self.end - self.start)
        return slice(round((self.own_start - self.start) * scale), round((self.own_end - self.start) * scale))


def spans(length: int, tile: int, pad: int) -> list[Span]:
    """Tiles along one side; own parts follow one another from 0 to `length`, `pad` is read beyond them."""
    count = max(1, -(-(length - 2 * pad) // tile))
    side = _rounded(-(-(length - 2 * pad) // count), tile)
    starts = [pad + k * side for k in range(count)]
    edges = [0, *starts[1:], length]
    return [
        Span(
            start=max(0, start - pad),
            end=min(length, min(start + side, length) + pad),
            own_start=edges[k],
            own_end=edges[k + 1],
        )
        for k, start in enumerate(starts)
    ]


def _rounded(side: int, limit: int) -> int:
    """Up to a multiple of 32, or of the largest smaller power of two with which it stays within the limit."""
    for divider in (32, 16, 8, 4, 2):
        rounded = -(-side // divider) * divider
        if rounded <= limit:
            return rounded
    return side


class _Tile:
    """A tile on its way: activations, what a residual connection keeps, and its share of the statistics."""

    def __init__(self, hidden: Tensor, rows: Span, columns: Span) -> None:
        self.hidden = hidden.cpu()
        self.kept: Tensor | None = None
        self.rows = rows
        self.columns = columns

    def own(self) -> Tensor:
        height, width = self.hidden.shape[2:]
        return self.hidden[:, :, self.rows.own(height), self.columns.own(width)]

    def to(self, device: torch.device | str) -> None:
        self.hidden = self.hidden.to(device)
        self.kept = None if self.kept is None else self.kept.to(device)


Steps = Iterator[Any]  # of the GroupNorms that the tile has come to


def _run(vae: Any, images: Tensor, side: int, pad: int, steps: Any) -> Tensor:
    height, width = images.shape[2:]
    tiles = [
        _Tile(images[:, :, rows.start : rows.end, columns.start : columns.end], rows, columns)
        for rows in spans(height, side, pad)
        for columns in spans(width, side, pad)
    ]
    runs = [steps(vae, tile) for tile in tiles]
    norm: Any = None
    moments: tuple[Tensor, Tensor] | None = None
    while True:
        sums: list[tuple[int, Tensor, Tensor]] = []
        following: Any = None
        for tile, run in zip(tiles, runs, strict=True):
            tile.to(images.device)
            if moments is not None:
                tile.hidden = _normalise(tile.hidden, norm, *moments)
            following = next(run, None)
            if following is not None:
                sums.append(_moments(tile.own(), following))
            tile.to("cpu")
        if following is None:
            return _joined(tiles, images)
        norm, moments = following, _pooled(sums)


def _joined(tiles: list[_Tile], images: Tensor) -> Tensor:
    first = tiles[0]
    scale = first.hidden.shape[2] / (first.rows.end - first.rows.start)
    height, width = (round(side * scale) for side in images.shape[2:])
    out = images.new_empty(len(images), first.hidden.shape[1], height, width)
    for tile in tiles:
        top, left = round(tile.rows.own_start * scale), round(tile.columns.own_start * scale)
        own = tile.own().to(images.device)
        out[:, :, top : top + own.shape[2], left : left + own.shape[3]] = own
    return out


def _moments(hidden: Tensor, norm: Any) -> tuple[int, Tensor, Tensor]:
    """Pixels, means and variances (B,groups) of a tile."""
    groups = hidden.float().reshape(len(hidden), norm.num_groups, -1)
    variance, mean = torch.var_mean(groups, dim=2, correction=0)
    return hidden.shape[2] * hidden.shape[3], mean, variance


def _pooled(sums: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    total = sum(count for count, _, _ in sums)
    mean = torch.stack([m * (count / total) for count, m, _ in sums]).sum(0)
    spread = [(v + (m - mean) ** 2) * (count / total) for count, m, v in sums]
    return mean, torch.stack(spread).sum(0)


def _normalise(hidden: Tensor, norm: Any, mean: Tensor, variance: Tensor) -> Tensor:
    channels = norm.num_channels // norm.num_groups
    scale = torch.rsqrt(variance + norm.eps).repeat_interleave(channels, 1) * norm.weight.float()
    offset = norm.bias.float() - mean.repeat_interleave(channels, 1) * scale
    return (hidden.float() * scale[..., None, None] + offset[..., None, None]).to(hidden.dtype)


def _encode(vae: Any, tile: _Tile) -> Steps:
    net = vae.encoder
    tile.hidden = net.conv_in(tile.hidden)
    for block in net.down_blocks:
        for resnet in block.resnets:
            yield from _resnet(resnet, tile)
        for sampler in block.downsamplers or ():
            tile.hidden = sampler(tile.hidden)
    yield from _middle(net.mid_block, tile)
    yield from _last(net, tile)
    if vae.quant_conv is not None:
        tile.hidden = vae.quant_conv(tile.hidden)


def _decode(vae: Any, tile: _Tile) -> Steps:
    net = vae.decoder
    if vae.post_quant_conv is not None:
        tile.hidden = vae.post_quant_conv(tile.hidden)
    tile.hidden = net.conv_in(tile.hidden)
    yield from _middle(net.mid_block, tile)
    for block in net.up_blocks:
        for resnet in block.resnets:
            yield from _resnet(resnet, tile)
        for sampler in block.upsamplers or ():
            tile.hidden = sampler(tile.hidden)
    yield from _last(net, tile)


def _middle(block: Any, tile: _Tile) -> Steps:
    yield from _resnet(block.resnets[0], tile)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            yield from _attention(attention, tile)
        yield from _resnet(resnet, tile)


def _last(net: Any, tile: _Tile) -> Steps:
    yield net.conv_norm_out
    tile.hidden = net.conv_out(net.conv_act(tile.hidden))


def _resnet(block: Any, tile: _Tile) -> Steps:
    tile.kept = tile.hidden if block.conv_shortcut is None else block.conv_shortcut(tile.hidden)
    yield block.norm1
    tile.hidden = block.conv1(block.nonlinearity(tile.hidden))
    yield block.norm2
    hidden = block.conv2(block.nonlinearity(tile.hidden))
    tile.hidden, tile.kept = (tile.kept + hidden) / block.output_scale_factor, None


def _attention(attention: Any, tile: _Tile) -> Steps:
    tile.kept = tile.hidden
    yield attention.group_norm
    tokens = tile.hidden.flatten(2).transpose(1, 2)
    query, key, value = (
        project(tokens).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    hidden = attention.to_out[0](mixed).transpose(1, 2).reshape(tile.hidden.shape)
    tile.hidden, tile.kept = (hidden + tile.kept) / attention.rescale_output_factor, None
