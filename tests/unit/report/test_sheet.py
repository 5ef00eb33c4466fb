"""The contact sheet shows what it says, in rows that do not move."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from facerestore.imaging.photo import Photo
from facerestore.report.sheet import CELL_PX, Sheet, write_sheet
from facerestore.restoration import FaceResult, Restoration


def flat(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 512, 512)


def restoration(source: str = "photos/a.jpg", faces: int = 1, restored: bool = True) -> Restoration:
    photo = Photo.from_array(np.zeros((8, 8, 3), np.uint8))
    results = tuple(
        FaceResult(
            index=index,
            box=(0, 0, 8, 8),
            landmarks=np.zeros((5, 2), np.float32),
            confidence=0.9,
            status="restored" if restored else "too small",
            size_px=300,
            roll_deg=0,
            before=flat(1, 0, 0),
            after=flat(0, 0, 1) if restored else None,
            stages={"net": flat(0, 1, 0)} if restored else {},
            facts={"entry_px": 128.0},
            identity_distance=0.25 if restored else None,
        )
        for index in range(faces)
    )
    return Restoration(
        source=source, photo=photo, image=None, faces=results, notes=(), provenance={}, seconds={}
    )


def colours(image: Image.Image) -> list[tuple[int, int, int]]:
    """Pure colours met along the middle of the first row of faces, left to right."""
    pixels = np.array(image)
    line = pixels[16 + 26 + 26 + CELL_PX // 2]
    pure = [tuple(int(v) for v in pixel) for pixel in line if sorted(pixel) == [0, 0, 255]]
    return list(dict.fromkeys(pure))


def test_input_each_stage_and_output_stand_side_by_side(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "sheet.png", [restoration()])
    image = Image.open(path)
    assert image.width == 2 * 16 + 3 * CELL_PX + 2 * 8
    assert colours(image) == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_one_row_a_face_and_a_face_left_alone_shows_its_input_only(tmp_path: Path) -> None:
    one, three = Sheet(), Sheet()
    one.add(restoration())
    three.add(restoration(faces=2))
    three.add(restoration(restored=False))
    assert three.draw().height - one.draw().height == 2 * (CELL_PX + 26 + 8)
    alone = Sheet()
    alone.add(restoration(restored=False))
    assert colours(alone.draw()) == [(255, 0, 0)]


def test_labels_are_drawn_and_tell_names_and_numbers_apart() -> None:
    def label(name: str, distance: float | None = None) -> bytes:
        sheet = Sheet()
        sheet.add(restoration(name, restored=distance is None))
        return sheet.draw().crop((0, 42, 10_000, 68)).tobytes()

    assert len({label("a.jpg"), label("b.jpg"), label("家.jpg"), label("族.jpg"), label("a.jpg", 0.1)}) == 5


def test_a_long_name_does_not_run_into_the_numbers() -> None:
    sheet, short = Sheet(), Sheet()
    sheet.add(restoration("x" * 400 + ".jpg"))
    short.add(restoration("x.jpg"))
    numbers = (500, 42, sheet.draw().width, 68)
    left_of_numbers = (440, 42, 446, 68)
    assert sheet.draw().crop(numbers).tobytes()[-3000:] == short.draw().crop(numbers).tobytes()[-3000:]
    assert sheet.draw().crop(left_of_numbers).getextrema() != short.draw().crop(left_of_numbers).getextrema()


def test_rows_beyond_the_limit_are_counted_not_kept() -> None:
    sheet, full = Sheet(max_rows=2), Sheet(max_rows=2)
    full.add(restoration(faces=2))
    for _ in range(20):
        sheet.add(restoration(faces=2))
    assert sheet.draw().size == full.draw().size
    assert sheet.draw().tobytes() != full.draw().tobytes()  # it says that 38 are not shown


def test_an_empty_sheet_can_be_written(tmp_path: Path) -> None:
    assert Image.open(write_sheet(tmp_path / "s.png", [])).width > CELL_PX
