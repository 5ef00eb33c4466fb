"""The autoencoder with a codebook that OSDFace's visual prompt is one half of, for training it.

Reference:
    VQGAN (Esser et al., 2021, arXiv:2012.09841); as DAEFR (Tsai et al., 2024, arXiv:2308.07314) and OSDFace
    (Wang et al., 2025, arXiv:2411.17163) train one on sharp and one on degraded faces.
Parity:
    Keys are those of the published association checkpoint, `vqvae_LQ.` and `vqvae.` taken off; the dead
    `norm2` of its attention blocks is left out. GitHub LIAGM/DAEFR@02d5010 `VQVAEGAN` on the same weights in
    float32: `decode` at the published widths 5e-5 abs, the whole of it with gradients at small ones 1e-5.
    Encoder and codebook at full size: see `facerestore.nets.visual_prompt`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.nets.visual_prompt import (
    AttentionBlock,
    Codebook,
    Encoder,
    Middle,
    ResnetBlock,
    VisualPrompt,
    norm,
)


class _Upsample(nn.Module):
    """Twice the size by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    """Blocks of one resolution, one more than the encoder has there; all but the finest grow at their end."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, coarsest: bool, finest: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(
            AttentionBlock(outputs) if coarsest else nn.Identity() for _ in range(blocks)
        )
        self.upsample = nn.Identity() if finest else _Upsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.block, self.attn, strict=True):
            x = attn(block(x))
        return self.upsample(x)


class Decoder(nn.Module):
    """From features (B,z_channels,s,s) to an image (B,3,S,S) in [-1,1], S = s * 2^(levels-1)."""

    def __init__(self, config: VisualPrompt.Config) -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        # By index as the encoder's: the coarsest level is the last, and the first to run.
        self.up = nn.ModuleList(
            _Level(
                widths[min(level + 1, last)],
                widths[level],
                config.num_res_blocks + 1,
                coarsest=level == last,
                finest=level == 0,
            )
            for level in range(len(widths))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        hidden = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden)))


class VQAutoencoder(nn.Module):
    """Encoder, codebook and decoder of one branch.

    Args:
        config: sizes, those of the visual prompt that is to come of it.
    """

    def __init__(self, config: VisualPrompt.Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.code_dim, 1)
        self.quantize = Codebook(config.codes, config.code_dim)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.z_channels, 1)
        self.decoder = Decoder(config)

    def features(self, signed: Tensor) -> Tensor:
        """What is compared with the codebook: (B,3,S,S) in [-1,1] to (B,code_dim,s,s)."""
        return self.quant_conv(self.encoder(signed))

    def decode(self, quantized: Tensor) -> Tensor:
        """Entries of the codebook at each position (B,code_dim,s,s) to an image (B,3,S,S) in [-1,1]."""
        return self.decoder(self.post_quant_conv(quantized))
