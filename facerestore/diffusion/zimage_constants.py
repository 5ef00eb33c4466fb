"""Z-Image's transformer for one prompt at one noise level, with all that depends on nothing else folded in.

A restorer asks the same question every time: one prompt, one sigma. Then three parts of the network answer
the same every time too, and are computed once:

* the caption's tokens after the context refiner, which never sees the image nor the noise level;
* the four modulations of every block, which follow from the noise level alone. They multiply the outputs of
  RMSNorms by numbers per channel, as the norms' own weights do, so they go into those weights;
* the modulation of the last layer, which goes into the columns of its projection.

What remains has no time embedding, no caption embedding, no context refiner and no modulation matrices: 492
of 6,155 million parameters are gone, 1 GB in bf16. The time gained is small: from single blocks of full width
on one busy CPU core, in bf16 at 512 px, 1.4 % and 4.5 % of the whole in two runs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from facerestore.core.errors import ShapeError

PATCH = 2
TOKEN_MULTIPLE = 32  # upstream fills each sequence up to a multiple of this with a learned token


class FoldedZImage(nn.Module):
    """What is left of the transformer: (B,C,h,w) latents to the raw prediction m of the same shape.

    Equals `ZImageTransformer2DModel` (diffusers 0.42, Apache-2.0) at the folded prompt and sigma within 1e-5
    in float32. Built by `fold_constants`.

    Args:
        transformer: the network, its blocks already without modulation.
        project: the last projection, its modulation folded in.
        caption: tokens of the prompt after the context refiner, (L,dim), L a multiple of 32.
    """

    caption: torch.Tensor

    def __init__(self, transformer: Any, project: nn.Linear, caption: torch.Tensor) -> None:
        super().__init__()
        self.embed = transformer.all_x_embedder[f"{PATCH}-1"]
        self.noise_refiner = transformer.noise_refiner
        self.layers = transformer.layers
        self.project = project
        self.x_pad_token = transformer.x_pad_token
        self.rope = transformer.rope_embedder  # no module: complex tables, which must not change their dtype
        self.register_buffer("caption", caption)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Predict m (B,C,h,w) from latents of even height and width, in the network's dtype.

        Raises:
            ShapeError: if a side is odd, or longer than the network's table of positions.
        """
        batch, channels, height, width = z.shape
        if height % PATCH or width % PATCH:
            raise ShapeError("latents (B,C,h,w) with even h and w", z.shape, "Pad the picture to 16 px.")
        rows, columns = height // PATCH, width // PATCH
        _, most_rows, most_columns = self.rope.axes_lens
        if rows > most_rows or columns > most_columns:
            most = f"{most_rows * PATCH} x {most_columns * PATCH}"
            raise ShapeError(f"latents of at most {most}", z.shape, "Restore the picture in parts.")
        count = rows * columns
        patches = z.view(batch, channels, rows, PATCH, columns, PATCH)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, count, -1)  # (dy, dx, c), c fastest
        fill = -count % TOKEN_MULTIPLE
        x = torch.cat([self.embed(patches), self.x_pad_token.expand(batch, fill, -1)], dim=1)
        image_rope, caption_rope = self._rope(rows, columns, fill)
        for block in self.noise_refiner:
            x = block(x, None, image_rope)
        x = torch.cat([x, self.caption.expand(batch, -1, -1)], dim=1)
        rope = torch.cat([image_rope, caption_rope], dim=1)
        for block in self.layers:
            x = block(x, None, rope)
        x = self.project(F.layer_norm(x[:, :count], x.shape[-1:], eps=1e-6))
        patches = x.view(batch, rows, columns, PATCH, PATCH, channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(z.shape)

    def _rope(self, rows: int, columns: int, fill: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotations (1,N,head/2) of the image's tokens, fillers at the origin, and of the caption's."""
        device, length = self.caption.device, len(self.caption)
        grid = torch.cartesian_prod(
            torch.tensor([length + 1], device=device),
            torch.arange(rows, device=device),
            torch.arange(columns, device=device),
        )
        return self.rope(F.pad(grid, (0, 0, 0, fill)))[None], self.rope(caption_places(length, device))[None]


def caption_places(length: int, device: torch.device) -> torch.Tensor:
    """Positions (length,3) of the caption's tokens: 1, 2, ... along the first axis."""
    return F.pad(torch.arange(1, length + 1, device=device)[:, None], (0, 2))


@torch.no_grad()
def fold_constants(transformer: Any, prompt: torch.Tensor, sigma: float) -> FoldedZImage:
    """Fold a prompt and a noise level into a transformer.

    The constants are computed in float32 whatever the network's dtype, and rounded to it once. Adapters must
    have been merged before: afterwards their modulations and their context refiner are gone.

    Args:
        transformer: a `ZImageTransformer2DModel`. It is taken apart: do not use it afterwards.
        prompt: embedding of the prompt without padding, (L,width).
        sigma: noise level in [0,1]; the network is told 1 - sigma.

    Raises:
        ShapeError: if the prompt does not fit the network.
    """
    caption = _refined_caption(transformer, prompt)
    vector = _time_vector(transformer, sigma)
    for block in (*transformer.noise_refiner, *transformer.layers):
        _fold_block(block, vector)
    last = transformer.all_final_layer[f"{PATCH}-1"]
    modulation = last.adaLN_modulation[1]
    scale = 1 + F.linear(F.silu(vector), modulation.weight.float(), modulation.bias.float())
    last.linear.weight.data = (last.linear.weight.float() * scale).to(last.linear.weight.dtype)
    return FoldedZImage(transformer, last.linear, caption.to(last.linear.weight.dtype))


def _refined_caption(transformer: Any, prompt: torch.Tensor) -> torch.Tensor:
    """The caption's tokens (L,dim) float32, filled up to a multiple of 32 and refined."""
    width = transformer.cap_embedder[1].in_features
    if prompt.ndim != 2 or prompt.shape[1] != width or not len(prompt):
        raise ShapeError(f"a prompt embedding (L,{width}) with L >= 1", prompt.shape)
    token = transformer.cap_pad_token
    caption = transformer.cap_embedder.float()(prompt.to(token.device).float())
    fill = -len(caption) % TOKEN_MULTIPLE
    caption = torch.cat([caption, token.float().expand(fill, -1)])[None]
    rope = transformer.rope_embedder(caption_places(caption.shape[1], token.device))[None]
    for block in transformer.context_refiner:
        caption = block.float()(caption, None, rope)
    return caption[0]


def _time_vector(transformer: Any, sigma: float) -> torch.Tensor:
    """What the blocks are told of the noise level: (256,) float32, or (dim,) of a smaller network."""
    device = transformer.x_pad_token.device
    t = torch.full((1,), 1 - sigma, device=device)
    return transformer.t_embedder.float()(t * transformer.t_scale)[0]


def _fold_block(block: Any, vector: torch.Tensor) -> None:
    """Multiply the four norms of a block by their modulation, and take its modulation matrix away."""
    modulation = block.adaLN_modulation[0]
    numbers = F.linear(vector, modulation.weight.float(), modulation.bias.float())
    scale_attention, gate_attention, scale_feed, gate_feed = numbers.chunk(4)
    for norm, factor in (
        (block.attention_norm1, 1 + scale_attention),
        (block.attention_norm2, gate_attention.tanh()),
        (block.ffn_norm1, 1 + scale_feed),
        (block.ffn_norm2, gate_feed.tanh()),
    ):
        norm.weight.data = (norm.weight.float() * factor).to(norm.weight.dtype)  # files may be mapped
    del block.adaLN_modulation
    block.modulation = False
