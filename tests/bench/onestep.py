"""One-step restorers at full size with made weights: against the official way of running them, and in memory.

The official scripts run the same networks in float32, contiguous, one picture at a time, with diffusers' own
decoder. Figures below float32 have no target where the CPU only emulates it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from made import filled, meta, write
from measure import REPO, Row, fresh, interleaved

import facerestore
from facerestore.core.precision import Target, cpu_has_fast_bf16
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import FLUX_TRANSFORMER
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.diffusion.x0 import x0_from_eps
from facerestore.imaging.range import from_signed, to_signed
from facerestore.stages.omgsr_f import pack, positions
from facerestore.stages.osdface import OSDFace
from facerestore.stages.sdface import PROMPT
from facerestore.weights.store import WeightStore

FACE = REPO / "examples" / "faces" / "hopper_x8.png"
CPU = torch.device("cpu")
FAST = cpu_has_fast_bf16()
BEST = "bf16" if FAST else "fp32"
OSDFACE = (
    "sd21-base/unet",
    "sd21-base/vae",
    "osdface/visual-prompt",
    "osdface/projector",
    "osdface/lora",
    "taesd",
)
ZIMAGE = ("z-image-turbo/transformer", "z-image-turbo/vae", "z-image-turbo/prompt", "mipluscv/detail-lora")
SDFACE = ("sdxl-turbo/unet", "sdxl-turbo/vae", "sdface/lora", *PROMPT)


def osdface(kept: Path | None = None) -> Iterator[Row]:
    """Against its official way, and in memory; weights go to a temporary folder, or stay in `kept`."""
    with _weights(kept, 6, *OSDFACE) as written:
        if written:
            yield from speed()
            yield from batches()
            yield from merged()
            yield from memory_of_one()


def sdface(kept: Path | None = None) -> Iterator[Row]:
    """SDFace, whose UNet is SDXL's."""
    with _weights(kept, 14, *SDFACE) as written:
        if written:
            yield from sdxl()


def mipluscv(kept: Path | None = None) -> Iterator[Row]:
    """OSDFace and Z-Image, one after the other."""
    with _weights(kept, 20, *OSDFACE, *ZIMAGE) as written:
        if written:
            yield from two_stages()


@contextmanager
def _weights(kept: Path | None, needed_gb: int, *names: str) -> Iterator[bool]:
    """Made weights of full size, where the disk has room for them, for as long as they are needed."""
    folder = kept or Path(tempfile.mkdtemp(prefix="facerestore-bench-"))
    try:
        if shutil.disk_usage(folder).free < needed_gb * 1e9:
            print(f"{names[0]} and more are left out: they need {needed_gb} GB of disk for a while")
            yield False
            return
        os.environ["FACERESTORE_WEIGHTS"] = str(write(folder, *names))
        yield True
    finally:
        if kept is None:
            shutil.rmtree(folder)


def stage_of(dtype: str, **settings: Any) -> OSDFace:
    """OSDFace at full size, placed."""
    config = OSDFace.Config(**settings)
    target = Target(device=CPU, dtype=dtype)  # type: ignore[arg-type]
    return config.build(WeightStore(), target).place(CPU, dtype)  # type: ignore[arg-type]


def official() -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward pass of OSDFace's `infer.py` on diffusers' networks, with the posterior's mode."""
    stage: Any = OSDFace.Config().build(WeightStore())  # not placed: float32, contiguous, diffusers' decoder
    vae, alpha = stage.codec.vae, float(sd_alpha_bar()[399])

    def run(faces: torch.Tensor) -> torch.Tensor:
        done: list[torch.Tensor] = []
        for face in faces.split(1):
            signed = to_signed(face)
            prompt = stage.projector(stage.prompt(to_signed(signed)))
            z = vae.encode(signed).latent_dist.mode() * vae.config.scaling_factor
            noise = stage.unet(z, 399, encoder_hidden_states=prompt, return_dict=False)[0]
            image = vae.decode(x0_from_eps(z, noise, alpha) / vae.config.scaling_factor).sample
            done.append(from_signed(image).clamp(0, 1))
        return torch.cat(done)

    return run


