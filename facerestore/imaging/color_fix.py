"""Give a restored picture the colours of the picture that it came from."""

import torch
import torch.nn.functional as F


def wavelet_color_fix(image: torch.Tensor, reference: torch.Tensor, *, levels: int = 5) -> torch.Tensor:
    """Replace the lowest band of `image` by that of `reference`.

    The band split is the undecimated B-spline pyramid: [1 2 1]/4 in each direction, holes growing by two a level.
    It is linear, so only the difference of the two pictures is filtered: one pyramid instead of two.

    Args:
        image: (B,C,H,W), any range.
        reference: same shape and range.
        levels: of the pyramid, >= 1; 5 moves everything coarser than about 13 px (one sigma).

    Returns:
        (B,C,H,W), not clamped.

    Reference:
        Wang et al., 2023, arXiv:2305.07015 (StableSR), section 3.4; à trous pyramid with replicated borders.
    """
    low = reference - image
    for level in range(levels):
        hole = 2**level
        for vertical in (False, True):
            low = _spline(low, hole, vertical=vertical)
    return image + low


def _spline(x: torch.Tensor, hole: int, *, vertical: bool) -> torch.Tensor:
    pad = (0, 0, hole, hole) if vertical else (hole, hole, 0, 0)
    padded = F.pad(x, pad, mode="replicate")
    dim = 2 if vertical else 3
    length = x.shape[dim]
    return (
        0.25 * padded.narrow(dim, 0, length)
        + 0.5 * padded.narrow(dim, hole, length)
        + 0.25 * padded.narrow(dim, 2 * hole, length)
    )


def adain_color_fix(image: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-5) -> torch.Tensor:
    """Give each channel of `image` the mean and the standard deviation of `reference`.

    Args:
        image: (B,C,H,W), any range.
        reference: (B,C,h,w), same range.
        eps: added to both variances.

    Returns:
        (B,C,H,W), not clamped.

    Reference:
        Huang and Belongie, 2017, arXiv:1703.06868, Eq. 8, with unbiased variances as StableSR uses it.
    """
    var, mean = torch.var_mean(image, dim=(2, 3), keepdim=True)
    ref_var, ref_mean = torch.var_mean(reference, dim=(2, 3), keepdim=True)
    return (image - mean) * ((ref_var + eps) / (var + eps)).sqrt() + ref_mean


def luma(image: torch.Tensor) -> torch.Tensor:
    """Grey value (Rec. 601 weights, as JPEG and Pillow use them) in all three channels, (B,3,H,W) to the same."""
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).expand_as(image)


def is_grey(image: torch.Tensor, *, tolerance: float = 2.5 / 255) -> torch.Tensor:
    """Which pictures have no colour: channels equal up to `tolerance` everywhere. (B,3,H,W) to (B,) bool."""
    spread = image.amax(1) - image.amin(1)
    return spread.flatten(1).amax(1) <= tolerance
