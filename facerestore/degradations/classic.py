"""The classic model of blind face restoration: blur, reduce, noise, JPEG, enlarge, 8 bits."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from facerestore.core.config import Config
from facerestore.core.seeding import generator
from facerestore.degradations.choices import Range, chance, check_probability, check_range, uniform
from facerestore.degradations.filtering import filter2d
from facerestore.degradations.jitter import JITTERS
from facerestore.degradations.jpeg import jpeg, real_jpeg
from facerestore.degradations.kernels import Kernel, KernelRange, blur_kernels
from facerestore.degradations.noise import gaussian_noise
from facerestore.imaging.color_fix import luma

Jpeg = Literal["dct", "codec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classic(Config):
    """Ranges of the classic model; every number is drawn uniformly from its range.

    Attributes:
        kernel: the blur.
        downsample: factor by which the sides shrink, and grow again at the end.
        noise_sigma: Gaussian noise, in 8-bit code values; None for none.
        quality: of the JPEG, 1 to 100, fractions cut off; None for none.
        jpeg: `dct` computes it on the device of the picture, `codec` is libjpeg on the host.
        colour_shift: most that a channel is shifted, in 8-bit code values.
        colour_shift_probability: of a shift.
        grey_probability: of a grey picture.
        grey_target: whether `target` is then grey as well.
        photometric_probability: of a change of brightness, contrast, saturation and hue, in any order.
        brightness: factor.
        contrast: factor.
        saturation: factor.
        hue: turn, in shares of the circle.
    """

    kernel: KernelRange
    downsample: Range
    noise_sigma: Range | None
    quality: Range | None
    jpeg: Jpeg = "dct"
    colour_shift: float = 20.0
    colour_shift_probability: float = 0.0
    grey_probability: float = 0.0
    grey_target: bool = False
    photometric_probability: float = 0.0
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: Range = (-0.1, 0.1)

    def __post_init__(self) -> None:
        check_range("downsample", self.downsample, 0.1)
        check_range("noise_sigma", self.noise_sigma, 0)
        check_range("quality", self.quality, 1, 100)
        for name in ("brightness", "contrast", "saturation"):
            check_range(name, getattr(self, name), 0)
        check_range("hue", self.hue, -1, 1)
        for name in ("colour_shift", "grey", "photometric"):
            check_probability(f"{name}_probability", getattr(self, f"{name}_probability"))

    def tiny(self) -> "Classic":
        """The same for tests with pictures of some 64 px: a narrow blur, and sides at most halved."""
        low, high = self.kernel.sigma
        kernel = replace(self.kernel, sizes=(7,), sigma=(low / 8, high / 8))
        return replace(self, kernel=kernel, downsample=(min(self.downsample[0], 1.0), 2.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicDraw(Config):
    """What was drawn for one picture; the fields are those of `Classic`.

    Attributes:
        seed: of the picture, from which its noise follows too.
        photometric: (name, amount) in the order in which they are applied.
    """

    seed: int
    kernel: Kernel
    downsample: float
    noise_sigma: float | None
    quality: int | None
    colour_shift: tuple[float, ...] | None
    grey: bool
    photometric: tuple[tuple[str, float], ...]


def draw_classic(preset: Classic, seed: int) -> ClassicDraw:
    """Draw the numbers of one picture."""
    dice = generator(seed, "degradations/classic")
    kernel = preset.kernel.draw(dice)
    downsample = uniform(dice, preset.downsample)
    noise_sigma = None if preset.noise_sigma is None else uniform(dice, preset.noise_sigma)
    quality = None if preset.quality is None else int(uniform(dice, preset.quality))
    colour_shift = None
    if chance(dice, preset.colour_shift_probability):
        most = preset.colour_shift
        colour_shift = tuple(uniform(dice, (-most, most)) for _ in range(3))
    grey = chance(dice, preset.grey_probability)
    photometric: tuple[tuple[str, float], ...] = ()
    if chance(dice, preset.photometric_probability):
        names = [list(JITTERS)[i] for i in torch.randperm(len(JITTERS), generator=dice)]
        photometric = tuple((name, uniform(dice, getattr(preset, name))) for name in names)
    return ClassicDraw(
        seed=seed,
        kernel=kernel,
        downsample=downsample,
        noise_sigma=noise_sigma,
        quality=quality,
        colour_shift=colour_shift,
        grey=grey,
        photometric=photometric,
    )


def apply_classic(image: torch.Tensor, preset: Classic, drawn: ClassicDraw) -> torch.Tensor:
    """Degrade one picture (1,3,H,W) in [0,1] by what was drawn; the same size, multiples of 1/255."""
    height, width = image.shape[2:]
    small = max(1, int(height // drawn.downsample)), max(1, int(width // drawn.downsample))
    lq = filter2d(image, blur_kernels([drawn.kernel]))
    lq = F.interpolate(lq, size=small, mode="bilinear")
    if drawn.noise_sigma is not None:
        dice = generator(drawn.seed, "degradations/classic/noise")
        lq = gaussian_noise(lq, [drawn.noise_sigma], [False], [dice]).add_(lq).clamp_(0, 1)
    if drawn.quality is not None:
        lq = (real_jpeg if preset.jpeg == "codec" else jpeg)(lq, [drawn.quality])
    lq = F.interpolate(lq, size=(height, width), mode="bilinear")
    if drawn.colour_shift is not None:
        lq = (lq + lq.new_tensor(drawn.colour_shift).view(1, 3, 1, 1) / 255).clamp(0, 1)
    if drawn.grey:
        lq = luma(lq)
    for name, amount in drawn.photometric:
        lq = JITTERS[name](lq, amount)
    return lq.mul(255).round_().clamp_(0, 255).div_(255)
