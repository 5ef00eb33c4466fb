"""Find every face of a picture, whichever way up it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError, ShapeError
from facerestore.core.state import check_images
from facerestore.faces.align import align, to_unit_coordinates
from facerestore.faces.cascade import Level, normalise, pyramid, run_cascade
from facerestore.faces.similarity import (
    apply,
    compose,
    invert,
    roll_deg_of,
    scale_of,
    similarity_matrix,
    window_matrix,
)
from facerestore.faces.templates import FFHQ_512
from facerestore.nets.mtcnn import ONet, PNet, RNet
from facerestore.weights.load import load_into

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_CASCADE_THRESHOLDS = (0.6, 0.7, 0.3)  # the last is low, because the decision falls when faces stand upright
_SEARCH_PX = 20.0  # side to which the smallest face is reduced before the cascade, which was made for it
_COARSE = 1 / 24  # of the picture's shorter side: faces from there on are searched at every roll
_DIAGONAL = math.sqrt(
    2
)  # times that for diagonal faces: the turned picture is twice as large with its corners
_WINDOW_PX = 48  # of O-Net
_ZOOMS = (
    0.94,
    1.06,
    1.2,
)  # at which the last look is taken; false faces waver more between them than real ones
_WAVERING = 3.0  # share of the confidence that points lose by wandering one side of the window between zooms
_MIRRORED = [1, 0, 2, 4, 3]  # order of the five points in a mirrored face
_BATCH = 64  # windows that go through O-Net at once

# Measured on 36 portraits, sharp to ruined: residuals 0.02 to 0.22, lengths 0.32 to 0.43.
_MAX_RESIDUAL = 0.3  # of the points against the template, in units of the distance from eyes to mouth
_MIN_LENGTH, _MAX_LENGTH = 0.2, 0.6  # of that distance, in units of the window's side
_MAX_SHARED = 0.5  # of the smaller of two faces that may lie in the larger


@dataclass(frozen=True, slots=True)
class Face:
    """A face that was found.

    Attributes:
        box: (x0, y0, x1, y1) around the face from brow to chin, in pixels of the picture; may reach outside.
        landmarks: (5,2) float32, x then y, in pixels of the picture, pixel centres at integers: eyes, nose,
            mouth corners, those on the left of the upright face before those on its right.
        confidence: that it is a face, in [0,1].
        roll_deg: how far the face is turned clockwise as seen, in (-180, 180], 0 upright.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray[Any, Any]
    confidence: float
    roll_deg: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class _Seen(NamedTuple):
    """What O-Net says about windows of a picture.

    Attributes:
        windows: matrices (N,2,3) float64 from the picture to the window.
        scores: probabilities (N,).
        points: five points (N,5,2) in pixels of the window.
        edges: left, top, right, bottom (N,4) of the face, in pixels of the window.
    """

    windows: torch.Tensor
    scores: torch.Tensor
    points: torch.Tensor
    edges: torch.Tensor

    def pick(self, which: torch.Tensor) -> "_Seen":
        """Some of them, by indices or mask."""
        return _Seen(*(part[which] for part in self))

    def recentred(self) -> torch.Tensor:
        """Windows that fit the faces better: turned upright by the points, moved and scaled by the edges."""
        centres = (self.edges[:, :2] + self.edges[:, 2:]) / 2
        sides = (self.edges[:, 2:] - self.edges[:, :2]).amax(dim=1)
        rolls = roll_deg_of(similarity_matrix(self.points, FFHQ_512))
        return compose(window_matrix(centres, sides, rolls, _WINDOW_PX), self.windows)


