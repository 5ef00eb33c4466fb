"""The OMGSR-F stage: the sign of the velocity, tokens and their positions, and what is refused."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from facerestore.core.errors import (
    ConfigError,
    KeyMismatch,
    LicenceNotAccepted,
    ShapeError,
    UnsupportedDtype,
    WeightsError,
)
from facerestore.core.precision import Target
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_FLUX_TRANSFORMER, TINY_FLUX_VAE, TINY_SD_VAE
from facerestore.stages.omgsr_f import OMGSRF, FluxPrompt, pack, positions, unpack
from facerestore.weights.licences import require_acceptance
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

STORE = WeightStore()
SIGMA = 0.505112
CPU = torch.device("cpu")
ENCODER_LAYER, LAYER = "mid_block.attentions.0.to_v", "transformer_blocks.0.attn.to_q"


class _Says(nn.Module):
    """A transformer that gives the latents known beforehand, and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.config = types.SimpleNamespace(**TINY_FLUX_TRANSFORMER)

    def forward(self, **asked: Any) -> Any:
        self.asked = asked
        return (FluxPipeline._pack_latents(self.answer, *self.answer.shape),)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pictures(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def _net(net: nn.Module) -> nn.Module:
    """Norms near 1 instead of near 0, so that everything matters."""
    fill_seeded(net.eval().requires_grad_(False))
    for name, parameter in net.named_parameters():
        if "norm" in name and name.endswith("weight") and parameter.ndim == 1:
            parameter.data += 1
    return net


def _transformer(**changes: Any) -> Any:
    return _net(backbones.flux_transformer(TINY_FLUX_TRANSFORMER | changes))


def _codec(config: dict[str, Any] = TINY_FLUX_VAE) -> LatentCodec:
    return LatentCodec.of(_net(backbones.sd_vae(config)), name="omgsr_f")


def _prompt(tokens: torch.Tensor | None = None, pooled: torch.Tensor | None = None) -> FluxPrompt:
    return FluxPrompt(
        tokens=_noise(7, 32, seed=1) if tokens is None else tokens,
        pooled=_noise(32, seed=2) if pooled is None else pooled,
    )


def _lively(**changes: Any) -> OMGSRF:
    config = OMGSRF.Config(**{"least_px": 16} | changes)
    return OMGSRF(_transformer(), _codec(), _prompt(), config)


def _saying(answer: torch.Tensor) -> tuple[OMGSRF, _Says]:
    transformer = _Says(answer)
    return OMGSRF(transformer, _codec(), _prompt(), OMGSRF.Config(least_px=16)), transformer


def _restored(stage: OMGSRF, pictures: torch.Tensor, seeds: tuple[int, ...] | int = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(pictures, seeds)).image


def test_the_sign_is_right_and_the_noise_is_gone() -> None:
    clean, noise = _noise(2, 16, 6, 8), _noise(2, 16, 6, 8, seed=1)
    stage, _ = _saying(noise - clean)
    z = (1 - SIGMA) * clean + SIGMA * noise
    torch.testing.assert_close(stage.step(z), clean, atol=1e-5, rtol=0)


def test_a_velocity_of_zero_leaves_what_the_autoencoder_makes() -> None:
    pictures = _pictures(2, 48, 64)
    stage, _ = _saying(torch.zeros(1, 16, 6, 8))
    with torch.no_grad():
        wanted = torch.cat([stage.codec.decode(stage.codec.encode(p, (0,))) for p in pictures.split(1)])
    assert torch.equal(_restored(stage, pictures), wanted.clamp(0, 1))


def test_the_transformer_is_asked_as_it_was_trained() -> None:
    z = _noise(2, 16, 6, 10)
    stage, transformer = _saying(z)
    stage.step(z)
    asked = transformer.asked
    assert asked["timestep"].tolist() == pytest.approx([SIGMA] * 2, abs=5e-7)
    assert asked["guidance"].tolist() == [1.0, 1.0] and asked["return_dict"] is False
    assert torch.equal(asked["encoder_hidden_states"], _prompt().tokens.expand(2, -1, -1))
    assert torch.equal(asked["pooled_projections"], _prompt().pooled.expand(2, -1))
    assert torch.equal(asked["txt_ids"], torch.zeros(7, 3))


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (4, 4), (1, 9)])
def test_tokens_and_positions_are_those_of_flux(rows: int, columns: int) -> None:
    z = _noise(2, 16, 2 * rows, 2 * columns)
    theirs = FluxPipeline._pack_latents(z, *z.shape)
    assert torch.equal(pack(z), theirs)
    assert torch.equal(unpack(theirs, rows, columns), z)
    ids = FluxPipeline._prepare_latent_image_ids(2, rows, columns, CPU, torch.float32)
    assert torch.equal(positions(rows, columns), ids)


