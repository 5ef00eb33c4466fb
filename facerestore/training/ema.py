"""A slow copy of what is trained: the exponential moving average of its parameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Follows parameters; kept in float32.

    Args:
        parameters: by name; the first average is a copy of them.
        decay: share of the average that stays at each step, in [0,1). While few steps are done it is
            smaller, `(1 + n) / (10 + n)` after n of them, so that the start is soon forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.tensors = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Move towards the parameters.

        Args:
            done: steps of training so far, this one counted.
        """
        decay = min(self.decay, (1 + done) / (10 + done))
        averages = list(self.tensors.values())
        current = [self._parameters[name].detach().float() for name in self.tensors]
        for average, value in zip(averages, current, strict=True):
            average.lerp_(value, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take an average that was saved."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network answer with the average; afterwards it is as it was, bit for bit."""
        kept = {name: value.data for name, value in self._parameters.items()}
        try:
            for name, value in self._parameters.items():
                value.data = self.tensors[name].to(value.dtype)
            yield
        finally:
            for name, value in self._parameters.items():
                value.data = kept[name]
