"""How near a picture is to the true one, pixel by pixel: PSNR and SSIM, in colour and of luma."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ShapeError

_LUMA = (65.481, 128.553, 24.966)  # of R, G and B in [0,1]; 16 is added: ITU-R BT.601, 8 bits
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
PSNR_CAP = 100.0
"""What equal pictures get, whose PSNR is infinite: one 8-bit step in one of 40,000 values has 94 dB."""


def luma(images: Tensor) -> Tensor:
    """Y of YCbCr as MATLAB and BasicSR have it: (B,3,H,W) in [0,1] to (B,1,H,W) in [16/255, 235/255]."""
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    return ((images * weights).sum(1, keepdim=True) + 16) / 255


def psnr(pred: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all values of a picture, the peak 1.

    Args:
        pred: (B,C,H,W) in [0,1].
        target: the same shape.

    Returns:
        (B,) float64, at most `PSNR_CAP`.

    Parity:
        scikit-image 0.25 `peak_signal_noise_ratio(data_range=1)`, 1e-6; basicsr 1.4.2 `calculate_psnr_pt`,
        whose 1e-8 under the logarithm caps at 80 dB.
    """
    error = (pred.double() - target.double()).square().mean((1, 2, 3))
    return (-10 * torch.log10(error)).clamp(max=PSNR_CAP)


def ssim(pred: Tensor, target: Tensor) -> Tensor:
    """Structural similarity by a Gaussian window of 11 px, sigma 1.5; mean over its valid part and channels.

    Args:
        pred: (B,C,H,W) in [0,1], of 11 px or more.
        target: the same shape.

    Returns:
        (B,) float64, 1 for equal pictures.

    Raises:
        ShapeError: if a side is shorter than the window.

    Reference:
        Wang, Bovik, Sheikh, Simoncelli, 2004, IEEE TIP 13(4).
    Parity:
        scikit-image 0.25 `structural_similarity(gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False)` without the 5 px at the border, and basicsr 1.4.2 `_ssim_pth`: 1e-6.
    """
    if min(pred.shape[2:]) < _WINDOW:
        raise ShapeError(f"pictures of {_WINDOW} px or more", pred.shape)
    x, y = pred.double(), target.double()
    offsets = torch.arange(_WINDOW, dtype=torch.float64, device=x.device) - _WINDOW // 2
    line = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def mean(images: Tensor) -> Tensor:
        channels = images.shape[1]
        down = line.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        across = line.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(images, down, groups=channels), across, groups=channels)

    mean_x, mean_y = mean(x), mean(y)
    variance_x = mean(x * x) - mean_x.square()
    variance_y = mean(y * y) - mean_y.square()
    covariance = mean(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similar = similar / ((mean_x.square() + mean_y.square() + _C1) * (variance_x + variance_y + _C2))
    return similar.mean((1, 2, 3))


def match_mean_std(pred: Tensor, target: Tensor) -> Tensor:
    """Bring each channel of a picture to the mean and spread of the true one.

    VQFR's script does so, twice, before PSNR and SSIM, without saying it; the second time changes nothing but
    what the first clipped.

    Args:
        pred: (B,3,H,W) in [0,1].
        target: the same shape.

    Returns:
        The same shape, in [0,1].

    Reference:
        TencentARC/VQFR `calculate_psnr.py`, option `correct_mean_var`.
    """
    for _ in range(2):
        spread, mean = torch.std_mean(pred, dim=(2, 3), keepdim=True)
        wanted_spread, wanted_mean = torch.std_mean(target, dim=(2, 3), keepdim=True)
        pred = ((pred - mean) / spread.clamp(min=1e-8) * wanted_spread + wanted_mean).clamp(0, 1)
    return pred
