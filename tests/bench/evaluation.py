"""The evaluator: the distance of two sets as we take it and as SciPy does, and pictures in batches."""

import time
from collections.abc import Iterator

import torch
from measure import REPO, Row, interleaved

import facerestore
from facerestore.metrics import Statistics, build, frechet_distance
from facerestore.weights.store import WeightStore

COUNT, WIDTH = 450, 2048  # of the NTIRE sets, and of the Inception of FID


def evaluation() -> Iterator[Row]:
    """FID's root both ways, and what a batch saves."""
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(WIDTH, WIDTH, generator=random) / WIDTH**0.5
    ours = Statistics.of(torch.randn(COUNT, WIDTH, generator=random) @ mixing)
    many = Statistics.of(torch.randn(8 * COUNT, WIDTH, generator=random) @ mixing)
    theirs = Statistics(many.mean, many.covariance)  # as published statistics come
    exact = interleaved({"exact": lambda: frechet_distance(ours, theirs)})["exact"]
    start = time.perf_counter()
    general = frechet_distance(ours, theirs, "scipy")
    scipy = time.perf_counter() - start
    yield Row(
        name=f"FID of {COUNT} pictures, {WIDTH} numbers each",
        value=exact,
        unit="s",
        compared_with="SciPy's sqrtm",
        reference=scipy,
        target=1.0,
        of="value",
    )
    yield Row(
        name="the same, relative difference of the two",
        value=abs(frechet_distance(ours, theirs) / general - 1),
        unit="",
        target=1e-4,
        of="value",
        runs=1,
    )
    files = sorted((REPO / "examples" / "faces").iterdir())
    faces = torch.cat([facerestore.read_image(path).srgb() for path in files]).repeat(2, 1, 1, 1)[:8]
    yield from (_batched(name, faces) for name in ("niqe-basicsr", "identity-recognition", "ssim"))


def _batched(name: str, faces: torch.Tensor) -> Row:
    """A metric of eight faces at once and one by one."""
    metric = build(name, WeightStore())
    others = faces.flip(0)

    def batch() -> torch.Tensor:
        return metric(faces) if metric.card.compares == "nothing" else metric(faces, others)

    def single() -> torch.Tensor:
        pairs = zip(faces.split(1), others.split(1), strict=True)
        return torch.cat([metric(a) if metric.card.compares == "nothing" else metric(a, b) for a, b in pairs])

    difference = float((batch() - single()).abs().max())
    seconds = interleaved({"batch": batch, "single": single})
    return Row(
        name=f"{name}, 8 faces of 512 px at once (differs by {difference:.0e})",
        value=seconds["batch"],
        unit="s",
        compared_with="one by one",
        reference=seconds["single"],
    )
