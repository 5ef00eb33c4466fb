"""What every one-step restorer can do: small autoencoders, own adapters, a refiner, offloading, float32."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from facerestore.core.errors import ConfigError, KeyMismatch, RangeError
from facerestore.core.offload import Offload
from facerestore.core.precision import Target
from facerestore.core.state import RestorationState
from facerestore.recipes import get
from facerestore.stages.base import Stage, StageConfig
from facerestore.stages.color_fix import ColorFix
from facerestore.stages.compose import Chain, OnDemand, on_demand
from facerestore.stages.omgsr_f import OMGSRF
from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.one_step import MADE
from facerestore.stages.osdface import OSDFace
from facerestore.stages.osediff import OSEDiff
from facerestore.stages.pisa_sr import PiSASR
from facerestore.stages.realesrgan import RealESRGAN
from facerestore.stages.sdface import SDFace
from facerestore.stages.tadsr import TADSR
from facerestore.stages.zimage import ZImage
from facerestore.weights.store import WeightStore

STORE, CPU = WeightStore(), torch.device("cpu")
STAGES: tuple[type[Any], ...] = (OSDFace, SDFace, OMGSRS, OMGSRF, OSEDiff, PiSASR, TADSR, ZImage)
every = pytest.mark.parametrize("kind", STAGES)
# A layer of each tiny network, and its width in and out.
LAYERS = {
    ZImage: ("layers.0.attention.to_q", 32, 32),
    OMGSRF: ("transformer_blocks.0.attn.to_q", 32, 32),
}
UNET_LAYER = ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 64, 64)


def _faces(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _restored(stage: Stage, faces: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(_faces() if faces is None else faces)).image


def _net(stage: Any) -> Any:
    return getattr(stage, "unet", None) or stage.transformer


@every
@pytest.mark.parametrize("codec", ["tiny_decoder", "tiny"])
def test_the_small_autoencoder_goes_in_anywhere(kind: type[Any], codec: str) -> None:
    whole = kind.Config()
    config = whole.override("codec", codec)
    small = {SDFace: "taesdxl", ZImage: "taef1", OMGSRF: "taef1"}.get(kind, "taesd")
    assert (small in config.weights(), whole.vae in config.weights()) == (True, codec == "tiny_decoder")
    assert small not in whole.weights()
    lost = {"omgsr-s/vae-lora", "omgsr-f/vae-lora"} & set(whole.weights())
    assert lost.isdisjoint(config.weights()) == (codec == "tiny" or not lost)
    stage = config.tiny().build(STORE).place(CPU, "fp32")
    out = _restored(stage)
    assert out.shape == (1, 3, 64, 64) and bool(torch.isfinite(out).all())
    assert not torch.equal(out, _restored(whole.tiny().build(STORE).place(CPU, "fp32")))
    kl = [module for module in stage.modules() if type(module).__name__ == "AutoencoderKL"]
    assert len(kl) == (codec == "tiny_decoder")


@every
def test_a_refiner_goes_behind_any_and_a_new_one_changes_nothing(kind: type[Any]) -> None:
    plain = kind.Config().tiny()
    stage: Any = replace(plain, refiner=MADE).build(STORE).place(CPU, "fp32")
    channels = stage.codec.form[0]
    assert stage.refiner.config.channels == channels
    expected = _restored(plain.build(STORE).place(CPU, "fp32"))
    stage.refiner.out_proj.weight.mul_(30)
    assert (_restored(stage) - expected).abs().max() > 1e-4
    stage.refiner.out_proj.weight.zero_()
    stage.refiner.out_proj.bias.zero_()
    assert torch.equal(_restored(stage), expected)
    assert 0 < plain.noise_timestep <= 1000


@every
def test_an_adapter_of_your_own_is_merged_behind_the_published_ones(kind: type[Any], tmp_path: Path) -> None:
    layer, width, outputs = LAYERS.get(kind, UNET_LAYER)
    draw = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, width, generator=draw), torch.randn(outputs, 2, generator=draw)
    state = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    file = tmp_path / "mine.safetensors"
    save_file(state, file)
    config = replace(kind.Config().tiny(), adapters=("own/1-mine",), adapter_scale=0.5)
    assert config.weights() == ("own/1-mine",)
    store = WeightStore(paths={"own/1-mine": file})
    plain, merged = (
        one.build(STORE if one is not config else store) for one in (kind.Config().tiny(), config)
    )
    weights = [dict(_net(stage).named_parameters())[f"{layer}.weight"] for stage in (plain, merged)]
    torch.testing.assert_close(weights[1] - weights[0], 0.5 * up @ down)
    with pytest.raises(ConfigError, match="does not say alpha"):
        replace(config, adapter_scale=None).build(store)
    wanted = kind.Config().made_for()
    for name, value in wanted.items():
        save_file(state, file, metadata={name: str(value * 1.5)})
        with pytest.raises(ConfigError, match=f"made for {name}"):
            config.build(store)
    save_file({key.replace(layer, "nowhere"): value for key, value in state.items()}, file)
    with pytest.raises(KeyMismatch, match=r"nowhere"):
        config.build(store)


class _FailsBelowFloat32(torch.nn.Module):
    """A network whose answer is not finite where it computes in bf16."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.config = net.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.net(*args, **kwargs)
        first = answer[0] if isinstance(answer, tuple) else answer
        bad = first if first.dtype == torch.float32 else first * float("inf")
        return (bad,) if isinstance(answer, tuple) else bad


