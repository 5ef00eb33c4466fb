"""Where the five points of an aligned face lie."""

import torch

FFHQ_512 = torch.tensor(
    [(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)],
    dtype=torch.float32,
)
"""The template of face restorers for crops of 512 px, made from FFHQ: (5,2) float32, x then y, pixel
centres at integers; the eye on the left of the picture, the other eye, nose, mouth corners in the same
order."""

ARCFACE_112 = torch.tensor(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    dtype=torch.float32,
)
"""The template of recognition networks for crops of 112 px (InsightFace's of 96 x 112, moved 8 px to the
right): the same five points in the same order."""
