"""Degradations by name, with the numbers that their authors trained with."""

import difflib
from collections.abc import Mapping
from dataclasses import replace

from facerestore.core.errors import ConfigError
from facerestore.degradations.choices import Range
from facerestore.degradations.classic import Classic
from facerestore.degradations.kernels import KernelRange
from facerestore.degradations.second_order import Pass, SecondOrder

Preset = Classic | SecondOrder

MIXED_SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_MIXED_WEIGHTS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


def _classic(sigma: Range, downsample: Range, noise: Range, quality: Range) -> Classic:
    kernel = KernelRange(sizes=(41,), sigma=sigma)
    return Classic(kernel=kernel, downsample=downsample, noise_sigma=noise, quality=quality)


def _mixed_kernel(sigma: Range, sizes: range, sinc_large_px: int) -> KernelRange:
    return KernelRange(
        sizes=tuple(sizes),
        shapes=MIXED_SHAPES,
        weights=_MIXED_WEIGHTS,
        sigma=sigma,
        beta_generalized=(0.5, 4.0),
        beta_plateau=(1.0, 2.0),
        sinc_probability=0.1,
        sinc_large_px=sinc_large_px,
    )


_REALESRGAN = SecondOrder(
    first=Pass(
        kernel=_mixed_kernel((0.2, 3.0), range(7, 22, 2), 13),
        blur_probability=1.0,
        resize_weights=(0.2, 0.7, 0.1),
        resize=(0.15, 1.5),
        gaussian_sigma=(1.0, 30.0),
        poisson_scale=(0.05, 3.0),
        quality=(30.0, 95.0),
    ),
    second=Pass(
        kernel=_mixed_kernel((0.2, 1.5), range(7, 22, 2), 13),
        blur_probability=0.8,
        resize_weights=(0.3, 0.4, 0.3),
        resize=(0.3, 1.2),
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
        quality=(30.0, 95.0),
    ),
)


def _omgsr(sizes: range, sinc_large_px: int, scale: int) -> SecondOrder:
    return SecondOrder(
        first=replace(
            _REALESRGAN.first,
            kernel=_mixed_kernel((0.2, 3.0), sizes, sinc_large_px),
            resize=(0.3, 1.5),
            gaussian_sigma=(1.0, 15.0),
            poisson_scale=(0.05, 2.0),
            quality=(60.0, 95.0),
        ),
        second=replace(
            _REALESRGAN.second,
            kernel=_mixed_kernel((0.2, 1.5), sizes, sinc_large_px),
            blur_probability=0.5,
            resize=(0.6, 1.2),
            gaussian_sigma=(1.0, 12.0),
            poisson_scale=(0.05, 1.0),
            quality=(60.0, 100.0),
        ),
        scale=scale,
        sharpen=False,
        enlarge="any",
    )


_GFPGAN = _classic((0.1, 10.0), (0.8, 8.0), (0.0, 20.0), (60.0, 100.0))

PRESETS: Mapping[str, Preset] = {
    "gfpgan": replace(
        _GFPGAN, colour_shift_probability=0.3, photometric_probability=0.3, grey_probability=0.01
    ),
    "vqfr": _GFPGAN,
    "vqfr_v2": _classic((1.0, 15.0), (1.0, 30.0), (0.0, 20.0), (30.0, 90.0)),
    "restoreformer": replace(_GFPGAN, kernel=replace(_GFPGAN.kernel, sizes=(39, 41))),
    "codeformer_small": _classic((0.1, 10.0), (1.0, 12.0), (0.0, 15.0), (60.0, 100.0)),
    "codeformer_large": _classic((1.0, 15.0), (4.0, 30.0), (0.0, 20.0), (30.0, 80.0)),
    "diffbir_cf": _classic((0.1, 12.0), (1.0, 12.0), (0.0, 15.0), (30.0, 100.0)),
    "tadsr_face": _classic((1.0, 15.0), (1.0, 30.0), (0.0, 20.0), (30.0, 100.0)),
    "stablesr_face": replace(
        _classic((0.1, 15.0), (0.8, 32.0), (0.0, 20.0), (30.0, 100.0)),
        grey_probability=0.01,
        grey_target=True,
    ),
    "realesrgan_x4": _REALESRGAN,
    "realesrgan_x2": replace(_REALESRGAN, scale=2),
    "realesrgan_x1": replace(_REALESRGAN, enlarge="bicubic"),
    "omgsr": _omgsr(range(7, 22, 2), 13, 4),
    "omgsr_1024": _omgsr(range(11, 42, 2), 25, 8),
}
"""All but `realesrgan_x4` and `realesrgan_x2` return pictures of the size of the input.

The numbers are those of the published training options of TencentARC/GFPGAN and VQFR,
wzhouxiff/RestoreFormer, sczhou/CodeFormer, XPixelGroup/DiffBIR (whose second version is `realesrgan_x1`),
zty557/TADSR, IceClear/StableSR, xinntao/Real-ESRGAN and wuer5/OMGSR.
"""


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: if there is none; the message names near ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=2)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(PRESETS)}"
        raise ConfigError(f"no degradation named {name!r}; {hint}")
    return PRESETS[name]
