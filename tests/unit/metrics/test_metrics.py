"""Every metric: cards, perfect pictures, growing damage, batches, bad input."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facerestore.core.errors import ConfigError, MissingDependency, RangeError, ShapeError, WeightsNotFound
from facerestore.features.adaface import AdaFace
from facerestore.features.arcface import ArcFace, GreyArcFace
from facerestore.features.dists import Dists
from facerestore.features.lpips import Lpips
from facerestore.metrics import METRICS, Metric, build, card
from facerestore.metrics.fidelity import PSNR_CAP, match_mean_std
from facerestore.weights.store import WeightStore

SHIPPED = {"niqe", "face-recognition", "face-description"}
OFFLINE = tuple(name for name in METRICS if not card(name).package and set(card(name).weights) <= SHIPPED)
FAITHFUL = tuple(name for name in OFFLINE if card(name).compares != "nothing")


@pytest.fixture(scope="module")
def metrics() -> dict[str, Metric]:
    store = WeightStore()
    return {name: build(name, store) for name in OFFLINE}


@pytest.fixture(scope="module")
def faces(aligned: Path) -> torch.Tensor:
    from facerestore.imaging.read import read_image

    return torch.cat([read_image(path).srgb() for path in sorted(aligned.glob("*.png"))])


def test_every_card_says_what_its_number_is() -> None:
    for name in METRICS:
        assert card(name).name == name
        assert len(card(name).how) > 20
    assert card("musiq-koniq").name == "musiq"
    with pytest.raises(ConfigError, match="niqe"):
        card("niqee")


def test_what_ships_is_enough_for_these() -> None:
    assert set(OFFLINE) == {
        "psnr", "psnr-y", "ssim", "ssim-y", "niqe-basicsr", "identity-recognition", "identity-description",
    }  # fmt: skip


@pytest.mark.parametrize("name", FAITHFUL)
def test_equal_pictures_are_perfect_and_damage_is_worse(
    name: str, metrics: dict[str, Metric], faces: torch.Tensor
) -> None:
    face = faces[:1]
    perfect = PSNR_CAP if name.startswith("psnr") else 1.0
    assert float(metrics[name](face, face)) == pytest.approx(perfect, abs=1e-5)
    noise = torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    numbers = [float(metrics[name]((face + level * noise).clamp(0, 1), face)) for level in (0.02, 0.1, 0.3)]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_batch_is_its_pictures(name: str, metrics: dict[str, Metric], faces: torch.Tensor) -> None:
    metric, reference = metrics[name], faces.flip(0)
    together = metric(faces, reference)
    alone = torch.cat([metric(a[None], b[None]) for a, b in zip(faces, reference, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert together.shape == (len(faces),)


@pytest.mark.parametrize("name", OFFLINE)
def test_bad_input_is_refused(name: str, metrics: dict[str, Metric], faces: torch.Tensor) -> None:
    metric, face = metrics[name], faces[:1]
    with pytest.raises(ShapeError):
        metric(face[0], face[0])
    with pytest.raises(RangeError):
        metric(face * math.nan, face)
    with pytest.raises(RangeError):
        metric(face * 255, face)
    if name in FAITHFUL:
        with pytest.raises(ShapeError):
            metric(face)
        with pytest.raises(ShapeError):
            metric(face, face[..., :256])


def test_five_points_bring_a_face_upright_before_it_is_described(
    metrics: dict[str, Metric], faces: torch.Tensor
) -> None:
    from facerestore.faces.templates import FFHQ_512

    small = F.interpolate(faces[:1], size=(256, 256), mode="bilinear", antialias=True)
    points = ((FFHQ_512 + 0.5) / 2 - 0.5)[None]
    for name in ("identity-recognition", "identity-description"):
        whole = metrics[name](faces[:1], faces[1:2])
        halved = metrics[name](small, F.interpolate(faces[1:2], (256, 256), mode="area"), points=points)
        assert abs(float(whole - halved)) < 0.1
        with pytest.raises(ShapeError, match="points"):
            metrics[name](small, small)


NETWORKS = {
    "lpips-vgg": Lpips,
    "lpips-alex": Lpips,
    "dists": Dists,
    "dists-256": Dists,
    "identity-adaface": AdaFace,
    "identity-arcface": ArcFace,
    "identity-arcface-degrees": GreyArcFace,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_those_whose_weights_are_fetched_follow_the_same_rules_when_small(
    name: str, faces: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = NETWORKS[name]
    monkeypatch.setattr(kind, "load", classmethod(lambda cls, store, *trunk: cls.tiny(*trunk)))
    metric = build(name, WeightStore())
    face = faces[:1]
    perfect = 0.0 if metric.card.direction == "lower" else 1.0
    # The arccosine of what is 1 but for a rounding is a few hundredths of a degree.
    assert float(metric(face, face)) == pytest.approx(perfect, abs=0.1 if "degrees" in name else 1e-5)
    noise = torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    far, near = (float(metric((face + level * noise).clamp(0, 1), face)) for level in (0.4, 0.05))
    assert abs(far - perfect) > abs(near - perfect)
    together = metric(faces, faces.flip(0))
    alone = torch.cat([metric(a[None], b[None]) for a, b in zip(faces, faces.flip(0), strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["niqe", "lpips"])
def test_a_name_that_two_metrics_share_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {name}-[a-z]+ or {name}-"):
        card(name)


def test_mean_and_spread_are_matched() -> None:
    target = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    pred = target * 0.6 + 0.05
    torch.testing.assert_close(match_mean_std(pred, target), target, atol=1e-5, rtol=0)


def test_what_is_missing_is_named() -> None:
    store = WeightStore()
    with pytest.raises(WeightsNotFound, match="adaface/ir50"):
        build("identity-adaface", store)
    for name in ("niqe-pyiqa", "musiq", "maniqa", "clipiqa", "qalign"):
        with pytest.raises(
            (WeightsNotFound, MissingDependency), match=r"pyiqa/|one-align|facerestore\[metrics\]"
        ):
            build(name, store)
