"""Degradations: low-quality pictures of good ones, by the models that restorers are trained with.

`degrade(hq, "gfpgan", seeds)` is all that most need; `PRESETS` has the names, `read_basicsr` reads an option
file of BasicSR, `draw` and `apply` separate the numbers from the pictures. Its parts stand for themselves:
`blur_kernels` and `filter2d`, `gaussian_noise` and `poisson_noise`, `jpeg` and `real_jpeg`, `sharpen`.
"""

from facerestore.degradations.basicsr_options import read_basicsr
from facerestore.degradations.classic import Classic, ClassicDraw
from facerestore.degradations.filtering import filter2d
from facerestore.degradations.jpeg import jpeg, real_jpeg, smooth_round
from facerestore.degradations.kernels import Kernel, KernelRange, blur_kernels
from facerestore.degradations.noise import gaussian_noise, poisson_noise
from facerestore.degradations.presets import PRESETS, Preset, find_preset
from facerestore.degradations.process import Draw, apply, degrade, draw, target
from facerestore.degradations.second_order import Pass, PassDraw, SecondOrder, SecondOrderDraw
from facerestore.degradations.usm import sharpen

__all__ = [
    "PRESETS",
    "Classic",
    "ClassicDraw",
    "Draw",
    "Kernel",
    "KernelRange",
    "Pass",
    "PassDraw",
    "Preset",
    "SecondOrder",
    "SecondOrderDraw",
    "apply",
    "blur_kernels",
    "degrade",
    "draw",
    "filter2d",
    "find_preset",
    "gaussian_noise",
    "jpeg",
    "poisson_noise",
    "read_basicsr",
    "real_jpeg",
    "sharpen",
    "smooth_round",
    "target",
]