@every
def test_what_is_not_finite_is_computed_again_in_float32(kind: type[Any]) -> None:
    config = kind.Config().tiny()
    if kind is ZImage:
        config = replace(config, fold=False)
    stage: Any = config.build(STORE, Target(dtype="bf16")).place(CPU, "bf16")
    expected = _restored(config.build(STORE).place(CPU, "fp32"))
    name = "unet" if hasattr(stage, "unet") else "transformer"
    setattr(stage, name, _FailsBelowFloat32(getattr(stage, name)))
    if kind is ZImage:
        stage.transformer.forward = _in_frames(stage.transformer.net)
    with pytest.warns(RuntimeWarning, match=rf"{stage.name}.*once more in float32"):
        out = _restored(stage)
    assert (out - expected).abs().mean() < 0.02  # the weights were rounded to bf16
    assert stage.layout.dtype == torch.bfloat16
    assert all(tensor.dtype == torch.bfloat16 for tensor in getattr(stage, name).parameters())


def _in_frames(net: Any) -> Callable[..., Any]:
    """The same for a network that returns a list of frames."""

    def forward(z: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        (frames,) = net(z, *args, **kwargs)
        return ([frame if frame.dtype == torch.float32 else frame * float("inf") for frame in frames],)

    return forward


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_in_float32_either_is_refused_by_name(value: str) -> None:
    stage: Any = OSEDiff.Config().tiny().build(STORE).place(CPU, "bf16")
    stage.unet.conv_out.bias.fill_(float(value))
    with pytest.raises(RangeError, match=r"osediff.*in float32 too"), pytest.warns(RuntimeWarning):
        _restored(stage)
    exact = stage.place(CPU, "fp32")
    with pytest.raises(RangeError, match="osediff"):
        _restored(exact)


@every
@pytest.mark.parametrize("offload", ["stages", "model"])
def test_offloaded_it_gives_the_same(kind: type[Any], offload: Offload) -> None:
    config = kind.Config().tiny()
    expected = _restored(config.build(STORE).place(CPU, "fp32"))
    stage = config.build(STORE).place(CPU, "fp32", offload=offload)
    home = {key: tensor.data_ptr() for key, tensor in stage.state_dict().items()}
    assert torch.equal(_restored(stage), expected)
    assert {key: tensor.data_ptr() for key, tensor in stage.state_dict().items()} == home


def test_on_a_cpu_a_stage_is_there_only_while_it_runs(tmp_path: Path) -> None:
    paths: dict[str, Path] = {}
    stages: list[StageConfig] = []
    for kind in (OSDFace, ZImage):  # their own adapters make them need a file, in tiny too
        layer, width, outputs = LAYERS.get(kind, UNET_LAYER)
        name = f"own/1-{kind.__name__}"
        paths[name] = tmp_path / f"{kind.__name__}.safetensors"
        factors = {"A": torch.ones(1, width) / 9, "B": torch.ones(outputs, 1) / 9}
        save_file({f"{layer}.lora_{key}.weight": value for key, value in factors.items()}, paths[name])
        stages.append(replace(kind.Config().tiny(), adapters=(name,), adapter_scale=1.0))
    config, store = Chain.Config(stages=(*stages, ColorFix.Config())), WeightStore(paths=paths)
    there: list[weakref.ref[Stage]] = []
    most: list[int] = []

    def make(member: StageConfig) -> Stage:
        stage = member.build(store).place(CPU, "fp32")
        if member.weights():
            most.append(1 + sum(ref() is not None for ref in there))
            there.append(weakref.ref(stage))
        return stage

    stage = on_demand(config, make)
    first, second = (_restored(stage) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, _restored(config.build(store).place(CPU, "fp32")))
    assert isinstance(stage, Chain)
    assert [member.name for member in stage.stages] == ["osdface", "zimage", "color_fix"]
    assert isinstance(stage.stages[0], OnDemand) and isinstance(stage.stages[2], ColorFix)
    assert len(most) == 5, "both once at first, then each for its turn, the first of them kept from before"
    assert max(most) == 1


def test_a_file_that_does_not_fit_is_found_before_the_first_picture() -> None:
    def make(member: StageConfig) -> Stage:
        if isinstance(member, ZImage.Config):
            raise KeyMismatch("transformer", ["a key"], [], [])
        return member.build(STORE)

    with pytest.raises(KeyMismatch, match="a key"):
        on_demand(Chain.Config(stages=(OSDFace.Config().tiny(), ZImage.Config())), make)


def test_the_memory_of_a_recipe_is_the_sum_of_its_networks() -> None:
    recipe = get("osdface+zimage")
    coarse, detail = recipe.stage.needs(STORE, Target(dtype="bf16"))
    unet, vae, prompt, projector = 865_910_724, 83_653_863, 29_169_344, 394_496
    assert coarse.networks == tuple(2 * count for count in (unet, vae, prompt, projector))
    assert detail.networks == (2 * 6_154_908_736, 2 * 83_819_683)
    chosen = recipe.plan(STORE, device=CPU, dtype="bf16")
    assert chosen.peaks["none"] == coarse.weights + detail.weights + max(coarse.work, detail.work)
    assert chosen.peaks["stages"] == detail.weights + detail.work
    assert get("lite").plan(STORE, device=CPU).offload == "none"


@pytest.mark.slow
def test_compiled_it_gives_the_same() -> None:
    config = RealESRGAN.Config(entry_px=64).tiny()
    expected = _restored(config.build(STORE).place(CPU, "fp32"))
    compiled = config.build(STORE).place(CPU, "fp32", compiled=True)
    torch.testing.assert_close(_restored(compiled), expected, atol=1e-4, rtol=0)
    assert compiled.net._compiled_call_impl is not None
    codec = ZImage.Config().tiny().build(STORE).codec
    assert codec.halves == [codec.vae.encoder, codec.vae.decoder]