class FaceDetector(nn.Module):
    """MTCNN for faces at any roll.

    The cascade finds faces that are turned by 30 degrees and often more. It runs at eight rolls, 45 degrees
    apart; what it finds is turned upright by its own points and shown to O-Net again, at last at three zooms,
    each time together with the mirror image. The mean of these answers, less what the points wander between
    the zooms, favours neither side and separates better than one answer: in 69 pictures, many of them ruined,
    the least certain of 59 faces had 0.919 and the most certain of what is no face 0.849.

    Faces below 1/24 of the picture's shorter side (diagonal ones: 1/17) are searched at one roll only, the
    quarter turn of most of the larger faces, or none: small faces cost most to look for and are seldom
    turned.

    Args:
        pnet: proposal network.
        rnet: refinement network.
        onet: output network.
        config: settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(Config):
        """Settings.

        Attributes:
            min_face_px: side of the smallest face that is searched, in pixels of the picture that is given to
                `detect`, at least 12; smaller ones are found by chance. Half of it takes up to four times as
                long.
            threshold: confidence that a face needs, between 0 and 1; the default lies in the middle between
                the worst real and the best false face that were seen.
        """

        min_face_px: float = 24.0
        threshold: float = 0.88

        def __post_init__(self) -> None:
            if not self.min_face_px >= 12:
                raise ConfigError(f"min_face_px is {self.min_face_px}, at least 12 expected: P-Net's window")
            if not 0 < self.threshold < 1:
                raise ConfigError(f"threshold is {self.threshold}, a probability between 0 and 1 expected")

    def __init__(self, pnet: PNet, rnet: RNet, onet: ONet, config: Config | None = None) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = pnet, rnet, onet
        self.config = config or FaceDetector.Config()
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, store: "WeightStore", config: Config | None = None) -> "FaceDetector":
        """Build the detector with the weights "mtcnn" of a store; see there for what it raises."""
        state = store.load("mtcnn")
        nets = (PNet(), RNet(), ONet())
        for net in nets:
            prefix = f"{type(net).__name__.lower()}."
            own = {key.removeprefix(prefix): part for key, part in state.items() if key.startswith(prefix)}
            load_into(net, own, f"mtcnn, part {prefix}")
        return cls(*nets, config=config)

    @torch.no_grad()
    def detect(self, image: torch.Tensor) -> list[Face]:
        """Find the faces of a picture.

        Args:
            image: (1,3,H,W) float32 in [0,1], any size.

        Returns:
            The faces, largest first; an empty list where there are none.

        Raises:
            ShapeError: if it is not one picture.
            RangeError: if values lie outside [0,1].
        """
        if check_images(image, "image").shape[0] != 1:
            raise ShapeError("one image (1,3,H,W)", image.shape, "Call detect once a picture.")
        if min(image.shape[2:]) < self.config.min_face_px:
            return []
        image = image.to(self.onet.dense5.weight)
        coarse_px = max(self.config.min_face_px, min(image.shape[2:]) * _COARSE)
        straight = self._search(image, 0, range(4), coarse_px, math.inf)
        diagonal = self._search(image, 45, range(4), coarse_px * _DIAGONAL, math.inf)
        faces = self._decide(image, torch.cat([straight, diagonal]))
        if coarse_px > self.config.min_face_px:
            quarter = _common_quarter(faces)
            small = self._search(image, 0, [quarter], self.config.min_face_px, coarse_px)
            faces = _without_nested(faces + self._decide(image, small))
        return sorted(faces, key=lambda face: face.area, reverse=True)

    def _search(
        self, image: torch.Tensor, deg: int, quarters: Sequence[int], min_px: float, max_px: float
    ) -> torch.Tensor:
        """Windows (N,2,3) around what the cascade finds at rolls of `deg` (0 or 45) plus quarter turns.

        Faces from `min_px` to about `max_px` are searched, one pyramid serving all quarter turns.
        """
        scale = min(1.0, _SEARCH_PX / min_px)
        picture, to_picture = _reduced(image, scale)
        if deg:
            picture, to_picture = _diagonal(picture, to_picture)
        pixels = picture * 255
        levels = pyramid(pixels, min_px * scale)
        levels = [level for level in levels if min_px * levels[0].scale / level.scale < max_px]
        found = [torch.zeros(0, 2, 3, dtype=torch.float64)]
        for quarter in quarters:
            turned = [Level(size, torch.rot90(level, quarter, (2, 3))) for size, level in levels]
            boxes, scores, points = run_cascade(
                torch.rot90(pixels, quarter, (2, 3)),
                turned,
                self.pnet,
                self.rnet,
                self.onet,
                _CASCADE_THRESHOLDS,
            )
            if len(scores):
                boxes, points = boxes.cpu().double(), points.cpu().double()
                centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - 1
                sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) + 1
                rolls = roll_deg_of(similarity_matrix(points, FFHQ_512))
                to_turned = compose(_quarter_matrix(quarter, pixels), to_picture)
                found.append(compose(window_matrix(centres, sides, rolls, _WINDOW_PX), to_turned))
        return torch.cat(found)

    def _decide(self, image: torch.Tensor, windows: torch.Tensor) -> list[Face]:
        """Look at candidates more closely and keep the faces."""
        for _ in range(2):
            seen = self._look(image, windows)
            seen = seen.pick(seen.scores > _CASCADE_THRESHOLDS[2])
            windows = seen.recentred()
            windows = windows[_distinct(windows, seen.scores)]
        looks = [self._look(image, compose(_zoom_matrix(zoom, windows), windows)) for zoom in _ZOOMS]
        places = torch.stack([apply(invert(seen.windows), seen.points) for seen in looks])
        points = places.mean(dim=0)
        wander = (
            (places - points).square().sum(dim=3).mean(dim=(0, 2)).sqrt() * scale_of(windows) / _WINDOW_PX
        )
        scores = torch.stack([seen.scores for seen in looks]).mean(dim=0)
        scores = scores * (1 - _WAVERING * wander).clamp(min=0)
        chosen = (scores >= self.config.threshold) & _plausible(points, scale_of(windows))
        return _without_nested(_faces(looks[1].pick(chosen), scores[chosen], points[chosen]))

    def _look(self, image: torch.Tensor, windows: torch.Tensor) -> _Seen:
        """Show windows and their mirror images to O-Net; the mean of both answers."""
        crops = align(image, windows, _WINDOW_PX)
        both = torch.cat([crops, crops.flip(3)]).clamp(0, 1)
        answers = [self.onet(normalise(part * 255)) for part in both.split(_BATCH)]
        scores, offsets, points = (torch.cat(parts).cpu().double() for parts in zip(*answers, strict=True))
        count = len(crops)
        mirror = points.new_tensor([-1, 1])
        points = (points[:count] + points[count:][:, _MIRRORED] * mirror + points.new_tensor([1, 0])) / 2
        offsets = (offsets[:count] + offsets[count:][:, [2, 1, 0, 3]] * mirror.repeat(2)) / 2
        edges = offsets + offsets.new_tensor([0, 0, 1, 1])
        scores = (scores[:count] + scores[count:]) / 2
        return _Seen(windows, scores, points * _WINDOW_PX - 0.5, edges * _WINDOW_PX - 0.5)


def _reduced(image: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture reduced by area, and the matrix (1,2,3) float64 from the picture to it."""
    size = [max(round(side * scale), 1) for side in image.shape[2:]]
    picture = F.interpolate(image, size=size, mode="area") if scale < 1 else image
    y, x = (new / old for new, old in zip(picture.shape[2:], image.shape[2:], strict=True))
    rows = [[[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]]]
    return picture, torch.tensor(rows, dtype=torch.float64)


