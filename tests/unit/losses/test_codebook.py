"""Vector quantisation as it is trained."""

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.losses.codebook import codebook_loss, commitment_loss, nearest_codes, straight_through
from facerestore.nets.visual_prompt import select_tokens

CODEBOOK = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
FEATURES = torch.tensor([[0.9, 0.2], [0.1, 1.5], [-0.3, 0.1]]).mT.reshape(1, 2, 3, 1)


def test_nearest_codes_by_hand() -> None:
    codes, indices = nearest_codes(FEATURES, CODEBOOK)
    assert indices.flatten().tolist() == [1, 2, 0]
    assert codes[0, :, :, 0].mT.tolist() == [[1, 0], [0, 2], [0, 0]]


def test_the_choice_is_that_of_the_visual_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    features, codebook = torch.randn(1, 8, 3, 3, generator=generator), torch.randn(32, 8, generator=generator)
    codes, indices = nearest_codes(features, codebook)
    tokens = select_tokens(features, codebook, 9)
    kept = set(indices.flatten().tolist())
    assert {tuple(row.tolist()) for row in tokens[0] if row.any()} == {
        tuple(codebook[i].tolist()) for i in kept
    }
    alone = (features.flatten(2).mT[0][:, None] - codebook).norm(dim=2).argmin(1)
    assert torch.equal(indices.flatten(), alone)
    assert torch.equal(codes.flatten(2).mT[0], codebook[alone])


def test_each_loss_moves_its_own_side() -> None:
    features, codebook = FEATURES.clone().requires_grad_(), CODEBOOK.clone().requires_grad_()
    codes, _ = nearest_codes(features, codebook)
    expected = (FEATURES - codes.detach()).square().mean().item()
    for loss, moved, kept in (
        (codebook_loss(features, codes), codebook, features),
        (commitment_loss(features, codes), features, codebook),
    ):
        assert loss.tolist() == pytest.approx([expected])
        loss.sum().backward()
        assert moved.grad is not None and bool(moved.grad.any()) and kept.grad is None
        moved.grad = None
        codes, _ = nearest_codes(features, codebook)


def test_features_that_are_codes_cost_nothing() -> None:
    codes, _ = nearest_codes(FEATURES, CODEBOOK)
    again, _ = nearest_codes(codes, CODEBOOK)
    assert codebook_loss(codes, again).item() == commitment_loss(codes, again).item() == 0


def test_gradients_pass_around_the_choice() -> None:
    features = FEATURES.clone().requires_grad_()
    codes, _ = nearest_codes(features, CODEBOOK)
    passed = straight_through(features, codes)
    torch.testing.assert_close(passed, codes)
    (passed * FEATURES).sum().backward()
    assert features.grad is not None and torch.equal(features.grad, FEATURES)


def test_gradients_of_the_losses_and_their_independence() -> None:
    generator = torch.Generator().manual_seed(0)
    features, codes = (torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: commitment_loss(x, codes), features.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: codebook_loss(features.detach(), x), codes.requires_grad_())
    alone = [commitment_loss(features[i : i + 1], codes[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(commitment_loss(features, codes), torch.cat(alone))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"codebook \(K,2\)"):
        nearest_codes(FEATURES, torch.zeros(4, 3))
    with pytest.raises(ShapeError, match="codes of the shape"):
        codebook_loss(FEATURES, FEATURES[:, :1])