@pytest.mark.parametrize(("height", "width"), [(96, 160), (33, 50), (64, 64), (5, 100), (1, 1)])
def test_any_size_goes_through(height: int, width: int) -> None:
    picture = _pictures(1, height, width)
    out = _restored(_lively(), picture)
    assert out.shape == picture.shape and bool(torch.isfinite(out).all())
    assert out.min() >= 0 and out.max() <= 1


def test_what_lies_beyond_the_picture_is_its_reflection() -> None:
    stage, picture = _lively(), _pictures(1, 40, 64)
    by_hand = torch.cat([picture, picture[:, :, 31:39].flip(2)], dim=2)
    torch.testing.assert_close(_restored(stage, picture), _restored(stage, by_hand)[:, :, :40])


def test_where_a_token_lies_matters() -> None:
    """Rows taken for columns give another picture."""
    z, stage = _noise(1, 16, 4, 12), _lively()
    with torch.no_grad():
        wide = stage.step(z)
        stage.transformer.pos_embed.register_forward_pre_hook(lambda _, told: (told[0][:, [0, 2, 1]],))
        assert (stage.step(z) - wide).abs().max() > 1e-3


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_a_picture_comes_out_the_same_alone_and_among_others(posterior: str) -> None:
    stage, pictures = _lively(posterior=posterior), _pictures(3)
    one_by_one = _restored(stage, pictures, (7, 8, 9))
    together = _restored(stage.place(CPU, "fp32", batch=2), pictures, (7, 8, 9))
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=0)
    other_seed = _restored(stage, pictures, (7, 8, 10))
    assert torch.equal(other_seed[:2], together[:2])
    assert torch.equal(other_seed[2], together[2]) == (posterior == "mode")


def test_each_thing_that_the_transformer_is_told_matters() -> None:
    z, plain = _noise(1, 16, 4, 4), _lively()
    others = (
        _lively(guidance_scale=3.5),
        OMGSRF(_transformer(), _codec(), _prompt(tokens=_noise(7, 32, seed=8)), plain.config),
        OMGSRF(_transformer(), _codec(), _prompt(pooled=_noise(32, seed=8)), plain.config),
    )
    with torch.no_grad():
        first = plain.step(z)
        for other in others:
            assert (other.step(z) - first).abs().max() > 1e-3


def test_large_latents_go_through_in_tiles_with_positions_of_their_own() -> None:
    z = _noise(1, 16, 16, 28)
    stage = _lively(tile=16, overlap=4)
    with torch.no_grad():
        tiled, whole = stage.step(z), _lively().step(z)
        left, right = stage.step(z[..., :16]), stage.step(z[..., 12:])
    torch.testing.assert_close(tiled[..., :12], left[..., :12], atol=1e-5, rtol=0)
    torch.testing.assert_close(tiled[..., 16:], right[..., 4:], atol=1e-5, rtol=0)
    assert (tiled - whole).abs().mean() > 1e-4


def test_settings_out_of_range_are_refused() -> None:
    assert OMGSRF.Config().sigma == pytest.approx(SIGMA, abs=5e-7)
    assert OMGSRF.Config(sigma=1.0).sigma == 1
    for sigma in (0.0, -0.1, 1.001, 244.0, float("nan")):
        with pytest.raises(ConfigError, match="sigma lies above 0"):
            OMGSRF.Config(sigma=sigma)
    for tile, overlap in ((15, 4), (0, 0), (16, 16), (16, -2)):
        with pytest.raises(ConfigError, match="even side"):
            OMGSRF.Config(tile=tile, overlap=overlap)


