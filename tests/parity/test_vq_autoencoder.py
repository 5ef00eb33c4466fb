"""The autoencoder that the visual prompt is trained in, against DAEFR's code (see data/vq_autoencoder.md)."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from facerestore.imaging.range import from_signed, to_signed
from facerestore.losses.codebook import codebook_loss, commitment_loss
from facerestore.nets.visual_prompt import VisualPrompt
from facerestore.nets.vq_autoencoder import VQAutoencoder
from facerestore.training.visual_prompt import VisualPromptTask, reconstruct
from facerestore.weights.seeded import fill_seeded

RECORDED = load_file(Path(__file__).parent / "data" / "vq_autoencoder.safetensors")
OFFICIAL_KEYS = "13d2ca61573c0a666a8bd6aacfc0d4b01386e02e81868083d47fa60da8041033"


def filled(config: VisualPrompt.Config) -> VQAutoencoder:
    with torch.device("meta"):
        net = VQAutoencoder(config)
    net.to_empty(device="cpu")
    fill_seeded(net)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return net


def test_it_has_the_official_keys_and_decodes_as_the_original() -> None:
    net = filled(VisualPrompt.Config())
    shapes = {key: list(tensor.shape) for key, tensor in sorted(net.state_dict().items())}
    assert len(shapes) == 391
    assert hashlib.sha256(json.dumps(shapes).encode()).hexdigest() == OFFICIAL_KEYS
    z = torch.randn(1, 512, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        image = net.decode(z)[0, :, ::4, ::4]
    torch.testing.assert_close(image, RECORDED["full"], atol=5e-5, rtol=0)


def test_a_branch_reconstructs_loses_and_learns_as_the_original() -> None:
    net, weights = filled(VisualPrompt.Config.tiny()), VisualPromptTask.Config(associates_at=0)
    signed = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(6)) * 2 - 1
    made = reconstruct(net, from_signed(signed))
    vq = weights.commitment * commitment_loss(made.features, made.codes).mean()
    vq = vq + weights.codebook * codebook_loss(made.features, made.codes).mean()
    assert torch.equal(made.indices.short(), RECORDED["small.codes"])
    torch.testing.assert_close(to_signed(made.image.detach()), RECORDED["small.image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(vq.detach(), RECORDED["small.vq_loss"], atol=1e-6, rtol=0)
    (to_signed(made.image).square().mean() + vq).backward()
    for name, layer in {
        "codebook": net.quantize.embedding,
        "encoder": net.encoder.conv_in,
        "decoder": net.decoder.conv_in,
    }.items():
        torch.testing.assert_close(layer.weight.grad, RECORDED[f"small.grad_{name}"], atol=1e-6, rtol=1e-4)
