"""`report.html`: one self-contained page, a before/after slider a picture, the numbers of every face."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from facerestore.core.errors import OutputError
from facerestore.imaging.photo import Photo
from facerestore.imaging.whole import whole_file
from facerestore.report.shell import WARNING, asset, escaped, foot, head, jpeg_uri
from facerestore.report.thumbnail import thumbnail

PICTURE_PX = 900
"""Longer side of the pictures in the page: large enough to judge, small enough for hundreds of them."""
FACE_PX = 176
_FACES_SHOWN = 12


class ReportWriter:
    """Builds the page picture by picture; what was added lies on disk, so memory does not grow.

    Use it in a `with` block; without `finish` nothing stays.

    Args:
        path: where the page goes.
        title: its heading.
    """

    def __init__(self, path: str | os.PathLike[str], title: str = "facerestore") -> None:
        self.path = Path(path)
        self.title = title
        self._pictures = self.path.with_name(f".{self.path.name}.pictures")
        try:
            self._body = self._pictures.open("w+b")
        except OSError as error:
            raise OutputError(f"{self._pictures}: {error.strerror or error}") from error
        self._counts: Counter[str] = Counter()
        self._faces: Counter[str] = Counter()
        self._run: Mapping[str, Any] = {}

    def add(self, row: Mapping[str, Any], before: Photo | None = None, after: Photo | None = None) -> None:
        """Add a picture.

        Args:
            row: its line of the manifest (see `batch.manifest.Row`).
            before: the input, None where it cannot be read.
            after: the output, None where there is none.
        """
        self._counts[row["status"]] += 1
        self._faces.update(face["status"] for face in row["faces"])
        self._run = row["run"]
        number = self._counts.total()
        parts = [f'<section class="card"><h2><bdi>{escaped(row["source"])}</bdi></h2>']
        if row["error"]:
            parts.append(f'<p class="error">Failed: <bdi>{escaped(row["error"])}</bdi></p>')
        if before is not None and after is not None and row["output_sha256"] != row["input_sha256"]:
            parts.append(_slider(row["source"], number, before, after))
        elif before is not None:
            parts.append(f"<p>{_picture(before, 'Input', row['source'])}</p>")
        parts += [f'<p class="soft"><bdi>{escaped(note)}</bdi></p>' for note in row["notes"]]
        if row["faces"]:
            parts += [_face_pairs(row["faces"], before, after), _table(row["faces"])]
        parts.append("</section>\n")
        try:
            self._body.write("".join(parts).encode(errors="backslashreplace"))
        except OSError as error:
            raise OutputError(f"{self._pictures}: {error.strerror or error}") from error

    def finish(self) -> Path:
        """Write the page, whole or not at all.

        Returns:
            The path.

        Raises:
            OutputError: if it cannot be written.
        """
        end = f"{_provenance(self._run)}{foot(asset('page.js'))}"
        with whole_file(self.path) as page:
            page.write(self._head().encode(errors="backslashreplace"))
            self._body.seek(0)
            shutil.copyfileobj(self._body, page)
            page.write(end.encode(errors="backslashreplace"))
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk has been reported by what was writing
            self._body.close()
        with suppress(OSError):
            self._pictures.unlink()

    def _head(self) -> str:
        return (
            f'{head(self.title, asset("page.js"))}<p class="soft">{_counted(self._counts, "picture")}. '
            f'{_counted(self._faces, "face")}.</p><p class="warning">{WARNING}</p>\n'
        )


def _counted(counts: Counter[str], noun: str) -> str:
    total = counts.total()
    parts = ", ".join(f"{count} {escaped(status)}" for status, count in sorted(counts.items()))
    return f"{total} {noun}{'' if total == 1 else 's'}{': ' + parts if parts else ''}"


def _slider(name: str, number: int, before: Photo, after: Photo) -> str:
    return (
        f'<div class="compare">{_picture(after, "Restored", name)}'
        f"{_picture(before, 'Input', name, like=after)}"
        f'<input type="range" id="slider-{number}" min="0" max="100" step="0.5" value="50" '
        f'aria-label="Before and after: {escaped(name)}"><span class="bar"></span>'
        '<span class="tag left">before</span><span class="tag right">after</span></div>'
    )


def _picture(photo: Photo, what: str, name: str, like: Photo | None = None) -> str:
    """A reduced picture; `like` is the one whose shape it takes."""
    shape = like or photo
    scale = min(1.0, PICTURE_PX / max(shape.height, shape.width))
    width, height = max(1, round(shape.width * scale)), max(1, round(shape.height * scale))
    small = thumbnail(photo.reduced_srgb(max(width, height))[0], width, height)
    return (
        f'<img class="{what.lower()}" src="{jpeg_uri(small)}" alt="{what}: {escaped(name)}" '
        f'width="{width}" height="{height}">'
    )


def _face_pairs(faces: Sequence[Mapping[str, Any]], before: Photo | None, after: Photo | None) -> str:
    """Each restored face before and after, cut out of the pictures: in a group photo they are tiny."""
    if before is None or after is None:
        return ""
    figures: list[str] = []
    for face in [face for face in faces if face["status"] == "restored"][:_FACES_SHOWN]:
        number = face["index"] + 1
        sides: list[str] = []
        for photo, when in ((before, "before"), (after, "after")):
            crop = jpeg_uri(_face(photo, face["box"], photo.width / before.width))
            size = f'width="{FACE_PX}" height="{FACE_PX}"'
            sides.append(f'<img src="{crop}" alt="Face {number} {when}" {size}>')
        caption = f"<figcaption>face {number}</figcaption>"
        figures.append(f"<figure>{' '.join(sides)}{caption}</figure>")
    return f'<div class="faces">{"".join(figures)}</div>'


def _table(faces: Sequence[Mapping[str, Any]]) -> str:
    names = ("face", "size px", "roll", "confidence", "entry px", "identity distance", "similarity", "status")
    lines = [f"<tr>{''.join(f'<th scope=col>{name}</th>' for name in names)}</tr>"]
    for face in faces:
        cells = (
            face["index"] + 1,
            _number(face["size_px"], 0),
            f"{_number(face['roll_deg'], 0)}°",
            _number(face["confidence"], 2),
            _number(face["facts"].get("entry_px"), 0),
            _number(face["identity_distance"], 2),
            _number(face["identity_similarity"], 2),
            face["status"],
        )
        lines.append(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _provenance(run: Mapping[str, Any]) -> str:
    """What made the pictures, nested settings written as `name: value` lists."""
    lines = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(_flat(value))}</dd>" for name, value in run.items()
    )
    return (
        f'<section class="card"><h2>How this was made</h2><dl>{lines}</dl>'
        '<p class="soft">Identity distance: L2 distance of face descriptors before and after; below 0.6 they '
        "are taken for the same person. Similarity: the same in [0,1], 0.5 at that threshold. Entry px: the "
        "side at which the face entered the network.</p></section>"
    )


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_flat(item)}" for name, item in value.items() if name != "kind")
    return str(value)


def _face(photo: Photo, box: Sequence[float], scale: float) -> Image.Image:
    """The square around a face box of the input, cut out of a picture that is `scale` times as large."""
    x, y = (box[0] + box[2]) / 2 * scale, (box[1] + box[3]) / 2 * scale
    half = max(box[2] - box[0], box[3] - box[1]) * 0.65 * scale
    x0, y0 = max(0, round(x - half)), max(0, round(y - half))
    x1, y1 = min(photo.width, round(x + half)), min(photo.height, round(y + half))
    region = photo.srgb((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    square = Image.new("RGB", (FACE_PX, FACE_PX), (128, 128, 128))
    scale = FACE_PX / max(region.shape[2:])
    width, height = max(1, round(region.shape[3] * scale)), max(1, round(region.shape[2] * scale))
    square.paste(thumbnail(region, width, height), ((FACE_PX - width) // 2, (FACE_PX - height) // 2))
    return square
