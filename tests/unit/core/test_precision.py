"""The choice of device, dtype and layout."""

import pytest
import torch
from torch import nn

from facerestore.core.errors import DeviceError, UnsupportedDtype
from facerestore.core.precision import Layout, choose_layout, cpu_has_fast_bf16, in_float32, resolve_device

CPU = torch.device("cpu")


def test_auto_takes_bf16_only_where_the_cpu_computes_it() -> None:
    expected = torch.bfloat16 if cpu_has_fast_bf16() else torch.float32
    assert choose_layout("rrdbnet", CPU).dtype == expected
    assert choose_layout("rrdbnet", CPU, "fp32").dtype == torch.float32


def test_networks_whose_output_is_compared_stay_in_fp32() -> None:
    assert choose_layout("dlib_resnet", CPU, "bf16").dtype == torch.float32
    assert choose_layout("mtcnn", CPU, "bf16").dtype == torch.float32


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnsupportedDtype, match="fp16"):
        choose_layout("rrdbnet", CPU, "fp16")
    with pytest.raises(UnsupportedDtype, match="fp8"):
        choose_layout("rrdbnet", CPU, "fp8")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="no device"):
        resolve_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="--device cpu"):
            resolve_device("cuda:0")


def test_place_freezes_and_moves() -> None:
    layout = choose_layout("rrdbnet", CPU)
    net = layout.place(nn.Conv2d(3, 8, 3), CPU)
    weight = net.weight
    assert isinstance(weight, torch.Tensor)
    assert weight.dtype == layout.dtype and not weight.requires_grad and not net.training
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert layout.tensor(torch.rand(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)


class _Overflows(nn.Module):
    """Two layers whose product does not fit into fp16, and a weight of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        self.shift = nn.Parameter(torch.tensor([0.5]))
        for layer in (self.first, self.second):
            nn.init.constant_(layer.weight, 300.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) / 360_000 + self.shift


def test_in_float32_every_layer_computes_wide_and_weights_stay_narrow() -> None:
    net, x = _Overflows().requires_grad_(False), torch.ones(1, 2)
    exact = net(x)
    root = nn.Sequential(net.half())
    assert not torch.isfinite(root(x.half())).all()
    home = {key: tensor.data_ptr() for key, tensor in root.state_dict().items()}
    seen: list[torch.dtype] = []
    hook = net.second.register_forward_hook(lambda layer, *_: seen.append(net.first.weight.dtype))
    with in_float32(root):
        out = root(x.half())
    hook.remove()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, exact)
    assert seen == [torch.float16], "only the layer that runs is wide"
    assert {key: tensor.data_ptr() for key, tensor in root.state_dict().items()} == home
    assert all(tensor.dtype == torch.float16 for tensor in root.state_dict().values())
    assert not torch.isfinite(root(x.half())).all(), "no hook stays behind"


def test_in_float32_restores_after_an_error() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(3, 3)).bfloat16()
    with pytest.raises(RuntimeError), in_float32(net):
        net(torch.ones(1, 2))
    assert all(tensor.dtype == torch.bfloat16 for tensor in net.state_dict().values())
    assert not net[1]._forward_pre_hooks


def test_policies_of_half_precision() -> None:
    cuda = torch.device("cuda")
    assert choose_layout("sd_vae", cuda, "fp16").dtype == torch.float32
    assert choose_layout("sd21_unet", cuda, "fp16").dtype == torch.float16
    with pytest.raises(UnsupportedDtype, match="Z-Image was trained in bf16"):
        choose_layout("zimage", cuda, "fp16")


def test_what_is_published_in_bf16_and_large_is_widened_layer_by_layer_where_the_cpu_cannot() -> None:
    layout = Layout(dtype=torch.float32, channels_last=False, batch=1, storage=torch.bfloat16)
    narrow = layout.place(_Overflows(), CPU)
    rounded = _Overflows().bfloat16().float().requires_grad_(False)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(narrow(x), rounded(x)) and narrow(x).dtype == torch.float32
    assert all(tensor.dtype == torch.bfloat16 for tensor in narrow.state_dict().values())
    expected = None if cpu_has_fast_bf16() else torch.bfloat16
    for net in ("zimage", "flux"):
        assert choose_layout(net, CPU).storage == expected
        assert choose_layout(net, CPU, "fp32").weights == torch.float32
    assert choose_layout("sd21_unet", CPU).storage is None
