"""Jobs that are measured in a process of their own: `python fresh.py JOB JSON` prints one line of JSON."""

import time

START = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

FACE = Path(__file__).parents[2] / "examples" / "faces" / "hopper_x8.png"
ENTRY_128 = {"stage.stages.0.entry_px": 128}


def peak_gb() -> float:
    """Most memory that this process has held, GB (10^9 bytes).

    Not ru_maxrss on Linux: a new process starts there with what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def first_face(photo: str) -> dict[str, Any]:
    """From nothing to the first restored face."""
    import facerestore

    pipeline = facerestore.load("lite", device="cpu", settings=ENTRY_128)
    result = pipeline.restore(photo, faces="largest")
    return {"faces": restored(result), "inside": time.perf_counter() - START}


def many(photo: str, count: int) -> dict[str, Any]:
    """The same photo again and again, in one stream."""
    import facerestore

    pipeline = facerestore.load("lite", device="cpu", settings=ENTRY_128)
    faces = sum(restored(result) for result in pipeline.restore_many([photo] * count))
    return {"faces": faces, "peak_gb": peak_gb()}


def one(photo: str, background: str) -> dict[str, Any]:
    """One photo; for the background, faces are left out, so that its own cost shows."""
    import facerestore

    pipeline = facerestore.load("lite", device="cpu")
    before = peak_gb()
    start = time.perf_counter()
    result = pipeline.restore(photo, background=background, faces=0 if background == "restore" else "all")
    seconds = time.perf_counter() - start
    return {"faces": restored(result), "seconds": seconds, "peak_gb": peak_gb(), "loaded_gb": before}


def stage(recipe: str, settings: dict[str, str], dtype: str, offload: str, runs: int) -> dict[str, Any]:
    """An aligned face through a recipe; memory when it was loaded and at its peak, of this process."""
    import torch

    import facerestore
    from facerestore import recipes

    # What a restorer imports is not what it loads: the tiny one brings the same packages.
    recipes.get(recipe).tiny().stage.build(facerestore.WeightStore()).place(torch.device("cpu"), dtype)
    empty = peak_gb()
    start = time.perf_counter()
    pipeline = facerestore.load(recipe, device="cpu", dtype=dtype, offload=offload, settings=settings)
    loading, loaded = time.perf_counter() - start, peak_gb()
    face = facerestore.read_image(FACE).srgb()
    seconds: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        out = pipeline.restore_aligned(face)
        seconds.append(time.perf_counter() - start)
        if not bool(torch.isfinite(out).all()) or float(out.std()) < 0.01:
            raise SystemExit(f"{recipe} returned no picture")
    weights = sum(each.numel() * each.element_size() for each in pipeline.stage.parameters())
    return {
        "weights_gb": weights / 1e9,
        "empty_gb": empty,
        "loaded_gb": loaded,
        "peak_gb": peak_gb(),
        "loading": loading,
        "seconds": sorted(seconds)[len(seconds) // 2] if seconds else None,
    }


def training_memory(checkpointing: bool) -> dict[str, Any]:
    """Stable Diffusion 2.1's UNet with one block of two a level, in float32: a pass there and back."""
    import torch
    from kept import ATTENTION, kept_bytes, unet_inputs

    from facerestore.diffusion import backbones
    from facerestore.diffusion.attached import attach
    from facerestore.diffusion.configs import SD21_UNET

    net: Any = backbones.sd_unet(SD21_UNET | {"layers_per_block": 1}).requires_grad_(False)
    attach(net, rank=16, alpha=16, targets=ATTENTION)
    if checkpointing:
        net.enable_gradient_checkpointing()
    inputs = unet_inputs(1024)(torch.float32, "cpu")
    kept = kept_bytes(net, inputs)
    for value in net.parameters():  # what was made lazily is there now
        value.data.add_(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_gb()
    net(**inputs, return_dict=False)[0].sum().backward()
    return {"peak_gb": peak_gb() - before, "kept_gb": kept / 1e9}


def restored(result: Any) -> int:
    """How many faces of a picture were restored."""
    return sum(face.status == "restored" for face in result.faces)


if __name__ == "__main__":
    job = {
        "first_face": first_face,
        "many": many,
        "one": one,
        "stage": stage,
        "training_memory": training_memory,
    }[sys.argv[1]]
    print(json.dumps(job(**json.loads(sys.argv[2]))))