def test_networks_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"64 channels a token, for latents of 16.*\(128,\).*FLUX\.1-dev"):
        OMGSRF(_transformer(in_channels=128), _codec(), _prompt(), OMGSRF.Config())
    with pytest.raises(ShapeError, match=r"16 channels a token, for latents of 4"):
        OMGSRF(_transformer(), _codec(TINY_SD_VAE), _prompt(), OMGSRF.Config())
    with pytest.raises(ConfigError, match=r"no guidance.*schnell"):
        OMGSRF(_transformer(guidance_embeds=False), _codec(), _prompt(), OMGSRF.Config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": torch.zeros(7, 31)}, r"prompt_embeds \(L,32\), got shape \(7, 31\)"),
        ({"tokens": torch.zeros(1, 7, 32)}, r"without the axis of the batch"),
        ({"pooled": torch.zeros(31)}, r"pooled_prompt_embeds \(32\), got shape \(31,\)"),
        ({"pooled": torch.zeros(1, 32)}, r"without the axis of the batch"),
    ],
)
def test_the_prompt_of_another_model_is_refused(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        OMGSRF(_transformer(), _codec(), _prompt(**changes), OMGSRF.Config())


def test_tiny_needs_no_file_and_makes_its_own_prompt() -> None:
    config = OMGSRF.Config().tiny()
    assert config.weights() == () and config.contract().generative
    first, second = (_restored(config.build(STORE), _pictures(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_the_names_of_the_weights_and_their_licences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = ("flux1-dev/transformer", "flux1-dev/vae", "flux1-dev/prompt-empty")
    assert OMGSRF.Config().weights() == (*base, "omgsr-f/vae-lora", "omgsr-f/flux-lora")
    specs = [STORE.spec(name) for name in OMGSRF.Config().weights()]
    assert not any(spec.hub for spec in specs[2:])
    with pytest.raises(LicenceNotAccepted, match=r"FLUX\.1-dev Non-Commercial") as caught:
        require_acceptance(specs, accept=False)
    assert all(f"\n  {spec.name}: " in str(caught.value) for spec in specs)


def test_never_in_fp16() -> None:
    for device in (CPU, torch.device("cuda")):
        with pytest.raises(UnsupportedDtype, match="bf16 or fp32"):
            OMGSRF.Config().tiny().build(STORE).place(device, "fp16")


def test_in_bf16_the_transformer_hears_timestep_504_and_gives_nearly_the_same_picture() -> None:
    """As in the official script: FLUX rounds sigma to its own dtype. Only where it is used is it exact."""
    rounded, exact = _lively().place(CPU, "bf16"), _lively().place(CPU, "fp32")
    heard: list[float] = []
    rounded.transformer.time_text_embed.register_forward_pre_hook(
        lambda _, told: heard.append(told[0].item())
    )
    exact.transformer.time_text_embed.register_forward_pre_hook(
        lambda _, told: (torch.full_like(told[0], 504), *told[1:])
    )
    pictures = _pictures(1)
    out = _restored(rounded, pictures)
    assert heard == [504] and out.dtype == torch.float32
    assert 0 < (out - _restored(exact, pictures)).abs().mean() < 0.01


def test_the_latent_is_moved_in_float32_even_where_the_network_is_not() -> None:
    z = _noise(1, 16, 4, 4)
    stage, _ = _saying(torch.zeros_like(z))
    assert torch.equal(stage.place(CPU, "bf16").step(z), z)


def test_gradients_pass_from_picture_to_picture() -> None:
    pictures = _pictures(1).requires_grad_()
    state = RestorationState(lq=pictures, image=pictures, seeds=(0,))
    _lively()(state).image.sum().backward()
    assert pictures.grad is not None and bool(pictures.grad.abs().sum() > 0)


class _Files:
    """What a user has on disk, and the stage that is built from it."""

    def __init__(self, folder: Path) -> None:
        self.paths = {name: folder / name for name in ("flux1-dev/transformer", "flux1-dev/vae")}
        _transformer().save_pretrained(self.paths["flux1-dev/transformer"])
        _codec().vae.save_pretrained(self.paths["flux1-dev/vae"])
        for name in ("flux1-dev/prompt-empty", "omgsr-f/vae-lora", "omgsr-f/flux-lora"):
            self.paths[name] = folder / f"{name.replace('/', '-')}.safetensors"
        prompt = _prompt()
        self.save("flux1-dev/prompt-empty", prompt_embeds=prompt.tokens, pooled_prompt_embeds=prompt.pooled)
        self.save_adapter("omgsr-f/vae-lora", ENCODER_LAYER)
        self.save_adapter("omgsr-f/flux-lora", LAYER)

    def save(self, name: str, **tensors: torch.Tensor) -> None:
        save_file(tensors, self.paths[name])

    def save_adapter(self, name: str, layer: str, metadata: dict[str, str] | None = None) -> None:
        state = {f"{layer}.lora_A.weight": _noise(2, 32) / 8, f"{layer}.lora_B.weight": _noise(32, 2)}
        save_file(state, self.paths[name], metadata)

    def build(self, **changes: Any) -> OMGSRF:
        return OMGSRF.Config(least_px=16, **changes).build(WeightStore(paths=self.paths))


@pytest.fixture
def files(tmp_path: Path) -> _Files:
    return _Files(tmp_path)


def test_from_files_with_both_adapters_merged(files: _Files) -> None:
    built, plain = files.build(), _lively()
    encoder = plain.codec.vae.encoder
    for net, layer, name in (
        (encoder, ENCODER_LAYER, "omgsr-f/vae-lora"),
        (plain.transformer, LAYER, "omgsr-f/flux-lora"),
    ):
        state = load_file(files.paths[name])
        update = state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"]
        net.get_parameter(f"{layer}.weight").data += update
    pictures = _pictures(1)
    expected = _restored(plain, pictures)
    torch.testing.assert_close(_restored(built, pictures), expected, atol=1e-5, rtol=0)
    without = files.build(vae_lora=None, transformer_lora=None)
    assert (_restored(without, pictures) - expected).abs().max() > 1e-3


def test_the_transformer_is_read_in_the_dtype_it_runs_in_and_the_autoencoder_in_float32(
    files: _Files,
) -> None:
    for name, net in (("transformer", _transformer()), ("vae", _codec().vae)):
        net.bfloat16().save_pretrained(files.paths[f"flux1-dev/{name}"])
    config, store = OMGSRF.Config(least_px=16), WeightStore(paths=files.paths)
    stage = config.build(store, Target(dtype="bf16"))
    assert {p.dtype for p in stage.transformer.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in stage.codec.parameters()} == {torch.float32}
    assert bool(torch.isfinite(_restored(stage.place(CPU, "bf16"), _pictures(1))).all())
    assert {p.dtype for p in config.build(store).transformer.parameters()} == {torch.float32}


def test_small_pictures_are_worked_larger_and_come_back() -> None:
    small, wide = _lively(least_px=64), _pictures(1)[..., :32, :48]
    asked: list[tuple[int, ...]] = []
    moments = small.codec.moments

    def seen(image: torch.Tensor, *args: Any) -> torch.Tensor:
        asked.append(tuple(image.shape))
        return moments(image, *args)

    small.codec.moments = seen  # type: ignore[method-assign]
    assert _restored(small, wide).shape == wide.shape
    assert asked == [(1, 3, 64, 96)]


@pytest.mark.parametrize(
    ("name", "layer"), [("omgsr-f/vae-lora", ENCODER_LAYER), ("omgsr-f/flux-lora", LAYER)]
)
def test_an_adapter_made_for_something_else_is_refused(files: _Files, name: str, layer: str) -> None:
    files.save_adapter(name, layer, {"sigma": "0.505112"})
    files.build()
    files.save_adapter(name, layer, {"sigma": "0.569595"})
    with pytest.raises(ConfigError, match=r"made for sigma 0\.569595"):
        files.build()
    files.build(sigma=0.569595)
    files.save_adapter(name, f"encoder.{layer}")
    with pytest.raises(KeyMismatch, match=f"encoder.{layer}"):
        files.build()


def test_a_prompt_file_with_other_tensors_is_refused(files: _Files) -> None:
    files.save("flux1-dev/prompt-empty", prompt=_prompt().tokens)
    with pytest.raises(WeightsError, match=r"prompt_embeds and pooled_prompt_embeds, got prompt;"):
        files.build()
    files.save("flux1-dev/prompt-empty", prompt_embeds=torch.zeros(7, 16), pooled_prompt_embeds=_noise(32))
    with pytest.raises(ShapeError, match=r"prompt_embeds \(L,32\)"):
        files.build()
