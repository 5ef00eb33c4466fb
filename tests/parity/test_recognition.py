"""The recognition networks and their crop against public code, on made weights (data/recognition.md)."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from facerestore.faces.recognition import recognition_crop
from facerestore.faces.similarity import invert, similarity_matrix
from facerestore.faces.templates import ARCFACE_112, FFHQ_512
from facerestore.features.adaface import DEPTHS
from facerestore.features.arcface import GreyArcFace
from facerestore.nets.grey_resnet import GreyResNet
from facerestore.nets.iresnet import IResNet
from facerestore.weights.seeded import fill_seeded_norms

RECORDED = Path(__file__).parent / "data" / "recognition.safetensors"
POINTS = torch.tensor([(180.5, 250.0), (300.0, 220.25), (250.0, 300.0), (215.0, 380.0), (320.75, 352.0)])
NETS = ("ir_se50", "ir50", "ir101", "grey")


def blocks() -> Tensor:
    """(1,3,512,512): coloured cells of 16 px made of integers, each blended into the next."""
    cells = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float() / 255
    return nn.functional.interpolate(cells, size=(512, 512), mode="bilinear", align_corners=False)


def pixels(channels: int, side: int) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def made(name: str) -> nn.Module:
    with torch.device("meta"):
        net = {
            "ir_se50": lambda: IResNet(IResNet.Config(layout="insightface")),
            "ir50": lambda: IResNet(IResNet.Config(layout="adaface")),
            "ir101": lambda: IResNet(IResNet.Config(layout="adaface", depths=DEPTHS[101])),
            "grey": lambda: GreyResNet(GreyResNet.Config()),
        }[name]()
    net.to_empty(device="cpu")
    fill_seeded_norms(net)
    return net.eval()


def fingerprint(state: Mapping[str, Tensor]) -> int:
    return zlib.crc32(
        "\n".join(sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())).encode()
    )


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("ir_se50", 397, 43_797_696),
        ("ir50", 467, 43_585_600),
        ("ir101", 917, 65_150_912),
        ("grey", 181, 25_627_081),
    ],
)
def test_every_network_equals_the_original(name: str, tensors: int, parameters: int) -> None:
    """Names and shapes of tensors too: published files go in strictly."""
    recorded, net = load_file(RECORDED), made(name)
    state = net.state_dict()
    assert len(state) == tensors
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert fingerprint(state) == recorded["keys"][NETS.index(name)]
    with torch.no_grad():
        embeddings = net(pixels(1, 128) if name == "grey" else pixels(3, 112))
    if name == "grey":
        torch.testing.assert_close(embeddings, recorded["grey"], atol=1e-5, rtol=1e-5)
        grey = GreyArcFace(net)(blocks())  # type: ignore[arg-type]
        torch.testing.assert_close(grey, recorded["grey_face"], atol=1e-5, rtol=1e-5)
        return
    torch.testing.assert_close(normalize(embeddings), recorded[name], atol=1e-5, rtol=0)
    assert (recorded[name][0] - recorded[name][1]).norm() > 0.01  # the pictures tell
    if name != "ir_se50":
        lengths = embeddings.norm(dim=1, keepdim=True)
        torch.testing.assert_close(lengths, recorded[f"{name}_norm"], atol=0, rtol=1e-5)


def test_the_crop_equals_that_of_adaface_and_the_challenges() -> None:
    recorded, face = load_file(RECORDED), (blocks() * 255).round() / 255
    for points, name in ((POINTS, "matrix"), (FFHQ_512, "template_matrix")):
        matrix = invert(similarity_matrix(ARCFACE_112[None].double(), points))[0]
        torch.testing.assert_close(matrix, recorded[name], atol=1e-4, rtol=0)
    crop = recognition_crop(face, POINTS[None])[0].permute(1, 2, 0) * 255
    difference = (crop - recorded["crop"].float()).abs()
    assert difference.max() < 0.51  # what is rounded to whole numbers there, and a little
