"""The choice of device, dtype and layout."""

import pytest
import torch
from torch import nn

from facerestore.core.errors import DeviceError, UnsupportedDtype
from facerestore.core.precision import choose_layout, cpu_has_fast_bf16, resolve_device

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
