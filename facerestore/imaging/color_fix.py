"""Give a restored picture the colours of the picture that it came from."""

from functools import lru_cache

import torch
import torch.nn.functional as F


def wavelet_color_fix(image: torch.Tensor, reference: torch.Tensor, *, levels: int = 5) -> torch.Tensor:
    """Replace the lowest band of `image` by that of `reference`.

    The band split is the undecimated B-spline pyramid: [1 2 1]/4 in each direction, holes growing by two a
    level.
    It is linear, so only the difference of the two pictures is filtered.

    Args:
        image: (B,C,H,W), any range.
        reference: same shape and range.
        levels: of the pyramid, >= 1; 5 moves everything coarser than about 13 px (one sigma).

    Returns:
        (B,C,H,W), not clamped.

    Reference:
        Wang et al., 2023, arXiv:2305.07015 (StableSR), section 3.4; à trous pyramid with replicated borders.
    """
    down = _lowest_band(image.shape[2], levels).to(image)
    across = _lowest_band(image.shape[3], levels).to(image)
    return image + down @ (reference - image) @ across.mT


@lru_cache(maxsize=8)
def _lowest_band(length: int, levels: int) -> torch.Tensor:
    """The whole pyramid along one axis, replicated borders included, as one matrix (length, length).

    Two matrix products are several times faster on a CPU than ten filters with holes, and give the same
    numbers.
    """
    band = torch.eye(length, dtype=torch.float64)
    position = torch.arange(length)
    for level in range(levels):
        hole = 2**level
        before, after = (position - hole).clamp(min=0), (position + hole).clamp(max=length - 1)
        band = 0.25 * band[before] + 0.5 * band + 0.25 * band[after]
    return band


def adain_color_fix(image: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-5) -> torch.Tensor:
    """Give each channel of `image` the mean and the standard deviation of `reference`.

    Args:
        image: (B,C,H,W), any range.
        reference: (B,C,h,w), same range.
        eps: added to both variances.

    Returns:
        (B,C,H,W), not clamped. A single pixel has no deviation, so its is the reference's mean.

    Reference:
        Huang and Belongie, 2017, arXiv:1703.06868, Eq. 8, with unbiased variances as StableSR uses it.
    """
    var, mean = _moments(image)
    ref_var, ref_mean = _moments(reference)
    return (image - mean) * ((ref_var + eps) / (var + eps)).sqrt() + ref_mean


def _moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance, unbiased where there is more than one pixel, and mean of each channel, (B,C,1,1)."""
    several = image.shape[2] * image.shape[3] > 1
    return torch.var_mean(image, dim=(2, 3), keepdim=True, correction=int(several))


def luma(image: torch.Tensor) -> torch.Tensor:
    """Put the grey value (Rec. 601 weights, as in JPEG) into all three channels, (B,3,H,W) to the same."""
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return F.conv2d(image, weights).expand_as(image)


def is_grey(image: torch.Tensor, *, tolerance: float = 2.5 / 255) -> torch.Tensor:
    """Which pictures have no colour: channels equal up to `tolerance` everywhere. (B,3,H,W) to (B,) bool."""
    spread = image.amax(1) - image.amin(1)
    return spread.flatten(1).amax(1) <= tolerance
