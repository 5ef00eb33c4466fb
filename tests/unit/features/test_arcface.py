"""Embeddings of ArcFace and AdaFace: what the networks see, how they are loaded, what passes through them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from facerestore.core.errors import KeyMismatch, ShapeError, WeightsNotFound
from facerestore.faces.recognition import recognition_crop
from facerestore.features.adaface import AdaFace
from facerestore.features.arcface import ArcFace, Embedder, GreyArcFace, cosine_similarity, load_recognition
from facerestore.nets.grey_resnet import GreyResNet
from facerestore.nets.iresnet import IResNet
from facerestore.weights.convert import read_part
from facerestore.weights.seeded import fill_seeded_norms
from facerestore.weights.spec import remote
from facerestore.weights.store import WeightStore

EMBEDDERS = (ArcFace, GreyArcFace, AdaFace)


def seen(embedder: Embedder, face: torch.Tensor) -> torch.Tensor:
    """What reaches the network."""
    inputs: list[torch.Tensor] = []
    embedder.net.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        embedder(face)
    return inputs[0]


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_embeds_and_passes_gradients_to_faces_alone(kind: type[Embedder]) -> None:
    embedder = kind.tiny()  # type: ignore[attr-defined]
    faces = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)).requires_grad_()
    embeddings = embedder(faces)
    assert embeddings.shape == (2, 16) and embeddings.dtype == torch.float32
    embeddings.square().sum().backward()
    assert faces.grad is not None and faces.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in embedder.parameters())
    with torch.no_grad():
        alone = torch.cat([embedder(face[None]) for face in faces])
    torch.testing.assert_close(embeddings.detach(), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_stays_in_eval_mode_inside_what_trains(kind: type[Embedder]) -> None:
    embedder = kind.tiny()  # type: ignore[attr-defined]
    torch.nn.Sequential(embedder).train()
    assert not any(module.training for module in embedder.modules())


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_other_shapes_are_refused(kind: type[Embedder]) -> None:
    with pytest.raises(ShapeError, match="512"):
        kind.tiny()(torch.zeros(1, 3, 256, 256))  # type: ignore[attr-defined]


def test_networks_see_what_they_were_trained_on() -> None:
    face = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(seen(ArcFace.tiny(), face), recognition_crop(face, samples=4) * 2 - 1)
    torch.testing.assert_close(seen(AdaFace.tiny(), face), recognition_crop(face)[:, [2, 1, 0]] * 2 - 1)
    luma = (face * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    middle = (luma[:, 1::4, 1::4] + luma[:, 2::4, 1::4] + luma[:, 1::4, 2::4] + luma[:, 2::4, 2::4]) / 4
    expected = middle[:, None] * 2 - (0.2989 + 0.587 + 0.114)
    torch.testing.assert_close(seen(GreyArcFace.tiny(), face), expected, atol=1e-5, rtol=0)


def test_landmarks_take_the_place_of_the_template() -> None:
    pictures = torch.rand(1, 3, 200, 240)
    points = torch.tensor([[(90.0, 70.0), (140.0, 75.0), (115.0, 100.0), (95.0, 130.0), (135.0, 131.0)]])
    for embedder in (ArcFace.tiny(), AdaFace.tiny()):
        assert embedder(pictures, points).shape == (1, 16)


def test_similarity_is_the_cosine_and_exactly_one_for_equals() -> None:
    a, b = torch.randn(2, 4, 512, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(cosine_similarity(a, b), torch.cosine_similarity(a, b), atol=1e-6, rtol=0)
    assert cosine_similarity(a, a).tolist() == [1.0] * 4
    torch.testing.assert_close(cosine_similarity(a, -3 * a), -torch.ones(4))
    with pytest.raises(ShapeError):
        cosine_similarity(a, b[:1])


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("arcface/ir-se50", lambda state: state),
        ("arcface/grey-resnet18", lambda state: {f"module.{key}": value for key, value in state.items()}),
        (
            "adaface/ir50",
            lambda state: {
                "epoch": 25,
                "state_dict": {f"model.{key}": value for key, value in state.items()}
                | {"head.kernel": torch.zeros(16, 3)},
            },
        ),
    ],
)
def test_published_files_go_in_as_they_are(name: str, wrap: object, tmp_path: Path) -> None:
    """Plain, from DataParallel, from Lightning beside its head: pickles with the keys of the network."""
    made = {
        "arcface/ir-se50": lambda: IResNet(IResNet.Config.tiny("insightface")),
        "arcface/grey-resnet18": lambda: GreyResNet(GreyResNet.Config.tiny()),
        "adaface/ir50": lambda: IResNet(IResNet.Config.tiny("adaface")),
    }[name]
    net, other = made(), made()
    fill_seeded_norms(net)
    spec = next(spec for spec in remote() if spec.name == name)
    torch.save(wrap(net.state_dict()), tmp_path / spec.published)  # type: ignore[operator]
    load_recognition(other, read_part(tmp_path / spec.published, spec.take).tensors, name)
    loaded = other.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in net.state_dict().items())


def test_only_counters_may_be_missing_from_a_file(tmp_path: Path) -> None:
    net = IResNet(IResNet.Config.tiny("adaface"))
    lean = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    load_recognition(net, lean, "lean")
    with pytest.raises(KeyMismatch, match="1 missing"):
        load_recognition(net, {key: value for key, value in lean.items() if "input_layer.0" not in key}, "x")
    with pytest.raises(KeyMismatch):  # the layouts look alike, and are not
        load_recognition(IResNet(IResNet.Config.tiny("insightface")), lean, "x")
    save_file(lean, tmp_path / "small.safetensors")
    store = WeightStore(paths={"adaface/ir50": tmp_path / "small.safetensors"})
    with pytest.raises(KeyMismatch, match="adaface/ir50"):
        AdaFace.load(store)


def test_missing_weights_are_named_with_their_terms() -> None:
    with pytest.raises(WeightsNotFound, match="non-commercial"):
        ArcFace.load(WeightStore())
    with pytest.raises(WeightsNotFound, match="MS1MV2"):
        AdaFace.load(WeightStore(), layers=101)
    with pytest.raises(WeightsNotFound, match="GFPGAN"):
        GreyArcFace.load(WeightStore())
