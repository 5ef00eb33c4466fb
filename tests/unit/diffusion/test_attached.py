"""Adapters beside a network, what plain peft and plain diffusers make of them, and what they make of ours."""

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.diffusion.attached import (
    DIFFUSERS_FILE,
    adapter_of,
    attach,
    attach_adapter,
    detach,
    disabled,
    export_diffusers,
    export_peft,
)
from facerestore.diffusion.backbones import sd_unet
from facerestore.diffusion.configs import TINY_UNET
from facerestore.diffusion.lora import Adapter, load_adapter, read_adapter, require_made_for
from facerestore.diffusion.merging import merge_adapter
from facerestore.weights.write import write_tensors

RANK = 4
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
OTHERS = ("conv_in", "conv1", "conv_shortcut", "proj_in", "ff.net.2", "time_emb_proj", "downsamplers.0.conv")


@pytest.fixture(scope="module")
def base() -> nn.Module:
    """With torch's own first weights, whose norms are 1, so that a change of any layer reaches the output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sd_unet(TINY_UNET).eval()


@pytest.fixture
def unet(base: nn.Module) -> nn.Module:
    return copy.deepcopy(base)


@pytest.fixture(scope="module")
def trained(base: nn.Module) -> Adapter:
    """What training would have left: both factors of every kind of layer are far from zero."""
    net = copy.deepcopy(base)
    attach(net, rank=RANK, alpha=8, targets=(*ATTENTION, *OTHERS))
    for key, tensor in net.named_parameters():
        if "lora_" in key:
            tensor.data = made(key, tensor.shape)
    return adapter_of(net)


def made(key: str, shape: torch.Size) -> Tensor:
    generator = torch.Generator().manual_seed(len(key) * 7919 + sum(key.encode()))
    return torch.randn(shape, generator=generator) * 0.1


@torch.no_grad()
def answer(net: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    config: Any = net.config
    z = torch.randn(2, config.in_channels, 8, 8, generator=generator)
    text = torch.randn(2, 5, config.cross_attention_dim, generator=generator)
    return net(z, 399, encoder_hidden_states=text).sample


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for key, tensor in b.state_dict().items():
        assert torch.equal(a.state_dict()[key], tensor), key


def test_merged_equals_attached_and_both_differ_from_the_base(
    base: nn.Module, unet: nn.Module, trained: Adapter
) -> None:
    merged = copy.deepcopy(base)
    merge_adapter(merged, trained)
    attach_adapter(unet, trained)
    plain, beside, within = answer(base), answer(unet), answer(merged)
    assert (within - beside).abs().max() < 1e-5
    assert (within - plain).abs().max() > 1e-2
    detach(unet)
    attach_adapter(unet, trained, strength=0.5)
    halved = copy.deepcopy(base)
    merge_adapter(halved, trained, strength=0.5)
    assert (answer(unet) - answer(halved)).abs().max() < 1e-5


def test_disabled_is_the_base_bit_for_bit_and_everything_comes_back(
    base: nn.Module, unet: nn.Module, trained: Adapter
) -> None:
    attach_adapter(unet, trained)
    beside = answer(unet)
    state = {key: tensor.requires_grad for key, tensor in unet.named_parameters()}
    with pytest.raises(RuntimeError, match="on purpose"), disabled(unet):
        assert torch.equal(answer(unet), answer(base))
        with disabled(unet):
            assert torch.equal(answer(unet), answer(base))
        assert torch.equal(answer(unet), answer(base))
        raise RuntimeError("on purpose")
    assert torch.equal(answer(unet), beside)
    assert {key: tensor.requires_grad for key, tensor in unet.named_parameters()} == state
    detach(unet)
    assert_same(unet, base)
    assert not hasattr(unet, "peft_config")


def test_a_fresh_adapter_changes_nothing_and_is_all_that_can_be_trained(
    base: nn.Module, unet: nn.Module
) -> None:
    before = torch.get_rng_state()
    attach(unet, rank=RANK, alpha=8, targets=("conv", "to_q"), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(answer(unet), answer(base))
    adapter, again = adapter_of(unet), copy.deepcopy(base)
    modules = {update.module for update in adapter.updates}
    assert "down_blocks.0.downsamplers.0.conv" in modules
    assert not [module for module in modules if module.endswith(("conv1", "conv_in"))]
    assert {update.alpha for update in adapter.updates} == {8.0}
    for key, tensor in unet.named_parameters():
        assert tensor.requires_grad == ("lora_" in key), key
    deviations = [float(update.down.std()) for update in adapter.updates]
    assert all(0.2 < deviation < 0.3 for deviation in deviations)
    attach(again, rank=RANK, alpha=8, targets=("conv", "to_q"), seed=3)
    for one, other in zip(adapter.updates, adapter_of(again).updates, strict=True):
        assert torch.equal(one.down, other.down)


def test_targets_may_be_an_expression_for_whole_names(unet: nn.Module) -> None:
    attach(unet, rank=2, alpha=2, targets=r"down_blocks\..*\.attn1\.to_[qk]")
    modules = {update.module for update in adapter_of(unet).updates}
    assert modules
    assert all(module.startswith("down_blocks.") and "attn1" in module for module in modules)


def test_adapters_stay_float32_beside_a_network_in_half_precision(unet: nn.Module, trained: Adapter) -> None:
    attach_adapter(unet.to(torch.bfloat16), trained)
    for key, tensor in unet.named_parameters():
        assert tensor.dtype == (torch.float32 if "lora_" in key else torch.bfloat16), key
    for update, original in zip(adapter_of(unet).updates, trained.updates, strict=True):
        assert torch.equal(update.up, original.up)


def test_several_named_adapters_lie_on_the_same_layers(
    base: nn.Module, unet: nn.Module, trained: Adapter
) -> None:
    state = {}
    for update in trained.updates:
        for name, factor in (("pixel", 1.0), ("semantic", -0.5)):
            state[f"{update.module}.lora_A.{name}.weight"] = update.down
            state[f"{update.module}.lora_B.{name}.weight"] = update.up * factor
    both, merged = read_adapter(state), copy.deepcopy(base)
    attach_adapter(unet, both.named("pixel"), scale=2.0)
    attach_adapter(unet, both.named("semantic"), scale=2.0)
    merge_adapter(merged, both, scale=2.0)
    assert (answer(unet) - answer(merged)).abs().max() < 1e-5
    assert adapter_of(unet).names == ("pixel", "semantic")
    with pytest.raises(ConfigError, match="named 'pixel' already"):
        attach_adapter(unet, both.named("pixel"), scale=2.0)
    with pytest.raises(ConfigError, match="no single adapter"):
        export_diffusers(both, "nowhere", component="unet", base="made", scale=1.0)
    detach(unet)
    assert_same(unet, base)


def test_layers_of_different_rank_keep_their_own_scale(
    base: nn.Module, unet: nn.Module, tmp_path: Path
) -> None:
    """Names that end alike must not share a rank: `conv_in` is the ending of no other, `to_q` of many."""
    first = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    second = first.replace("attn1", "attn2")
    state = {
        f"{module}.lora_{side}.weight": made(module + side, torch.Size(shape))
        for module, rank in ((first, 2), (second, 5))
        for side, shape in (("A", (rank, 32)), ("B", (32, rank)))
    }
    state |= {f"{first}.alpha": torch.tensor(6.0), f"{second}.alpha": torch.tensor(2.5)}
    adapter, merged = read_adapter(state), copy.deepcopy(base)
    merge_adapter(merged, adapter)
    attach_adapter(unet, adapter)
    assert (answer(unet) - answer(merged)).abs().max() < 1e-5
    assert (answer(base) - answer(merged)).abs().max() > 1e-4
    assert in_plain_peft(base, export_peft(adapter, tmp_path / "peft", base="made"), merged) < 1e-5
    assert (
        in_plain_diffusers(base, export_diffusers(adapter, tmp_path, component="unet", base="made"), merged)
        < 1e-5
    )


# --- others' programs -------------------------------------------------------------------------------------


def in_plain_peft(base: nn.Module, folder: Path, merged: nn.Module) -> float:
    from peft import PeftModel

    loaded: Any = PeftModel.from_pretrained(copy.deepcopy(base), str(folder))
    return float((answer(loaded) - answer(merged)).abs().max())


def in_plain_diffusers(base: nn.Module, file: Path, merged: nn.Module) -> float:
    net: Any = copy.deepcopy(base)
    net.load_lora_adapter(str(file.parent), weight_name=file.name, prefix="unet")
    return float((answer(net) - answer(merged)).abs().max())


def test_exports_load_in_plain_peft_and_plain_diffusers_and_here(
    base: nn.Module, trained: Adapter, tmp_path: Path
) -> None:
    merged = copy.deepcopy(base)
    merge_adapter(merged, trained)
    folder = export_peft(trained, tmp_path / "unet_lora_adapter", base="made/base", timestep="399")
    file = export_diffusers(trained, tmp_path, component="unet", base="made/base", timestep="399")
    assert file.name == DIFFUSERS_FILE
    assert in_plain_peft(base, folder, merged) < 1e-5
    assert in_plain_diffusers(base, file, merged) < 1e-5
    for adapter, scale in ((load_adapter(folder), None), (load_adapter(file).part("unet"), 1.0)):
        ours = copy.deepcopy(base)
        merge_adapter(ours, adapter, scale=scale)
        torch.testing.assert_close(answer(ours), answer(merged), atol=1e-6, rtol=0)
        require_made_for(adapter, base="made/base", timestep=399)
        with pytest.raises(ConfigError, match=r"made for timestep 399, and is to be used with timestep 273"):
            require_made_for(adapter, timestep=273)
        with pytest.raises(ConfigError, match=r"made for base made/base"):
            require_made_for(adapter, base="another")


def test_what_plain_peft_saves_loads_here(base: nn.Module, unet: nn.Module, tmp_path: Path) -> None:
    """OMGSR's layout: a folder for each part, written by PeftModel.save_pretrained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK,
        lora_alpha=6,
        target_modules=["to_q", "conv1", "proj_in"],
        alpha_pattern={"conv1": 3},
        use_rslora=True,
    )
    theirs: Any = get_peft_model(copy.deepcopy(base), config)  # pyright: ignore[reportArgumentType]
    for key, tensor in theirs.named_parameters():
        if "lora_" in key:
            tensor.data = made(key, tensor.shape)
    theirs.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path, rank=RANK)
    assert {update.alpha for update in adapter.updates} == {12.0, 6.0}
    merge_adapter(unet, adapter)
    assert (answer(unet) - answer(theirs)).abs().max() < 1e-5
    assert (answer(unet) - answer(base)).abs().max() > 1e-2


