"""The 112 px crop that recognition networks look at, cut from a picture by its five points."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ShapeError
from facerestore.faces.align import to_unit_coordinates
from facerestore.faces.similarity import similarity_matrix
from facerestore.faces.templates import ARCFACE_112, FFHQ_512

CROP_PX = 112
ALIGNED_PX = 512


def recognition_crop(pictures: Tensor, landmarks: Tensor | None = None, *, samples: int = 1) -> Tensor:
    """Cut out what the ArcFace template shows, put on five points in the sense of least squares.

    The similarity is the one that MATLAB's `cp2tform` fits: of all that bring the template to the points it
    leaves the smallest distances in the picture, which is not quite the inverse of the best one for the
    opposite direction. No similarity brings the FFHQ template onto this one: its points end 1.0 to 2.5 px of
    the crop away from theirs.

    An aligned face becomes about 3.4 times smaller. With one bilinear sample a new pixel reads four of the
    twelve pixels that it stands for: that is how the NTIRE challenges and AdaFace's own code measure, and it
    reaches a third of the picture with gradients. With 4 x 4 samples their mean reads all of them.

    Args:
        pictures: (B,3,H,W) float in [0,1].
        landmarks: (B,5,2) pixels of the pictures; None for faces (B,3,512,512) aligned to the FFHQ template.
        samples: along each side of a new pixel, 1 or more.

    Returns:
        (B,3,112,112) in the dtype of the pictures, black beyond their border. Differentiable in the pictures;
        no place depends on them, or on what else is in the batch.

    Raises:
        ShapeError: if the shapes do not fit.

    Reference:
        Deng et al., 2019, "ArcFace", arXiv:1801.07698; OpenCV `warpAffine`, INTER_LINEAR, BORDER_CONSTANT.
    Parity:
        mk-minchul/AdaFace@c60eaa7 face_alignment/mtcnn_pytorch/src/align_trans.py with one sample: matrices
        1e-4 abs, pixels within the rounding to 8 bits of OpenCV 5. Deviations: crops are not rounded, and a
        face is never mirrored, which the original does to points that a mirrored face would fit better.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ShapeError("pictures (B,3,H,W)", pictures.shape)
    if landmarks is None:
        if pictures.shape[2:] != (ALIGNED_PX, ALIGNED_PX):
            raise ShapeError("aligned faces (B,3,512,512)", pictures.shape, "Else give their landmarks.")
        landmarks = FFHQ_512.expand(len(pictures), 5, 2)
    elif landmarks.shape != (len(pictures), 5, 2):
        raise ShapeError(f"landmarks ({len(pictures)},5,2)", landmarks.shape)
    # In float64 on the CPU: not every device has it.
    template = ARCFACE_112.double()[None]
    to_source = torch.cat([similarity_matrix(template, points) for points in landmarks.detach().cpu()])
    size = (pictures.shape[2], pictures.shape[3])
    theta = to_unit_coordinates(to_source, size, (CROP_PX, CROP_PX)).to(pictures)
    side = CROP_PX * samples
    grid = F.affine_grid(theta, [len(pictures), 3, side, side], align_corners=False)
    values = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(values, samples) if samples > 1 else values
