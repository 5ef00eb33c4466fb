"""Between pictures and the scaled latents of an autoencoder."""

from typing import Any, Literal, Self

import torch
from torch import nn

from facerestore.core.errors import ShapeError
from facerestore.core.precision import Layout
from facerestore.core.seeding import generator
from facerestore.diffusion.vae_tiling import VaeTiles, decode_tiled, encode_tiled, needs_tiles
from facerestore.imaging.range import from_signed, to_signed

Posterior = Literal["mode", "sample"]
_TILES = VaeTiles()


class LatentCodec(nn.Module):
    """An autoencoder of diffusers with the scale and shift of its latents; casts to the dtype of its weights.

    Args:
        vae: `AutoencoderKL`, or `AutoencoderTiny`, whose latents are scaled already (scaling 1) and which
            has no posterior: both modes give the same.
        scaling: 0.18215 for SD 1 and 2, 0.13025 for SDXL, 0.3611 for FLUX and Z-Image.
        shift: taken off before scaling; 0.1159 for FLUX and Z-Image.
        name: of the stage, which makes its random numbers its own.
        tiles: the size from which `AutoencoderKL` works in tiles; `AutoencoderTiny` never does.
        decoder: what decodes in its place, with a scale and shift of its own, such as a codec of the TAESD
            made for the same latents; None where the autoencoder decodes itself.

    Raises:
        ShapeError: if the other decoder has other latents.
    """

    def __init__(
        self,
        vae: nn.Module,
        *,
        scaling: float,
        shift: float = 0.0,
        name: str = "posterior",
        tiles: VaeTiles = _TILES,
        decoder: "LatentCodec | None" = None,
    ) -> None:
        super().__init__()
        self.vae: Any = vae
        self.scaling = scaling
        self.shift = shift
        self.name = name
        self.tiles = tiles
        self.layout: Layout | None = None
        self.decoder = decoder
        if decoder is not None and decoder.form != self.form:
            raise ShapeError(f"a decoder of latents with {self.form} channels and pixels", decoder.form)

    @classmethod
    def of(cls, vae: nn.Module, *, name: str = "posterior", decoder: "LatentCodec | None" = None) -> Self:
        """A codec with the scale and shift that stand in the autoencoder's own `config`."""
        config: Any = vae.config
        shift = config.shift_factor or 0.0
        return cls(vae, scaling=config.scaling_factor, shift=shift, name=name, decoder=decoder)

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def form(self) -> tuple[int, int]:
        """Channels of the latents, and pixels per latent cell."""
        return self.vae.config.latent_channels, self.factor

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: that of its layout, or of its weights before it was placed."""
        return next(self.vae.parameters()).dtype if self.layout is None else self.layout.dtype

    @property
    def halves(self) -> list[nn.Module]:
        """The networks that are called as a whole: encoder and decoder, of both autoencoders."""
        other = [] if self.decoder is None else self.decoder.halves
        return [self.vae.encoder, self.vae.decoder, *other]

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
        return self.from_moments(self.moments(image01), seeds, posterior)

    def moments(self, image01: torch.Tensor) -> torch.Tensor:
        """What `from_moments` takes latents from: all that the network says of pictures (B,3,H,W) in [0,1].

        Returns:
            Means and log-variances (B,2C,h,w); `AutoencoderTiny` has only latents (B,C,h,w).

        Raises:
            ShapeError: if a side is no multiple of `factor`.
        """
        if image01.ndim != 4 or image01.shape[2] % self.factor or image01.shape[3] % self.factor:
            raise ShapeError(
                f"images (B,3,H,W) with sides that are multiples of {self.factor}",
                image01.shape,
                "Pad with imaging.pad.pad_to_multiple.",
            )
        signed = to_signed(image01).to(self.dtype)
        if self._is_tiny:
            return self.vae.encode(signed).latents
        if needs_tiles(self.tiles, max(signed.shape[2:]), decoding=False):
            return encode_tiled(self.vae, signed, self.tiles)
        return self.vae.encode(signed).latent_dist.parameters

    def from_moments(
        self, moments: torch.Tensor, seeds: tuple[int, ...], posterior: Posterior = "mode"
    ) -> torch.Tensor:
        """Scaled latents (B,C,h,w) float32 of posteriors as encoded, see `moments`.

        Raises:
            ShapeError: if the seeds do not match the batch.
        """
        if len(seeds) != len(moments):
            raise ShapeError(f"{len(moments)} seeds, one for each image", (len(seeds),))
        if self._is_tiny:
            return (moments.float() - self.shift) * self.scaling
        latent, log_variance = moments.float().chunk(2, dim=1)
        if posterior == "sample":
            deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))  # the limits of diffusers
            latent = latent + deviation * self._noise(latent, seeds)
        return (latent - self.shift) * self.scaling

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Decode scaled latents (B,C,h,w) to float32 images (B,3,h*factor,w*factor), not clamped to [0,1]."""
        if self.decoder is not None:
            return self.decoder.decode(z)
        latent = (z.float() / self.scaling + self.shift).to(self.dtype)
        if not self._is_tiny and needs_tiles(self.tiles, max(latent.shape[2:]), decoding=True):
            return from_signed(decode_tiled(self.vae, latent, self.tiles).float())
        return from_signed(self.vae.decode(latent).sample.float())

    @property
    def _is_tiny(self) -> bool:
        return not hasattr(self.vae, "quant_conv")

    def _noise(self, latent: torch.Tensor, seeds: tuple[int, ...]) -> torch.Tensor:
        """Drawn on the CPU, so that every device sees the same."""
        draws = [torch.randn(latent.shape[1:], generator=generator(seed, self.name)) for seed in seeds]
        return torch.stack(draws).to(latent.device)
