"""Where the five points of an aligned face lie."""

import torch

FFHQ_512 = torch.tensor(
    [(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)],
    dtype=torch.float32,
)
"""The template of face restorers for crops of 512 px, made from FFHQ: (5,2) float32, x then y, pixel
centres at integers; the eye on the left of the picture, the other eye, nose, mouth corners in the same
order."""
