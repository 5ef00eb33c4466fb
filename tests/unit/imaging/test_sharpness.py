"""The estimate of real sharpness: it follows blur, and noise does not fool it."""

import torch

from facerestore.imaging.sharpness import edge_blur_px, grain


def _edges(sigma_px: float, size: int = 512) -> torch.Tensor:
    """Soft discs on grey, each with edges of one known Gaussian width."""
    ys, xs = torch.meshgrid(torch.arange(size) * 1.0, torch.arange(size) * 1.0, indexing="ij")
    unit = size / 512
    image = torch.full((size, size), 0.5)
    for x, y, r, level in [(200, 260, 40, 0.35), (320, 260, 40, -0.35), (256, 380, 60, 0.3)]:
        inside = r * unit - torch.sqrt((xs - x * unit) ** 2 + (ys - y * unit) ** 2)
        image = image + level * torch.special.ndtr(inside / max(sigma_px, 1e-3))
    return image.expand(1, 3, size, size)


def test_known_widths_are_found() -> None:
    """Pixels beside an edge's middle see it a little softer: the estimate lies above, by less than 0.5 px."""
    for sigma in (1.0, 2.0, 3.0, 5.0):
        assert 0 <= float(edge_blur_px(_edges(sigma))) - sigma < 0.5, sigma


def test_noise_does_not_make_a_soft_face_sharp() -> None:
    noise = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 8 / 255
    assert float(edge_blur_px((_edges(3.0) + noise).clamp(0, 1))) > 2.0


def test_batch_equals_singles_and_flat_is_softest() -> None:
    batch = torch.cat([_edges(1.0), torch.full((1, 3, 512, 512), 0.4), _edges(4.0)])
    together = edge_blur_px(batch)
    assert torch.equal(together, torch.cat([edge_blur_px(batch[i : i + 1]) for i in range(3)]))
    assert float(together[1]) == 10.0


def test_grain_measures_white_noise_and_ignores_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    grey_noise = torch.randn(1, 1, 512, 512, generator=generator).expand(1, 3, 512, 512)
    assert float(grain(_edges(1.0))) < 0.2 / 255
    for sigma in (4, 8, 12):
        noisy = (_edges(1.0) + grey_noise * sigma / 255).clamp(0, 1)
        assert abs(float(grain(noisy)) * 255 - sigma) < 0.05 * sigma
