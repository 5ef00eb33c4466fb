"""What a name on the command line stands for: a weight, or all of a recipe."""

import difflib

from facerestore.core.errors import ConfigError
from facerestore.weights.spec import manifest, remote


def weights_of(name: str) -> tuple[str, ...]:
    """The weight of that name, or those of the recipe of that name.

    Raises:
        ConfigError: if there is neither.
    """
    from facerestore.recipes import get, list_recipes

    weights = [spec.name for spec in (*manifest(), *remote())]
    if name in weights:
        return (name,)
    try:
        return get(name).weights()
    except ConfigError as error:
        known = [*weights, *(info.name for info in list_recipes())]
        near = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else "see `facerestore recipes` and `facerestore weights list`"
        )
        raise ConfigError(f"{name!r} is neither a weight nor a recipe; {hint}") from error
