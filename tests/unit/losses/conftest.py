"""What every loss should be; each file of tests holds its losses to it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from facerestore.core.errors import ShapeError

Loss = Callable[[Tensor, Tensor], Tensor]


def scene(batch: int, side: int, seed: int = 0) -> Tensor:
    """(batch,3,side,side) in [0,1]: soft spots, and details upon them."""
    generator = torch.Generator().manual_seed(seed)
    spots = torch.rand(batch, 3, 6, 6, generator=generator)
    details = torch.rand(batch, 3, side // 2, side // 2, generator=generator)
    size = (side, side)
    return 0.7 * interpolate(spots, size, mode="bicubic").clamp(0, 1) + 0.3 * interpolate(details, size)


def softened(images: Tensor, share: float) -> Tensor:
    """Pictures mixed with a quarter of their size, enlarged again."""
    small = interpolate(images, scale_factor=0.25, mode="bilinear", antialias=True)
    return images + share * (interpolate(small, images.shape[2:], mode="bilinear") - images)


class Rules:
    """Checks of a loss of two arguments."""

    def hold(self, loss: Loss, side: int = 32, *, atol: float = 1e-6) -> None:
        """Zero at equality, positive else, per picture, growing with damage, differentiable, shapes typed."""
        images = scene(3, side)
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        noisy = [images + amount * noise for amount in (0.02, 0.05, 0.1, 0.2)]
        soft = [softened(images, share) for share in (0.25, 0.5, 0.75, 1.0)]
        with torch.no_grad():
            assert loss(images, images).tolist() == [0.0] * 3
            for damaged in (noisy, soft):
                curve = torch.stack([loss(each, images) for each in damaged])
                assert curve.dtype == torch.float32 and curve.shape == (4, 3)
                assert (curve[0] > 0).all() and (curve.diff(dim=0) > 0).all(), curve
            whole = loss(noisy[1], images)
            singles = [loss(noisy[1][i : i + 1], images[i : i + 1]) for i in range(3)]
            torch.testing.assert_close(torch.cat(singles), whole, atol=atol, rtol=1e-4)
            half = loss(noisy[1].bfloat16(), images)
            assert half.dtype == torch.float32 and half.shape == (3,)
            with torch.autocast("cpu", torch.bfloat16):
                mixed = loss(noisy[3], images)
                assert mixed.dtype == torch.float32 and loss(images, images).tolist() == [0.0] * 3
            torch.testing.assert_close(mixed, loss(noisy[3], images), atol=0, rtol=0.05)
        self.differentiable(loss, noisy[1], images)
        for shape in ((2, *images.shape[1:]), (3, 3, side, side // 2)):
            with pytest.raises(ShapeError):
                loss(images, torch.zeros(shape))

    def differentiable(self, loss: Loss, pred: Tensor, target: Tensor) -> None:
        """Each picture has a gradient of its own, also where nothing is left to improve."""
        for start in (pred, target):
            leaf = start.clone().requires_grad_()
            loss(leaf, target)[0].backward()
            assert leaf.grad is not None and leaf.grad.isfinite().all()
            assert leaf.grad[1:].abs().max() == 0
        leaf = pred.clone().requires_grad_()
        before = loss(leaf, target)
        before.sum().backward()
        assert leaf.grad is not None
        with torch.no_grad():
            step = 1e-3 * leaf.grad / leaf.grad.flatten(1).norm(dim=1)[:, None, None, None]
            assert (loss(leaf - step, target) < before).all()

    def gradients(self, loss: Loss, side: int = 8) -> None:
        """The derivative is that of the values, in float64."""
        generator = torch.Generator().manual_seed(3)
        pred, target = (
            torch.rand(2, 3, side, side, dtype=torch.float64, generator=generator) for _ in range(2)
        )
        assert torch.autograd.gradcheck(loss, (pred.requires_grad_(), target.requires_grad_()))


@pytest.fixture(scope="session")
def rules() -> Rules:
    return Rules()
