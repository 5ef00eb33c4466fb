"""OSDFace's visual prompt: the encoder of a degraded face, its codebook, and the projector of what it names.

Reference:
    Wang et al., 2025, "One-Step Diffusion for Face Restoration" (OSDFace), arXiv:2411.17163, section 3.2. The
    encoder is that of VQGAN (Esser et al., 2021, arXiv:2012.09841), its checkpoint that of the association
    stage of DAEFR (Tsai et al., 2024, arXiv:2308.07314).
Parity:
    GitHub jkwang28/OSDFace `lq_embed` at full size on the same weights, 1e-5 abs in float32; the codes are
    the same. Keys are the official ones. Deviations: the dead `norm2` of the attention blocks is left out,
    and images of a batch are independent (the original takes the codes of all images for each of them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError

_GROUPS = 32
_EPS = 1e-6


def norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups, as everywhere in these networks."""
    return nn.GroupNorm(_GROUPS, channels, eps=_EPS)


class ResnetBlock(nn.Module):
    """Twice normalise, SiLU and convolve, beside a skip that is a 1x1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,H,W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class AttentionBlock(nn.Module):
    """Self-attention of all positions with one head as wide as the features, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,channels,H,W) to the same shape."""
        normed = self.norm1(x)
        q, k, v = (conv(normed).flatten(2).mT for conv in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(attended.mT.unflatten(2, x.shape[2:]))


class _Downsample(nn.Module):
    """Half the size; zeros are padded at the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Level(nn.Module):
    """Blocks of one resolution; the last level attends after each block, the others shrink at their end."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, last: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(outputs) if last else nn.Identity() for _ in range(blocks))
        self.downsample = nn.Identity() if last else _Downsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.block, self.attn, strict=True):
            x = attn(block(x))
        return self.downsample(x)


class Middle(nn.Module):
    """Block, attention, block, all of one width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """From an image (B,3,S,S) to features (B,z_channels,s,s), s = S / 2^(levels-1)."""

    def __init__(self, config: "VisualPrompt.Config") -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            _Level(before, width, config.num_res_blocks, last=level == len(widths) - 1)
            for level, (before, width) in enumerate(zip([config.ch, *widths], widths, strict=False))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        hidden = self.conv_in(image)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class Codebook(nn.Module):
    """The entries that features are compared with, `embedding.weight` (codes,width)."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)


class VisualPrompt(nn.Module):
    """Names the codes of a dictionary of degraded faces that an image shows most clearly."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the defaults are those of the published checkpoint.

        Raises:
            ConfigError: if a width is no multiple of 32, a number is below 1, or the size does not halve.
        """

        image_px: int = 512
        """Side of the images that go in."""
        ch: int = 64
        """Channels after the first convolution."""
        ch_mult: tuple[int, ...] = (1, 2, 2, 2, 4, 8)
        """Channels of each level in units of `ch`; each but the last halves the size, the last attends."""
        num_res_blocks: int = 2
        """Blocks of each level."""
        z_channels: int = 512
        """Channels of the features before `quant_conv`."""
        codes: int = 1024
        """Entries of the codebook."""
        code_dim: int = 512
        """Numbers of each entry."""
        tokens: int = 77
        """Rows of the prompt, as many as the text encoder that it stands in for has."""

        def __post_init__(self) -> None:
            numbers = (self.image_px, self.ch, *self.ch_mult, self.num_res_blocks, self.z_channels)
            if min(*numbers, self.codes, self.code_dim, self.tokens, len(self.ch_mult)) < 1:
                raise ConfigError(f"VisualPrompt: every number must be 1 or more, got {self}")
            if self.ch % _GROUPS:
                raise ConfigError(f"VisualPrompt: ch must be a multiple of {_GROUPS}, got {self.ch}")
            if self.image_px % 2 ** (len(self.ch_mult) - 1):
                raise ConfigError(
                    f"VisualPrompt: {self.image_px} px cannot be halved {len(self.ch_mult) - 1} times"
                )

        @classmethod
        def tiny(cls) -> Self:
            """The smallest that has every part; for tests."""
            return cls(
                image_px=32, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, z_channels=16, codes=96, code_dim=16
            )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.code_dim, 1)
        self.quantize = Codebook(config.codes, config.code_dim)

    def features(self, image: Tensor) -> Tensor:
        """What is compared with the codebook.

        Args:
            image: (B,3,S,S) with S = `image_px`. The published weights want x' = (2x - 1.5) / 0.5 of x in
                [0,1], so [-3,1]: the official inference normalises twice.

        Returns:
            (B, code_dim, S / 2^(levels-1), the same), of the dtype of `quant_conv`.

        Raises:
            ShapeError: if the image has another size.
        """
        side = self.config.image_px
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, side, side):
            raise ShapeError(f"an image (B,3,{side},{side})", image.shape)
        hidden = self.encoder(image.to(self.encoder.conv_in.weight.dtype))
        return self.quant_conv(hidden.to(self.quant_conv.weight.dtype))

    def forward(self, image: Tensor) -> Tensor:
        """Tokens of each image: (B,3,S,S) as `features` wants it to (B,tokens,code_dim) float32."""
        return select_tokens(self.features(image), self.quantize.embedding.weight, self.config.tokens)


def select_tokens(features: Tensor, codebook: Tensor, count: int) -> Tensor:
    """Rows of the codebook nearest to the positions of an image, each once, the best match first.

    The squared distances are expanded as the original does it and in float32, because they decide an
    order: |h|^2 + |e|^2 - 2 h e^T cancels to about 1e-4 for the published widths, so two codes whose
    distances differ by less may change places between devices.

    Args:
        features: (B,D,h,w).
        codebook: (K,D).
        count: rows to return.

    Returns:
        (B,count,D) float32; where an image names fewer codes, the rest is zero.
    """
    codes = codebook.float()
    rows = features.float().flatten(2).mT
    with torch.autocast(rows.device.type, enabled=False):  # which would multiply in half precision
        squared = rows.square().sum(2, keepdim=True) + codes.square().sum(1) - 2 * rows @ codes.mT
    distance, nearest = squared.min(2)
    order = distance.sort(dim=1, stable=True).indices
    ranked: list[list[int]] = nearest.gather(1, order).tolist()
    kept = [codes[list(dict.fromkeys(indices))[:count]] for indices in ranked]
    return torch.stack([F.pad(tokens, (0, 0, 0, count - len(tokens))) for tokens in kept])


class PromptProjector(nn.Module):
    """Brings tokens to the width of the UNet's cross-attention: two 1x1 convolutions, SiLU after both."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the defaults are those of the published file."""

        inputs: int = 512
        """Width of the tokens; half of it lies between the convolutions."""
        outputs: int = 1024
        """Width of the prompt."""

        def __post_init__(self) -> None:
            if self.inputs < 2 or self.outputs < 1:
                raise ConfigError(f"PromptProjector: at least 2 inputs and 1 output, got {self}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.inputs, config.inputs // 2, 1)
        self.conv2 = nn.Conv1d(config.inputs // 2, config.outputs, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,inputs) to (B,N,outputs)."""
        hidden = F.silu(self.conv1(tokens.to(self.conv1.weight.dtype).mT))
        return F.silu(self.conv2(hidden)).mT


def published_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of the published association checkpoint that `VisualPrompt` has, under its own keys.

    The file also holds the branch of sharp faces, both decoders and the losses. Nothing is hidden: what
    the branch of degraded faces holds besides is kept, and refused when it is loaded.

    Args:
        tensors: the whole checkpoint (`vqvae_LQ.encoder.conv_in.weight`, ...), or the same already stripped.
    """
    prefix = "vqvae_LQ."
    if any(key.startswith(prefix) for key in tensors):
        tensors = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    dead = ("decoder.", "post_quant_conv.")
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(dead) and ".norm2." not in key.partition(".attn")[2]
    }
