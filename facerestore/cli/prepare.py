"""`facerestore weights prepare`: compute what is computed once, so that restoring needs no text encoder."""

from pathlib import Path
from typing import Annotated

import typer

from facerestore.cli.console import out, reports_errors, shown
from facerestore.cli.named import weights_of
from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.weights.store import WeightStore


@reports_errors
def prepare(
    name: Annotated[
        str, typer.Argument(metavar="WEIGHT|RECIPE", help="A constant prompt, or all that a recipe lacks.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Folder of the pipeline; by default what was fetched."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="OUT.safetensors", help="Must not be there; by default the cache."
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="For z-image-turbo/prompt; empty if left out.")
    ] = "",
) -> None:
    """Compute the embedding of a constant prompt from the text encoder of its pipeline, without network.

    FOLDER holds text_encoder/ and tokenizer/ as in diffusers. `facerestore weights fetch` brings them.
    """
    from facerestore.diffusion.prepare import prepare as prepare_weight

    weights = weights_of(name)
    if weights == (name,):
        _say(name, prepare_weight(name, folder, text=prompt, out=target))
        return
    store = WeightStore()
    prompts = [weight for weight in weights if store.spec(weight).made_of]
    if not prompts:
        raise ConfigError(f"{name} has nothing to prepare; its weights are {', '.join(weights)}")
    if prompt or target:
        raise ConfigError(
            f"--prompt and -o go with one weight and {name} is a recipe; name {', '.join(prompts)}"
        )
    for weight in prompts:
        try:
            _say(weight, store.find(weight))
        except WeightsNotFound:
            _say(weight, prepare_weight(weight, folder))


def _say(name: str, path: Path) -> None:
    out().print(f"{name}: {shown(path)}, {path.stat().st_size / 1e3:.1f} kB")
