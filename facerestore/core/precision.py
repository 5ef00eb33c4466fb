# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch leaves parts of its own types open
"""Which dtype, memory layout and batch each network runs in: a measured table, chosen per network.

Nothing here changes a global switch of torch.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from facerestore.core.errors import DeviceError, UnsupportedDtype

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one network runs on one device.

    Attributes:
        dtype: in which it computes.
        channels_last: whether weights and activations lie in NHWC order.
        batch: images per forward call that is fastest per image.
        storage: of weights that are widened to `dtype` only while their layer runs; None for those that are
            kept in `dtype`.
    """

    dtype: torch.dtype
    channels_last: bool
    batch: int
    storage: torch.dtype | None = None

    @property
    def weights(self) -> torch.dtype:
        """In which the weights lie in memory."""
        return self.storage or self.dtype

    def place(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Move a network to the device in this layout, frozen and in eval mode."""
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        # Not the `to` of diffusers, which warns of modules to keep in float32 where there are none.
        net = nn.Module.to(net.eval().requires_grad_(False), device=device, dtype=self.weights)
        if self.storage is not None:
            _widening_hooks(net.modules(), _Widening())
        return net.to(memory_format=memory)  # pyright: ignore[reportCallIssue] - torch documents it, its types lack it

    def tensor(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images (B,C,H,W) to this layout, on the device where they are."""
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.to(dtype=self.dtype).contiguous(memory_format=memory)


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn `auto | cpu | cuda[:N] | mps` into a device that is there.

    Raises:
        DeviceError: if it is not.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"{device!r} is no device; use auto, cpu, cuda, cuda:N or mps") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{device} asked for, but {torch.cuda.device_count()} CUDA devices are there; use --device cpu"
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps asked for, but it is not available here; use --device cpu")
    return found


# Measured with `make bench` on two cores with AVX512-BF16 and AMX at 128 px, seconds per face: rrdbnet fp32
# NCHW 2.73, fp32 NHWC 2.19, bf16 NCHW 0.93, bf16 NHWC 0.49. In a run apart, batch 4 took 1.3 x as long per
# face as batch 1. The rows for CUDA are what is usual there; none was measured.
# face_unet at 256 px on one core without AVX512, beside other work: fp32 NCHW 0.125, fp32 NHWC 0.113.
_CHANNELS_LAST: dict[tuple[str, str], bool] = {
    (net, device): True for net in ("rrdbnet", "face_unet") for device in ("cpu", "cuda")
}
# At 512 px on one such core beside other work, seconds as fp32 NCHW, fp32 NHWC, bf16 NCHW, bf16 NHWC:
# sd_vae encode 17.4, 13.1, 8.0, 6.0 and decode 35.9, 21.2, 25.1, 5.0; visual_prompt 3.7, 2.2, 1.8, 0.7;
# sd21_unet 9.7, 12.8, 3.1, 5.0, so it stays NCHW: its transformers read rows of positions.
# In float32 these stay NCHW too: torch normalises groups in NHWC less exactly (features of visual_prompt
# then lie up to 2.6e-3 from the original's, otherwise 6e-6).
_CHANNELS_LAST_BELOW_FP32 = frozenset(
    {("sd_vae", "cpu"), ("visual_prompt", "cpu")}
    | {(net, "cuda") for net in ("sd_vae", "visual_prompt", "sd21_unet", "sdxl_unet")}  # usual, not measured
)
_BATCH: dict[tuple[str, str], int] = {
    ("rrdbnet", "cpu"): 1,
    ("rrdbnet", "cuda"): 8,
    ("face_unet", "cuda"): 8,  # usual, not measured
}
_FP32_ONLY = frozenset({"mtcnn", "dlib_resnet"})  # thresholds and distances are compared with published ones
# SDXL's autoencoder overflows in fp16, Stable Diffusion's shows artefacts there (BVI runs it in float32).
_FP32_FOR_FP16 = frozenset({"sd_vae"})
# What passes between Z-Image's layers is not known to stay below 65504. FLUX's blocks leave that range, where
# diffusers cuts it off and says nothing (its pull request 9097).
_TRAINED_IN_BF16 = {"zimage": "Z-Image", "flux": "FLUX.1"}
# Published in bf16 too, and too large to be kept wider: 25 and 48 GB in float32. A CPU that does not compute
# bf16 in hardware, where emulating it takes seven times as long, widens one layer at a time.
_STORED_IN_BF16 = frozenset(_TRAINED_IN_BF16)


