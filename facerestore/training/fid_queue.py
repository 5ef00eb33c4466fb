"""The FID proxy as a term of a training: it remembers the descriptions of the steps before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError
from facerestore.data import read_statistics
from facerestore.losses.fid_proxy import FidProxy, pushed

CAPACITY = 1000
"""Descriptions that are kept; of 2048 numbers they take 8 MB, in each checkpoint too."""


class FidQueue(nn.Module):
    """Compares what it has seen lately, the pictures of this pass with it, with real faces.

    The trainer calls `push` after each step, with what joins the processes, and saves `queue` and `filled`.
    So all passes and processes of a step see the same queue, and a resume goes on with it. The distance is
    that of a whole pass: to accumulate passes, or to share a batch among processes, is not the same as one
    larger pass.

    Args:
        describe: pictures (B,3,H,W) in [0,1] to descriptions (B,D), such as `FidFeatures`.
        proxy: with the statistics of real faces.
    """

    queue: Tensor
    filled: Tensor

    def __init__(self, describe: nn.Module, proxy: FidProxy) -> None:
        super().__init__()
        self.describe = describe
        self.proxy = proxy
        self.register_buffer("queue", torch.zeros(CAPACITY, len(proxy.mean)))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []

    @classmethod
    def of(cls, describe: Any, statistics: str | Path | None) -> Self:
        """With the statistics in a file; None takes descriptions of nothing, which a test may approach.

        Raises:
            ConfigError: if they are those of another network.
            DataError: if the file holds none.
        """
        nothing = torch.zeros(describe.width)
        mean, variance = (nothing, nothing) if statistics is None else read_statistics(statistics)
        if len(mean) != describe.width:
            raise ConfigError(
                f"{statistics}: statistics of {len(mean)} numbers, and the network of fid_proxy describes a "
                f"face by {describe.width}; measure them with `facerestore data statistics`"
            )
        return cls(describe, FidProxy(mean, variance))

    def forward(self, pred: Tensor) -> Tensor:
        """The distance (B,), for each picture (B,3,H,W) the same."""
        described = self.describe(pred)
        self._seen.append(described.detach().float())
        return self.proxy(described, self._kept())

    def push(self, joined: Callable[[Tensor], Tensor]) -> None:
        """Take what was seen since the last time into the queue.

        Args:
            joined: what all processes have, one after the other, of a tensor of this one.
        """
        kept = pushed(self._kept(), joined(torch.cat(self._seen)), CAPACITY)
        self._seen.clear()
        self.queue[CAPACITY - len(kept) :] = kept
        self.filled.fill_(len(kept))

    def _kept(self) -> Tensor:
        return self.queue[CAPACITY - int(self.filled) :]