def test_what_plain_diffusers_saves_loads_here_with_its_scale(
    base: nn.Module, unet: nn.Module, tmp_path: Path
) -> None:
    from peft import LoraConfig

    theirs: Any = copy.deepcopy(base)
    theirs.add_adapter(LoraConfig(r=RANK, lora_alpha=2, target_modules=["to_q", "conv1"]), "default")
    for key, tensor in theirs.named_parameters():
        if "lora_" in key:
            tensor.data = made(key, tensor.shape)
    theirs.save_lora_adapter(tmp_path)
    merge_adapter(unet, load_adapter(tmp_path / DIFFUSERS_FILE), scale=2 / RANK)
    assert (answer(unet) - answer(theirs)).abs().max() < 1e-5
    assert (answer(unet) - answer(base)).abs().max() > 1e-3


def test_a_file_of_mixed_styles_loses_layers_in_plain_diffusers_and_none_here(
    base: nn.Module, unet: nn.Module, trained: Adapter, tmp_path: Path
) -> None:
    """OSDFace's file: attention as `lora.down`, the rest as `lora_A`, sorted so that the rest comes first."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for update in trained.updates:
        sides = ("lora.down", "lora.up") if update.module.endswith(ATTENTION) else ("lora_A", "lora_B")
        state[f"unet.{update.module}.{sides[0]}.weight"] = update.down
        state[f"unet.{update.module}.{sides[1]}.weight"] = update.up
    write_tensors(tmp_path / DIFFUSERS_FILE, state, {})
    ours, merged = load_adapter(tmp_path / DIFFUSERS_FILE), copy.deepcopy(base)
    merge_adapter(merged, trained)
    assert 2 * len(ours.updates) == len(state)
    merge_adapter(unet, ours, scale=8 / RANK)
    assert torch.equal(answer(unet), answer(merged))

    exact = copy.deepcopy(base)
    merge_adapter(exact, ours, scale=1.0)  # the scale that diffusers takes
    theirs: Any = copy.deepcopy(base)
    theirs.load_lora_adapter(dict(sorted(state.items())), prefix="unet")
    loaded = {key for key in theirs.state_dict() if "lora_" in key}
    assert len(loaded) < len(state)
    assert not [key for key in loaded if "attn" in key]
    assert (answer(theirs) - answer(exact)).abs().max() > 1e-3
    # The same tensors under one style are complete for diffusers too: it is the mixture that it loses.
    assert (
        in_plain_diffusers(
            base, export_diffusers(ours, tmp_path / "x", component="unet", base="", scale=1.0), exact
        )
        < 1e-5
    )


# --- what a wrong call does -------------------------------------------------------------------------------


def test_nothing_is_attached_where_nothing_fits(base: nn.Module, unet: nn.Module, trained: Adapter) -> None:
    with pytest.raises(ConfigError, match=r"no linear layer .* called \('attention',\)"):
        attach(unet, rank=4, alpha=4, targets=("attention",))
    with pytest.raises(ConfigError, match="has no adapter attached"):
        adapter_of(unet)
    narrow = sd_unet(TINY_UNET | {"cross_attention_dim": 24})
    with pytest.raises(KeyMismatch, match=r"expected an update of \(\d+, 24\)"):
        attach_adapter(narrow, trained)
    whole = read_adapter({"conv_in.weight": torch.ones_like(unet.conv_in.weight)})  # pyright: ignore
    for call in (
        lambda: attach_adapter(unet, whole),
        lambda: export_peft(whole, "nowhere", base="made"),
        lambda: export_diffusers(whole, "nowhere", component="unet", base="made"),
    ):
        with pytest.raises(ConfigError, match=r"trained in full \(conv_in\.weight"):
            call()
    assert_same(unet, base)


def test_an_export_that_knows_no_scale_writes_nothing(tmp_path: Path) -> None:
    adapter = read_adapter({"a.lora_A.weight": torch.ones(4, 3), "a.lora_B.weight": torch.ones(5, 4)})
    with pytest.raises(ConfigError, match="does not say alpha"):
        export_peft(adapter, tmp_path / "x", base="made")
    with pytest.raises(ConfigError, match="does not say alpha"):
        export_diffusers(adapter, tmp_path / "x", component="unet", base="made")
    assert not (tmp_path / "x").exists()
