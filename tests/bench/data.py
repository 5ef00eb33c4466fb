"""How many pictures a second the data path delivers, from a folder to batches of tensors."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from measure import Row
from PIL import Image

from facerestore.data import Augment, Checks, Order, Pictures, batches, index_folder
from facerestore.imaging.read import read_image

REPO = Path(__file__).parents[2]
COUNT, BATCH, STEPS, RUNS = 48, 8, 12, 5
SAVING = {"webp": {"quality": 93}, "png": {}, "jpg": {"quality": 95}}


def data(folder: Path) -> Iterator[Row]:
    """Faces of 512 px in three formats, read by one and by two threads, mirrored at random."""
    for ending, options in SAVING.items():
        top = folder / ending
        top.mkdir()
        faces(top, ending, options)
        begin = time.perf_counter()
        index = index_folder(top, Checks(colour=False))
        scanned = COUNT / (time.perf_counter() - begin)
        pictures = Pictures(index, 512)
        rates = {workers: [] for workers in (0, 1, 2)}
        for _ in range(RUNS):  # in turn, so that drift hits all alike
            for workers, values in rates.items():
                values.append(rate(pictures, workers))
        median = {workers: sorted(values)[RUNS // 2] for workers, values in rates.items()}
        for workers in (1, 2):
            yield Row(
                name=f"512 px faces as {ending}, {workers} thread{'s' * (workers > 1)}",
                value=median[workers],
                unit="pictures/s",
                compared_with="read when they are asked for",
                reference=median[0],
                sense=">=",
                runs=RUNS,
            )
        yield Row(
            name=f"looking at such a folder the first time, {ending}",
            value=scanned,
            unit="pictures/s",
            runs=1,
        )


def faces(top: Path, ending: str, options: dict[str, int]) -> None:
    """The example faces with a little grain, each its own, so that no two files are alike."""
    sources = [read_image(path).srgb() for path in sorted((REPO / "examples" / "faces").iterdir())]
    for number in range(COUNT):
        noise = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(number)) * (2 / 255)
        pixels = ((sources[number % len(sources)] + noise).clamp(0, 1)[0] * 255).byte().permute(1, 2, 0)
        Image.fromarray(pixels.contiguous().numpy()).save(top / f"{number:03d}.{ending}", **options)


def rate(pictures: Pictures, workers: int) -> float:
    """Pictures a second, once the first batch is there."""
    stream = batches(
        pictures, Order(len(pictures), 0), batch=BATCH, workers=workers, augment=Augment(flip=0.5)
    )
    next(stream)
    begin = time.perf_counter()
    for _ in islice(stream, STEPS):
        pass
    seconds = time.perf_counter() - begin
    stream.close()
    return BATCH * STEPS / seconds
