"""TADSR and BVI's refiner in it: formula, the timestep as a knob, shapes."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from facerestore.core.errors import ConfigError
from facerestore.core.state import RestorationState
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import MADE
from facerestore.stages.tadsr import TADSR
from facerestore.weights.store import WeightStore

CPU = torch.device("cpu")
TINY = TADSR.Config().tiny()


def lively(config: TADSR.Config = TINY) -> TADSR:
    """Tiny, with norms near 1 instead of near 0, so that everything matters."""
    stage = config.build(WeightStore()).requires_grad_(False)
    for name, parameter in stage.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    return stage.eval()


def pictures(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def restored(stage: TADSR, images: torch.Tensor, seeds: tuple[int, ...] | int = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(images, seeds)).image


class _Says(torch.nn.Module):
    """A UNet with a known answer, which remembers what it was asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, z: torch.Tensor, t: torch.Tensor, encoder_hidden_states: Any, return_dict: bool) -> Any:
        self.t, self.prompt = t, encoder_hidden_states
        assert not return_dict
        return (self.answer,)


@pytest.mark.parametrize("timestep", [1, 500, 999])
def test_the_answer_is_taken_off_the_rescaled_latent(timestep: int) -> None:
    stage = lively(replace(TINY, timestep=timestep))
    z, answer = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    stage.unet = _Says(answer)
    expected = z.double() / sd_alpha_bar()[timestep].double().sqrt() - answer.double()
    torch.testing.assert_close(stage.step(z), expected.float(), atol=1e-6, rtol=0)
    assert torch.equal(stage.unet.t, torch.full((2,), timestep))
    assert stage.unet.prompt.shape == (2, 77, 32)


def test_the_timestep_is_a_knob_that_encoder_and_unet_both_feel() -> None:
    images = pictures(1)
    outs = [restored(lively(replace(TINY, timestep=t)), images) for t in (1, 500, 999)]
    assert all((outs[i] - outs[j]).abs().mean() > 1e-2 for i, j in ((0, 1), (1, 2), (0, 2)))
    latents = [lively(replace(TINY, timestep=t)).codec.encode(images, (0,)).detach() for t in (1, 500)]
    assert (latents[0] - latents[1]).abs().mean() > 1e-3
    assert TADSR.Config().timestep == 500 and TADSR.Config().override("timestep", "37").timestep == 37
    for timestep in (0, 1000, -1):
        with pytest.raises(ConfigError, match="timestep lies in"):
            TADSR.Config(timestep=timestep)


def test_a_new_refiner_changes_no_bit_and_a_trained_one_does() -> None:
    images, plain = pictures(2), lively()
    refined = lively()
    refined.refiner = ResidualRefiner(ResidualRefiner.Config())
    assert torch.equal(restored(refined, images), restored(plain, images))
    made = lively(replace(TINY, refiner=MADE))
    assert (restored(made, images) - restored(plain, images)).abs().max() > 1e-3


def test_the_refiner_sees_the_stitched_answer_of_all_tiles() -> None:
    stage = lively(replace(TINY, refiner=MADE, tile=8, overlap=4))
    z = torch.randn(1, 4, 12, 20, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    assert stage.refiner is not None
    stage.refiner.register_forward_hook(lambda *call: seen.append(call[1][1]))
    with torch.no_grad():
        stage.step(z)
        assert len(seen) == 1 and torch.equal(seen[0], stage.ask(stage.unet, z))


@pytest.mark.parametrize("posterior", ["mode", "sample"])
@pytest.mark.parametrize("refiner", [None, MADE])
def test_a_picture_comes_out_the_same_alone_and_among_others(posterior: str, refiner: str | None) -> None:
    stage, images = lively(replace(TINY, posterior=posterior, refiner=refiner)), pictures(3)
    one_by_one = restored(stage, images, (7, 8, 9))
    together = restored(stage.place(CPU, "fp32", batch=3), images, (7, 8, 9))
    torch.testing.assert_close(one_by_one, together, atol=2e-5, rtol=0)
    other_seed = restored(stage, images, (7, 8, 10))
    assert torch.equal(other_seed[2], together[2]) == (posterior == "mode")


@pytest.mark.parametrize(("height", "width"), [(37, 50), (1, 1), (8, 104)])
def test_any_size_goes_through(height: int, width: int) -> None:
    images = pictures(1, height, width)
    assert restored(lively(replace(TINY, refiner=MADE)), images).shape == images.shape


def test_bf16_gives_nearly_the_same_picture() -> None:
    images, config = pictures(1), replace(TINY, refiner=MADE)
    exact = restored(lively(config), images)
    rounded = restored(lively(config).place(CPU, "bf16"), images)
    assert rounded.dtype == torch.float32 and (rounded - exact).abs().mean() < 0.02


def test_weights_are_named_and_tiny_needs_none() -> None:
    names = ("sd21-base/unet", "tadsr/time-vae", "sd21-base/prompt-empty", "tadsr/weights")
    assert TADSR.Config().weights() == names
    full = TADSR.Config(refiner="bvi/refiner")
    assert full.weights() == (*names, "bvi/refiner") and full.contract().generative
    assert TINY.weights() == full.tiny().weights() == ()
    assert TINY.refiner is None and full.tiny().refiner == MADE


def test_gradients_pass_from_picture_to_picture() -> None:
    images = pictures(1).requires_grad_()
    state = RestorationState(lq=images, image=images, seeds=(0,))
    lively(replace(TINY, refiner=MADE))(state).image.sum().backward()
    assert images.grad is not None and bool(images.grad.abs().sum() > 0)
