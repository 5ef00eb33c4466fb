"""`facerestore restore`: pictures, folders and patterns into a folder."""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from facerestore.cli.console import FAILED, out, reports_errors, say_error, shown
from facerestore.cli.run import RunView
from facerestore.core.errors import ConfigError, FaceRestoreError

if TYPE_CHECKING:
    from facerestore.batch import Summary
    from facerestore.batch.inputs import Item
    from facerestore.pipeline import Pipeline

_RECIPE, _WHAT, _MACHINE = "Recipe", "What is restored", "Machine"


@reports_errors
def restore(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (recursive) or patterns.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results.")],
    recipe: Annotated[str, typer.Option(help="See `facerestore recipes`.", rich_help_panel=_RECIPE)] = "lite",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the recipe.", rich_help_panel=_RECIPE),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="A weight of your own, or with base=FOLDER all of the base model's.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="An adapter of your own, for detail.", rich_help_panel=_RECIPE),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=_RECIPE)] = 0,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Inputs are face crops: find nothing.", rich_help_panel=_WHAT)
    ] = False,
    strength: Annotated[float, typer.Option(help="0 input, 1 restored.", rich_help_panel=_WHAT)] = 1.0,
    faces: Annotated[
        str, typer.Option(metavar="all|largest|N", help="Or the N largest.", rich_help_panel=_WHAT)
    ] = "all",
    no_face: Annotated[
        str, typer.Option(metavar="copy|skip", help="Pictures without a face.", rich_help_panel=_WHAT)
    ] = "copy",
    upscale: Annotated[
        int, typer.Option(metavar="1|2|4", help="Size of the whole photo.", rich_help_panel=_WHAT)
    ] = 1,
    background: Annotated[
        str, typer.Option(metavar="keep|restore", help="Restoring is slow on a CPU.", rich_help_panel=_WHAT)
    ] = "keep",
    max_pixels: Annotated[
        int | None, typer.Option(metavar="N", help="Refuse larger pictures.", rich_help_panel=_WHAT)
    ] = None,
    format: Annotated[str, typer.Option(metavar="same|png|jpg|webp", help="Of the results.")] = "same",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave EXIF, XMP and comments out.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Write report.html with sliders.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do everything again.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", rich_help_panel=_MACHINE)] = "auto",
    dtype: Annotated[str, typer.Option(metavar="auto|fp32|bf16|fp16", rich_help_panel=_MACHINE)] = "auto",
    offload: Annotated[
        str, typer.Option(metavar="auto|none|stages|model", rich_help_panel=_MACHINE)
    ] = "auto",
    batch_size: Annotated[
        str, typer.Option(metavar="auto|N", help="Faces per forward call.", rich_help_panel=_MACHINE)
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads.", rich_help_panel=_MACHINE)
    ] = None,
) -> None:
    """Restore the faces of pictures.

    Run the same command again after an interruption: what is done and still intact is skipped.

    Exit status: 0 all done; 1 some inputs failed (each named, the rest done); 2 wrong use, nothing was begun;
    130 interrupted.
    """
    settings, files = pairs(set_, "--set"), pairs(weights, "--weights")
    batch = "auto" if batch_size == "auto" else _count(batch_size, "--batch-size")
    wanted = faces if faces in ("all", "largest") else _count(faces, "--faces")

    import torch

    from facerestore import recipes
    from facerestore.batch import restore_folder
    from facerestore.imaging.read import DEFAULT_MAX_PIXELS
    from facerestore.pipeline import RestorationOptions

    options = RestorationOptions(
        strength=strength,
        faces=cast("Any", wanted),
        upscale=cast("Any", upscale),
        background=cast("Any", background),
        aligned=aligned,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    pipe = recipes.load(
        recipe,
        device=device,
        dtype=cast("Any", dtype),
        offload=cast("Any", offload),
        batch_size=batch,
        weights=files,
        adapters=adapter or (),
        settings=settings,
    )
    limit = max_pixels or DEFAULT_MAX_PIXELS
    with RunView(report=output / "report.html" if report else None, sheet=None, max_pixels=limit) as view:

        def start(todo: "Sequence[Item]") -> None:
            view.start(todo)
            if background == "restore":
                view.say(_background_time(pipe, todo))

        try:
            summary = restore_folder(
                pipe,
                inputs,
                output,
                seed=seed,
                options=options,
                format=cast("Any", format),
                no_face=cast("Any", no_face),
                strip_metadata=strip_metadata,
                overwrite=overwrite,
                max_pixels=limit,
                on_start=start,
                on_item=view.item,
            )
            view.finish_report()
        except FaceRestoreError as error:
            if not view.begun:
                raise
            say_error(error)
            raise typer.Exit(FAILED) from error
    view.print_table()
    out().print(summed_up(summary, output))
    if summary.failed:
        raise typer.Exit(FAILED)


def summed_up(summary: "Summary", output: Path) -> str:
    """The last line of a run."""
    parts = [f"{count} {status}" for status, count in summary.counts.items()]
    if summary.earlier:
        parts.append(f"{summary.earlier} of them done before")
    return f"{', '.join(parts)}, {summary.seconds:.0f} s: {shown(output)}"


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """What an option that takes NAME=VALUE was given, several times."""
    given: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"{option} takes NAME=VALUE, got {text!r}")
        given[name] = value
    return given


def _count(text: str, option: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{option}: {text!r} is neither a number nor one of the words it takes; see --help")
    return int(text)


def _background_time(pipe: "Pipeline", todo: "Sequence[Item]") -> str:
    """Say how long the backgrounds take: the tiles of all pictures, times what one of them takes."""
    import numpy as np
    from PIL import Image

    from facerestore.background import OVERLAP_PX, TILE_PX
    from facerestore.imaging.tiling import tile_starts

    sizes: list[tuple[int, int]] = []
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        for item in todo:  # what cannot be opened is reported when its turn comes
            with (
                suppress(OSError, ValueError, Image.DecompressionBombError),
                Image.open(item.source) as image,
            ):
                sizes.append(image.size)
    tiles = sum(math.prod(len(tile_starts(side, TILE_PX, OVERLAP_PX)) for side in size) for size in sizes)
    tile_px = min(TILE_PX, max((side for size in sizes for side in size), default=1))
    seconds = tiles * pipe.background_seconds(np.zeros((tile_px, tile_px, 3), np.uint8))
    time = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
    count = f"{len(todo)} picture{'' if len(todo) == 1 else 's'}"
    megapixels = sum(width * height for width, height in sizes) / 1e6
    return f"restoring the background of {count} ({megapixels:.1f} megapixels) takes about {time}"
