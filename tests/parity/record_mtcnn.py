"""Pictures for comparing with PyPI facenet-pytorch 2.6.0, and how its answers were recorded.

    PYTHONPATH=FOLDER_WITH_FACENET_PYTORCH python tests/parity/record_mtcnn.py

writes `data/mtcnn.json`. What the package requires is old; unpacked, it also runs beside a current torch.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
RECORDED = HERE / "data" / "mtcnn.json"


def pictures() -> dict[str, np.ndarray]:
    """Fifteen pictures, uint8 (H,W,3), composed of two portraits without any resampling filter."""
    from skimage.data import astronaut

    collins = astronaut()
    hopper = np.asarray(Image.open(HERE.parent / "data" / "faces" / "grace_hopper.jpg").convert("RGB"))
    half = _reduced(collins, 2)
    grain = np.random.default_rng(0).normal(0, 25, collins.shape)
    row = np.concatenate([half, half[:, ::-1], _turned(half, 15)], axis=1)
    grey = np.repeat(hopper.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    return {
        "collins": collins,
        "collins mirrored": collins[:, ::-1],
        "collins dark": collins // 3,
        "collins with grain": (collins + grain).clip(0, 255).astype(np.uint8),
        "collins at half size": half,
        "collins at a quarter": _reduced(collins, 4),
        "collins in blocks of 5": np.repeat(np.repeat(_reduced(collins, 5), 5, axis=0), 5, axis=1),
        "collins turned by 20 degrees": _turned(collins, 20),
        "collins upside down": np.rot90(collins, 2),
        "collins without a face": collins[200:],
        "hopper": hopper,
        "hopper in grey": grey,
        "hopper turned by -25 degrees": _turned(hopper, -25),
        "hopper cut in half": hopper[:, :210],
        "six faces": np.concatenate([row, row[:, ::-1]], axis=0),
    }


def _reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of `factor` pixels."""
    height, width = (side // factor for side in picture.shape[:2])
    squares = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


def _turned(picture: np.ndarray, deg: float) -> np.ndarray:
    """Turned clockwise about the centre to the nearest pixels, its border going on outside."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    cosine, sine = np.cos(np.deg2rad(deg)), np.sin(np.deg2rad(deg))
    rows = (cosine * y - sine * x + (height - 1) / 2).round().clip(0, height - 1).astype(int)
    columns = (cosine * x + sine * y + (width - 1) / 2).round().clip(0, width - 1).astype(int)
    return picture[rows, columns]


def digest(picture: np.ndarray) -> str:
    """Hash of the pixels: another JPEG decoder may give others."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()[:16]


def main() -> None:
    """Run the original on every picture."""
    from facenet_pytorch import MTCNN

    original = MTCNN(keep_all=True, device="cpu")
    answers = {}
    for name, picture in pictures().items():
        boxes, scores, points = original.detect(
            Image.fromarray(np.ascontiguousarray(picture)), landmarks=True
        )
        found = boxes is not None
        answers[name] = {
            "sha256": digest(picture),
            "boxes": np.asarray(boxes, float).round(4).tolist() if found else [],
            "scores": np.asarray(scores, float).round(7).tolist() if found else [],
            "points": np.asarray(points, float).round(4).tolist() if found else [],
        }
    settings = (
        "MTCNN(keep_all=True): min_face_size 20, thresholds 0.6 0.7 0.7, factor 0.709; torch 2.14.1, CPU"
    )
    record = {"package": "facenet-pytorch 2.6.0", "settings": settings, "pictures": answers}
    RECORDED.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
