"""What faces are like on average, in the numbers by which a network describes them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from facerestore.core.errors import DataError, WeightsError
from facerestore.data.pictures import Listed, stacked
from facerestore.weights.load import read_tensors
from facerestore.weights.write import write_tensors


@torch.no_grad()
def measure_statistics(
    dataset: Listed,
    describe: Callable[[Tensor], Tensor],
    *,
    batch: int = 8,
    done: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of each number of the descriptions of all faces, added up in float64.

    Args:
        dataset: samples of one size.
        describe: faces (B,3,S,S) float32 in [0,1] to descriptions (B,D).
        batch: faces a call.
        done: told after each call how many faces it described.

    Returns:
        (D,) and (D,) float32, on the CPU; the variance is the unbiased one.

    Raises:
        DataError: if there are fewer than two faces, which have no variance.
        ImageError: if a picture cannot be read.
    """
    count = len(dataset)
    if count < 2:
        raise DataError(f"{count} faces have no statistics; two are needed, and some thousand mean something")
    total, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for begin in range(0, count, batch):
        part = range(begin, min(begin + batch, count))
        described = describe(stacked([dataset[index] for index in part])["hq"]).double().cpu()
        total, squares = total + described.sum(0), squares + described.square().sum(0)
        if done is not None:
            done(len(part))
    mean = total / count
    variance = (squares - count * mean.square()).clamp_min(0) / (count - 1)
    return mean.float(), variance.float()


def write_statistics(path: str | Path, mean: Tensor, variance: Tensor, **said: str) -> Path:
    """Write them as safetensors, with what is to be said of them: of which faces, by which network.

    Raises:
        OutputError: if the file cannot be written.
    """
    target = Path(path)
    write_tensors(target, {"mean": mean, "variance": variance}, said)
    return target


def read_statistics(path: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,), (D,) from a file of `write_statistics`.

    Raises:
        DataError: if there is no such file, or it holds something else.
    """
    try:
        tensors = read_tensors(path)
        return tensors["mean"], tensors["variance"]
    except (WeightsError, KeyError) as error:
        raise DataError(
            f"{path}: no statistics of faces ({error}); "
            f"`facerestore data statistics FACES -o {path}` makes them"
        ) from error
