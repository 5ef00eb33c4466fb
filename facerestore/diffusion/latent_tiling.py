"""Predict on a large latent tile by tile and blend the predictions with Gaussian weights."""

from collections.abc import Callable

import torch

from facerestore.core.errors import ConfigError

_VARIANCE = 0.01  # of the Gaussian, in units of the tile's side squared


def predict_tiled(
    predict: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, *, tile: int, overlap: int
) -> torch.Tensor:
    """Run a network over a latent of any size.

    The algorithm of OSEDiff, OMGSR, TADSR, PiSA-SR, TSD-SR and HAODiff (read in cswry/OSEDiff): a latent of
    at most `tile`^2 cells goes through whole, whatever its sides. Theirs never ends where the shorter side
    is not larger than the overlap; here the overlap shrinks with the tile. What is blended is the
    prediction; the clean latent is computed from it once.

    Args:
        predict: maps one tile of all latents (B,C,t,t) to a prediction of the same shape.
        z: latents (B,C,h,w).
        tile: side of a tile, cells.
        overlap: of neighbouring tiles, cells, below `tile`; less than a quarter of it may show seams.

    Returns:
        The prediction (B,C,h,w) float32.

    Raises:
        ConfigError: if the overlap does not lie in [0, tile).
    """
    if not 0 <= overlap < tile:
        raise ConfigError(f"the overlap of tiles of {tile} lies in 0 to {tile - 1}, got {overlap}")
    height, width = z.shape[2:]
    if height * width <= tile * tile:
        return predict(z).float()
    side = min(tile, height, width)
    overlap = min(overlap, side // 2)
    weights = gaussian_weights(side).to(z.device, torch.float32)
    total = torch.zeros(z.shape, dtype=torch.float32, device=z.device)
    weight = torch.zeros((height, width), dtype=torch.float32, device=z.device)
    for top in tile_starts(height, side, overlap):
        for left in tile_starts(width, side, overlap):
            place = (..., slice(top, top + side), slice(left, left + side))
            total[place] += predict(z[place]).float() * weights
            weight[place] += weights
    return total / weight


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles at equal strides; the last one is moved back to end where the latent ends."""
    stride = tile - overlap
    count = -(-(length - tile) // stride) + 1
    return [*(k * stride for k in range(count - 1)), length - tile]


def gaussian_weights(tile: int) -> torch.Tensor:
    """Weights (tile,tile) float64 of the cells of a tile; rows are centred half a cell lower, as theirs."""
    at = torch.arange(tile, dtype=torch.float64)
    rows, columns = (
        torch.exp(-((at - centre) ** 2) / (2 * _VARIANCE * tile**2)) / (2 * torch.pi * _VARIANCE) ** 0.5
        for centre in (tile / 2, (tile - 1) / 2)
    )
    return torch.outer(rows, columns)
