"""JPEG, twice: its arithmetic on tensors of any device, and the real codec."""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.imaging.range import from_uint8, to_uint8

# Annex K of the standard; rows are vertical frequencies.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *[(99,) * 8] * 4,
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_FROM_CHROMA = ((0, 1.402), (-0.344136, -0.714136), (1.772, 0))


def jpeg(
    images: torch.Tensor,
    quality: Sequence[float],
    *,
    rounding: Callable[[torch.Tensor], torch.Tensor] = torch.round,
) -> torch.Tensor:
    """Do to pictures what JPEG with 4:2:0 chroma does, without entropy coding, which loses nothing.

    The arithmetic is that of DiffJPEG, which Real-ESRGAN was trained with: colours and results are not
    rounded to whole numbers, chroma is averaged and repeated, the tables are scaled and not rounded. Three
    things are as in real codecs and not as there: the luma table is not transposed, no entry falls below 1
    (above quality 95, where 100 would divide by zero), and sides that are no multiples of 16 px are filled
    with the last row and column, not with black.

    Args:
        images: (B,3,H,W) in [0,1].
        quality: of each picture, 1 to 100, fractions allowed.
        rounding: of the quantised coefficients; `smooth_round` lets gradients through.

    Returns:
        (B,3,H,W) in [0,1].

    Raises:
        ConfigError: if a quality lies outside 1 to 100.
        ShapeError: if there is not one for each picture.
    """
    _check(images, quality)
    height, width = images.shape[2:]
    if height % 16 or width % 16:
        images = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    rows, columns = images.shape[2:]
    # The offset of chroma, 128, and the shift to signed numbers before the transform cancel each other.
    ycbcr = (images.new_tensor(_TO_YCBCR) * 255) @ images.flatten(2)
    luma, chroma = ycbcr.view(-1, 3, rows, columns).split((1, 2), dim=1)
    factor = images.new_tensor([_factor(q) for q in quality]).view(-1, 1, 1)
    luma = _coded(luma - 128, _LUMA_TABLE, factor, rounding) + 128
    chroma = _coded(F.avg_pool2d(chroma, 2), _CHROMA_TABLE, factor, rounding)
    # Colours are made of the small chroma before it is repeated: the same sums, of a quarter of the pixels.
    colour = (images.new_tensor(_FROM_CHROMA) / 255) @ chroma.flatten(2)
    colour = F.interpolate(colour.view(-1, 3, rows // 2, columns // 2), scale_factor=2, mode="nearest")
    return colour.add_(luma, alpha=1 / 255).clamp_(0, 1)[..., :height, :width]


def smooth_round(values: torch.Tensor) -> torch.Tensor:
    """Round, with the cube of the rest added: a gradient of 3 rest^2 (Shin and Song 2017, as in DiffJPEG)."""
    rounded = values.round()
    return rounded + (values - rounded) ** 3


def real_jpeg(images: torch.Tensor, quality: Sequence[float]) -> torch.Tensor:
    """Encode and decode pictures with libjpeg, 4:2:0. Copies every picture to the host and back.

    Args:
        images: (B,3,H,W) in [0,1], rounded to 8 bits.
        quality: of each picture, 1 to 100; fractions are cut off.

    Returns:
        (B,3,H,W) in [0,1], multiples of 1/255; without gradient.

    Raises:
        ConfigError: if a quality lies outside 1 to 100.
        ShapeError: if there is not one for each picture.
    """
    _check(images, quality)
    decoded = []
    for pixels, q in zip(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy(), quality, strict=True):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=int(q), subsampling="4:2:0")
        with Image.open(stream) as image:
            decoded.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return from_uint8(torch.stack(decoded).to(images.device))


def _coded(
    planes: torch.Tensor,
    table: Sequence[Sequence[int]],
    factor: torch.Tensor,
    rounding: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Transform 8 x 8 blocks, quantise them, transform them back: (B,C,H,W), sides multiples of 8."""
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    transform = _transform().to(planes)
    steps = (planes.new_tensor(table).flatten() * factor).clamp(min=1)
    coefficients = (blocks.reshape(count, -1, 64) @ transform.T).div_(steps)
    blocks = rounding(coefficients).mul_(steps) @ transform
    blocks = blocks.view(count, channels, height // 8, width // 8, 8, 8).transpose(3, 4)
    return blocks.reshape(count, channels, height, width)


def _transform() -> torch.Tensor:
    """The cosine transform of an 8 x 8 block as one orthonormal matrix (64,64)."""
    index = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * index[None] + 1) * index[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return torch.kron(basis, basis)


def _factor(quality: float) -> float:
    """What the tables are multiplied with."""
    return (5000 / quality if quality < 50 else 200 - 2 * quality) / 100


def _check(images: torch.Tensor, quality: Sequence[float]) -> None:
    if len(quality) != len(images):
        raise ShapeError(f"{len(images)} qualities, one for each picture", (len(quality),))
    if not all(1 <= q <= 100 for q in quality):
        raise ConfigError(f"the quality of a JPEG is 1 to 100, not {', '.join(map(str, quality))}")
