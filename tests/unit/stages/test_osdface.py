"""OSDFace with tiny networks; `tests/parity/test_osdface.py` compares it with the original."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.core.errors import ConfigError, KeyMismatch, RangeError, WeightsNotFound
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.stages.osdface import OSDFace
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

CPU = torch.device("cpu")
STORE = WeightStore()


def _stage(**settings: object) -> OSDFace:
    """Norms of about one: with made ones of about zero every face would get the same prompt."""
    stage = replace(OSDFace.Config().tiny(), **settings).build(STORE)
    with torch.no_grad():
        for key, tensor in stage.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return stage.place(CPU, "fp32")


def _faces(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def _rows_of_pixels(conv: torch.nn.Module) -> bool:
    """Whether a filter lies in NHWC order, which is faster on CPUs below float32, and inexact in it."""
    return conv.weight.is_contiguous(memory_format=torch.channels_last)


def _run(stage: OSDFace, faces: torch.Tensor, seed: int | tuple[int, ...] = 0) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(faces, seed)).image


def test_the_published_weights_are_asked_for_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FACERESTORE_WEIGHTS", raising=False)
    config = OSDFace.Config()
    with pytest.raises(WeightsNotFound) as caught:
        config.build(STORE)
    assert len(config.weights()) == 5
    assert all(name in str(caught.value) for name in config.weights())
    assert config.tiny().weights() == ()
    assert config.contract().generative


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_batch_equals_singles_and_order_does_not_matter(posterior: str) -> None:
    stage, faces, seeds = _stage(posterior=posterior), _faces(4), (3, 1, 4, 1)
    singles = torch.cat([_run(stage, faces[i : i + 1], seeds[i : i + 1]) for i in range(4)])
    assert (singles - singles[:1]).abs().max() > 0.05
    for batch in (1, 3, 4):
        together = _run(stage.place(CPU, "fp32", batch), faces, seeds)
        torch.testing.assert_close(together, singles, atol=2e-5, rtol=0)
    backwards = _run(stage, faces.flip(0), seeds[::-1]).flip(0)
    torch.testing.assert_close(backwards, singles, atol=2e-5, rtol=0)


def test_only_a_drawn_posterior_depends_on_the_seed() -> None:
    faces = _faces(1)
    drawn, mean = _stage(posterior="sample"), _stage()
    assert torch.equal(_run(mean, faces, 1), _run(mean, faces, 2))
    assert torch.equal(_run(drawn, faces, 1), _run(drawn, faces, 1))
    assert not torch.equal(_run(drawn, faces, 1), _run(drawn, faces, 2))


@pytest.mark.parametrize("size", [(64, 64), (100, 100), (17, 17), (40, 72), (41, 67), (3, 50), (1, 2)])
def test_any_size_comes_back_as_it_was(size: tuple[int, int]) -> None:
    out = _run(_stage(), _faces(2, *size))
    assert out.shape == (2, 3, *size)
    assert out.dtype == torch.float32 and bool(torch.isfinite(out).all())


def test_square_faces_are_worked_at_one_size_and_others_at_theirs() -> None:
    """As published: bilinear with the corner pixels on each other."""
    stage = _stage()
    ramp = torch.linspace(0, 1, 33).expand(1, 3, 33, 33)
    entered = stage.enter(ramp)
    torch.testing.assert_close(entered, torch.linspace(0, 1, 64).expand(1, 3, 64, 64), atol=1e-6, rtol=0)
    wide = _faces(1, 33, 40)
    assert stage.enter(wide) is wide


def test_the_step_is_the_published_one() -> None:
    """With the signal variance of spec tables at 399: 0.426086, to 1e-6."""
    stage, face, seen = _stage(), _faces(1), {}
    stage.unet.register_forward_hook(
        lambda _, args, kwargs, out: seen.update(
            z=args[0], t=args[1], prompt=kwargs["encoder_hidden_states"], noise=out[0]
        ),
        with_kwargs=True,
    )
    with torch.no_grad():
        out = stage.one_step(face, (0,)).image
        z = stage.codec.encode(face, (0,))
        expected = stage.codec.decode((seen["z"] - 0.757571 * seen["noise"]) / 0.652753)
    torch.testing.assert_close(seen["z"], z, atol=1e-6, rtol=0)
    assert seen["t"].tolist() == [399]
    assert seen["prompt"].shape == (1, 77, 32)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("twice", "low"), [(True, -3.0), (False, -1.0)])
def test_the_prompt_sees_the_face_normalised_twice_unless_told_otherwise(twice: bool, low: float) -> None:
    stage, seen = _stage(vre_double_norm=twice), []
    stage.prompt.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ends = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)])
    with torch.no_grad():
        stage.embed(ends)
    assert torch.equal(seen[0][0], torch.full((3, 32, 32), low))
    assert torch.equal(seen[0][1], torch.ones(3, 32, 32))


def test_in_bf16_codes_are_compared_and_the_step_is_taken_in_float32() -> None:
    stage = _stage()
    faces = _faces(2)
    exact = _run(stage, faces)
    codes = stage.prompt.quantize.embedding.weight.clone()
    coarse = copy.deepcopy(stage).place(CPU, "bf16")
    assert coarse.prompt.quantize.embedding.weight.dtype == torch.float32
    assert torch.equal(coarse.prompt.quantize.embedding.weight, codes)
    assert coarse.prompt.quant_conv.weight.dtype == torch.float32
    for net in (coarse.unet, coarse.codec, coarse.projector, coarse.prompt.encoder):
        assert next(net.parameters()).dtype == torch.bfloat16
    out = _run(coarse, faces)
    assert _rows_of_pixels(coarse.codec.vae.decoder.conv_out) and _rows_of_pixels(
        coarse.prompt.encoder.conv_out
    )
    assert not _rows_of_pixels(coarse.unet.conv_in) and not _rows_of_pixels(stage.codec.vae.decoder.conv_out)
    assert out.dtype == torch.float32
    assert 0 < (out - exact).abs().mean() < 0.05


def test_a_small_autoencoder_decodes_or_does_both() -> None:
    stages = {choice: _stage(codec=choice) for choice in ("full", "tiny_decoder", "tiny")}
    faces, z = _faces(2), torch.zeros(1, 4, 8, 8)
    outs = {choice: _run(stage, faces) for choice, stage in stages.items()}
    assert all(out.shape == faces.shape and bool(out.isfinite().all()) for out in outs.values())
    with torch.no_grad():
        latents = {choice: stage.codec.encode(faces, (0, 0)) for choice, stage in stages.items()}
        decoded = {choice: stage.codec.decode(z) for choice, stage in stages.items()}
    assert torch.equal(latents["full"], latents["tiny_decoder"])
    assert not torch.equal(latents["full"], latents["tiny"])
    assert torch.equal(decoded["tiny"], decoded["tiny_decoder"])
    assert not torch.equal(decoded["full"], decoded["tiny"])
    config = OSDFace.Config()
    vaes = {"sd21-base/vae", "taesd"}
    for choice, needed in {"full": {"sd21-base/vae"}, "tiny_decoder": vaes, "tiny": {"taesd"}}.items():
        assert vaes & set(config.override("codec", choice).weights()) == needed


def test_gradients_reach_the_face() -> None:
    stage, face = _stage(), _faces(1).requires_grad_()
    stage(RestorationState(lq=face, image=face, seeds=(0,))).image.sum().backward()
    assert face.grad is not None and bool(face.grad.abs().sum() > 0)


def test_resaved_and_reloaded_it_gives_the_same(tmp_path: Path) -> None:
    stage, faces = _stage(), _faces(1)
    save_file(stage.state_dict(), tmp_path / "stage.safetensors")
    other = OSDFace.Config().tiny().build(STORE).place(CPU, "fp32")
    assert not torch.equal(_run(other, faces), _run(stage, faces))
    other.load_state_dict(load_file(tmp_path / "stage.safetensors"))
    assert torch.equal(_run(other, faces), _run(stage, faces))


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    stage = _stage()
    with torch.no_grad():
        stage.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(RangeError, match="osdface"):
        _run(stage, _faces(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timestep": 1000}, "0 to 999"),
        ({"timestep": -1}, "0 to 999"),
        ({"square_px": 500}, "multiple of 8"),
        ({"square_px": 0}, "multiple of 8"),
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OSDFace.Config(**wrong)
    assert OSDFace.Config().override("timestep", "250").timestep == 250


class TestOtherBaseModels:
    """Made base models in the form of diffusers, in a weights folder of the user's."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightStore:
        monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path))
        self.folder = tmp_path
        self.save("unet", backbones.sd_unet(TINY_UNET))
        self.save("vae", backbones.sd_vae(TINY_SD_VAE))
        return WeightStore()

    def save(self, name: str, net: torch.nn.Module) -> None:
        fill_seeded(net)
        net.save_pretrained(self.folder / "sd21-base" / name)

    def adapt(self, rank: int, metadata: dict[str, str] | None = None, **more: torch.Tensor) -> None:
        down = torch.ones(rank, 32)
        state = {"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(rank, 64)}
        state["unet.mid_block.attentions.0.proj_in.lora_B.weight"] = torch.full((64, rank), 0.01)
        state["unet.down_blocks.0.attentions.0.proj_in.lora.down.weight"] = down
        state["unet.down_blocks.0.attentions.0.proj_in.lora.up.weight"] = torch.full((32, rank), 0.01)
        (self.folder / "osdface").mkdir(exist_ok=True)
        save_file(state | more, self.folder / "osdface" / "lora.safetensors", metadata)

    config = replace(
        OSDFace.Config().tiny(),
        unet="sd21-base/unet",
        vae="sd21-base/vae",
        lora="osdface/lora",
        lora_rank=4,
    )

    def test_the_adapter_is_merged_at_the_scale_that_it_was_trained_with(self, store: WeightStore) -> None:
        self.adapt(4)
        plain = replace(self.config, lora=None).build(store).unet.state_dict()
        merged = self.config.build(store).unet.state_dict()
        changed = [key for key in plain if not torch.equal(plain[key], merged[key])]
        assert changed == [
            "down_blocks.0.attentions.0.proj_in.weight",
            "mid_block.attentions.0.proj_in.weight",
        ]
        for key in changed:
            torch.testing.assert_close(merged[key] - plain[key], torch.full_like(plain[key], 0.04))

    def test_an_adapter_for_another_base_is_refused_by_key_and_shape(self, store: WeightStore) -> None:
        self.adapt(4, **{"unet.conv_in.lora_A.weight": torch.ones(4, 9, 3, 3)})
        with pytest.raises(KeyMismatch, match=r"conv_in\.lora_A"):
            self.config.build(store)
        self.adapt(
            4,
            **{
                "unet.conv_in.lora_A.weight": torch.ones(4, 9, 3, 3),
                "unet.conv_in.lora_B.weight": torch.ones(32, 4, 1, 1),
            },
        )
        with pytest.raises(KeyMismatch, match=r"\(32, 4, 3, 3\), got \(32, 9, 3, 3\)"):
            self.config.build(store)

    def test_a_contradicting_scale_is_refused(self, store: WeightStore) -> None:
        self.adapt(4, **{"unet.mid_block.attentions.0.proj_in.alpha": torch.tensor(8.0)})
        with pytest.raises(KeyMismatch, match="alpha 8 / rank 4"):
            self.config.build(store)

    def test_an_adapter_for_another_timestep_is_refused(self, store: WeightStore) -> None:
        self.adapt(4, {"timestep": "500"})
        with pytest.raises(ConfigError, match="timestep 500"):
            self.config.build(store)
        assert replace(self.config, timestep=500).build(store).alpha_bar < 0.3

    def test_another_unet_is_refused(self, store: WeightStore) -> None:
        self.save("unet", backbones.sd_unet(TINY_UNET | {"cross_attention_dim": 24}))
        self.adapt(4)
        with pytest.raises(ConfigError, match=r"32 wide.* 24: .*another base model"):
            self.config.build(store)

    def test_another_autoencoder_is_refused(self, store: WeightStore) -> None:
        self.save("vae", backbones.sd_vae(TINY_SD_VAE | {"latent_channels": 16}))
        self.adapt(4)
        with pytest.raises(ConfigError, match="latent_channels is 16, not 4"):
            self.config.build(store)
