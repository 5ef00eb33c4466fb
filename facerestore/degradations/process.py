"""The main door: degrade a batch, each picture by numbers of its own."""

from collections.abc import Sequence

import torch

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.core.state import check_images
from facerestore.degradations.classic import Classic, ClassicDraw, apply_classic, draw_classic
from facerestore.degradations.presets import Preset, find_preset
from facerestore.degradations.second_order import (
    SecondOrder,
    SecondOrderDraw,
    apply_second_order,
    draw_second_order,
)
from facerestore.imaging.color_fix import luma

Draw = ClassicDraw | SecondOrderDraw

SMALLEST_PX = 32
"""Smallest side that is degraded: the strongest presets leave one pixel of it."""


def degrade(hq: torch.Tensor, preset: Preset | str, seeds: Sequence[int]) -> torch.Tensor:
    """Make low-quality pictures of good ones.

    Each result is a function of its own picture, the preset and its own seed; it does not depend on the batch
    or on its place in it. Every number is drawn on the CPU from generators of that seed, so it is the same on
    every device; what is computed stays on the device of the pictures. After the first resize the pictures of
    a batch have sizes of their own, so each is computed by itself.

    Args:
        hq: (B,3,H,W) float in [0,1], at least 32 px a side.
        preset: a name of `PRESETS`, or one of your own (`dataclasses.replace` makes it of another).
        seeds: one for each picture.

    Returns:
        (B,3,H,W) float32 in [0,1], multiples of 1/255, on the device of `hq`; (B,3,H//scale,W//scale) by a
        second-order preset that does not enlarge.

    Raises:
        ConfigError: if no preset has that name.
        ShapeError: if `hq` is not (B,3,H,W), is too small, or there is not one seed for each picture.
        RangeError: if `hq` is not finite or not in [0,1].
    """
    return apply(hq, preset, draw(preset, seeds))


def draw(preset: Preset | str, seeds: Sequence[int]) -> tuple[Draw, ...]:
    """Draw the numbers by which `degrade` degrades, one record a seed; `record.to_dict()` is JSON."""
    chosen = _chosen(preset)
    if isinstance(chosen, Classic):
        return tuple(draw_classic(chosen, seed) for seed in seeds)
    return tuple(draw_second_order(chosen, seed) for seed in seeds)


@torch.no_grad()
def apply(hq: torch.Tensor, preset: Preset | str, draws: Sequence[Draw]) -> torch.Tensor:
    """Degrade by numbers that were drawn before (or were chosen by hand); else as `degrade`."""
    chosen = _chosen(preset)
    check_images(hq, "hq")
    if min(hq.shape[2:]) < SMALLEST_PX:
        raise ShapeError(f"hq (B,3,H,W) of at least {SMALLEST_PX} px a side", hq.shape, "Enlarge it first.")
    if len(draws) != len(hq):
        raise ShapeError(f"{len(hq)} seeds, one for each image", (len(draws),))
    if not len(hq):
        return hq.float()
    degraded = [
        _applied(image, chosen, drawn) for image, drawn in zip(hq.float().split(1), draws, strict=True)
    ]
    return torch.cat(degraded)


def target(hq: torch.Tensor, preset: Preset | str, seeds: Sequence[int]) -> torch.Tensor:
    """What a network shall make of `degrade(hq, preset, seeds)`.

    That is `hq` itself; grey where the picture was made grey and the preset does not ask for its colours
    (`grey_target`). Whether a loss compares with sharpened pictures (`sharpen`) is up to the loss.
    """
    draws = draw(preset, seeds)
    if len(draws) != len(hq):
        raise ShapeError(f"{len(hq)} seeds, one for each image", (len(draws),))
    chosen = _chosen(preset)
    if not isinstance(chosen, Classic) or not chosen.grey_target:
        return hq
    is_grey = torch.tensor([isinstance(d, ClassicDraw) and d.grey for d in draws], device=hq.device)
    return torch.where(is_grey.view(-1, 1, 1, 1), luma(hq), hq)


def _chosen(preset: Preset | str) -> Preset:
    return find_preset(preset) if isinstance(preset, str) else preset


def _applied(image: torch.Tensor, preset: Preset, drawn: Draw) -> torch.Tensor:
    if isinstance(preset, Classic) and isinstance(drawn, ClassicDraw):
        return apply_classic(image, preset, drawn)
    if isinstance(preset, SecondOrder) and isinstance(drawn, SecondOrderDraw):
        return apply_second_order(image, preset, drawn)
    raise ConfigError(
        f"a {type(preset).__name__} preset takes numbers that were drawn for it, not {type(drawn).__name__}"
    )
