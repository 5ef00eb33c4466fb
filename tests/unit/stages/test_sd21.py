"""The one-step stages on Stable Diffusion 2.1: formulas, adapters and knobs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facerestore.core.errors import ConfigError, KeyMismatch, WeightsError
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.osediff import OSEDiff
from facerestore.stages.pisa_sr import PiSASR
from facerestore.stages.sd21 import SD21Config, SD21Stage
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

STORE = WeightStore()
CPU = torch.device("cpu")
STAGES = (OMGSRS, OSEDiff, PiSASR)
UNET_ADAPTERS = ("default_encoder", "default_decoder", "default_others")


class _Says(nn.Module):
    """A UNet that gives an answer known beforehand, and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor | None) -> None:
        super().__init__()
        self.answer = answer
        self.calls: list[Any] = []

    def forward(
        self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: Any, return_dict: bool
    ) -> Any:
        self.calls.append((sample, timestep, encoder_hidden_states))
        assert not return_dict
        return (sample if self.answer is None else self.answer,)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pictures(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def _nets() -> tuple[Any, Any]:
    """Tiny, with norms near 1 instead of near 0, so that everything matters."""
    unet, vae = backbones.sd_unet(TINY_UNET).eval(), backbones.sd_vae(TINY_SD_VAE).eval()
    for net in (unet, vae):
        net.requires_grad_(False)
        fill_seeded(net)
        for name, parameter in net.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1
    return unet, vae


def _lively(kind: type[Any], **changes: Any) -> SD21Stage:
    unet, vae = _nets()
    return kind(unet, LatentCodec.of(vae), _noise(77, 32), kind.Config(**changes))


def _saying(kind: type[Any], answer: torch.Tensor) -> tuple[SD21Stage, _Says]:
    unet = _Says(answer)
    return kind(unet, nn.Identity(), _noise(77, 32), kind.Config()), unet


def _restored(stage: SD21Stage, pictures: torch.Tensor, seeds: tuple[int, ...] | int = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(pictures, seeds)).image


@pytest.mark.parametrize(
    ("kind", "root", "deviation"), [(OMGSRS, 0.797335, 0.603537), (OSEDiff, 0.068265, 0.997667)]
)
def test_the_noise_that_the_unet_names_is_gone(kind: type[Any], root: float, deviation: float) -> None:
    clean, noise = _noise(2, 4, 4, 6), _noise(2, 4, 4, 6, seed=1)
    stage, _ = _saying(kind, noise)
    torch.testing.assert_close(stage.step(root * clean + deviation * noise), clean, atol=5e-5, rtol=0)


def test_pisa_sr_subtracts_the_answer_and_nothing_else() -> None:
    z, residual = _noise(2, 4, 4, 6), _noise(2, 4, 4, 6, seed=1)
    assert torch.equal(_saying(PiSASR, residual)[0].step(z), z - residual)


@pytest.mark.parametrize(("kind", "timestep"), [(OMGSRS, 273), (OSEDiff, 999), (PiSASR, 1)])
def test_the_unet_is_asked_once_as_it_was_trained(kind: type[Any], timestep: int) -> None:
    z = _noise(2, 4, 4, 6)
    stage, unet = _saying(kind, z)
    stage.step(z)
    ((sample, steps, prompt),) = unet.calls
    assert torch.equal(sample, z) and steps.tolist() == [timestep] * 2
    assert torch.equal(prompt, stage.prompt.expand(2, -1, -1))


@pytest.mark.parametrize("knobs", [(0.8, 1.3), (1.0, 0.5), (0.0, 1.0)])
def test_two_unets_are_weighed_by_the_knobs(knobs: tuple[float, float]) -> None:
    z, pixel, both = (_noise(1, 4, 4, 4, seed=seed) for seed in range(3))
    config = PiSASR.Config(lambda_pix=knobs[0], lambda_sem=knobs[1])
    stage = PiSASR(_Says(both), nn.Identity(), _noise(77, 32), config, None, _Says(pixel))  # type: ignore[arg-type]
    wanted = z - knobs[0] * pixel - knobs[1] * (both - pixel)
    torch.testing.assert_close(stage.step(z), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", STAGES)
def test_tiny_needs_no_file_and_takes_any_size(kind: type[Any]) -> None:
    config = kind.Config().tiny()
    assert config.weights() == ()
    stage = config.build(STORE).place(CPU, "fp32")
    for height, width in ((1, 1), (19, 40)):
        out = _restored(stage, _pictures(1, height, width))
        assert out.shape == (1, 3, height, width) and bool(torch.isfinite(out).all())
    assert torch.equal(out, _restored(config.build(STORE).place(CPU, "fp32"), _pictures(1, 19, 40)))


def test_the_names_of_the_weights() -> None:
    base = ("sd21-base/unet", "sd21-base/vae", "sd21-base/prompt-empty")
    assert OMGSRS.Config().weights() == (*base, "omgsr-s/vae-lora", "omgsr-s/unet-lora")
    assert OSEDiff.Config(adapter="osediff-face/weights").weights() == (*base, "osediff-face/weights")
    assert PiSASR.Config().weights() == (*base, "pisa-sr/weights")
    for kind in STAGES:
        assert kind.Config().contract().generative
        assert all(STORE.spec(name).name == name for name in kind.Config().weights())


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_faces_do_not_hang_on_others(posterior: Any) -> None:
    stage, pictures = _lively(OMGSRS, posterior=posterior), _pictures(3)
    one_by_one = _restored(stage, pictures, (7, 8, 9))
    together = _restored(stage.place(CPU, "fp32", batch=2), pictures, (7, 8, 9))
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=0)
    other_seed = _restored(stage, pictures, (7, 8, 10))
    assert torch.equal(other_seed[:2], together[:2])
    assert torch.equal(other_seed[2], together[2]) == (posterior == "mode")


def test_a_picture_larger_than_a_tile_goes_through_in_tiles() -> None:
    z = _noise(1, 4, 8, 10)
    stage, unet = _saying(OMGSRS, z)
    unet.answer = None  # says what it is shown
    whole = stage.step(z)
    stage.config = OMGSRS.Config(tile=6, overlap=3)
    torch.testing.assert_close(stage.step(z), whole, atol=1e-5, rtol=0)
    assert [tuple(call[0].shape[2:]) for call in unet.calls] == [(8, 10)] + [(6, 6)] * 6


def test_bf16_gives_nearly_the_same_picture() -> None:
    picture = _pictures(1)
    exact, stage = _restored(_lively(OMGSRS), picture), _lively(OMGSRS).place(CPU, "bf16")
    assert next(stage.unet.parameters()).dtype == stage.codec.dtype == torch.bfloat16
    rounded = _restored(stage, picture)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.02


def test_gradients_pass_from_picture_to_picture() -> None:
    pictures = _pictures(1).requires_grad_()
    _lively(OMGSRS)(RestorationState(lq=pictures, image=pictures, seeds=(0,))).image.sum().backward()
    assert pictures.grad is not None and bool(pictures.grad.abs().sum() > 0)


def test_settings_out_of_range_are_refused() -> None:
    settings: tuple[dict[str, Any], ...] = ({"timestep": 1000}, {"tile": 32, "overlap": 32})
    for kind in STAGES:
        for changes in settings:
            with pytest.raises(ConfigError, match="lies in 0 to"):
                kind.Config(**changes)


def test_a_prompt_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    store = WeightStore(paths={"sd21-base/prompt-empty": path})
    for state in (
        {"prompt": torch.ones(77, 32)},
        {"prompt": torch.ones(1, 77, 64)},
        {"embeds": torch.ones(77, 64)},
    ):
        save_file(state, path)
        store = WeightStore(paths={"sd21-base/prompt-empty": path})
        with pytest.raises(WeightsError, match="expected"):
            constant_prompt(store, "sd21-base/prompt-empty", tokens=77, width=64)
    save_file({"prompt": torch.ones(77, 64).half()}, path)
    store = WeightStore(paths={"sd21-base/prompt-empty": path})
    assert constant_prompt(store, "sd21-base/prompt-empty", tokens=77, width=64).dtype == torch.float32


def _update(layer: str, rows: int, columns: int, name: str = "", kernel: int = 1) -> dict[str, torch.Tensor]:
    """A rank 4 update of one layer."""
    size = (kernel, kernel) if kernel > 1 else ()
    ones = (1, 1) if kernel > 1 else ()
    down, up = _noise(4, columns, *size, seed=len(layer)), _noise(rows, 4, *ones, seed=-len(name) - 1)
    return {f"{layer}.lora_A{name}.weight": down, f"{layer}.lora_B{name}.weight": up}


def _product(state: dict[str, torch.Tensor], layer: str, name: str = "") -> torch.Tensor:
    down, up = (state[f"{layer}.lora_{side}{name}.weight"].flatten(1) for side in "AB")
    return up @ down


class _Built:
    """Stages from files: tiny base networks, saved once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unet, self.vae = _nets()
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        save_file({"prompt": _noise(77, 32)}, folder / "prompt.safetensors")

    def __call__(
        self, config: SD21Config, metadata: dict[str, str] | None = None, **states: dict[str, torch.Tensor]
    ) -> Any:
        """Build with adapter files of these tensors; keywords name fields of the configuration."""
        paths = {"sd21-base/unet": self.folder / "unet", "sd21-base/vae": self.folder / "vae"}
        paths |= {"sd21-base/prompt-empty": self.folder / "prompt.safetensors"}
        for field, state in states.items():
            path = self.folder / f"{field}.safetensors"
            save_file(state, path, metadata)
            paths[getattr(config, field)] = path
        return config.build(WeightStore(paths=paths))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> _Built:
    return _Built(tmp_path_factory.mktemp("base"))


def test_omgsr_merges_into_encoder_and_unet_alone_at_scale_1(built: _Built) -> None:
    inner = "mid_block.attentions.0.to_q"
    vae_lora = _update(inner, 32, 32)
    query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unet_lora = {f"base_model.model.{key}": value for key, value in _update(query, 32, 32).items()}
    unet_lora[f"base_model.model.{query}.alpha"] = torch.tensor(4.0)
    stage = built(OMGSRS.Config(), vae_lora=vae_lora, unet_lora=unet_lora)
    before, after = built.vae.state_dict(), stage.codec.vae.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == [f"encoder.{inner}.weight"]
    torch.testing.assert_close(after[changed[0]] - before[changed[0]], _product(vae_lora, inner))
    before, after = built.unet.state_dict(), stage.unet.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == [f"{query}.weight"]
    with pytest.raises(KeyMismatch, match="alpha 8"):
        built(OMGSRS.Config(), vae_lora=vae_lora | {f"{inner}.alpha": torch.tensor(8.0)}, unet_lora=unet_lora)
    with pytest.raises(ConfigError, match="timestep 195"):
        built(OMGSRS.Config(), {"timestep": "195"}, vae_lora=vae_lora, unet_lora=unet_lora)
    with pytest.raises(KeyMismatch):  # the decoder has no business in it
        built(OMGSRS.Config(), vae_lora=_update("decoder.conv_in", 32, 4, kernel=3), unet_lora=unet_lora)


def _osediff_state() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    layers = ("conv_in", "conv_out", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    shapes = ((32, 4, 3), (4, 32, 3), (64, 64, 1))
    for name, layer, (rows, columns, kernel) in zip(UNET_ADAPTERS, layers, shapes, strict=True):
        state |= _update(f"unet.{layer}", rows, columns, f".{name}", kernel)
    state["unet.conv_in.base_layer.weight"] = _noise(32, 4, 3, 3, seed=8)
    state["unet.conv_in.base_layer.bias"] = _noise(32, seed=9)
    quant = _update("vae.quant_conv", 8, 8, ".default_encoder")
    return state | {key: value[..., None, None] for key, value in quant.items()}


def test_osediff_merges_at_scale_2_onto_a_first_layer_trained_whole(built: _Built) -> None:
    state = _osediff_state()
    stage = built(OSEDiff.Config(), adapter=state)
    update = _product(state, "unet.conv_in", ".default_encoder").reshape(32, 4, 3, 3)
    whole = state["unet.conv_in.base_layer.weight"]
    torch.testing.assert_close(stage.unet.conv_in.weight.data, whole + 2 * update)
    assert torch.equal(stage.unet.conv_in.bias.data, state["unet.conv_in.base_layer.bias"])
    quant = stage.codec.vae.quant_conv.weight - built.vae.quant_conv.weight
    wanted = 2 * _product(state, "vae.quant_conv", ".default_encoder")
    torch.testing.assert_close(quant.flatten(1), wanted, atol=1e-5, rtol=0)


def test_a_checkpoint_of_another_recipe_is_refused(built: _Built) -> None:
    state = _osediff_state()
    without_whole = {key: value for key, value in state.items() if "base_layer" not in key}
    without_vae = {key: value for key, value in state.items() if key.startswith("unet")}
    with_more = state | {"unet.conv_out.bias": torch.ones(4)}
    with_text = state | {"text_encoder.layer.weight": torch.ones(4)}
    for other, match in (
        (without_whole, "conv_in.weight"),
        (without_vae, "vae"),
        (with_more, "conv_out.bias"),
        (with_text, "text_encoder"),
    ):
        with pytest.raises(KeyMismatch, match=match):
            built(OSEDiff.Config(), adapter=other)
    with pytest.raises(KeyMismatch, match="vae"):
        built(PiSASR.Config(), adapter=state)
    with pytest.raises(KeyMismatch, match="default_encoder_pix"):
        built(
            PiSASR.Config(), adapter={key: without_whole[key] for key in without_whole if key in without_vae}
        )


def test_pisa_sr_keeps_as_many_unets_as_the_knobs_need(built: _Built) -> None:
    layers = ("conv_in", "conv_out", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    shapes = ((32, 4, 3), (4, 32, 3), (64, 64, 1))
    state: dict[str, torch.Tensor] = {}
    for kind in ("pix", "sem"):
        for name, layer, (rows, columns, kernel) in zip(UNET_ADAPTERS, layers, shapes, strict=True):
            state |= _update(f"unet.{layer}", rows, columns, f".{name}_{kind}", kernel)
    state = {key: value / 20 for key, value in state.items()}
    base = built.unet.conv_out.weight
    pixel, semantic = (
        2 * _product(state, "unet.conv_out", f".default_decoder_{kind}").reshape(base.shape)
        for kind in ("pix", "sem")
    )
    stages = {
        knobs: built(PiSASR.Config(lambda_pix=knobs[0], lambda_sem=knobs[1]), adapter=state)
        for knobs in ((1.0, 1.0), (0.7, 0.7), (0.5, 0.0), (1.0, 0.4))
    }
    for knobs, stage in stages.items():
        assert (stage.pixel_unet is not None) == (knobs == (1.0, 0.4))
        wanted = base + pixel + (semantic if knobs[1] else 0)
        torch.testing.assert_close(stage.unet.conv_out.weight.data, wanted)
    two = stages[1.0, 0.4]
    torch.testing.assert_close(two.pixel_unet.conv_out.weight.data, base + pixel)
    picture = _pictures(1)
    z = two.codec.encode(picture, (0,))
    with torch.no_grad():
        full, alone, mixed = (stages[k].step(z) for k in ((1.0, 1.0), (0.5, 0.0), (1.0, 0.4)))
    pixel_answer = (z - alone) / 0.5
    wanted = z - pixel_answer - 0.4 * ((z - full) - pixel_answer)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=0)
    assert (full - mixed).abs().max() > 1e-3
    assert two.place(CPU, "bf16").pixel_unet.conv_out.weight.dtype == torch.bfloat16
