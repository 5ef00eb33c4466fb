"""TADSR's autoencoder, whose encoder is told at which timestep its latent will be read.

It is Stable Diffusion's, and every residual block of its encoder scales and shifts what its second
normalisation returns, as a code of the timestep says. At one timestep that is another gain and bias of the
normalisation, so `fold_time` turns it back into a plain autoencoder: nothing is paid for it, and whatever
works on a plain one works on it too.

Reference:
    Zhang et al., 2025, "Time-Aware One Step Diffusion Network for Real-World Image Super-Resolution"
    (TADSR), arXiv:2508.16557, section 3.2.
Parity:
    `TimeAwareAutoencoderKL` of GitHub zty557/TADSR at full width on the same weights: the same keys, 1e-5
    abs in float32. The attention in the middle has one head here, at any width; theirs has heads of 512, so
    one at the published width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ConfigError
from facerestore.core.seeding import seeded_layers
from facerestore.nets.residual_refiner import timestep_code

WIDTH = 256
_MIN_CODE = 128


class TimeEmbedding(nn.Module):
    """Two layers from the sinusoids of a timestep to what the blocks see.

    Args:
        code: width of the sinusoids.
    """

    def __init__(self, code: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(code, WIDTH)
        self.linear_2 = nn.Linear(WIDTH, WIDTH)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Timesteps (B,) to (B,256)."""
        code = timestep_code(timesteps, self.linear_1.in_features).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(code)))


def add_time(vae: Any) -> None:
    """Give the encoder of a plain `AutoencoderKL` its time layers, with random weights, in place.

    Its keys are then those of the published time-aware autoencoder.
    """
    vae.encoder.time_embedding = TimeEmbedding(max(_MIN_CODE, vae.config.block_out_channels[0]))
    for block in _blocks(vae.encoder):
        block.time_emb_proj = nn.Linear(WIDTH, 2 * block.norm2.num_channels)
        block.time_embedding_norm = "scale_shift"  # how diffusers' own block says it


def add_new_time(vae: Any, seed: int) -> None:
    """Give the encoder of a plain `AutoencoderKL` time layers that are to be trained, in place.

    At first they change nothing, whatever the timestep: their last ones are zero.
    """
    with seeded_layers(seed, "time layers"):
        add_time(vae)
    for block in _blocks(vae.encoder):
        nn.init.zeros_(block.time_emb_proj.weight)
        nn.init.zeros_(block.time_emb_proj.bias)


def time_keys(vae: Any) -> tuple[str, ...]:
    """Names of the tensors that `add_time` adds, 24 in the published size."""
    return tuple(key for key in vae.state_dict() if ".time_emb" in key)


def encode_at(vae: Any, images: Tensor, timesteps: Tensor) -> Tensor:
    """Moments (B,2C,H/f,W/f) of the posterior of images, each at a timestep of its own; differentiable.

    Where the encoder was told to save memory, its blocks are computed again on the way back.

    Args:
        vae: an autoencoder with time layers.
        images: (B,3,H,W) in [-1,1] with sides that are multiples of f, the pixels per latent cell.
        timesteps: (B,) in 0 to 999.
    """
    net = vae.encoder

    def told(block: Any, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled() and net.gradient_checkpointing:
            return net._gradient_checkpointing_func(block, hidden, time)
        return block(hidden, time)

    time = net.time_embedding(timesteps)
    hidden = net.conv_in(images)
    for stage in net.down_blocks:
        for block in stage.resnets:
            hidden = told(block, hidden)
        for sampler in stage.downsamplers or ():
            hidden = sampler(hidden)
    hidden = told(net.mid_block, hidden)
    return vae.quant_conv(net.conv_out(net.conv_act(net.conv_norm_out(hidden))))


def fold_time(vae: Any, timestep: int) -> None:
    """Make the autoencoder a plain one that encodes at one timestep, in place.

    Gain and bias of a normalisation become `g * (1 + scale)` and `b * (1 + scale) + shift`, computed in
    float32. Tensors get new storage: what was mapped from a file is never written to.

    Raises:
        ConfigError: if it has no time layers.
    """
    embedding = getattr(vae.encoder, "time_embedding", None)
    if embedding is None:
        raise ConfigError("this autoencoder has no time layers; give TADSR's time_vae folder")
    with torch.no_grad():
        time = F.silu(embedding.float()(torch.tensor([timestep])))
        for block in _blocks(vae.encoder):
            scale, shift = block.time_emb_proj.float()(time)[0].chunk(2)
            norm = block.norm2
            gain, bias = norm.weight.float() * (1 + scale), norm.bias.float() * (1 + scale) + shift
            norm.weight.data, norm.bias.data = gain.to(norm.weight.dtype), bias.to(norm.bias.dtype)
            block.time_emb_proj, block.time_embedding_norm = None, "default"
    del vae.encoder.time_embedding


def _blocks(encoder: Any) -> list[Any]:
    """The residual blocks of an encoder, in their order."""
    return [block for stage in (*encoder.down_blocks, encoder.mid_block) for block in stage.resnets]
