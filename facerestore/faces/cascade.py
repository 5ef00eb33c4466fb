"""MTCNN's cascade: P-Net over an image pyramid, then R-Net, then O-Net, with the original's arithmetic.

Reference:
    Zhang, Zhang, Li, Qiao, 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
    Networks", IEEE Signal Processing Letters 23(10), arXiv:1604.02878.
Parity:
    PyPI facenet-pytorch 2.6.0 (MIT), `models/mtcnn.py` (`MTCNN.detect`) and `models/utils/detect_face.py`:
    boxes and points to 0.01 px, probabilities to 1e-4. Deviations: a picture in which a stage keeps nothing
    gives no faces instead of an error, a candidate outside the picture is dropped in every stage alike, and
    large pyramid levels go through P-Net in strips, which changes nothing but memory.

Boxes are (x0, y0, x1, y1) as the networks were trained on them: pixels counted from 1, both ends included.
Points are in pixels counted from 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from facerestore.nets.mtcnn import ONet, PNet, RNet

_WINDOW_PX, _STRIDE_PX = 12, 2  # of P-Net
_STRIP_PIXELS = 1_000_000  # of a pyramid level that go through P-Net at once
_BATCH = 64  # candidates that go through R-Net or O-Net at once


class Found(NamedTuple):
    """Detections: boxes (N,4), probabilities (N,) and points (N,5,2), all float32, largest box first."""

    boxes: torch.Tensor
    scores: torch.Tensor
    points: torch.Tensor


class Level(NamedTuple):
    """One level of an image pyramid: pixels (1,3,h,w) in 0..255, `scale` times as large as the picture."""

    scale: float
    pixels: torch.Tensor


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (B,3,H,W) in 0..255 as the networks take them; channels last, which is three times as fast."""
    return ((pixels - 127.5) / 128).contiguous(memory_format=torch.channels_last)


def pyramid(pixels: torch.Tensor, min_face_px: float, factor: float = 0.709) -> list[Level]:
    """Reduce a picture until only faces as large as itself fill P-Net's window.

    Args:
        pixels: (1,3,H,W) float32 in 0..255.
        min_face_px: side of the smallest face that is searched, >= 12.
        factor: between the sizes of neighbouring levels.

    Returns:
        The levels, largest first; none if the picture is smaller than the smallest face.
    """
    height, width = pixels.shape[2:]
    scale = _WINDOW_PX / min_face_px
    shorter = min(height, width) * scale
    levels: list[Level] = []
    while shorter >= _WINDOW_PX:
        size = (int(height * scale + 1), int(width * scale + 1))
        levels.append(Level(scale, F.interpolate(pixels, size=size, mode="area")))
        scale, shorter = scale * factor, shorter * factor
    return levels


def run_cascade(
    pixels: torch.Tensor,
    levels: Sequence[Level],
    pnet: PNet,
    rnet: RNet,
    onet: ONet,
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
) -> Found:
    """Find upright faces.

    Args:
        pixels: (1,3,H,W) float32 in 0..255, the scale of the original, so that values are rounded as they
            are there.
        levels: its pyramid, or a part of it.
        pnet: proposal network.
        rnet: refinement network.
        onet: output network.
        thresholds: probability that a candidate needs in each stage.

    Returns:
        What passed all three stages.
    """
    boxes = _propose(levels, pnet, thresholds[0]) if levels else pixels.new_zeros(0, 4)
    scores = boxes.new_zeros(len(boxes))
    if len(boxes):
        boxes, (scores, offsets) = _classify(pixels, _square(boxes), rnet, 24, thresholds[1])
        keep = suppress(boxes, scores, 0.7)
        boxes, scores = _square(_corrected(boxes[keep], offsets[keep], 1)), scores[keep]
    points = boxes.new_zeros(len(boxes), 5, 2)
    if len(boxes):
        boxes, (scores, offsets, points) = _classify(pixels, boxes, onet, 48, thresholds[2])
        sides = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        points = sides * points + boxes[:, None, :2] - 1
        boxes = _corrected(boxes, offsets, 1)
        keep = suppress(boxes, scores, 0.7, smaller=True)
        boxes, scores, points = boxes[keep], scores[keep], points[keep]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = areas.argsort(descending=True, stable=True)
    return Found(boxes[order], scores[order], points[order])