def choose_layout(net: str, device: torch.device, dtype: DtypeName = "auto") -> Layout:
    """The measured best layout of a network on a device.

    Args:
        net: name of the network, as in the table above.
        device: where it runs.
        dtype: `auto` picks bf16 where the device computes it in hardware, else fp32.

    Raises:
        UnsupportedDtype: if the dtype is unknown, or fp16 is asked for on a CPU or of a network that was
            trained in bf16.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UnsupportedDtype(f"{dtype!r} is no dtype; use auto, fp32, bf16 or fp16")
    if dtype == "fp16" and net in _TRAINED_IN_BF16:
        raise UnsupportedDtype(
            f"{_TRAINED_IN_BF16[net]} was trained in bf16, and what passes between its layers may leave the "
            "range of fp16 (65504); use bf16 or fp32"
        )
    if dtype == "fp16" and device.type == "cpu":
        raise UnsupportedDtype("fp16 is not computed on CPUs; use bf16 or fp32")
    if net in _FP32_ONLY or (dtype == "fp16" and net in _FP32_FOR_FP16):
        chosen = torch.float32
    elif dtype != "auto":
        chosen = DTYPES[dtype]
    elif device.type == "cpu":
        chosen = torch.bfloat16 if cpu_has_fast_bf16() else torch.float32
    elif device.type == "cuda":
        chosen = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    else:
        chosen = torch.float32
    key = (net, device.type)
    channels_last = _CHANNELS_LAST.get(key, False)
    if chosen != torch.float32:
        channels_last |= key in _CHANNELS_LAST_BELOW_FP32
    narrow = dtype == "auto" and chosen == torch.float32 and net in _STORED_IN_BF16
    return Layout(
        dtype=chosen,
        channels_last=channels_last,
        batch=_BATCH.get(key, 1),
        storage=torch.bfloat16 if narrow else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What networks are built for: weights are loaded in the dtype in which they will run.

    Attributes:
        device: where they will run; they are loaded on the CPU.
        dtype: `auto` takes the measured best of each network there.
    """

    device: torch.device = torch.device("cpu")
    dtype: DtypeName = "fp32"

    def layout(self, net: str, batch: int | None = None) -> Layout:
        """The layout of a network of the table, for this many images per call; None takes the measured best.

        Raises:
            UnsupportedDtype: if the device does not compute in the dtype.
        """
        layout = choose_layout(net, self.device, self.dtype)
        return layout if batch is None else replace(layout, batch=batch)


FP32 = Target()
"""In float32 on the CPU."""


@contextmanager
def in_float32(root: nn.Module) -> Generator[None]:
    """Let every network below `root` compute in float32 inside; afterwards all is as it was.

    Weights are widened where they lie, one layer at a time while it runs, so that it costs memory for the
    largest layer and for wider activations, and never for a second copy of the network.
    """
    layouts = [(module, layout) for module in root.modules() if (layout := _layout(module)) is not None]
    hooks: list[Any] = []
    try:
        for module, layout in layouts:
            module.layout = replace(layout, dtype=torch.float32)  # pyright: ignore[reportArgumentType] - no tensor
        hooks = _widening_hooks((module for module in root.modules() if module is not root), _Widening())
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, layout in layouts:
            module.layout = layout  # pyright: ignore[reportArgumentType]


class _Widening:
    """What is done before and after each layer: its own tensors, and what it is given, become float32.

    Gradients pass through what it is given, and not to its own tensors.
    """

    def __init__(self) -> None:
        self.kept: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        self.kept[module] = [(tensor, tensor.data) for tensor in own if _is_narrow(tensor)]
        for tensor, data in self.kept[module]:
            tensor.data = data.float()
        return tuple(map(_widened, args)), {key: _widened(value) for key, value in kwargs.items()}

    def after(self, module: nn.Module, *_: Any) -> None:
        for tensor, data in self.kept.pop(module, ()):
            tensor.data = data


def _widening_hooks(modules: Iterable[nn.Module], widening: _Widening) -> list[Any]:
    hooks: list[Any] = []
    for module in modules:
        hooks.append(module.register_forward_pre_hook(widening.before, with_kwargs=True))
        hooks.append(module.register_forward_hook(widening.after, always_call=True))
    return hooks


def _layout(module: nn.Module) -> Layout | None:
    layout = getattr(module, "layout", None)
    return layout if isinstance(layout, Layout) else None


def _is_narrow(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def _widened(value: Any) -> Any:
    return value.float() if _is_narrow(value) else value
