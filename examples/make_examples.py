"""Damage two public-domain portraits, which makes the pictures in examples/photos and examples/faces.

The portraits come inside PyPI packages, scikit-image 0.26 and matplotlib 3.11; see LICENSES.md. Each picture
has its own seed, made from its name:

    python examples/make_examples.py            # writes into examples/
    python examples/make_examples.py OTHER_DIR  # writes there, to compare
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import skimage.data
import torch
from PIL import Image, ImageFilter

from facerestore.faces.similarity import invert, similarity_matrix
from facerestore.faces.templates import FFHQ_512

# Eyes, nose, corners of the mouth in pixels of the portraits.
ASTRONAUT_POINTS = ((205.0, 101.7), (246.8, 103.7), (224.7, 129.0), (201.7, 139.2), (245.3, 141.9))
HOPPER_POINTS = ((221.7, 192.2), (309.8, 186.1), (269.4, 239.2), (232.7, 279.6), (306.6, 275.9))
WALL = (196, 186, 172)
FRAME = (74, 54, 38)


def astronaut() -> Image.Image:
    """Eileen Collins, 512 x 512 px; NASA."""
    return Image.fromarray(skimage.data.astronaut())


def hopper() -> Image.Image:
    """Grace Hopper, 512 x 600 px; US Navy."""
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return Image.open(str(path)).convert("RGB")


def crop(picture: Image.Image, points: tuple[tuple[float, float], ...]) -> Image.Image:
    """The face, 512 x 512 px, as the FFHQ template has it; cut by Pillow, so that it stays as it is."""
    to_source = invert(similarity_matrix(torch.tensor([points], dtype=torch.float64), FFHQ_512))[0].numpy()
    linear, shift = to_source[:, :2], to_source[:, 2]
    shift = shift + 0.5 - linear @ (0.5, 0.5)  # Pillow has pixel centres at halves
    coefficients = (*linear[0], shift[0], *linear[1], shift[1])
    return picture.transform((512, 512), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def shrunk(picture: Image.Image, factor: float) -> Image.Image:
    """Reduced by `factor` and enlarged again: a thumbnail that was blown up."""
    small = picture.resize(
        (round(picture.width / factor), round(picture.height / factor)), Image.Resampling.BOX
    )
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def blurred(picture: Image.Image, sigma_px: float) -> Image.Image:
    """Out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(sigma_px))


def shaken(picture: Image.Image, length_px: int) -> Image.Image:
    """The camera moved sideways while the shutter was open."""
    pixels = np.asarray(picture, dtype=np.float64)
    moved = [np.roll(pixels, step - length_px // 2, axis=1) for step in range(length_px)]
    return Image.fromarray(np.mean(moved, axis=0).round().astype(np.uint8))


def grainy(picture: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Grain, about two pixels wide, the same in all channels; `sigma` in steps of 255."""
    fine = rng.normal(size=(picture.height, picture.width))
    coarse = (
        np.sum([np.roll(fine, shift, axis=(0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))], axis=0) / 2
    )
    pixels = np.asarray(picture, dtype=np.float64)
    grain = sigma * (coarse if pixels.ndim == 2 else coarse[..., None])
    return Image.fromarray((pixels + grain).round().clip(0, 255).astype(np.uint8))


def faded(picture: Image.Image) -> Image.Image:
    """A colour print that hung in the sun: less contrast, less blue."""
    pixels = np.asarray(picture, dtype=np.float64) / 255
    grey = pixels.mean(axis=2, keepdims=True)
    old = (0.55 * pixels + 0.45 * grey) * (0.70, 0.64, 0.52) + (0.22, 0.19, 0.15)
    return Image.fromarray((255 * old).round().clip(0, 255).astype(np.uint8))


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """Lying askew on the scanner."""
    return picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(232, 230, 226))


def group() -> Image.Image:
    """Five framed portraits on a wall, from small and ruined to fairly good."""
    wall = Image.new("RGB", (1200, 760), WALL)
    left, right = astronaut().crop((90, 0, 370, 300)), hopper().crop((90, 20, 450, 440))
    pictures = (
        (shrunk(left, 3.0), (280, 300), 0.0, (40, 60)),
        (shrunk(right, 4.0), (300, 350), 0.0, (380, 30)),
        (blurred(left.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 2.0), (280, 300), 12.0, (770, 40)),
        (faded(blurred(right, 2.5)), (220, 256), -8.0, (130, 440)),
        (shrunk(right, 2.0), (240, 280), 0.0, (560, 440)),
    )
    for picture, size, angle, place in pictures:
        framed = Image.new("RGBA", (size[0] + 24, size[1] + 24), (*FRAME, 255))
        framed.paste(picture.resize(size, Image.Resampling.LANCZOS), (12, 12))
        framed = framed.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        wall.paste(framed, place, framed)
    return wall


def make(directory: Path) -> None:
    """Write every picture below `directory`."""

    def save(name: str, build: Callable[[np.random.Generator], Image.Image], **options: Any) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        build(np.random.default_rng(zlib.crc32(name.encode()))).save(path, **options)

    sideways = Image.Exif()
    sideways[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save("photos/astronaut_thumbnail.jpg", lambda _: shrunk(astronaut(), 3.0), quality=70)
    save(
        "photos/astronaut_grey.jpg",
        lambda rng: grainy(blurred(astronaut(), 1.2).convert("L"), 7, rng),
        quality=80,
    )
    save(
        "photos/astronaut_sideways.jpg",
        lambda _: shrunk(astronaut(), 2.0).transpose(Image.Transpose.ROTATE_90),
        quality=35,
        exif=sideways,
    )
    save("photos/hopper_faded.jpg", lambda rng: grainy(faded(blurred(hopper(), 3.0)), 5, rng), quality=85)
    save("photos/hopper_nearly_sharp.jpg", lambda _: hopper(), quality=92)
    save("photos/hopper_askew.jpg", lambda _: turned(shrunk(hopper(), 4.0), 152), quality=75)
    save("photos/wall_of_five.jpg", lambda rng: grainy(group(), 2, rng), quality=85)

    one, other = crop(astronaut(), ASTRONAUT_POINTS), crop(hopper(), HOPPER_POINTS)
    save("faces/astronaut_x8.png", lambda _: shrunk(one, 8.0), optimize=True)
    save(
        "faces/astronaut_blocks.jpg",
        lambda _: shrunk(one, 5.0).resize((192, 192)).resize((512, 512)),
        quality=12,
    )
    save(
        "faces/astronaut_grey_grain.jpg",
        lambda rng: grainy(blurred(one, 3.5).convert("L"), 14, rng),
        quality=85,
    )
    save("faces/hopper_x8.png", lambda _: shrunk(other, 8.0), optimize=True)
    save("faces/hopper_soft_grain.jpg", lambda rng: grainy(blurred(other, 4.0), 10, rng), quality=85)
    save("faces/hopper_shaken.jpg", lambda _: shaken(shrunk(other, 2.0), 11), quality=80)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
