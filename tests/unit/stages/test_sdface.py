"""The SDFace stage: the UNet's output is the clean latent, and what it is told besides the picture."""

from typing import Any

import pytest
import torch
from torch import nn

from facerestore.core.errors import ShapeError
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_SDXL_VAE
from facerestore.stages.sdface import SDFace, SDXLPrompt
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

CPU = torch.device("cpu")


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pictures(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def _prompt(**changes: torch.Tensor) -> SDXLPrompt:
    sizes = torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]])
    made = {"tokens": _noise(1, 77, 32, seed=1), "pooled": _noise(1, 32, seed=2), "sizes": sizes}
    return SDXLPrompt(**made | changes)


def _lively(prompt: SDXLPrompt | None = None, **changes: Any) -> SDFace:
    """Tiny, with norms near 1 instead of near 0, so that everything matters."""
    unet, vae = backbones.sd_unet(TINY_SDXL_UNET), backbones.sd_vae(TINY_SDXL_VAE)
    for net in (unet, vae):
        fill_seeded(net.eval().requires_grad_(False))
        for name, parameter in net.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return SDFace(unet, LatentCodec.of(vae, name="sdface"), prompt or _prompt(), SDFace.Config(**changes))


def _restored(stage: SDFace, pictures: torch.Tensor, seeds: tuple[int, ...] | int = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(pictures, seeds)).image


class _Recorder(nn.Module):
    """Hears what the UNet is told, and lets it answer."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet, self.config = unet, unet.config

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **told: Any) -> Any:
        self.timestep, self.told = timestep, told
        self.answer = self.unet(sample, timestep, **told)
        return self.answer


def test_the_output_of_the_unet_is_the_clean_latent() -> None:
    stage, z = _lively(), _noise(2, 4, 8, 8)
    stage.unet = heard = _Recorder(stage.unet)
    with torch.no_grad():
        assert torch.equal(stage.step(z), heard.answer[0])
    assert heard.timestep.item() == 999 and heard.timestep.is_floating_point()
    told = heard.told["added_cond_kwargs"]
    assert told["time_ids"].tolist() == [[512, 512, 0, 0, 512, 512]] * 2
    assert torch.equal(told["text_embeds"], _prompt().pooled.expand(2, -1))
    assert torch.equal(heard.told["encoder_hidden_states"], _prompt().tokens.expand(2, -1, -1))


@pytest.mark.parametrize("what", ["tokens", "pooled", "sizes"])
def test_each_part_of_the_prompt_matters(what: str) -> None:
    changed = {what: getattr(_prompt(), what).flip(-1) + 1}
    z = _noise(1, 4, 8, 8)
    with torch.no_grad():
        assert (_lively(_prompt(**changed)).step(z) - _lively().step(z)).abs().max() > 1e-3


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_a_picture_comes_out_the_same_alone_and_among_others(posterior: str) -> None:
    stage, pictures = _lively(posterior=posterior), _pictures(3)
    one_by_one = _restored(stage, pictures, (7, 8, 9))
    together = _restored(stage.place(CPU, "fp32", batch=3), pictures, (7, 8, 9))
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=0)
    other_seed = _restored(stage, pictures, (7, 8, 10))
    assert torch.equal(other_seed[2], together[2]) == (posterior == "mode")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 50), (5, 100), (1, 1)])
def test_any_size_goes_through(height: int, width: int) -> None:
    picture = _pictures(1, height, width)
    out = _restored(_lively(), picture)
    assert out.shape == picture.shape and bool(torch.isfinite(out).all())
    assert out.min() >= 0 and out.max() <= 1


def test_tiny_needs_no_file_and_makes_its_own_prompt() -> None:
    config = SDFace.Config().tiny()
    assert config.weights() == () and config.contract().generative
    first, second = (_restored(config.build(WeightStore()), _pictures(1)) for _ in range(2))
    assert torch.equal(first, second)
    prompt = ("sdface/prompt-embeds", "sdface/text-embeds", "sdface/time-ids")
    names = ("sdxl-turbo/unet", "sdxl-turbo/vae", "sdface/lora", *prompt)
    assert SDFace.Config().weights() == names


def test_the_autoencoder_is_never_in_fp16() -> None:
    stage = SDFace.Config().tiny().build(WeightStore())
    stage.place(torch.device("meta"), "fp16")
    assert {p.dtype for p in stage.unet.parameters()} == {torch.float16}
    assert {p.dtype for p in stage.codec.parameters()} == {torch.float32}


def test_bf16_gives_nearly_the_same_picture() -> None:
    exact, rounded = (_restored(_lively().place(CPU, dtype), _pictures(1)) for dtype in ("fp32", "bf16"))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().mean() < 0.02


def test_a_prompt_that_does_not_fit_is_named() -> None:
    for what, shape, expected in (
        ("tokens", (1, 77, 31), r"prompt_embeds \(1,L,32\)"),
        ("tokens", (2, 77, 32), r"prompt_embeds \(1,L,32\)"),
        ("pooled", (1, 31), r"add_text_embeds \(1,32\)"),
        ("sizes", (1, 5), r"add_time_ids \(1,6\)"),
    ):
        with pytest.raises(ShapeError, match=expected):
            _lively(_prompt(**{what: torch.zeros(shape)}))


def test_gradients_pass_from_picture_to_picture() -> None:
    pictures = _pictures(1).requires_grad_()
    state = RestorationState(lq=pictures, image=pictures, seeds=(0,))
    _lively()(state).image.sum().backward()
    assert pictures.grad is not None and bool(pictures.grad.abs().sum() > 0)
