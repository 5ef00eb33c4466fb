"""Which part of the pictures this process has, where several were started together."""

import os
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch.distributed as dist

_LONGEST = timedelta(days=7)  # that one process may need longer than another


class Processes:
    """The processes of a run: a rank, a count, and a point where all wait for each other.

    Args:
        rank: of this one, from 0.
        count: of all.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def of_environment(cls) -> Self:
        """What `accelerate launch` and `torchrun` say in the environment; one process without them."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def wait(self) -> None:
        """Return when every process is here."""
        if self.count > 1:
            dist.barrier()

    def __enter__(self) -> Self:
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=_LONGEST)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
