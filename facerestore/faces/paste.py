"""Where a restored crop replaces the picture, and how softly.

The mask is a square with round corners that fades towards the border of the crop, not an ellipse around the
face. The restored crop holds hair, ears and collar too, and an edge between sharp and soft shows most where
it crosses hair or a cheek, least in the background near the border. It ends, with zero slope, before the
border, so that no seam can show.
"""

import torch

_FULL, _END = (
    0.68,
    0.96,
)  # distances from the centre, in half sides, up to which the mask is 1 and from which it is 0
_POWER = 5.0  # of the norm that measures the distance: 2 makes circles, infinity squares


def face_mask(size_px: int) -> torch.Tensor:
    """The soft mask of a crop: (1,1,size_px,size_px) float32 in [0,1], zero on the border.

    `facerestore.faces.align.unwarp` takes it to the picture like the crop itself; it is zero beyond the crop.
    """
    steps = ((torch.arange(size_px, dtype=torch.float32) + 0.5) * (2 / size_px) - 1).abs() ** _POWER
    distance = (steps[None, :] + steps[:, None]) ** (1 / _POWER)
    inside = ((_END - distance) / (_END - _FULL)).clamp(0, 1)
    return (inside.square() * (3 - 2 * inside))[None, None]  # smooth at both ends
