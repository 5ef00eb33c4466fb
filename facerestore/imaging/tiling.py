"""Run an enlarging network over a large picture, tile by tile, without seams and in bounded memory."""

from collections.abc import Callable, Iterator

import torch

Box = tuple[int, int, int, int]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Evenly spread starts of tiles that cover `length` with at least `overlap` between neighbours."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def enlarge_in_strips(
    read: Callable[[Box], torch.Tensor],
    enlarge: Callable[[torch.Tensor], torch.Tensor],
    height: int,
    width: int,
    *,
    scale: int,
    tile_px: int = 192,
    overlap_px: int = 24,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the enlarged picture in strips from top to bottom.

    Neighbouring tiles are cross-faded over their overlap by weights that sum to one, so no seam can stand
    where they meet.
    Only one row of tiles is in memory.

    Args:
        read: gives the region (x0, y0, x1, y1) of the picture, (1,3,h,w) in [0,1].
        enlarge: maps (1,3,h,w) to (1,3,scale*h,scale*w).
        height: of the picture, px.
        width: of the picture, px.
        scale: of `enlarge`.
        tile_px: side of a tile before enlarging.
        overlap_px: least overlap before enlarging.

    Yields:
        (y, strip): the strip (1,3,h,scale*width) float32 in [0,1] that starts at row y of the enlarged
        picture.
    """
    tops, lefts = tile_starts(height, tile_px, overlap_px), tile_starts(width, tile_px, overlap_px)
    tile_h, tile_w = min(tile_px, height), min(tile_px, width)
    rows = torch.zeros(1, 3, tile_h * scale, width * scale)
    weights = torch.zeros(1, 1, tile_h * scale, width * scale)
    for i, top in enumerate(tops):
        for left in lefts:
            tile = enlarge(read((left, top, left + tile_w, top + tile_h))).float().clamp(0, 1).cpu()
            fade = _fade(tile_h, overlap_px, scale)[:, None] * _fade(tile_w, overlap_px, scale)[None]
            place = slice(left * scale, (left + tile_w) * scale)
            rows[..., place] += tile * fade
            weights[..., place] += fade
        following = tops[i + 1] if i + 1 < len(tops) else top + tile_h
        done = (following - top) * scale
        yield top * scale, rows[:, :, :done] / weights[:, :, :done]
        rows = torch.cat([rows[:, :, done:], torch.zeros_like(rows[:, :, :done])], 2)
        weights = torch.cat([weights[:, :, done:], torch.zeros_like(weights[:, :, :done])], 2)


def _fade(length: int, overlap: int, scale: int) -> torch.Tensor:
    """Weights along one side of an enlarged tile: a ramp over the overlap at both ends, never zero."""
    position = torch.arange(length * scale, dtype=torch.float32) + 0.5
    from_edge = torch.minimum(position, length * scale - position)
    return (from_edge / (overlap * scale)).clamp(max=1)
