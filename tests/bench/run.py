"""`make bench`: every speed and memory figure of the project, with what it is compared with, in one run.

Ratios are taken side by side in one process, interleaved: a slow or busy machine changes both sides alike.
Writes out/bench.json and out/bench.md, and ends with status 1 if a target is missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from data import data
from degradations import degradations
from evaluation import evaluation
from measure import PHOTO, REPO, WALL, Row, fresh, interleaved, wall_seconds, write
from onestep import flux, mipluscv, osdface, sdface
from PIL import Image
from training import training
from zimage import zimage

import facerestore
from facerestore.core.precision import Layout, cpu_has_fast_bf16
from facerestore.features.identity import FaceDescriptor
from facerestore.imaging.resize import resize
from facerestore.nets.rrdbnet import RRDBNet
from facerestore.weights.load import load_into
from facerestore.weights.store import WeightStore

LAYOUTS = {
    "fp32 NCHW": Layout(dtype=torch.float32, channels_last=False, batch=1),
    "fp32 NHWC": Layout(dtype=torch.float32, channels_last=True, batch=1),
    "bf16 NCHW": Layout(dtype=torch.bfloat16, channels_last=False, batch=1),
    "bf16 NHWC": Layout(dtype=torch.bfloat16, channels_last=True, batch=1),
}
NEEDS_BF16 = "" if cpu_has_fast_bf16() else " (this CPU has no bf16 in hardware: no target)"


def real_faces(count: int) -> torch.Tensor:
    """Aligned example faces, repeated up to (count,3,512,512)."""
    files = sorted((REPO / "examples" / "faces").iterdir())
    images = [facerestore.read_image(path).srgb() for path in files]
    return torch.cat(images).repeat(-(-count // len(images)), 1, 1, 1)[:count]


def layouts() -> Iterator[Row]:
    """Each network in each dtype and memory layout, and how close bf16 stays to fp32 on a real face."""
    store = WeightStore()
    face = real_faces(1)

    def built(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
        if name == "dlib_resnet":
            return FaceDescriptor.load(store).net, torch.rand(
                1, 3, 150, 150, generator=torch.Generator().manual_seed(0)
            )
        net = RRDBNet(RRDBNet.Config())
        load_into(net, store.load("realesrgan-x4plus"), name)
        return net, resize(face, 128, 128)

    for name in ("rrdbnet", "dlib_resnet"):
        nets = {}
        for key, layout in LAYOUTS.items():
            net, images = built(name)
            nets[key] = (layout.place(net, torch.device("cpu")), layout.tensor(images))
        seconds = interleaved({key: lambda net=net, x=x: net(x) for key, (net, x) in nets.items()})
        base = "fp32 NCHW"
        for key in LAYOUTS:
            wanted = name == "rrdbnet" and key == "bf16 NHWC" and not NEEDS_BF16
            yield Row(
                name=f"{name} {key}, forward{NEEDS_BF16 if key.startswith('bf16') else ''}",
                value=seconds[key],
                unit="s",
                compared_with="" if key == base else base,
                reference=None if key == base else seconds[base],
                target=1 / 1.8 if wanted else None,
            )
        if name == "rrdbnet":
            outputs = {key: net(x).float().clamp(0, 1) for key, (net, x) in nets.items()}
            error = (outputs["bf16 NHWC"] - outputs[base]).square().mean()
            yield Row(
                name="rrdbnet bf16 NHWC output against fp32",
                value=float(-10 * error.log10()),
                unit="dB PSNR",
                target=45,
                sense=">=",
                of="value",
                runs=1,
            )


def aligned() -> Iterator[Row]:
    """The pipeline on aligned faces against nothing but its network, and per-face time from 1 to 64 faces."""
    pipeline = facerestore.load("lite", device="cpu", settings={"stage.stages.0.entry_px": 128})
    stage = pipeline.stage.stages[0]
    faces = real_faces(64)
    small = resize(faces[:8], 128, 128)

    def bare(count: int) -> None:
        for part in small[:count].split(stage.layout.batch):
            stage.net(stage.layout.tensor(part)).float()

    seconds = interleaved(
        {
            "bare 1": lambda: bare(1),
            "pipeline 1": lambda: pipeline.restore_aligned(faces[:1]),
            "bare 8": lambda: bare(8),
            "pipeline 8": lambda: pipeline.restore_aligned(faces[:8]),
        }
    )
    for count in (1, 8):
        yield Row(
            name=f"restore_aligned, {count} face{'s' * (count > 1)} entering at 128 px",
            value=seconds[f"pipeline {count}"],
            unit="s",
            compared_with="bare forward in its best layout",
            reference=seconds[f"bare {count}"],
            target=1.10,
        )
    runs = 3
    drift = interleaved({str(n): lambda n=n: pipeline.restore_aligned(faces[:n]) for n in (8, 64)}, runs)
    yield Row(
        name="time per face, 64 faces",
        value=drift["64"] / 64,
        unit="s",
        compared_with="8 faces",
        reference=drift["8"] / 8,
        target=1.10,
        runs=runs,
    )
    yield Row(
        name="time per face, 8 faces",
        value=seconds["pipeline 8"] / 8,
        unit="s",
        compared_with="1 face",
        reference=seconds["pipeline 1"],
        target=1.10,
    )


def memory(folder: Path) -> Iterator[Row]:
    """Peak memory of fresh processes."""
    with Image.open(PHOTO) as portrait:  # large enough that a picture that is kept would show
        portrait.resize((1600, 1600)).save(folder / "portrait.jpg")
    few, more = (fresh("many", photo=str(folder / "portrait.jpg"), count=count) for count in (4, 32))
    yield Row(
        name="peak memory, 32 pictures of 2.6 megapixels in one stream",
        value=more["peak_gb"],
        unit="GB",
        compared_with="4 pictures",
        reference=few["peak_gb"],
        target=1.10,  # pictures that are kept would add a fifth; two threads at their peaks, a twentieth
        runs=1,
    )
    large = enlarged_wall(folder / "12mp.jpg", (4000, 3000))
    photo = fresh("one", photo=large, background="keep")
    yield Row(
        name=f"12-megapixel photo, {photo['faces']} faces, background kept, peak memory",
        value=photo["peak_gb"],
        unit="GB",
        target=3.0,
        of="value",
        runs=1,
    )
    yield Row(name="the same, reading to result", value=photo["seconds"], unit="s", runs=1)

    sizes = {0.19: (504, 378), 0.77: (1012, 759)}
    done = {mp: fresh("one", photo=enlarged_wall(folder / f"{mp}.jpg", size), background="restore")
            for mp, size in sizes.items()}  # fmt: skip
    slope = (done[0.77]["peak_gb"] - done[0.19]["peak_gb"]) / (0.77 - 0.19)
    yield Row(
        name="background restored, 0.77 megapixels, peak memory",
        value=done[0.77]["peak_gb"],
        unit="GB",
        compared_with="0.19 megapixels",
        reference=done[0.19]["peak_gb"],
        runs=1,
    )
    yield Row(name="background restored, 0.77 megapixels", value=done[0.77]["seconds"], unit="s", runs=1)
    yield Row(
        name="background restored, 12 megapixels, peak memory by that slope",
        value=done[0.77]["peak_gb"] + max(slope, 0) * (12 - 0.77),
        unit="GB",
        runs=1,
    )
    yield Row(
        name="background restored, 12 megapixels, time by area",
        value=done[0.77]["seconds"] * 12 / 0.77 / 60,
        unit="min",
        runs=1,
    )


def enlarged_wall(path: Path, size: tuple[int, int]) -> str:
    """The example with five faces at another size."""
    with Image.open(WALL) as wall:
        wall.resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return str(path)


def starting() -> Iterator[Row]:
    """How long users wait before anything happens."""
    first = sorted(fresh("first_face", photo=str(PHOTO))["wall"] for _ in range(5))[2]
    yield Row(
        name="cold start to first restored face, 128 px entry", value=first, unit="s", target=12, of="value"
    )
    nothing = wall_seconds([sys.executable, "-c", "pass"])
    imported = wall_seconds([sys.executable, "-c", "import facerestore"])
    yield Row(name="import facerestore", value=imported - nothing, unit="s", target=0.3, of="value")
    helped = wall_seconds([str(Path(sys.executable).with_name("facerestore")), "--help"])
    yield Row(name="facerestore --help", value=helped, unit="s", target=0.6, of="value")


PARTS: dict[str, Callable[[Path, Path | None], Iterator[Row]]] = {
    "starting": lambda folder, weights: starting(),
    "memory": lambda folder, weights: memory(folder),
    "data": lambda folder, weights: data(folder),
    "layouts": lambda folder, weights: layouts(),
    "aligned": lambda folder, weights: aligned(),
    "degradations": lambda folder, weights: degradations(),
    "training": lambda folder, weights: training(folder),
    "evaluation": lambda folder, weights: evaluation(),
    "zimage": lambda folder, weights: zimage(),
    "flux": lambda folder, weights: flux(),
    "osdface": lambda folder, weights: osdface(weights),
    "sdface": lambda folder, weights: sdface(weights),
    "mipluscv": lambda folder, weights: mipluscv(weights),
}


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=REPO / "out")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="Some parts alone.")
    parser.add_argument("--weights", type=Path, help="Keep the full-size made weights in this folder.")
    arguments = parser.parse_args()
    out: Path = arguments.out
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.only:
            for row in PARTS[part](Path(folder), arguments.weights):
                verdict = {True: "", False: "  MISSED", None: ""}[row.met]
                print(f"{row.name}: {row.value:.3g} {row.unit}{verdict}", flush=True)
                rows.append(row)
    print("\n" + write(rows, out))
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
