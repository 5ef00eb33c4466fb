"""The one-step Z-Image stage: signs, scales and shapes, which third-party code gets wrong most often."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from facerestore.core.errors import ConfigError, RangeError, UnsupportedDtype, WeightsError
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_ZIMAGE_TRANSFORMER
from facerestore.diffusion.schedule import flux_sigma, shift_sigma, zimage_sigma
from facerestore.stages.zimage import ZImage
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import WeightStore

STORE = WeightStore()
SIGMA = 0.244
CPU = torch.device("cpu")


class _Says(nn.Module):
    """A transformer that gives an answer known beforehand, and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: list[torch.Tensor], t: torch.Tensor, cap_feats: Any, return_dict: bool) -> Any:
        self.x, self.t, self.prompts = x, t, cap_feats
        assert not return_dict
        return (list(self.answer.unsqueeze(2)),)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pictures(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def _codec() -> LatentCodec:
    vae = backbones.sd_vae(TINY_FLUX_VAE).eval()
    fill_seeded(vae)
    return LatentCodec.of(vae)


def _saying(answer: torch.Tensor) -> tuple[ZImage, _Says]:
    transformer = _Says(answer)
    return ZImage(transformer, _codec(), _noise(7, 16), ZImage.Config(fold=False)), transformer


def _lively(*, fold: bool = True, **changes: Any) -> ZImage:
    """Tiny, with norms near 1 instead of near 0, so that everything matters."""
    torch_net = backbones.zimage_transformer(TINY_ZIMAGE_TRANSFORMER).eval().requires_grad_(False)
    codec = _codec()
    fill_seeded(torch_net)
    for net in (torch_net, codec):
        for name, parameter in net.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1
    return ZImage(torch_net, codec, _noise(7, 16), ZImage.Config(fold=fold, **changes))


def _restored(stage: ZImage, pictures: torch.Tensor, seeds: tuple[int, ...] | int = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(pictures, seeds)).image


def test_an_answer_of_zero_changes_nothing() -> None:
    z = _noise(2, 16, 8, 8)
    assert torch.equal(_saying(torch.zeros_like(z))[0].step(z), z)


def test_the_sign_is_right_and_the_noise_is_gone() -> None:
    clean, noise = _noise(2, 16, 8, 8), _noise(2, 16, 8, 8, seed=1)
    z = (1 - SIGMA) * clean + SIGMA * noise
    stage, _ = _saying(clean - noise)
    torch.testing.assert_close(stage.step(z), clean, atol=1e-6, rtol=0)


def test_the_transformer_is_asked_as_it_was_trained() -> None:
    z = _noise(3, 16, 8, 12)
    stage, transformer = _saying(torch.zeros_like(z))
    stage.step(z)
    assert torch.equal(transformer.t, torch.full((3,), 0.756))
    assert [tuple(x.shape) for x in transformer.x] == [(16, 1, 8, 12)] * 3
    assert torch.equal(transformer.x[1][:, 0], z[1])
    assert len(transformer.prompts) == 3 and all(torch.equal(p, _noise(7, 16)) for p in transformer.prompts)


def test_of_the_three_readings_of_244_the_raw_one_is_meant() -> None:
    assert ZImage.Config().sigma == zimage_sigma(244) == SIGMA
    assert shift_sigma(SIGMA, 3) == pytest.approx(0.4919, abs=5e-5)
    assert flux_sigma(244) == pytest.approx(0.5051, abs=5e-5)
    for sigma in (0.0, 244.0, float("nan")):
        with pytest.raises(ConfigError, match="timestep / 1000"):
            ZImage.Config(sigma=sigma)


@pytest.mark.parametrize("fold", [True, False])
def test_batch_equals_singles_in_any_order(fold: bool) -> None:
    stage, z = _lively(fold=fold), _noise(3, 16, 8, 10)
    with torch.no_grad():
        together = stage.step(z)
        singles = torch.cat([stage.step(part) for part in z.split(1)])
        turned = stage.step(z[[2, 0, 1]])[[1, 2, 0]]
    torch.testing.assert_close(together, singles, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_a_picture_comes_out_the_same_alone_and_among_others(posterior: str) -> None:
    stage, pictures = _lively(posterior=posterior), _pictures(3)
    one_by_one = _restored(stage, pictures, (7, 8, 9))
    together = _restored(stage.place(CPU, "fp32", batch=2), pictures, (7, 8, 9))
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=0)
    turned = _restored(stage, pictures.flip(0), (9, 8, 7)).flip(0)
    torch.testing.assert_close(turned, together, atol=1e-5, rtol=0)
    other_seed = _restored(stage, pictures, (7, 8, 10))
    assert torch.equal(other_seed[:2], together[:2])
    assert torch.equal(other_seed[2], together[2]) == (posterior == "mode")


def test_folded_and_unfolded_give_the_same_picture() -> None:
    pictures = _pictures(2, 48, 80)
    folded, plain = _restored(_lively(), pictures), _restored(_lively(fold=False), pictures)
    torch.testing.assert_close(folded, plain, atol=1e-5, rtol=0)
    assert (folded - pictures).abs().mean() > 1e-2


@pytest.mark.parametrize(("height", "width"), [(16, 16), (37, 50), (5, 100), (1, 1)])
def test_any_size_goes_through(height: int, width: int) -> None:
    picture = _pictures(1, height, width)
    out = _restored(_lively(), picture)
    assert out.shape == picture.shape and bool(torch.isfinite(out).all())


def test_large_latents_go_through_in_tiles_and_are_moved_once() -> None:
    z = _noise(1, 16, 16, 28)
    stage = _lively(tile=16, overlap=4)
    with torch.no_grad():
        tiled, whole = stage.step(z), _lively().step(z)
        left, right = stage.step(z[..., :16]), stage.step(z[..., 12:])
    torch.testing.assert_close(tiled[..., :12], left[..., :12], atol=1e-5, rtol=0)
    torch.testing.assert_close(tiled[..., 16:], right[..., 4:], atol=1e-5, rtol=0)
    assert (tiled - whole).abs().mean() > 1e-4
    for tile, overlap in ((15, 4), (16, 3), (16, 16), (0, 0)):
        with pytest.raises(ConfigError, match="even"):
            ZImage.Config(tile=tile, overlap=overlap)


def test_what_lies_beyond_the_picture_is_its_reflection() -> None:
    stage, picture = _lively(), _pictures(1, 40, 64)
    by_hand = torch.cat([picture, picture[:, :, 31:39].flip(2)], dim=2)
    torch.testing.assert_close(_restored(stage, picture), _restored(stage, by_hand)[:, :, :40])


def test_tiny_needs_no_file_and_makes_its_own_prompt() -> None:
    config = ZImage.Config(adapters=("some-adapter",)).tiny()
    assert config.weights() == ()
    stage = config.build(STORE)
    assert stage.prompt.shape == (7, 16)
    out = _restored(stage, _pictures(1))
    assert torch.equal(out, _restored(config.build(STORE), _pictures(1)))
    assert out.min() >= 0 and out.max() <= 1


class _Listed(WeightStore):
    """A store whose manifest lists whatever it is given."""

    def spec(self, name: str) -> WeightSpec:
        file = name if name.endswith(("transformer", "vae")) else f"{name}.safetensors"
        texts = dict.fromkeys(("sha256", "licence", "source", "citation", "net", "note"), "")
        return WeightSpec(name=name, file=file, bytes=0, **texts)


def _adapter(
    path: Path, seed: int, keys: dict[str, tuple[int, int]], *, style: str
) -> dict[str, torch.Tensor]:
    """Write a rank 2 adapter; returns what it adds to each weight at scale 0.5."""
    down, up = ("lora_A", "lora_B") if style == "peft" else ("lora.down", "lora.up")
    state: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    for key, (rows, columns) in keys.items():
        seed += 1
        a, b = _noise(2, columns, seed=seed), _noise(rows, 2, seed=-seed)
        state |= {f"{key}.{down}.weight": a, f"{key}.{up}.weight": b}
        added[key.partition(".")[2] + ".weight"] = 0.5 * b @ a
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return added


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_from_files_with_three_adapters_merged_one_after_the_other(tmp_path: Path) -> None:
    plain = _lively(fold=False)
    plain.transformer.save_pretrained(tmp_path / "z-image-turbo" / "transformer")
    plain.codec.vae.save_pretrained(tmp_path / "z-image-turbo" / "vae")
    save_file({"prompt": plain.prompt}, tmp_path / "z-image-turbo" / "prompt.safetensors")
    attention = {f"transformer.layers.{i}.attention.to_q": (32, 32) for i in range(2)}
    feed = {"transformer.noise_refiner.0.feed_forward.w1": (85, 32)}
    codec = {"vae.encoder.mid_block.attentions.0.to_v": (32, 32)}
    added = [
        _adapter(tmp_path / "stage1.safetensors", 10, attention, style="peft"),
        _adapter(tmp_path / "stage2.safetensors", 20, attention | feed, style="diffusers"),
        _adapter(tmp_path / "stage3.safetensors", 30, feed | codec, style="peft"),
    ]
    names = ("z-image-turbo/transformer", "z-image-turbo/vae", "z-image-turbo/prompt")
    paths = {name: tmp_path / name for name in names[:2]} | {names[2]: tmp_path / f"{names[2]}.safetensors"}
    paths |= {f"stage{i}": tmp_path / f"stage{i}.safetensors" for i in (1, 2, 3)}
    config = ZImage.Config(adapters=("stage1", "stage2", "stage3"), adapter_scale=0.5)
    built = config.build(_Listed(paths=paths))

    own = dict(plain.transformer.named_parameters()) | dict(plain.codec.vae.named_parameters())
    for part in added:
        for key, update in part.items():
            own[key].data += update
    pictures = _pictures(1)
    expected = _restored(plain, pictures)
    torch.testing.assert_close(_restored(built, pictures), expected, atol=1e-5, rtol=0)
    assert (_restored(_lively(), pictures) - expected).abs().mean() > 1e-2
    with safe_open(tmp_path / "stage1.safetensors", "pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    save_file(state, tmp_path / "stage1.safetensors", metadata={"sigma": "0.121"})
    with pytest.raises(ConfigError, match=r"sigma 0\.121"):
        config.build(_Listed(paths=paths))
    config.override("sigma", "0.121").build(_Listed(paths=paths))
    save_file(state, tmp_path / "stage1.safetensors")
    with pytest.raises(ConfigError, match="does not say alpha"):
        ZImage.Config(adapters=("stage1",)).build(_Listed(paths=paths))
    save_file({"prompt_embeds": plain.prompt}, paths[names[2]])
    with pytest.raises(WeightsError, match="expected one tensor 'prompt'"):
        config.build(_Listed(paths=paths))


def test_the_weights_are_named_in_the_order_in_which_they_are_needed() -> None:
    config = ZImage.Config(adapters=("one", "two", "three"))
    base = ("z-image-turbo/transformer", "z-image-turbo/vae", "z-image-turbo/prompt")
    assert config.weights() == (*base, "one", "two", "three")
    assert config.override("sigma", "0.4919").sigma == 0.4919
    assert config.contract().generative


def test_never_in_fp16() -> None:
    for device in (CPU, torch.device("cuda")):
        with pytest.raises(UnsupportedDtype, match="bf16 or fp32"):
            ZImage.Config().tiny().build(STORE).place(device, "fp16")


def test_bf16_gives_nearly_the_same_picture() -> None:
    pictures = _pictures(1)
    exact = _restored(_lively(), pictures)
    stage = _lively().place(CPU, "bf16")
    assert (
        next(stage.transformer.parameters()).dtype == next(stage.codec.parameters()).dtype == torch.bfloat16
    )
    rounded = _restored(stage, pictures)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.02


def test_the_latent_is_moved_in_float32_even_where_the_network_is_not() -> None:
    z = _noise(1, 16, 8, 8)
    stage = ZImage(_Says(torch.zeros_like(z)), _codec(), _noise(7, 16), ZImage.Config(fold=False))
    stage.place(CPU, "bf16")
    assert torch.equal(stage.step(z), z)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    stage, _ = _saying(torch.full((1, 16, 8, 8), float("nan")))
    with pytest.raises(RangeError, match="zimage"):
        _restored(stage, _pictures(1))


def test_gradients_pass_from_picture_to_picture() -> None:
    pictures = _pictures(1).requires_grad_()
    state = RestorationState(lq=pictures, image=pictures, seeds=(0,))
    _lively()(state).image.sum().backward()
    assert pictures.grad is not None and bool(pictures.grad.abs().sum() > 0)
