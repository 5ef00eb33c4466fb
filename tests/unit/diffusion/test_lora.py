"""Adapters of every published key style merge into the same network, and nothing of a file is dropped."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.diffusion.lora import PEFT_DEFAULT_ALPHA, read_adapter
from facerestore.diffusion.merging import merge_adapter, originals, unmerge_adapter

RANK = 4
SHAPES = {"block.to_q": (10, 6), "block.conv": (8, 6, 3, 3), "block.conv_shortcut": (8, 6, 1, 1)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {
                "to_q": nn.Linear(6, 10),
                "conv": nn.Conv2d(6, 8, 3, stride=2, padding=1),
                "conv_shortcut": nn.Conv2d(6, 8, 1, bias=False),
            }
        )
        self.conv_in = nn.Conv2d(3, 6, 3, padding=1)


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def factors(rank: int = RANK) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) of each layer, as peft shapes them."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, (out, into, *kernel) in SHAPES.items():
        down = torch.randn(rank, into, *kernel, generator=generator)
        made[name] = down, torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
    return made


def written(pattern_down: str, pattern_up: str, prefix: str = "") -> dict[str, Tensor]:
    state = {}
    for name, (down, up) in factors().items():
        state[prefix + pattern_down.format(name)] = down
        state[prefix + pattern_up.format(name)] = up
    return state


PEFT = ("{}.lora_A.weight", "{}.lora_B.weight")
IN_MEMORY = ("{}.lora_A.default.weight", "{}.lora_B.default.weight")
DIFFUSERS = ("{}.lora.down.weight", "{}.lora.up.weight")
KOHYA = ("{}.lora_down.weight", "{}.lora_up.weight")


def mixed() -> dict[str, Tensor]:
    """As diffusers writes it: projections of the attention in one style, everything else in the other."""
    attention, rest = written(*DIFFUSERS, "unet."), written(*PEFT, "unet.")
    return {k: v for k, v in rest.items() if "to_q" not in k} | {
        k: v for k, v in attention.items() if "to_q" in k
    }


STYLES: dict[str, Callable[[], Mapping[str, Tensor]]] = {
    "peft": lambda: written(*PEFT),
    "peft folder": lambda: written(*PEFT, "base_model.model."),
    "peft in memory": lambda: written(*IN_MEMORY),
    "named": lambda: written("{}.lora_A.default_encoder.weight", "{}.lora_B.default_encoder.weight"),
    "component": lambda: written(*PEFT, "unet."),
    "wrapped component": lambda: written(*IN_MEMORY, "unet.base_model.model."),
    "component within the wrapper": lambda: written(*PEFT, "base_model.model.transformer."),
    "diffusers": lambda: written(*DIFFUSERS, "vae."),
    "kohya with dots": lambda: written(*KOHYA),
    "mixed": mixed,
    "linear factors of a 1x1 convolution": lambda: {
        key: value.flatten(1) if "shortcut" in key else value for key, value in written(*PEFT).items()
    },
}


def expected(scale: float) -> dict[str, Tensor]:
    """The weights by the definition: what the factors do, one after the other, to a unit impulse."""
    weights = {name: net().get_submodule(name).weight.detach().double() for name in SHAPES}
    for name, (down, up) in factors().items():
        _, into, *kernel = SHAPES[name]
        if not kernel:
            weights[name] += scale * up.double() @ down.double()
            continue
        for channel in range(into):
            picture = torch.zeros(1, into, 2 * kernel[0] - 1, 2 * kernel[1] - 1, dtype=torch.float64)
            picture[0, channel, kernel[0] - 1, kernel[1] - 1] = 1
            answer = F.conv2d(F.conv2d(picture, down.double()), up.double())
            weights[name][:, channel] += scale * answer[0].flip(1, 2)
    return weights


@pytest.mark.parametrize("style", STYLES)
def test_every_key_style_gives_the_same_network(style: str) -> None:
    changed = net()
    merge_adapter(changed, read_adapter(STYLES[style]()), scale=0.5)
    for name, weight in expected(0.5).items():
        merged = changed.get_submodule(name).weight
        assert (merged - weight).abs().max() < 1e-6, name
        assert not torch.equal(merged, net().get_submodule(name).weight)
    assert torch.equal(changed.conv_in.weight, net().conv_in.weight)
    assert isinstance(changed.conv_in.weight, nn.Parameter)


@pytest.mark.parametrize("style", STYLES)
def test_every_tensor_of_a_file_is_accounted_for(style: str) -> None:
    state = dict(STYLES[style]()) | {"unet.conv_in.weight": torch.ones(6, 3, 3, 3)}
    adapter = read_adapter(state)
    used = {update.key for update in adapter.updates} | {whole.key for whole in adapter.wholes}
    held = {id(t) for update in adapter.updates for t in (update.down, update.up)}
    held |= {id(whole.value) for whole in adapter.wholes}
    assert held == {id(tensor) for tensor in state.values()}
    assert used <= state.keys()


@given(
    into=st.integers(1, 6),
    out=st.integers(1, 6),
    rank=st.integers(1, 8),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    scale=st.floats(-2, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_merged_layer_answers_as_the_layer_with_its_factors_beside(
    into: int,
    out: int,
    rank: int,
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    scale: float,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Sequential(nn.Conv2d(into, out, kernel, stride, padding))
    down = torch.randn(rank, into, *kernel, generator=draw)
    up = torch.randn(out, rank, 1, 1, generator=draw)
    picture = torch.rand(2, into, 7, 8, generator=draw)
    beside = layer(picture) + scale * F.conv2d(F.conv2d(picture, down, None, stride, padding), up)
    merge_adapter(layer, read_adapter({"0.lora_A.weight": down, "0.lora_B.weight": up}), scale=scale)
    torch.testing.assert_close(layer(picture), beside, atol=1e-4, rtol=1e-5)


def test_merging_and_taking_back_is_the_identity_even_in_half_precision() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        changed, adapter = net().to(dtype), read_adapter(mixed())
        before = originals(changed, adapter)
        merge_adapter(changed, adapter, scale=1.0)
        assert not torch.equal(changed.block["to_q"].weight, net().to(dtype).block["to_q"].weight)
        assert changed.block["to_q"].weight.dtype == dtype
        unmerge_adapter(changed, before)
        for key, tensor in net().to(dtype).state_dict().items():
            assert torch.equal(changed.state_dict()[key], tensor), key


def test_merging_leaves_the_memory_that_it_was_loaded_into_alone() -> None:
    changed = net()
    mapped = changed.block["conv"].weight.data
    kept = mapped.clone()
    merge_adapter(changed, read_adapter(mixed()), scale=1.0)
    assert torch.equal(mapped, kept)


def test_strength_is_linear_and_zero_changes_nothing() -> None:
    state = dict(mixed()) | {"unet.conv_in.weight": torch.randn(6, 3, 3, 3)}
    results = {}
    for strength in (0.0, 0.5, 1.0):
        results[strength] = net()
        merge_adapter(results[strength], read_adapter(state), scale=1.0, strength=strength)
    for key, base in net().state_dict().items():
        assert torch.equal(results[0.0].state_dict()[key], base)
        half = (base + results[1.0].state_dict()[key]) / 2
        torch.testing.assert_close(results[0.5].state_dict()[key], half, atol=1e-5, rtol=0)
    assert torch.equal(results[1.0].conv_in.weight, state["unet.conv_in.weight"])


def test_a_tensor_trained_in_full_replaces_the_base_below_the_update_of_the_same_layer() -> None:
    """OSEDiff's conv_in is both: `conv_in.base_layer.weight` and `conv_in.lora_A.default_encoder.weight`."""
    generator = torch.Generator().manual_seed(2)
    state = {
        "conv_in.base_layer.weight": torch.randn(6, 3, 3, 3, generator=generator),
        "conv_in.base_layer.bias": torch.randn(6, generator=generator),
        "conv_in.lora_A.default_encoder.weight": torch.randn(RANK, 3, 3, 3, generator=generator),
        "conv_in.lora_B.default_encoder.weight": torch.randn(6, RANK, 1, 1, generator=generator),
    }
    changed = net()
    merge_adapter(changed, read_adapter(state), scale=2.0)
    base, _, down, up = state.values()
    product = (up.flatten(1) @ down.flatten(1)).reshape(base.shape)
    torch.testing.assert_close(changed.conv_in.weight, base + 2 * product)
    assert torch.equal(changed.conv_in.bias, state["conv_in.base_layer.bias"])


