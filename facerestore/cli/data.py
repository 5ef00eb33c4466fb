"""`facerestore data`: look at what a trainer would read, and make the files that some losses need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facerestore.cli.console import err, out, reports_errors, shown
from facerestore.core.errors import ConfigError

if TYPE_CHECKING:
    from facerestore.data import Index

app = typer.Typer(
    help="Check pictures for training, and measure what losses must know of them.", no_args_is_help=True
)

_Folder = Annotated[Path, typer.Argument(help="Of faces; searched with the folders below it.")]
_Record = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="Remember what was seen, so that the next time is quick."),
]


@app.command()
@reports_errors
def check(
    folder: _Folder,
    min_px: Annotated[int, typer.Option(help="Shorter side of a picture, at least.")] = 128,
    grey: Annotated[bool, typer.Option(help="Keep pictures without colour.")] = False,
    near: Annotated[
        int | None, typer.Option(metavar="BITS", help="Leave out what looks like an earlier one; try 4.")
    ] = None,
    min_face_px: Annotated[
        float | None, typer.Option(help="Side of a crop of the face, in pixels of its picture.")
    ] = None,
    max_blur_px: Annotated[
        float | None, typer.Option(help="Width of the edges: 1.5 is sharp, 3 soft.")
    ] = None,
    max_yaw_deg: Annotated[float | None, typer.Option(help="How far it may look aside.")] = None,
    record: _Record = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="What is left out, and why; .csv or .json.")
    ] = None,
    measures: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Sharpness, size and pose of every face.")
    ] = None,
) -> None:
    """Say which pictures of a folder a trainer would use, and why not the others."""
    from facerestore.data import Checks, Limits, index_folder, measure_all, within, write_measures

    limits = Limits(min_face_px=min_face_px, max_blur_px=max_blur_px, max_yaw_deg=max_yaw_deg)
    index = index_folder(folder, Checks(min_px=min_px, colour=not grey, near=near), record=record)
    if measures is not None or limits != Limits():
        kept = None if record is None else record.with_name(f"{record.stem}_faces.json")
        measured = measure_all(index.entries, _detector(), record=kept)
        if measures is not None:
            write_measures(measures, measured)
        index = within(index, measured, limits)
    if report is not None:
        index.write_report(report)
    out().print(shown(index.summary()))


@app.command()
@reports_errors
def components(
    folder: _Folder,
    target: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".json, or .pth for GFPGAN itself.")
    ],
    landmarks: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="68 points a face (name, x0, y0, ...) in place of detection."),
    ] = None,
    size_px: Annotated[int, typer.Option(help="Side of the pictures in training.")] = 512,
    from_px: Annotated[
        float | None, typer.Option(help="Side of the pictures that the 68 points are in.")
    ] = None,
    record: _Record = None,
) -> None:
    """Make the file of eyes and mouths that losses on these parts need."""
    from facerestore.data import (
        Checks,
        Pictures,
        components_of_landmarks,
        find_components,
        index_folder,
        read_landmarks,
        with_parts_only,
        write_components,
    )

    if landmarks is None and from_px is not None:
        raise ConfigError("--from-px belongs to --landmarks")
    index = index_folder(folder, Checks(min_px=1, colour=False), record=record)
    if landmarks is None:
        found, _ = find_components(Pictures(index, size_px), _detector())
    else:
        found = components_of_landmarks(read_landmarks(landmarks), from_px or size_px, size_px)
    write_components(target, found, _all_keys(index))
    index = with_parts_only(index, found)
    out().print(f"{shown(target)}: {len(index)} faces")
    if index.removed:
        err().print(shown(index.summary()))


@app.command()
@reports_errors
def statistics(
    folder: _Folder,
    target: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.safetensors", help="What is written.")],
    size_px: Annotated[int, typer.Option(help="Side of the pictures in training.")] = 512,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps")] = "auto",
    record: _Record = None,
) -> None:
    """Measure what real faces are like in the numbers of FID, for the loss fid_proxy."""
    from facerestore.core.precision import resolve_device
    from facerestore.data import Pictures, index_folder, measure_statistics, write_statistics
    from facerestore.features.inception import WEIGHT, FidFeatures
    from facerestore.weights.store import WeightStore

    place = resolve_device(device)
    net = FidFeatures.load(WeightStore()).to(place)
    index = index_folder(folder, record=record)
    found = measure_statistics(Pictures(index, size_px), lambda faces: net(faces.to(place)))
    write_statistics(target, *found, network=WEIGHT, faces=str(len(index)), size_px=str(size_px))
    out().print(f"{shown(target)}: {len(index)} faces")
    if index.removed:
        err().print(shown(index.summary()))


def _all_keys(index: "Index") -> list[str]:
    """The keys of everything that lies in the folder, usable or not, as GFPGAN counts it."""
    return sorted({entry.key for entry in index.entries} | {item.key for item in index.removed})


def _detector() -> Any:
    from facerestore.faces.detect import FaceDetector
    from facerestore.weights.store import WeightStore

    return FaceDetector.load(WeightStore())
