"""The first half of a diffusion UNet, as an eye for noised latents."""

from typing import Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import ShapeError

_TOKENS = 77
_PX_PER_LATENT = 8


class HalfUNet(nn.Module):
    """Down blocks and middle block of a UNet of Stable Diffusion 1, 2 or XL.

    Args:
        unet: of diffusers; its up blocks are dropped, so that they take no memory.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        unet.up_blocks = nn.ModuleList()
        unet.conv_norm_out = unet.conv_act = unet.conv_out = None
        self.unet = unet

    @property
    def width(self) -> int:
        """Channels of the map that comes out."""
        return self.unet.config.block_out_channels[-1]

    @property
    def prompt_width(self) -> int:
        """Numbers in each token of a prompt."""
        return self.unet.config.cross_attention_dim

    def forward(self, z: Tensor, timesteps: Tensor, prompt: Tensor | None = None) -> Tensor:
        """What the middle block says.

        Args:
            z: noised latents (B,C,h,w).
            timesteps: (B,) how noised they are.
            prompt: (B,N,prompt_width) or one for all, (1,N,prompt_width); None is 77 tokens of zeros.

        Returns:
            (B,width,h',w') in the dtype of the weights.

        Raises:
            ShapeError: if latents, timesteps or prompt have another shape.
        """
        unet, count = self.unet, len(z)
        channels = unet.config.in_channels
        if z.ndim != 4 or z.shape[1] != channels:
            raise ShapeError(f"latents (B,{channels},h,w)", z.shape)
        if timesteps.shape != (count,):
            raise ShapeError(f"timesteps ({count},)", timesteps.shape)
        z = z.to(unet.conv_in.weight.dtype)
        prompt = z.new_zeros(1, _TOKENS, self.prompt_width) if prompt is None else prompt.to(z)
        if prompt.ndim != 3 or prompt.shape[0] not in (1, count) or prompt.shape[2] != self.prompt_width:
            raise ShapeError(f"a prompt ({count},N,{self.prompt_width})", prompt.shape)
        prompt = prompt.expand(count, -1, -1)
        code = unet.time_embedding(unet.get_time_embed(z, timesteps))
        if unet.config.addition_embed_type == "text_time":
            code = code + unet.get_aug_embed(code, prompt, self._sizes(z))
        hidden = unet.conv_in(z)
        for block in unet.down_blocks:
            attends = getattr(block, "has_cross_attention", False)
            told = {"encoder_hidden_states": prompt} if attends else {}
            hidden = block(hidden_states=hidden, temb=code, **told)[0]
        return unet.mid_block(hidden, code, encoder_hidden_states=prompt)

    def _sizes(self, z: Tensor) -> dict[str, Tensor]:
        """What SDXL is told beside the prompt: a pooled prompt of zeros, and an uncropped picture."""
        config = self.unet.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        height, width = (side * _PX_PER_LATENT for side in z.shape[2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=z.dtype, device=z.device)
        return {"text_embeds": z.new_zeros(len(z), pooled), "time_ids": sizes.repeat(len(z), 1)}
