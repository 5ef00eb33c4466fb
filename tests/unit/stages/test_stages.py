"""Stages: contracts, wiring, batching, and what the two stages of the default recipe promise."""

import pytest
import torch

from facerestore.core.errors import RangeError, ShapeError, WiringError
from facerestore.core.state import RestorationState
from facerestore.imaging.color_fix import luma
from facerestore.stages.base import ImageStage, Stage, StageConfig, StageContract
from facerestore.stages.color_fix import ColorFix
from facerestore.stages.compose import Chain
from facerestore.stages.realesrgan import RealESRGAN
from facerestore.weights.store import WeightStore

STORE = WeightStore()


def _faces(count: int, seed: int = 0, size: int = 512) -> torch.Tensor:
    """Smooth random pictures; every other one is very soft."""
    generator = torch.Generator().manual_seed(seed)
    small = [
        torch.rand(1, 3, 12 if i % 2 else 100, 12 if i % 2 else 100, generator=generator)
        for i in range(count)
    ]
    return torch.cat([torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear") for x in small])


class _Bad(ImageStage):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.config = StageConfig()

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        return image * float("nan") if self.what == "nan" else image[..., 1:]


def test_a_stage_cannot_return_nan_or_another_shape() -> None:
    state = RestorationState.start(_faces(1, size=32))
    with pytest.raises(RangeError, match="not finite"):
        _Bad("nan")(state)
    with pytest.raises(ShapeError):
        _Bad("shape")(state)


class _NeedsEdges(StageConfig):
    def contract(self) -> StageContract:
        return StageContract(reads=frozenset({"kept.edges"}))


def test_wiring_is_checked_before_anything_is_loaded() -> None:
    with pytest.raises(WiringError, match=r"stage 1 .* reads \['kept.edges'\]"):
        Chain.Config(stages=(ColorFix.Config(), _NeedsEdges()))


def test_a_chain_keeps_a_snapshot_after_each_stage_and_nests() -> None:
    config = Chain.Config(stages=(RealESRGAN.Config().tiny(), Chain.Config(stages=(ColorFix.Config(),))))
    state = config.build(STORE)(RestorationState.start(_faces(1, size=128)))
    assert set(state.kept) == {"realesrgan", "color_fix", "compose"}
    assert torch.equal(state.kept["color_fix"], state.image)
    assert config.contract().generative


def test_each_face_enters_at_the_size_of_its_sharpness() -> None:
    stage = RealESRGAN.Config().tiny().build(STORE)
    sizes = stage.entry_sizes(_faces(2))
    assert sizes[0] > 128 and sizes[1] == 64
    assert stage.config.override("ruined_px", "99").build(STORE).entry_sizes(_faces(2))[1] == 128
    assert stage.config.override("entry_px", "192").build(STORE).entry_sizes(_faces(2)) == [192, 192]


def test_a_grainy_face_enters_one_size_smaller() -> None:
    stage = RealESRGAN.Config().tiny().build(STORE)
    face = _faces(1)
    noise = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0)) * 6 / 255
    sizes = (64, 128, 192, 256)
    before, after = (sizes.index(stage.entry_sizes(x)[0]) for x in (face, (face + noise).clamp(0, 1)))
    assert after == before - 1


def test_batch_equals_singles_and_order_does_not_matter() -> None:
    stage = Chain.Config(stages=(RealESRGAN.Config(), ColorFix.Config())).tiny().build(STORE)
    faces = _faces(4)
    together = stage(RestorationState.start(faces)).image
    singles = torch.cat([stage(RestorationState.start(faces[i : i + 1])).image for i in range(4)])
    torch.testing.assert_close(together, singles, atol=1e-5, rtol=0)
    backwards = stage(RestorationState.start(faces.flip(0))).image.flip(0)
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=0)


def test_batches_of_any_size_give_the_same() -> None:
    faces = _faces(3)
    results = [
        RealESRGAN.Config()
        .tiny()
        .build(STORE)
        .place(torch.device("cpu"), "fp32", batch)(RestorationState.start(faces))
        .image
        for batch in (1, 2, 8)
    ]
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[0], results[2], atol=1e-5, rtol=0)


def test_the_restorer_is_differentiable() -> None:
    stage = RealESRGAN.Config().tiny().build(STORE)
    faces = _faces(1, size=128).requires_grad_()
    state = RestorationState(lq=faces, image=faces, seeds=(0,))
    stage(state).image.sum().backward()
    assert faces.grad is not None and bool(faces.grad.abs().sum() > 0)


@pytest.mark.parametrize("method", ["wavelet", "adain", "none"])
def test_grey_stays_grey_and_colour_stays_colour(method: str) -> None:
    faces = _faces(2, size=64)
    faces[1] = luma(faces)[1]
    estimate = (faces + torch.tensor([0.1, -0.1, 0.05]).view(1, 3, 1, 1)).clamp(0, 1)
    stage: Stage = ColorFix.Config().override("method", method).build(STORE)
    out = stage(RestorationState.start(faces).with_image(estimate)).image
    assert torch.equal(out[1, 0], out[1, 1]) and torch.equal(out[1, 0], out[1, 2])
    assert not torch.equal(out[0, 0], out[0, 1])


def test_the_colour_of_the_input_comes_back() -> None:
    faces = _faces(1, size=64) * 0.6 + 0.2
    tinted = faces + torch.tensor([0.1, -0.1, 0.05]).view(1, 3, 1, 1)
    out = ColorFix.Config().build(STORE)(RestorationState.start(faces).with_image(tinted)).image
    torch.testing.assert_close(out, faces, atol=1e-5, rtol=0)