def _diagonal(picture: torch.Tensor, to_picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture turned until a face with a roll of 45 degrees is upright, black around; and its matrix."""
    height, width = picture.shape[2:]
    side = math.ceil((height + width) / math.sqrt(2))
    centre = to_picture.new_tensor([[(width - 1) / 2, (height - 1) / 2]])
    turn = window_matrix(centre, to_picture.new_tensor([side]), to_picture.new_tensor([45]), side)
    theta = to_unit_coordinates(invert(turn)[0], (height, width), (side, side)).to(picture)
    grid = F.affine_grid(theta[None], [1, 3, side, side], align_corners=False)
    turned = F.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned, compose(turn, to_picture)


def _quarter_matrix(quarter: int, picture: torch.Tensor) -> torch.Tensor:
    """The matrix (1,2,3) float64 of `torch.rot90(picture, quarter, (2, 3))`."""
    bottom, right = (side - 1 for side in picture.shape[2:])
    rows = (
        [[1, 0, 0], [0, 1, 0]],
        [[0, 1, 0], [-1, 0, right]],
        [[-1, 0, right], [0, -1, bottom]],
        [[0, -1, bottom], [1, 0, 0]],
    )[quarter]
    return torch.tensor([rows], dtype=torch.float64)


def _zoom_matrix(zoom: float, like: torch.Tensor) -> torch.Tensor:
    """The matrix (1,2,3) that enlarges a window about its centre."""
    shift = (_WINDOW_PX - 1) / 2 * (1 - zoom)
    return like.new_tensor([[[zoom, 0, shift], [0, zoom, shift]]])


def _distinct(windows: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Indices of windows of which no better one lies in the same place, at the same size and roll."""
    centres = apply(invert(windows), windows.new_full((len(windows), 1, 2), (_WINDOW_PX - 1) / 2))[:, 0]
    sides, rolls = _WINDOW_PX / scale_of(windows), roll_deg_of(windows)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        near = torch.linalg.vector_norm(centres[kept] - centres[index], dim=1) < 0.25 * sides[index]
        alike = (sides[kept] / sides[index]).log2().abs() < 0.5
        turned = ((rolls[kept] - rolls[index] + 180) % 360 - 180).abs() < 30
        if not bool((near & alike & turned).any()):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def _plausible(points: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Whether points (N,5,2) lie like those of a face in windows that are `scales` (N,) times the picture."""
    template = FFHQ_512.to(points)
    length = float(template[3:, 1].mean() - template[:2, 1].mean())  # from eyes to mouth
    fit = similarity_matrix(points, template)
    residuals = (apply(fit, points) - template).square().sum(dim=2).mean(dim=1).sqrt() / length
    lengths = length / scale_of(fit) * scales / _WINDOW_PX
    return (residuals < _MAX_RESIDUAL) & (lengths > _MIN_LENGTH) & (lengths < _MAX_LENGTH)


def _faces(seen: _Seen, scores: torch.Tensor, points: torch.Tensor) -> list[Face]:
    """Faces with points in the picture; the box encloses the ellipse that fills a face's turned rectangle."""
    middles = ((seen.edges[:, :2] + seen.edges[:, 2:]) / 2)[:, None]
    centres = apply(invert(seen.windows), middles)[:, 0]
    halves = (seen.edges[:, 2:] - seen.edges[:, :2]) / 2 / scale_of(seen.windows)[:, None]
    angles = torch.deg2rad(roll_deg_of(seen.windows))
    turns = torch.stack([angles.cos(), angles.sin(), angles.sin(), angles.cos()], dim=1).unflatten(1, (2, 2))
    reach = torch.linalg.vector_norm(turns * halves[:, None], dim=2)
    boxes = torch.cat([centres - reach, centres + reach], dim=1).tolist()
    rolls = roll_deg_of(similarity_matrix(points, FFHQ_512)).tolist()
    places = points.float().numpy(force=True)
    return [
        Face((x0, y0, x1, y1), place, score, roll)
        for (x0, y0, x1, y1), place, score, roll in zip(boxes, places, scores.tolist(), rolls, strict=True)
    ]


def _without_nested(faces: list[Face]) -> list[Face]:
    """Drop faces half in a better one; to be 16 times as large counts as much as to be 0.1 more certain."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.confidence + 0.025 * math.log2(face.area), reverse=True):
        if all(_shared(face, other) <= _MAX_SHARED for other in kept):
            kept.append(face)
    return kept


def _shared(one: Face, other: Face) -> float:
    """Area that two boxes share, as a part of the smaller box."""
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return max(width, 0.0) * max(height, 0.0) / min(one.area, other.area)


def _common_quarter(faces: list[Face]) -> int:
    """The quarter turn, 0 to 3, that is nearest to the roll of most faces; none where there are no faces."""
    turns = [round(face.roll_deg / 90) % 4 for face in faces]
    return max(range(4), key=turns.count)