def suppress(
    boxes: torch.Tensor, scores: torch.Tensor, limit: float, *, smaller: bool = False
) -> torch.Tensor:
    """Greedy non-maximum suppression: keep a box unless it overlaps a better one by more than `limit`.

    Args:
        boxes: (N,4).
        scores: (N,).
        limit: largest overlap that is kept, in [0,1].
        smaller: measure the overlap by the smaller of both areas instead of by their union, with sides
            counted in whole pixels; then a box inside another one is suppressed whatever its size.

    Returns:
        Indices of what is kept, best first.
    """
    corners = boxes.numpy(force=True)
    extra = np.float32(1 if smaller else 0)
    areas = (corners[:, 2] - corners[:, 0] + extra) * (corners[:, 3] - corners[:, 1] + extra)
    order = np.argsort(-scores.numpy(force=True), kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(corners[best, 2:], corners[rest, 2:]) - np.maximum(
            corners[best, :2], corners[rest, :2]
        )
        shared = np.maximum(sides + extra, 0).prod(axis=1)
        whole = np.minimum(areas[best], areas[rest]) if smaller else areas[best] + areas[rest] - shared
        order = rest[shared <= limit * whole]
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def _propose(levels: Sequence[Level], pnet: PNet, threshold: float) -> torch.Tensor:
    """Candidates of all levels, (N,4), corrected."""
    windows: list[torch.Tensor] = []
    for scale, pixels in levels:
        found = _propose_level(pixels, pnet, scale, threshold)
        windows.append(found[suppress(found[:, :4], found[:, 4], 0.5)])
    found = torch.cat(windows)
    found = found[suppress(found[:, :4], found[:, 4], 0.7)]
    return _corrected(found[:, :4], found[:, 5:], 0)


def _propose_level(pixels: torch.Tensor, pnet: PNet, scale: float, threshold: float) -> torch.Tensor:
    """Windows of one level above the threshold: box in picture pixels, probability and corrections, (N,9)."""
    rows = (pixels.shape[2] - _WINDOW_PX + 1) // _STRIDE_PX + 1
    step = max(_STRIP_PIXELS // pixels.shape[3] // _STRIDE_PX, 1)
    found: list[torch.Tensor] = []
    for first in range(0, rows, step):
        last = min(first + step, rows)
        bottom = pixels.shape[2] if last == rows else _STRIDE_PX * (last - 1) + _WINDOW_PX
        strip = pixels[:, :, _STRIDE_PX * first : bottom]
        scores, offsets = pnet(normalise(strip))
        chosen = scores[0] >= threshold
        places = chosen.nonzero().flip(1).to(pixels.dtype)
        places[:, 1] += first
        start = ((_STRIDE_PX * places + 1) / scale).floor()
        end = ((_STRIDE_PX * places + _WINDOW_PX) / scale).floor()
        found.append(torch.cat([start, end, scores[0][chosen][:, None], offsets[0][:, chosen].T], dim=1))
    return torch.cat(found)


def _classify(
    pixels: torch.Tensor, boxes: torch.Tensor, net: RNet | ONet, size_px: int, threshold: float
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Show candidates to a network; the boxes above the threshold, with all that the network says of them."""
    height, width = pixels.shape[2:]
    inside = boxes.trunc().long()
    inside[:, :2] = inside[:, :2].clamp(min=1)
    inside[:, 2].clamp_(max=width)
    inside[:, 3].clamp_(max=height)
    there = (inside[:, 2:] >= inside[:, :2]).all(dim=1)
    boxes, inside = boxes[there], inside[there]
    answers: list[tuple[torch.Tensor, ...]] = []
    for group in inside.split(_BATCH):
        crops = [
            F.interpolate(pixels[:, :, y0 - 1 : y1, x0 - 1 : x1], size=(size_px, size_px), mode="area")
            for x0, y0, x1, y1 in group.tolist()
        ]
        answers.append(net(normalise(torch.cat(crops))))
    if not answers:
        nothing = boxes.new_zeros(0)
        return boxes, (nothing, boxes, boxes.new_zeros(0, 5, 2))[: 2 if isinstance(net, RNet) else 3]
    joined = tuple(torch.cat(parts) for parts in zip(*answers, strict=True))
    passed = joined[0] > threshold
    return boxes[passed], tuple(part[passed] for part in joined)


def _corrected(boxes: torch.Tensor, offsets: torch.Tensor, extra_px: int) -> torch.Tensor:
    """Move the edges (N,4) by offsets (N,4) in units of the sides: end minus start plus `extra_px`."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra_px
    return boxes + offsets * sides.repeat(1, 2)


def _square(boxes: torch.Tensor) -> torch.Tensor:
    """Squares with the centres and the longer sides of the boxes."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    start = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([start, start + longer], dim=1)
