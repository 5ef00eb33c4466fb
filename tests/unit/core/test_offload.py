"""What lies on the device when: the choice, its arithmetic, and networks that come and go."""

import pytest
import torch
from torch import nn

from facerestore.core.offload import Need, exchanged, free_bytes, on_device, plan

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GB = 10**9
NEEDS = (
    Need(stage="coarse", networks=(1 * GB, 3 * GB), work=1 * GB),
    Need(stage="detail", networks=(12 * GB, 1 * GB), work=2 * GB),
)


@pytest.mark.parametrize(
    ("free", "device", "offload"),
    [
        (22, CUDA, "none"),  # 1 + 3 + 12 + 1 + 2 = 19
        (18, CUDA, "stages"),  # 12 + 1 + 2 = 15
        (16, CUDA, "model"),  # 12 + 2 = 14
        (4, CUDA, "model"),
        (22, CPU, "none"),
        (18, CPU, "stages"),
        (4, CPU, "stages"),
    ],
)
def test_the_least_offloading_that_fits_is_chosen(free: int, device: torch.device, offload: str) -> None:
    chosen = plan(NEEDS, free * GB, device)
    assert chosen.offload == offload
    assert chosen.peaks["none"] == 19 * GB and chosen.peaks["stages"] == 15 * GB
    assert chosen.peaks.get("model") == (14 * GB if device == CUDA else None)
    assert str(chosen).startswith(offload) and f"{free}.0 free" in str(chosen)
    assert ("too little" in str(chosen)) == (free == 4)


def test_without_networks_nothing_is_offloaded() -> None:
    assert plan((), 1, CUDA).offload == "none"


def test_free_memory_is_that_of_this_machine() -> None:
    assert 10 * 2**20 < free_bytes(CPU) < 2**50


def _places(net: nn.Module) -> dict[str, int]:
    return {key: tensor.data_ptr() for key, tensor in net.state_dict().items()}


def test_networks_come_back_as_they_were_and_nothing_is_copied_back() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), torch.ones(2, 3)
    home, expected = _places(net), net(x)
    with exchanged([net], torch.clone):
        assert not set(_places(net).values()) & set(home.values())
        assert torch.equal(net(x), expected)
    assert _places(net) == home
    with pytest.raises(RuntimeError, match="broken"), exchanged([net], torch.clone):
        raise RuntimeError("broken")
    assert _places(net) == home
    with on_device([net], CPU):
        assert torch.equal(net(x), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_networks_lie_on_the_gpu_only_while_they_run() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), torch.ones(2, 3)
    home, expected = _places(net), net(x)
    with on_device([net], CUDA):
        torch.testing.assert_close(net(x.cuda()).cpu(), expected)
    assert _places(net) == home and net[0].weight.device == CPU