def test_parts_of_a_pipeline_are_told_apart() -> None:
    both = {f"unet.{key}": value for key, value in written(*IN_MEMORY).items()}
    both |= {f"vae.{key}": value for key, value in written(*IN_MEMORY).items()}
    adapter = read_adapter(both)
    assert adapter.components == ("unet", "vae")
    with pytest.raises(ConfigError, match="one part"):
        merge_adapter(net(), adapter, scale=1.0)
    with pytest.raises(ConfigError, match=r"nothing for 'transformer', only for \('unet', 'vae'\)"):
        adapter.part("transformer")
    changed = net()
    merge_adapter(changed, adapter.part("vae"), scale=0.5)
    torch.testing.assert_close(changed.block["to_q"].weight, expected(0.5)["block.to_q"].float())


def test_named_adapters_of_one_layer_add_up_and_can_be_chosen() -> None:
    """PiSA-SR: a pixel and a semantic adapter on the same layers."""
    state = written("{}.lora_A.pixel.weight", "{}.lora_B.pixel.weight")
    state |= written("{}.lora_A.semantic.weight", "{}.lora_B.semantic.weight")
    adapter, changed, chosen = read_adapter(state), net(), net()
    assert adapter.names == ("pixel", "semantic")
    merge_adapter(changed, adapter, scale=1.0)
    torch.testing.assert_close(changed.block["conv"].weight, expected(2.0)["block.conv"].float())
    merge_adapter(chosen, adapter.named("pixel"), scale=1.0)
    torch.testing.assert_close(chosen.block["conv"].weight, expected(1.0)["block.conv"].float())
    with pytest.raises(ConfigError, match="no adapter named 'pix'"):
        adapter.named("pix")


