"""Make examples/before_after.webp, the picture of the README: faces as they came, below them as they went.

python examples/make_before_after.py [TARGET]
"""

import sys
from pathlib import Path

import torch
from PIL import Image

import facerestore as fr

HERE = Path(__file__).parent
PHOTOS = ("photos/hopper_faded.jpg", "photos/astronaut_grey.jpg")
CROPS = ("faces/hopper_soft_grain.jpg", "faces/astronaut_x8.png")
SIDE_PX = 288


def main(target: str | Path) -> None:
    pipe = fr.load("lite")
    results = [pipe.restore(HERE / name) for name in PHOTOS]
    results += [pipe.restore(HERE / name, aligned=True) for name in CROPS]
    columns: list[torch.Tensor] = []
    for result in results:
        face = result.faces[0]
        if face.after is None:
            raise RuntimeError(f"{result.source}: the face was not restored ({face.status})")
        columns.append(torch.cat([face.before, face.after], dim=2))
    pixels = torch.cat(columns, dim=3)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    sheet = Image.fromarray(pixels).resize((SIDE_PX * len(columns), SIDE_PX * 2), Image.Resampling.LANCZOS)
    sheet.save(target, quality=90)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else HERE / "before_after.webp")
