"""Batches, read ahead by threads: the same whatever the number of threads, from any position on."""

from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from facerestore.core.errors import ConfigError
from facerestore.data.augment import Augment, augmented
from facerestore.data.order import Order, positions
from facerestore.data.pictures import Dataset, Sample, stacked

Batch = Mapping[str, Any]
"""What `stacked` makes of samples: `hq` (B,3,H,W), `key` and `seed` tuples of B, `boxes` part by part to
(B,4). And `position`: where to start for what comes after this batch, on every process the same integer."""


def batches(
    dataset: Dataset,
    order: Order,
    *,
    batch: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    ahead: int = 2,
    augment: Augment | None = None,
) -> Generator[Batch]:
    """Read batches without end.

    A sample follows from the seed of the order and its position alone; so `start` is all that a resume
    needs, and N processes with a batch b see in each step what one sees with N * b. Threads are ended when
    the generator is closed, stopped by an error, or collected. What costs time in reading and in training
    runs outside of Python's lock (of the decoders all but WebP's), so that threads do here what processes are
    used for elsewhere, without copies.

    Args:
        dataset: what is read.
        order: over as many entries.
        batch: samples a step and process.
        start: position of the first step, counted in samples over all processes; a multiple of nothing.
        rank: number of this process.
        world: number of processes.
        workers: threads that read; 0 reads when a batch is asked for.
        ahead: batches that are read before they are asked for.
        augment: how samples are changed; None leaves them.

    Raises:
        ConfigError: at once, if the numbers do not fit.
        ImageError: from the generator, in the place of the batch that holds a picture that cannot be read any
            more; the message names the file.
        DataError: likewise, if the samples of a batch do not fit together.
    """
    positions(start, batch, rank, world)
    if order.count != len(dataset):
        raise ConfigError(f"the order is over {order.count} entries, the data set has {len(dataset)}")
    if workers < 0 or ahead < 1:
        raise ConfigError(f"workers is {workers}, at least 0 expected; ahead is {ahead}, at least 1 expected")

    def read(index: int, seed: int) -> Sample:
        sample = dataset[index] if augment is None else augmented(dataset[index], augment, seed)
        return {**sample, "seed": seed}

    def step(begin: int) -> list[tuple[int, int]]:
        return [(order.index(p), order.sample_seed(p)) for p in positions(begin, batch, rank, world)]

    stride = batch * world
    if workers == 0:
        return _now(read, step, start, stride)
    return _ahead(read, step, start, stride, workers, ahead)


def _now(read: Any, step: Any, start: int, stride: int) -> Generator[Batch]:
    while True:
        samples = [read(index, seed) for index, seed in step(start)]
        start += stride
        yield stacked(samples) | {"position": start}


def _ahead(read: Any, step: Any, start: int, stride: int, workers: int, ahead: int) -> Generator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="facerestore-data")
    waiting: deque[list[Future[Sample]]] = deque()
    begin = start
    try:
        while True:
            while len(waiting) <= ahead:
                waiting.append([pool.submit(read, index, seed) for index, seed in step(begin)])
                begin += stride
            samples = [future.result() for future in waiting.popleft()]
            start += stride
            yield stacked(samples) | {"position": start}
    finally:
        pool.shutdown(cancel_futures=True)
