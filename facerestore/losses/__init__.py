"""What training minimises: each loss maps `(pred, target)` to (B,), and an `Objective` adds them up."""

from facerestore.features.dists import Dists
from facerestore.features.edges import EdgeAware
from facerestore.features.lpips import Lpips
from facerestore.losses.clip import ClipLoss
from facerestore.losses.correction import ratio_cap
from facerestore.losses.fid_proxy import FidProxy
from facerestore.losses.frequency import (
    gradient_charbonnier,
    high_frequency_charbonnier,
    wavelet_high_frequency,
)
from facerestore.losses.objective import Objective, Term
from facerestore.losses.perceptual import VggLoss
from facerestore.losses.pixel import blurred_mse, charbonnier, l1, lp, mse

__all__ = [
    "ClipLoss",
    "Dists",
    "EdgeAware",
    "FidProxy",
    "Lpips",
    "Objective",
    "Term",
    "VggLoss",
    "blurred_mse",
    "charbonnier",
    "gradient_charbonnier",
    "high_frequency_charbonnier",
    "l1",
    "lp",
    "mse",
    "ratio_cap",
    "wavelet_high_frequency",
]