def bare(stage: Any, faces: torch.Tensor) -> None:
    """The stage's networks in their layouts, and nothing else."""
    prompt = stage.embed(faces).to(stage.layout.dtype)
    codec = stage.codec
    moments = codec.vae.encode(to_signed(faces).to(codec.dtype)).latent_dist.parameters
    z = stage.layout.tensor(moments.chunk(2, 1)[0])
    steps = torch.full((len(faces),), 399)
    noise = stage.unet(z, steps, encoder_hidden_states=prompt, return_dict=False)[0]
    codec.vae.decode(noise.to(codec.dtype))


def run(stage: OSDFace, faces: torch.Tensor) -> torch.Tensor:
    return stage(RestorationState.start(faces)).image


def speed() -> Iterator[Row]:
    """OSDFace against its official way, with small autoencoders, merged and not, one face and four."""
    face = facerestore.read_image(FACE).srgb()
    scripted = official()
    stages = {"fp32": stage_of("fp32")}
    if FAST:
        stages["bf16"] = stage_of("bf16")
    small = {codec: stage_of(BEST, codec=codec) for codec in ("tiny_decoder", "tiny")}
    best = stages[BEST]
    calls: dict[str, Callable[[], Any]] = {"official": lambda: scripted(face)}
    calls |= {name: lambda stage=stage: run(stage, face) for name, stage in (stages | small).items()}
    calls |= {"bare": lambda: bare(best, face)}
    seconds = interleaved(calls)
    difference = float((run(stages["fp32"], face) - scripted(face)).abs().max())

    def against(name: str, what: str, factor: float, met: bool) -> Row:
        return Row(
            name=f"osdface, full size, 512 px, {what}",
            value=seconds[name],
            unit="s",
            compared_with="the official way",
            reference=seconds["official"],
            target=1 / factor if met else None,
        )

    yield against("fp32", "fp32", 1.03, True)
    yield Row(
        name="the same, largest difference of the pictures",
        value=difference,
        unit="",
        target=1e-3,
        of="value",
        runs=1,
    )
    if FAST:
        yield against("bf16", "bf16", 1.95, True)
    yield against("tiny_decoder", f"{BEST}, codec=tiny_decoder", 4, FAST)
    yield against("tiny", f"{BEST}, codec=tiny", 6.5, FAST)
    yield Row(
        name=f"osdface, the whole stage, {BEST}",
        value=seconds[BEST],
        unit="s",
        compared_with="its bare forwards",
        reference=seconds["bare"],
        target=1.05,
    )


def merged() -> Iterator[Row]:
    """The UNet with its adapter merged and without one, all weights of both in memory: mapped ones differ."""
    best, plain = stage_of(BEST), stage_of(BEST, lora=None)
    for value in (*best.unet.parameters(), *plain.unet.parameters()):
        value.data = value.data.clone()
    z, prompt = torch.randn(1, 4, 64, 64), torch.randn(1, 77, 1024).to(best.layout.dtype)
    steps = torch.full((1,), 399)

    def unet(stage: Any) -> Any:
        return stage.unet(stage.layout.tensor(z), steps, encoder_hidden_states=prompt, return_dict=False)

    both = interleaved({"merged": lambda: unet(best), "plain": lambda: unet(plain)}, 7)
    yield Row(
        name="UNet with a merged adapter",
        value=both["merged"],
        unit="s",
        compared_with="without one",
        reference=both["plain"],
        target=1.02,
        runs=7,
    )


def batches() -> Iterator[Row]:
    """One face and four."""
    best, face = stage_of(BEST), facerestore.read_image(FACE).srgb()
    four, runs = face.repeat(4, 1, 1, 1), 3
    timed = interleaved({"1": lambda: run(best, face), "4": lambda: run(best, four)}, runs)
    yield Row(
        name=f"osdface, time per face, 4 faces, {BEST}",
        value=timed["4"] / 4,
        unit="s",
        compared_with="1 face",
        reference=timed["1"],
        target=1.05,
        runs=runs,
    )


def memory_of_one() -> Iterator[Row]:
    """Loading and restoring in a process of its own: what the weights take, and what comes on top."""
    for dtype in ("fp32", "bf16"):
        runs = 1 if dtype == "fp32" or FAST else 0
        facts = fresh("stage", recipe="osdface", dtype=dtype, offload="none", settings={}, runs=runs)
        yield Row(
            name=f"osdface, {dtype}, peak memory while loading, over a process with the tiny one",
            value=facts["loaded_gb"] - facts["empty_gb"],
            unit="GB",
            compared_with="its weights as they are computed with",
            reference=facts["weights_gb"],
            target=1.1,
            runs=1,
        )
        if runs:
            yield Row(
                name=f"osdface, {dtype}, peak memory beside its weights, one face",
                value=facts["peak_gb"] - facts["empty_gb"] - facts["weights_gb"],
                unit="GB",
                runs=1,
            )


