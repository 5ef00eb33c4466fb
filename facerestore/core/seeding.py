"""Random numbers that follow from the seed of an image and the name of what draws them, nothing else."""

import hashlib

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
