"""Crops of eyes and mouth, and what they are compared by."""

import pytest
import torch

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.discriminators.roi import ComponentDiscriminator, component_crops
from facerestore.losses.roi import component_style_loss, embedding, gram, symmetry_loss, triplet_loss


def vectors(count: int = 3, width: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator).double(), dim=1)


def test_crops_have_the_published_sides_and_show_their_box() -> None:
    """Of a picture whose colours are its coordinates."""
    rows = torch.arange(512.0)[:, None].expand(512, 512)
    faces = torch.stack([rows, rows.T, torch.zeros(512, 512)])[None].repeat(2, 1, 1, 1)
    boxes = {
        "left_eye": torch.tensor([[100.0, 200, 180, 280], [110, 190, 190, 270]]),
        "mouth": torch.tensor([[200.0, 300, 320, 420], [210, 310, 290, 390]]),
    }
    crops = component_crops(faces, boxes)
    assert {name: tuple(crop.shape) for name, crop in crops.items()} == {
        "left_eye": (2, 3, 80, 80),
        "mouth": (2, 3, 120, 120),
    }
    for name, box in boxes.items():
        left, top, right, bottom = box.unbind(1)
        # Means over the box; RoIAlign without its half-pixel correction samples from edge to edge.
        torch.testing.assert_close(crops[name][:, 0].mean((1, 2)), (top + bottom) / 2, atol=0.01, rtol=0)
        torch.testing.assert_close(crops[name][:, 1].mean((1, 2)), (left + right) / 2, atol=0.01, rtol=0)


def test_crops_follow_the_size_of_the_face_and_gradients_stay_in_the_box() -> None:
    faces = torch.rand(1, 3, 128, 128, requires_grad=True)
    crop = component_crops(faces, {"right_eye": torch.tensor([[40.0, 50, 60, 70]])})["right_eye"]
    assert crop.shape == (1, 3, 20, 20)
    crop.sum().backward()
    assert faces.grad is not None
    touched = faces.grad[0, 0].nonzero()
    assert touched.min(0).values.tolist() == [50, 40] and touched.max(0).values.tolist() == [70, 60]


def test_crops_of_nothing_known_are_refused() -> None:
    faces = torch.rand(2, 3, 64, 64)
    with pytest.raises(ConfigError, match="'nose' is no component"):
        component_crops(faces, {"nose": torch.zeros(2, 4)})
    with pytest.raises(ShapeError, match=r"boxes of mouth \(2,4\)"):
        component_crops(faces, {"mouth": torch.zeros(1, 4)})


def test_gram_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert gram(features).tolist() == [[[5 / 4, 11 / 4], [11 / 4, 25 / 4]]]


def test_style_is_zero_at_equality_forgets_places_and_spares_the_target() -> None:
    torch.manual_seed(0)
    net = ComponentDiscriminator.tiny()
    pred, target = (torch.rand(2, 3, 16, 16, requires_grad=True) for _ in range(2))
    maps = net.features(pred)
    assert component_style_loss(maps, maps).tolist() == [0, 0]
    mirrored = [level.flip(3) for level in maps]
    assert component_style_loss(maps, mirrored).max() < 1e-6
    loss = component_style_loss(maps, net.features(target))
    alone = [
        component_style_loss(net.features(pred[i : i + 1]), net.features(target[i : i + 1])) for i in range(2)
    ]
    torch.testing.assert_close(loss, torch.cat(alone), atol=1e-6, rtol=1e-4)
    loss.sum().backward()
    assert pred.grad is not None and bool(pred.grad.any()) and target.grad is None
    with pytest.raises(ShapeError, match="two maps"):
        component_style_loss(maps, maps[:1])


def test_embeddings_are_unit_vectors_of_means() -> None:
    features = torch.rand(2, 4, 3, 3)
    unit = embedding(features)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(unit, embedding(features.flip(2) * 5))


def test_triplets_by_hand() -> None:
    pred = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    degraded = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    # 0 - 2 + 0.2 is below zero; 2 - 0 + 0.2; 0.8 - 0 + 0.2
    assert triplet_loss(pred, target, degraded).tolist() == pytest.approx([0.0, 2.2, 1.0])
    assert triplet_loss(pred, target, degraded, margin=3.0)[0].item() == pytest.approx(1.0)


def test_symmetry_asks_for_no_more_than_the_true_face_has() -> None:
    left, right = vectors(seed=0), vectors(seed=1)
    assert symmetry_loss(left, right, left, right).tolist() == [0, 0, 0]
    alike = symmetry_loss(left, left, left, right)  # more symmetric than the true face is wrong too
    torch.testing.assert_close(alike, (left - right).square().sum(1))


def test_gradients_of_triplets_and_symmetry_reach_the_restored_alone() -> None:
    pred, target, degraded = (vectors(seed=seed).requires_grad_() for seed in range(3))
    assert torch.autograd.gradcheck(lambda x: triplet_loss(x, target.detach(), degraded.detach(), 2.0), pred)
    assert torch.autograd.gradcheck(
        lambda x, y: symmetry_loss(x, y, target.detach(), degraded.detach()),
        (pred, vectors(seed=3).requires_grad_()),
    )
    loss = triplet_loss(pred, target, degraded, 2.0) + symmetry_loss(pred, pred.flip(0), target, degraded)
    loss.sum().backward()
    assert pred.grad is not None and target.grad is None and degraded.grad is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="embeddings of one shape"):
        triplet_loss(vectors(), vectors(), vectors(2))
    with pytest.raises(ShapeError, match="embeddings of one shape"):
        symmetry_loss(vectors(), vectors(), vectors(), vectors(width=4))
