"""DINOv3's ConvNeXt, Dv3D and OMGSR's discriminator against public code (see data/dinov3_convnext.md)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from facerestore.features.dinov3_convnext import DinoV3ConvNeXt
from facerestore.features.dv3d import Dv3D
from facerestore.losses.adversarial import discriminator_loss, generator_loss
from facerestore.losses.discriminators.dinov3_convnext import DinoV3Discriminator, DinoV3Heads
from facerestore.nets.convnext import ConvNeXt, Size, published_state
from facerestore.weights.seeded import fill_seeded

RECORDED = load_file(Path(__file__).parent / "data" / "dinov3_convnext.safetensors")
WIDTHS = (16, 24, 32)
# First 16 digits of the sha256 of the sorted lines `key shape` of the official networks.
OFFICIAL_STAGES = {
    "tiny": "efa9d72e4090142b",
    "small": "33ab2a3e5a71ca7e",
    "base": "52edad72000c81e3",
    "large": "1758196ba6bec549",
}
OFFICIAL_HEADS = {512: (4_729_443, "87cc12104d1c9ad3"), 1024: (4_978_563, "49c279f78195a64f")}


def layout(state: Mapping[str, torch.Tensor]) -> str:
    lines = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def backbone() -> DinoV3ConvNeXt:
    net = ConvNeXt(ConvNeXt.Config(depths=(1, 2, 1), widths=WIDTHS))
    fill_seeded(net)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if tensor.ndim == 1 and not name.endswith("bias"):
                tensor.add_(1)
    return DinoV3ConvNeXt(net)


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, 3, 64, 80, generator=generator) for _ in range(2))
    second[1] = first[1] * 0.7 + 0.1 * second[1]
    return first, second


def test_maps_equal_the_original(backbone: DinoV3ConvNeXt) -> None:
    for stage, level in enumerate(backbone(pictures()[0])):
        torch.testing.assert_close(level[:, ::8], RECORDED[f"map{stage}"], atol=1e-5, rtol=0)


def test_dv3d_and_its_pooled_maps_equal_the_original(backbone: DinoV3ConvNeXt) -> None:
    dv3d, (first, second) = Dv3D(backbone), pictures()
    for stage, level in enumerate(dv3d.features(first)[1:]):
        torch.testing.assert_close(level[:, ::8], RECORDED[f"dv3d_map{stage}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(dv3d(first, second), RECORDED["dv3d"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("image_px", [512, 1024])
def test_three_passes_of_the_heads_and_their_losses_equal_the_original(image_px: Any) -> None:
    heads = DinoV3Heads(DinoV3Heads.Config(widths=WIDTHS, image_px=image_px))
    fill_seeded(heads)
    maps = [
        torch.randn(
            2, width, image_px // step, image_px // step, generator=torch.Generator().manual_seed(width)
        )
        for width, step in zip(WIDTHS, (4, 8, 16), strict=True)
    ]
    with torch.no_grad():
        for call in range(3):  # each moves the vectors of the spectral normalisation
            logits = heads(maps)
            together = torch.stack([level[:, 0] for level in logits], 1)
            torch.testing.assert_close(together, RECORDED[f"heads{image_px}_{call}"], atol=1e-6, rtol=0)
    assert not torch.allclose(RECORDED[f"heads{image_px}_0"], RECORDED[f"heads{image_px}_2"], atol=1e-4)
    on_pred, on_real, on_fake = RECORDED[f"bce{image_px}"]
    torch.testing.assert_close(generator_loss(logits, "soft_label"), on_pred, atol=1e-6, rtol=0)
    both = discriminator_loss(logits, logits, "soft_label")
    torch.testing.assert_close(both, on_real + on_fake, atol=1e-6, rtol=0)


def test_the_whole_discriminator_equals_the_original(backbone: DinoV3ConvNeXt) -> None:
    """Real, fake and generator's pass of one picture, in this order, in train mode."""
    discriminator = DinoV3Discriminator(backbone, DinoV3Heads(DinoV3Heads.Config(widths=WIDTHS)))
    fill_seeded(discriminator.decoders)
    discriminator.train()
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        real, fake, pred = (discriminator(image) for _ in range(3))
        ours = discriminator_loss(real, fake, "soft_label")
        official = RECORDED["loss_real"] + RECORDED["loss_fake"]
        torch.testing.assert_close(ours[0], official, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            generator_loss(pred, "soft_label")[0], RECORDED["loss_g"], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("size", list(OFFICIAL_STAGES))
def test_every_size_has_the_official_keys_and_shapes(size: Size) -> None:
    with torch.device("meta"):
        net = ConvNeXt(ConvNeXt.Config.of(size))
    assert layout(net.state_dict()) == OFFICIAL_STAGES[size]


@pytest.mark.parametrize("image_px", list(OFFICIAL_HEADS))
def test_heads_have_the_official_keys_shapes_and_number_of_parameters(image_px: Any) -> None:
    heads = DinoV3Heads(DinoV3Heads.Config(image_px=image_px))
    parameters = sum(tensor.numel() for tensor in heads.parameters())
    assert (parameters, layout(heads.state_dict())) == OFFICIAL_HEADS[image_px]
    assert "decoders.2.1.weight_orig" in heads.state_dict()  # old-style spectral normalisation


def test_the_hubs_file_goes_in_and_says_what_transformers_says() -> None:
    """The hub has the weights under the names of transformers, whose own network is the other side."""
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    settings = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1]}
    theirs = DINOv3ConvNextModel(DINOv3ConvNextConfig(**settings)).eval()
    fill_seeded(theirs)
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if tensor.ndim == 1 and not name.endswith("bias"):
                tensor.add_(1)
    ours = ConvNeXt(ConvNeXt.Config(depths=(1, 2, 1), widths=(8, 16, 24)))
    ours.load_state_dict(published_state(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = theirs(images, output_hidden_states=True).hidden_states
        for level, official in zip(ours(images), states[-4:-1], strict=True):
            torch.testing.assert_close(level, official, atol=1e-5, rtol=0)
