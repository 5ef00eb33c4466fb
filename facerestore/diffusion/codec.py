"""Between pictures and the scaled latents of an autoencoder."""

from typing import Any, Literal, Self

import torch
from torch import nn

from facerestore.core.errors import ShapeError
from facerestore.core.seeding import generator
from facerestore.imaging.range import from_signed, to_signed

Posterior = Literal["mode", "sample"]


class LatentCodec(nn.Module):
    """An autoencoder of diffusers with the scale and shift of its latents; casts to the dtype of its weights.

    Args:
        vae: `AutoencoderKL`, or `AutoencoderTiny`, whose latents are scaled already (scaling 1) and which
            has no posterior: both modes give the same.
        scaling: 0.18215 for SD 1 and 2, 0.13025 for SDXL, 0.3611 for FLUX and Z-Image.
        shift: taken off before scaling; 0.1159 for FLUX and Z-Image.
        name: of the stage, which makes its random numbers its own.
    """

    def __init__(
        self, vae: nn.Module, *, scaling: float, shift: float = 0.0, name: str = "posterior"
    ) -> None:
        super().__init__()
        self.vae: Any = vae
        self.scaling = scaling
        self.shift = shift
        self.name = name

    @classmethod
    def of(cls, vae: nn.Module, *, name: str = "posterior") -> Self:
        """A codec with the scale and shift that stand in the autoencoder's own `config`."""
        config: Any = vae.config
        return cls(vae, scaling=config.scaling_factor, shift=config.shift_factor or 0.0, name=name)

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.vae.parameters()).dtype

    def encode(
        self, image01: torch.Tensor, seeds: tuple[int, ...], posterior: Posterior = "mode"
    ) -> torch.Tensor:
        """Encode (B,3,H,W) in [0,1] to scaled latents (B,C,H/factor,W/factor) float32.

        Args:
            image01: sides must be multiples of `factor`.
            seeds: one per image; its noise follows from it and `name`, whatever the batch.
            posterior: `mode` is deterministic, `sample` draws, as the official scripts do.

        Raises:
            ShapeError: if a side is no multiple, or the seeds do not match the batch.
        """
        if len(seeds) != len(image01):
            raise ShapeError(f"{len(image01)} seeds, one for each image", (len(seeds),))
        if image01.ndim != 4 or image01.shape[2] % self.factor or image01.shape[3] % self.factor:
            raise ShapeError(
                f"images (B,3,H,W) with sides that are multiples of {self.factor}",
                image01.shape,
                "Pad with imaging.pad.pad_to_multiple.",
            )
        encoded = self.vae.encode(to_signed(image01).to(self.dtype))
        if hasattr(encoded, "latents"):
            latent = encoded.latents.float()
        else:
            latent = encoded.latent_dist.mean.float()
            if posterior == "sample":
                latent = latent + encoded.latent_dist.std.float() * self._noise(latent, seeds)
        return (latent - self.shift) * self.scaling

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Decode scaled latents (B,C,h,w) to float32 images (B,3,h*factor,w*factor), not clamped to [0,1]."""
        latent = (z.float() / self.scaling + self.shift).to(self.dtype)
        return from_signed(self.vae.decode(latent).sample.float())

    def _noise(self, latent: torch.Tensor, seeds: tuple[int, ...]) -> torch.Tensor:
        """Drawn on the CPU, so that every device sees the same."""
        draws = [torch.randn(latent.shape[1:], generator=generator(seed, self.name)) for seed in seeds]
        return torch.stack(draws).to(latent.device)
