"""A contact sheet: one row a face, from the input through every stage to the result."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from facerestore.imaging.write import write_image
from facerestore.report.thumbnail import thumbnail
from facerestore.restoration import FaceResult, Restoration

CELL_PX = 256
_GAP_PX, _LABEL_PX, _MARGIN_PX = 8, 26, 16
_PAPER, _INK, _FAINT = (250, 250, 248), (28, 28, 30), (110, 110, 115)
_FOOTER = "Restored detail is invented. It is no evidence of who somebody is."


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    note: str
    cells: dict[str, Image.Image]


class Sheet:
    """Collects thumbnails of faces; a few hundred kilobytes each.

    Args:
        max_rows: faces after this many are counted and not drawn, so that the sheet stays a picture.
    """

    def __init__(self, max_rows: int = 64) -> None:
        self.max_rows = max_rows
        self._rows: list[_Row] = []
        self._left_out = 0

    def add(self, restoration: Restoration) -> None:
        """Take the faces of a picture; nothing of it is kept but thumbnails."""
        for face in restoration.faces:
            if len(self._rows) < self.max_rows:
                self._rows.append(_row(Path(restoration.source).name, face))
            else:
                self._left_out += 1

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Draw the sheet and write it, whole or not at all.

        Returns:
            The path.

        Raises:
            OutputError: if it cannot be written.
        """
        return write_image(Path(path), self.draw())

    def draw(self) -> Image.Image:
        """The sheet as an RGB picture."""
        middle = list(dict.fromkeys(name for row in self._rows for name in row.cells))
        columns = ["input", *(name for name in middle if name not in ("input", "output")), "output"]
        row_px = CELL_PX + _LABEL_PX + _GAP_PX
        width = 2 * _MARGIN_PX + len(columns) * (CELL_PX + _GAP_PX) - _GAP_PX
        height = 2 * _MARGIN_PX + 2 * _LABEL_PX + len(self._rows) * row_px
        image = Image.new("RGB", (width, height), _PAPER)
        pen = ImageDraw.Draw(image)
        font = ImageFont.load_default(15)

        def x_of(column: int) -> int:
            return _MARGIN_PX + column * (CELL_PX + _GAP_PX)

        for column, name in enumerate(columns):
            pen.text((x_of(column), _MARGIN_PX), name, _FAINT, font)
        for number, row in enumerate(self._rows):
            y = _MARGIN_PX + _LABEL_PX + number * row_px
            note_px = pen.textlength(row.note, font)
            room = width - 2 * _MARGIN_PX - note_px - _GAP_PX
            pen.text((_MARGIN_PX, y + 4), _fitted(row.label, room, font), _INK, font)
            pen.text((width - _MARGIN_PX - note_px, y + 4), row.note, _FAINT, font)
            for column, name in enumerate(columns):
                if name in row.cells:
                    image.paste(row.cells[name], (x_of(column), y + _LABEL_PX))
        left_out = f" {self._left_out} more faces are not shown." if self._left_out else ""
        pen.text((_MARGIN_PX, height - _MARGIN_PX - _LABEL_PX + 8), _FOOTER + left_out, _FAINT, font)
        return image


def write_sheet(path: str | os.PathLike[str], restorations: Iterable[Restoration]) -> Path:
    """Write a contact sheet of restorations; they are taken one by one and not kept.

    Raises:
        OutputError: if it cannot be written.
    """
    sheet = Sheet()
    for restoration in restorations:
        sheet.add(restoration)
    return sheet.write(path)


def _row(name: str, face: FaceResult) -> _Row:
    crops = {"input": face.before}
    if face.after is not None:
        crops |= {**face.stages, "output": face.after}
    cells = {column: thumbnail(crop, CELL_PX, CELL_PX) for column, crop in crops.items()}
    facts = [face.status]
    if "entry_px" in face.facts:
        facts.append(f"entry {face.facts['entry_px']:.0f} px")
    if face.identity_distance is not None:
        facts.append(f"identity distance {face.identity_distance:.2f}")
    return _Row(f"{_drawable(name)}  face {face.index + 1}", ", ".join(facts), cells)


def _drawable(name: str) -> str:
    """The name with every character that Pillow's built-in font lacks written as its code point."""
    known = (
        letter if letter.isascii() and letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name
    )
    return "".join(known)


def _fitted(text: str, room_px: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= room_px:
        return text
    while text and font.getlength(text + "...") > room_px:
        text = text[:-1]
    return text + "..."
