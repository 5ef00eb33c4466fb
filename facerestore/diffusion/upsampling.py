"""Doubling a feature map and convolving it, without ever making the doubled map.

The decoders of Stable Diffusion, SDXL, FLUX and Z-Image repeat each value in a square of four and then
convolve 3 x 3. Of the nine values that such a filter reads, most are repeats: each output depends on 2 x 2
values of the map before it was doubled. So the filter becomes four filters of 2 x 2, one for each place in
the square: 4/9 of the arithmetic, the same sums but for their order. This is 28 % of a decoder's work.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Which rows of the 3 x 3 filter fall on the first and the second of two rows, for even and for odd outputs.
_ROWS = (((0,), (1, 2)), ((0, 1), (2,)))


class FoldedUpsample(nn.Module):
    """In place of diffusers' `Upsample2D`: nearest neighbours twice as large, then a 3 x 3 convolution.

    Keeps the convolution, so that it is saved and loaded under the keys that it had.

    Args:
        upsample: the module, with a convolution of its own.
    """

    weight: Tensor

    def __init__(self, upsample: Any) -> None:
        super().__init__()
        self.conv = upsample.conv
        self.fold()
        self.register_load_state_dict_post_hook(lambda module, _: module.fold())

    def fold(self) -> None:
        """Make the folded filters of the convolution's, as they are now."""
        self.register_buffer("weight", folded_filters(self.conv.weight.detach()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,D,2H,2W)."""
        batch, _, height, width = x.shape
        phases = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight)  # (B,4D,H+1,W+1)
        channels = phases.shape[1] // 4
        last = phases.is_contiguous(memory_format=torch.channels_last)
        memory = torch.channels_last if last else torch.contiguous_format
        out = torch.empty(
            (batch, channels, 2 * height, 2 * width), dtype=x.dtype, device=x.device, memory_format=memory
        )
        for place, part in enumerate(phases.split(channels, dim=1)):
            row, column = divmod(place, 2)
            out[:, :, row::2, column::2] = part[:, :, row : row + height, column : column + width]
        bias = self.conv.bias
        return out if bias is None else out + bias[:, None, None]


def folded_filters(weight: Tensor) -> Tensor:
    """Filters (D,C,3,3) as (4D,C,2,2), summed in float32: those of the four places, row by row."""
    wide = weight.float()
    places = [
        torch.stack(
            [
                torch.stack([wide[:, :, rows][:, :, :, columns].sum((2, 3)) for columns in _ROWS[column]], -1)
                for rows in _ROWS[row]
            ],
            -2,
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    return torch.cat(places).to(weight.dtype)


def fold_upsampling(net: nn.Module) -> None:
    """Put a `FoldedUpsample` in the place of every `Upsample2D` of an autoencoder that is only asked."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if _can_be_folded(child):
                setattr(parent, name, FoldedUpsample(child))


def _can_be_folded(module: Any) -> bool:
    """Whether it is diffusers' module in the form that Stable Diffusion has."""
    if type(module).__name__ != "Upsample2D" or not module.use_conv or module.use_conv_transpose:
        return False
    conv = getattr(module, "conv", None)
    plain = isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.padding == (1, 1)
    return plain and module.norm is None and module.interpolate
