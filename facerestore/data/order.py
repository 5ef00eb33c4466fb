"""In which order samples are seen: a function of a seed and a position, so that a resume is an integer."""

import hashlib
import math
from collections.abc import Sequence

import torch

from facerestore.core.errors import ConfigError
from facerestore.core.seeding import generator


class Order:
    """An endless order over a data set.

    Position p lies in epoch p // count. Without weights an epoch is a permutation. With weights an entry
    comes `count * weight / sum(weights)` times an epoch, rounded up or down at random so that this is its
    mean (systematic sampling), and equal weights are a permutation again.

    Args:
        count: entries of the data set.
        seed: of the run.
        shuffle: False keeps the order of the data set in every epoch; then there are no weights.
        weights: one an entry, at least 0; see `balanced`.

    Raises:
        ConfigError: if the count is below 1, or the weights do not fit.
    """

    def __init__(
        self, count: int, seed: int, *, shuffle: bool = True, weights: Sequence[float] | None = None
    ) -> None:
        if count < 1:
            raise ConfigError(f"an order needs at least one entry, not {count}")
        if weights is not None:
            if not shuffle:
                raise ConfigError("weights need shuffle=True: an entry may come twice in an epoch")
            if len(weights) != count:
                raise ConfigError(f"{count} weights expected, one an entry, {len(weights)} came")
            if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
                raise ConfigError("weights have to be finite, at least 0, and not all 0")
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self._shares = None if weights is None else torch.tensor(weights, dtype=torch.float64).cumsum(0)
        self._epoch: tuple[int, list[int]] = (-1, [])

    def index(self, position: int) -> int:
        """The entry at a position, counted from 0 over all epochs and processes."""
        epoch, place = divmod(position, self.count)
        if not self.shuffle:
            return place
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._drawn(epoch))
        return self._epoch[1][place]

    def sample_seed(self, position: int) -> int:
        """The seed of the sample at a position, from 0 to 2**63 - 1: of all that is random about it."""
        digest = hashlib.sha256(f"{self.seed}/sample/{position}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def _drawn(self, epoch: int) -> list[int]:
        numbers = generator(self.seed, f"order/{epoch}")
        mixed = torch.randperm(self.count, generator=numbers)
        if self._shares is None:
            return mixed.tolist()
        offset = torch.rand((), generator=numbers, dtype=torch.float64)
        places = (torch.arange(self.count, dtype=torch.float64) + offset) / self.count * self._shares[-1]
        chosen = torch.searchsorted(self._shares, places, right=True).clamp(max=self.count - 1)
        return chosen[mixed].tolist()


def positions(start: int, batch: int, rank: int = 0, world: int = 1) -> range:
    """The positions that one process takes in the step that begins at `start`.

    All processes together take `batch * world` positions in a row: what one process would take with a batch
    of that size. The next step begins at `start + batch * world`.

    Raises:
        ConfigError: if a number is out of range.
    """
    if start < 0 or batch < 1 or not 0 <= rank < world:
        raise ConfigError(f"no step: start {start}, batch {batch}, process {rank} of {world}")
    return range(start + rank * batch, start + (rank + 1) * batch)
