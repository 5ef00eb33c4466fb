"""The second-order model of Real-ESRGAN: blur, resize, noise and JPEG, twice, and a sinc filter."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.core.seeding import generator
from facerestore.degradations.choices import Range, chance, check_probability, check_range, choice, uniform
from facerestore.degradations.classic import Jpeg
from facerestore.degradations.filtering import filter2d
from facerestore.degradations.jpeg import jpeg, real_jpeg
from facerestore.degradations.kernels import Kernel, KernelRange, blur_kernels
from facerestore.degradations.noise import gaussian_noise, poisson_noise
from facerestore.degradations.usm import sharpen

Mode = Literal["area", "bilinear", "bicubic"]
_MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(Config):
    """Ranges of one of the two passes; every number is drawn uniformly from its range.

    Attributes:
        kernel: the blur.
        blur_probability: of a blur at all.
        resize_weights: of growing, shrinking and keeping the size.
        resize: smallest and largest factor; the first below 1, the second above.
        gaussian_probability: of Gaussian noise; else it is Poisson noise.
        gaussian_sigma: in 8-bit code values.
        poisson_scale: strength of Poisson noise.
        grey_probability: of noise that is equal in the three channels.
        quality: of the JPEG, 1 to 100.
    """

    kernel: KernelRange
    blur_probability: float
    resize_weights: tuple[float, ...]
    resize: Range
    gaussian_probability: float = 0.5
    gaussian_sigma: Range
    poisson_scale: Range
    grey_probability: float = 0.4
    quality: Range

    def __post_init__(self) -> None:
        if len(self.resize_weights) != 3 or not sum(self.resize_weights) > 0:
            raise ConfigError(f"resize_weights are of growing, shrinking, keeping, not {self.resize_weights}")
        check_range("resize", self.resize, 0.1)
        if not self.resize[0] <= 1 <= self.resize[1]:
            raise ConfigError(f"resize reaches from below 1 to above 1, not {self.resize}")
        check_range("gaussian_sigma", self.gaussian_sigma, 0)
        check_range("poisson_scale", self.poisson_scale, 0)
        check_range("quality", self.quality, 1, 100)
        for name in ("blur", "gaussian", "grey"):
            check_probability(f"{name}_probability", getattr(self, f"{name}_probability"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOrder(Config):
    """Ranges of the second-order model.

    Attributes:
        first: the pass at full size.
        second: the pass at the reduced size.
        scale: by which the sides of the result are smaller.
        final_sinc_probability: of a sinc filter at the end, of one of the sizes of the second kernel.
        sharpen: whether the picture is sharpened (`usm.sharpen`) before it is degraded.
        enlarge: how the result is brought back to full size: `bicubic`, `any` of the three ways of resizing,
            or not at all (`no`).
        jpeg: `dct` computes it on the device of the picture, `codec` is libjpeg on the host.
    """

    first: Pass
    second: Pass
    scale: int = 4
    final_sinc_probability: float = 0.8
    sharpen: bool = True
    enlarge: Literal["no", "bicubic", "any"] = "no"
    jpeg: Jpeg = "dct"

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 16:
            raise ConfigError(f"scale is 1 to 16, not {self.scale}")
        check_probability("final_sinc_probability", self.final_sinc_probability)

    def tiny(self) -> "SecondOrder":
        """The same for tests with pictures of some 64 px: small kernels, and sides at most halved."""

        def small(order: Pass) -> Pass:
            return replace(order, kernel=replace(order.kernel, sizes=(3, 5, 7)))

        return replace(self, first=small(self.first), second=small(self.second), scale=min(self.scale, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassDraw(Config):
    """What was drawn for one pass.

    Attributes:
        kernel: the blur, or None.
        scale: factor of the resize.
        mode: way of the resize.
        noise: kind of it.
        strength: sigma in 8-bit code values, or the scale of Poisson noise.
        grey_noise: whether the noise is equal in the three channels.
        quality: of the JPEG.
    """

    kernel: Kernel | None
    scale: float
    mode: Mode
    noise: Literal["gaussian", "poisson"]
    strength: float
    grey_noise: bool
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOrderDraw(Config):
    """What was drawn for one picture.

    Attributes:
        seed: of the picture, from which its noise follows too.
        first: the first pass.
        second: the second.
        final_kernel: the sinc filter at the end, or None.
        final_mode: way of the resize before that filter.
        jpeg_last: whether the second JPEG comes after that filter, or before the resize.
        enlarge_mode: way back to full size, or None.
    """

    seed: int
    first: PassDraw
    second: PassDraw
    final_kernel: Kernel | None
    final_mode: Mode
    jpeg_last: bool
    enlarge_mode: Mode | None


def draw_second_order(preset: SecondOrder, seed: int) -> SecondOrderDraw:
    """Draw the numbers of one picture."""
    dice = generator(seed, "degradations/second_order")
    first, second = _draw_pass(preset.first, dice), _draw_pass(preset.second, dice)
    final_kernel = None
    if chance(dice, preset.final_sinc_probability):
        only_sinc = replace(preset.second.kernel, sinc_probability=1.0, sinc_large_px=1000)
        final_kernel = only_sinc.draw(dice)
    enlarge_mode: Mode | None = None if preset.enlarge == "no" else "bicubic"
    return SecondOrderDraw(
        seed=seed,
        first=first,
        second=second,
        final_kernel=final_kernel,
        final_mode=choice(dice, _MODES),
        jpeg_last=chance(dice, 0.5),
        enlarge_mode=choice(dice, _MODES) if preset.enlarge == "any" else enlarge_mode,
    )


def _draw_pass(order: Pass, dice: torch.Generator) -> PassDraw:
    kernel = order.kernel.draw(dice) if chance(dice, order.blur_probability) else None
    low, high = order.resize
    bounds = choice(dice, ((1.0, high), (low, 1.0), (1.0, 1.0)), order.resize_weights)
    gaussian = chance(dice, order.gaussian_probability)
    return PassDraw(
        kernel=kernel,
        scale=uniform(dice, bounds),
        mode=choice(dice, _MODES),
        noise="gaussian" if gaussian else "poisson",
        strength=uniform(dice, order.gaussian_sigma if gaussian else order.poisson_scale),
        grey_noise=chance(dice, order.grey_probability),
        quality=uniform(dice, order.quality),
    )


def apply_second_order(image: torch.Tensor, preset: SecondOrder, drawn: SecondOrderDraw) -> torch.Tensor:
    """Degrade one picture (1,3,H,W) in [0,1] by what was drawn; multiples of 1/255.

    Returns:
        (1,3,H,W), or (1,3,H//scale,W//scale) where the preset does not enlarge it.
    """
    height, width = image.shape[2:]
    code = real_jpeg if preset.jpeg == "codec" else jpeg
    first, second = drawn.first, drawn.second

    lq = _blurred(sharpen(image) if preset.sharpen else image, first.kernel)
    if first.scale != 1:
        lq = F.interpolate(lq, scale_factor=first.scale, mode=first.mode)
    lq = code(_noisy(lq, first, drawn.seed, "first"), [first.quality])

    lq = _blurred(lq, second.kernel)
    size = [max(1, int(side / preset.scale * second.scale)) for side in (height, width)]
    lq = F.interpolate(lq, size=size, mode=second.mode)
    lq = _noisy(lq, second, drawn.seed, "second")

    small = height // preset.scale, width // preset.scale
    if not drawn.jpeg_last:
        lq = code(lq, [second.quality])
    lq = _blurred(F.interpolate(lq, size=small, mode=drawn.final_mode), drawn.final_kernel)
    if drawn.jpeg_last:
        lq = code(lq.clamp(0, 1), [second.quality])
    if drawn.enlarge_mode is not None:
        lq = F.interpolate(lq, size=(height, width), mode=drawn.enlarge_mode)
    return lq.mul(255).round_().clamp_(0, 255).div_(255)


def _blurred(image: torch.Tensor, kernel: Kernel | None) -> torch.Tensor:
    return image if kernel is None else filter2d(image, blur_kernels([kernel]))


def _noisy(image: torch.Tensor, drawn: PassDraw, seed: int, name: str) -> torch.Tensor:
    make = gaussian_noise if drawn.noise == "gaussian" else poisson_noise
    dice = generator(seed, f"degradations/second_order/{name}")
    return make(image, [drawn.strength], [drawn.grey_noise], [dice]).add_(image).clamp_(0, 1)