# --- what a wrong file does -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "unet.block.to_q.lora_magnitude_vector.default",
        "unet.block.to_q.lora_B.bias",
        "unet.block.to_q.lora_embedding_A",
        "lora_unet_block_to_q.lora_down.bias",
        "unet.block.to_k.alpha",
    ],
)
def test_a_key_that_is_not_understood_is_named(key: str) -> None:
    with pytest.raises(KeyMismatch) as caught:
        read_adapter(dict(mixed()) | {key: torch.ones(1)})
    assert caught.value.unexpected == (key,)


def test_a_factor_without_its_partner_is_named() -> None:
    state = dict(mixed())
    del state["unet.block.to_q.lora.up.weight"]
    with pytest.raises(KeyMismatch, match=r"partner of unet\.block\.to_q\.lora\.down\.weight"):
        read_adapter(state)


def test_the_same_factor_in_two_styles_is_refused() -> None:
    with pytest.raises(KeyMismatch) as caught:
        read_adapter(written(*PEFT) | written(*DIFFUSERS))
    assert len(caught.value.unexpected) == 2 * len(SHAPES)


def test_factors_whose_ranks_differ_are_named() -> None:
    state = dict(mixed()) | {"unet.block.conv.lora_B.weight": torch.ones(8, RANK + 1, 1, 1)}
    with pytest.raises(KeyMismatch) as caught:
        read_adapter(state, source="file.safetensors")
    assert caught.value.misshapen == ("unet.block.conv.lora_B.weight: expected (Cout, 4), got (8, 5, 1, 1)",)
    with pytest.raises(KeyMismatch, match=r"expected rank 16, got \(4, 6"):
        read_adapter(mixed(), rank=16)


def test_an_adapter_for_another_base_is_refused_with_both_shapes_and_changes_nothing() -> None:
    other = net()
    other.block["to_q"] = nn.Linear(7, 10)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(KeyMismatch) as caught:
        merge_adapter(other, read_adapter(mixed()), scale=1.0)
    assert caught.value.misshapen == (
        "unet.block.to_q.lora.down.weight: expected an update of (10, 7), got (10, 6)",
    )
    del other.block["conv"]
    with pytest.raises(KeyMismatch) as caught:
        merge_adapter(other, read_adapter(mixed()), scale=1.0)
    assert caught.value.unexpected == ("unet.block.conv.lora_A.weight",)
    for key, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_tensors_trained_in_full_must_fit_too() -> None:
    with pytest.raises(KeyMismatch) as caught:
        merge_adapter(
            net(), read_adapter({"conv_in.weight": torch.ones(6, 4, 3, 3), "conv_out.bias": torch.ones(3)})
        )
    assert caught.value.unexpected == ("conv_out.bias",)
    assert caught.value.misshapen == ("conv_in.weight: expected (6, 3, 3, 3), got (6, 4, 3, 3)",)


@pytest.mark.parametrize(("rank", "default"), [(4, "2"), (16, "0.5"), (32, "0.25")])
def test_a_scale_that_nobody_names_is_refused_with_both_candidates(rank: int, default: str) -> None:
    """Spec: peft's default alpha of 8 means scale 2 at rank 4, 0.5 at 16 and 0.25 at 32."""
    state = {}
    for name, (down, up) in factors(rank).items():
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    adapter = read_adapter(state)
    assert adapter.rank == rank
    assert PEFT_DEFAULT_ALPHA / adapter.rank == float(default)
    with pytest.raises(ConfigError, match=rf"1\.0 where .* rank {rank}, {default} where it left"):
        merge_adapter(net(), adapter)


def test_an_alpha_in_the_file_decides_and_may_not_be_contradicted() -> None:
    state = dict(mixed()) | {f"unet.{name}.alpha": torch.tensor(2.0) for name in SHAPES}
    adapter, changed = read_adapter(state), net()
    merge_adapter(changed, adapter)
    torch.testing.assert_close(changed.block["conv"].weight, expected(0.5)["block.conv"].float())
    merge_adapter(net(), adapter, scale=0.5)
    with pytest.raises(KeyMismatch, match=r"expected scale 1, got alpha 2 / rank 4"):
        merge_adapter(net(), adapter, scale=1.0)
