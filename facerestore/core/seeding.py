"""Random numbers that follow from the seed of an image and the name of what draws them, nothing else."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def generator(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for one image and one purpose.

    Args:
        seed: of the image, any integer.
        name: of what draws, so that two stages with one seed draw different numbers.
        device: where the numbers are drawn; draw on the CPU and move them to get the same on every device.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def seeded_layers(seed: int, name: str) -> Generator[None]:
    """Let layers that are built inside draw their first weights from a seed; afterwards all is as it was.

    torch's layers know only the global generator of the CPU, which is put back where it stood.
    """
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] - torch leaves it open
        torch.default_generator.manual_seed(generator(seed, name).initial_seed())
        yield
