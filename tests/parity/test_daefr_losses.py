"""Association and vector quantisation against DAEFR's code (see data/daefr_losses.md)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from facerestore.losses.association import AssociationLoss
from facerestore.losses.codebook import codebook_loss, commitment_loss, nearest_codes, straight_through

RECORDED = load_file(Path(__file__).parent / "data" / "daefr_losses.safetensors")
CODEBOOK_SHARE = 0.25


def test_association_equals_the_original() -> None:
    losses = AssociationLoss()(RECORDED["lq"], RECORDED["hq"])
    torch.testing.assert_close(losses.mean(), RECORDED["association"], atol=1e-5, rtol=0)


def test_codes_losses_and_gradients_equal_the_original() -> None:
    features = RECORDED["lq"].clone().requires_grad_()
    codebook = RECORDED["codebook"].clone().requires_grad_()
    codes, indices = nearest_codes(features, codebook)
    assert torch.equal(indices, RECORDED["indices"])
    losses = commitment_loss(features, codes) + CODEBOOK_SHARE * codebook_loss(features, codes)
    passed = straight_through(features, codes)
    torch.testing.assert_close(losses.mean().detach(), RECORDED["vq_loss"], atol=1e-6, rtol=0)
    torch.testing.assert_close(passed.detach(), RECORDED["codes"], atol=1e-6, rtol=0)
    (losses.mean() + (passed * RECORDED["hq"]).sum()).backward()
    torch.testing.assert_close(features.grad, RECORDED["grad_features"], atol=1e-6, rtol=0)
    torch.testing.assert_close(codebook.grad, RECORDED["grad_codebook"], atol=1e-6, rtol=0)
