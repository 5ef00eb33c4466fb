"""The small U-Net for faces."""

import pytest
import torch

from facerestore.core.errors import ConfigError
from facerestore.nets.face_unet import ResidualUNet
from facerestore.weights.seeded import fill_seeded


def pictures(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def made() -> ResidualUNet:
    net = ResidualUNet(ResidualUNet.Config.tiny())
    fill_seeded(net)
    return net


def test_it_has_the_stated_size() -> None:
    with torch.device("meta"):
        net = ResidualUNet(ResidualUNet.Config())
    assert sum(parameter.numel() for parameter in net.parameters()) == 8_511_788
    assert net.config.multiple_px == 16


def test_a_new_one_returns_its_input_and_learns_from_the_last_layer_on() -> None:
    net, faces = ResidualUNet(ResidualUNet.Config.tiny()), pictures()
    assert torch.equal(net(faces), faces)
    net(faces).square().sum().backward()
    assert net.last.weight.grad is not None and bool(net.last.weight.grad.any())


def test_every_parameter_takes_part() -> None:
    net = made()
    net(pictures()).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


def test_every_picture_is_computed_alone() -> None:
    net, faces = made(), pictures(3)
    with torch.no_grad():
        together = net(faces)
        apart = torch.cat([net(face[None]) for face in faces])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    assert (together - faces).abs().max() > 0.01


def test_the_deepest_level_sees_far() -> None:
    net, faces = made(), pictures(1, 128, 128)
    changed = faces.clone()
    changed[..., :4, :4] = 1 - changed[..., :4, :4]
    with torch.no_grad():
        difference = (net(faces) - net(changed)).abs().amax(dim=(0, 1))
    assert difference[60:64, 60:64].max() > 0


@pytest.mark.parametrize("widths", [(8,), (8, 16), (4, 8, 8, 8)])
def test_it_takes_multiples_of_its_own_depth(widths: tuple[int, ...]) -> None:
    net = ResidualUNet(ResidualUNet.Config(widths=widths, blocks=1))
    side = net.config.multiple_px
    assert side == 4 * 2 ** (len(widths) - 1)
    assert net(pictures(1, side, 2 * side)).shape == (1, 3, side, 2 * side)


@pytest.mark.parametrize("settings", [{"widths": ()}, {"widths": (8, 0)}, {"blocks": 0}])
def test_impossible_sizes_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        ResidualUNet.Config(**settings)  # pyright: ignore[reportArgumentType]
