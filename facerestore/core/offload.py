# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch leaves parts of its own types open
"""Which networks lie on the device when, and how much memory is free there."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

Offload = Literal["none", "stages", "model"]
"""`none`: everything stays on the device. `stages`: a stage is there while it runs. `model`: a network is."""
OFFLOADS: tuple[Offload, ...] = ("none", "stages", "model")

SPARE = 0.9
"""Share of the free memory that is planned with: allocators round up, and other programs run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a stage needs, in bytes.

    Attributes:
        stage: its name.
        networks: the weights of each of its networks, in the dtype in which they run.
        work: activations at their peak.
    """

    stage: str
    networks: tuple[int, ...]
    work: int

    @property
    def weights(self) -> int:
        """All its weights together."""
        return sum(self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was chosen, and the arithmetic behind it.

    Attributes:
        offload: the choice.
        peaks: bytes that each choice needs at its peak.
        free: bytes that are free.
    """

    offload: Offload
    peaks: dict[Offload, int]
    free: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {peak / 1e9:.1f}" for name, peak in self.peaks.items())
        enough = "" if self.peaks[self.offload] <= SPARE * self.free else ": too little even so"
        return f"{self.offload}{enough} (GB at the peak: {parts}; {SPARE:.0%} of {self.free / 1e9:.1f} free)"


def plan(needs: Sequence[Need], free: int, device: torch.device) -> Plan:
    """Choose the least offloading with which the stages fit into the free memory; the most, if none does.

    Args:
        needs: of the stages, in order.
        free: bytes.
        device: on a CPU, `model` would be no different from `stages` and is not considered.
    """
    work = max((need.work for need in needs), default=0)
    peaks: dict[Offload, int] = {
        "none": sum(need.weights for need in needs) + work,
        "stages": max((need.weights + need.work for need in needs), default=0),
    }
    if device.type != "cpu":
        peaks["model"] = max((max(need.networks, default=0) + need.work for need in needs), default=0)
    choice: Offload = "stages" if device.type == "cpu" else "model"
    for name in reversed(OFFLOADS):
        if peaks.get(name, free) <= SPARE * free:
            choice = name
    return Plan(offload=choice, peaks=peaks, free=free)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on a device."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return _free_of_host()


def _free_of_host() -> int:
    """What the kernel says that it can give, within the container's limit; elsewhere, what is unused."""
    known = Path("/proc/meminfo")
    if not known.is_file():
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(
            "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        )
    lines = dict(line.split(":", 1) for line in known.read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


@contextmanager
def on_device(nets: Sequence[nn.Module], device: torch.device) -> Generator[None]:
    """Let the tensors of networks lie on `device` inside; afterwards they are the very ones from before.

    Nothing is copied back: what a network is asked for never changes its weights.
    """
    with exchanged(nets, lambda tensor: tensor.to(device, non_blocking=True)):
        yield


@contextmanager
def exchanged(nets: Sequence[nn.Module], move: Callable[[torch.Tensor], torch.Tensor]) -> Generator[None]:
    """Let every tensor of networks be what `move` makes of it inside; afterwards it is itself again."""
    tensors = [tensor for net in nets for tensor in (*net.parameters(), *net.buffers())]
    home = [(tensor, tensor.data) for tensor in tensors]
    try:
        for tensor, data in home:
            tensor.data = move(data)
        yield
    finally:
        for tensor, data in home:
            tensor.data = data