def two_stages() -> Iterator[Row]:
    """OSDFace, then Z-Image: never more in memory than the larger of the two."""
    detail = {"stage.stages.0.adapters": "mipluscv/detail-lora"}
    alone = fresh("stage", recipe="zimage", dtype="auto", offload="none", settings=detail, runs=1)
    both = fresh("stage", recipe="ntire2026/mipluscv", dtype="auto", offload="stages", settings={}, runs=1)
    yield Row(
        name="ntire2026/mipluscv, full size, offload=stages, peak memory",
        value=both["peak_gb"],
        unit="GB",
        compared_with="its larger stage alone",
        reference=alone["peak_gb"],
        target=1.10,
        runs=1,
    )
    yield Row(
        name="Z-Image, full size in bf16, peak memory while loading, over a process with the tiny one",
        value=alone["loaded_gb"] - alone["empty_gb"],
        unit="GB",
        compared_with="its weights in bf16",
        reference=12.48,  # GB: 6.155 and 0.084 billion parameters
        target=1.1,
        runs=1,
    )
    yield Row(name="Z-Image, full size, one face of 512 px", value=alone["seconds"], unit="s", runs=1)
    yield Row(name="mipluscv, one face, both stages read anew", value=both["seconds"], unit="s", runs=1)


def sdxl() -> Iterator[Row]:
    """SDFace, whose UNet is SDXL's."""
    facts = fresh("stage", recipe="sdface", dtype="auto", offload="none", settings={}, runs=1)
    yield Row(
        name=f"sdface, full size in {BEST}, one face of 512 px", value=facts["seconds"], unit="s", runs=1
    )
    yield Row(name="the same, peak memory", value=facts["peak_gb"], unit="GB", runs=1)


def flux() -> Iterator[Row]:
    """FLUX.1 with one block of each kind at full width, and by arithmetic what all 19 and 38 take."""
    dtype = torch.bfloat16 if FAST else torch.float32
    net = backbones.flux_transformer(FLUX_TRANSFORMER | {"num_layers": 1, "num_single_layers": 1})
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            tensor.copy_(filled(key, tensor.shape))
    net = net.eval().requires_grad_(False).to(dtype)
    side = 64  # tokens along each side of 1024 px
    z = torch.randn(1, 16, 2 * side, 2 * side).to(dtype)
    tokens, pooled = torch.randn(1, 512, 4096).to(dtype), torch.randn(1, 768).to(dtype)
    inputs = {
        "hidden_states": pack(z),
        "timestep": torch.tensor([0.505]),
        "guidance": torch.ones(1),
        "encoder_hidden_states": tokens,
        "pooled_projections": pooled,
        "txt_ids": torch.zeros(512, 3),
        "img_ids": positions(side, side),
    }
    rope = net.pos_embed(torch.cat([inputs["txt_ids"], inputs["img_ids"]]))
    hidden, context = torch.randn(1, side * side, 3072).to(dtype), torch.randn(1, 512, 3072).to(dtype)
    vector = torch.randn(1, 3072).to(dtype)
    seconds = interleaved(
        {
            "two": lambda: net(**inputs, return_dict=False),
            "double": lambda: net.transformer_blocks[0](hidden, context, vector, rope),
            "single": lambda: net.single_transformer_blocks[0](hidden, context, vector, rope),
        },
        3,
    )
    rest = seconds["two"] - seconds["double"] - seconds["single"]
    yield Row(
        name=f"FLUX.1 at 1024 px, all 57 blocks by arithmetic from one of each kind, {str(dtype)[6:]}",
        value=max(rest, 0) + 19 * seconds["double"] + 38 * seconds["single"],
        unit="s",
        runs=3,
    )
    count = sum(tensor.numel() for tensor in meta(backbones.flux_transformer, FLUX_TRANSFORMER).parameters())
    yield Row(name="FLUX.1, its weights in bf16, by arithmetic", value=2 * count / 1e9, unit="GB", runs=1)
