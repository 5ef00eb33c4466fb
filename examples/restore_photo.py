"""Restore one photo, keep its metadata, and say what happened to each face.

python examples/restore_photo.py examples/photos/hopper_faded.jpg out/hopper.jpg
"""

import sys
from pathlib import Path

import facerestore as fr


def main(source: str, target: str) -> None:
    pipe = fr.load("lite")
    photo = fr.read_image(source)
    result = pipe.restore(photo, seed=0)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    fr.write_image(target, result.image, like=photo)
    for face in result.faces:
        line = f"face {face.index}: {face.size_px:.0f} px, {face.status}"
        if face.identity_similarity is not None:  # below 0.5 it looks like another person
            line += f", identity similarity {face.identity_similarity:.2f}"
        print(line)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
