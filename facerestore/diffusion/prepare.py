"""Makes the embeddings of constant prompts, once, of the text encoders that the user has."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from facerestore.core.errors import ConfigError, OutputError, WeightsNotFound
from facerestore.diffusion.prompts import flux_prompt, sd21_prompt, zimage_prompt
from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import WeightStore, cache_folder
from facerestore.weights.write import write_tensors

_MAKERS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "sd21-base/prompt-empty": sd21_prompt,
    "z-image-turbo/prompt": zimage_prompt,
    "flux1-dev/prompt-empty": flux_prompt,
    "sd21-base/prompt-face": sd21_prompt,
    "sd21-base/prompt-negative": sd21_prompt,
}
_WITH_TEXT = ("z-image-turbo/prompt",)
_TEXTS = {
    # What a teacher of faces is told in place of the words of a tagger; ours.
    "sd21-base/prompt-face": "a photo of a face, clean, high-resolution, 8k, highly detailed, skin texture",
    # What it is told to keep away from; OSEDiff's and TADSR's, which is SUPIR's.
    "sd21-base/prompt-negative": (
        "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, "
        "3D render, unreal engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, "
        "signature, jpeg artifacts, deformed, lowres, over-smooth"
    ),
}


def prepare(
    name: str, folder: str | Path | None = None, *, text: str = "", out: str | Path | None = None
) -> Path:
    """Compute a constant prompt and write it where it is found, or elsewhere. Nothing is downloaded.

    Args:
        name: of the prompt, such as `z-image-turbo/prompt`.
        folder: the pipeline in the form of diffusers, which holds `text_encoder/` and `tokenizer/`; of
            Stable Diffusion 2.1 also its `text_encoder/` alone. None takes what `fetch` brought.
        text: the prompt, where it may be another than the empty one.
        out: the file; by default that of the manifest in the user's folder for weights.

    Returns:
        The file.

    Raises:
        ConfigError: if it is no constant prompt, takes no text, or `out` is no `.safetensors`.
        OutputError: if it is there already, or cannot be written.
        WeightsNotFound: if a part of the pipeline is missing; names each, and the command that fetches it.
        WeightsError: if a part is damaged, or of another model.
    """
    store = WeightStore()
    spec = store.spec(name)
    if name not in _MAKERS:
        raise ConfigError(f"{name} is not made here; what is: {', '.join(_MAKERS)}")
    if text and name not in _WITH_TEXT:
        own = f"the prompt {_TEXTS[name]!r}" if name in _TEXTS else "an empty prompt"
        raise ConfigError(f"{name} is that of {own}; of another one there is {', '.join(_WITH_TEXT)}")
    text = _TEXTS.get(name, text)
    target = _target(store, spec, out)
    parts = _parts(store, spec, folder)
    tensors = _MAKERS[name](*parts, **({"text": text} if text else {}))
    write_tensors(target, tensors, {"prompt": text})
    return target


def _target(store: WeightStore, spec: WeightSpec, out: str | Path | None) -> Path:
    """The file to write, which is not there yet."""
    target = cache_folder() / spec.file if out is None else Path(out)
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target} should end in .safetensors, which is what is written")
    there = target if target.exists() else None
    if out is None:
        with contextlib.suppress(WeightsNotFound):
            there = store.find(spec.name)  # in another place it would be found before the new one
    if there is not None:
        raise OutputError(f"{there} is there already; remove it, or name another file with -o")
    return target


def _parts(store: WeightStore, spec: WeightSpec, folder: str | Path | None) -> list[Path]:
    """The folders that a prompt is made of, in the order of the manifest."""
    wanted = [store.spec(name) for name in spec.made_of]
    at = {part.name: _part(store, part, folder, alone=len(wanted) == 1) for part in wanted}
    missing = [part for part in wanted if at[part.name] is None]
    if missing:
        place = "what was fetched" if folder is None else folder
        lines = "".join(
            f"\n  {Path(part.file).name}/{part.settings}: {part.name}, about {part.bytes / 1e6:.1f} MB"
            for part in missing
        )
        names = " ".join(part.name for part in (missing if folder is None else wanted))
        raise WeightsNotFound(
            f"{spec.name} is made of parts of a pipeline, and {place} lacks:{lines}\nGive the pipeline's "
            f"folder with --from, or run `facerestore weights fetch {names}` and then `facerestore weights "
            f"prepare {spec.name}`"
        )
    return [path for path in at.values() if path is not None]


def _part(store: WeightStore, part: WeightSpec, folder: str | Path | None, *, alone: bool) -> Path | None:
    """Where a part is; `folder` may be a part that stands alone."""
    if folder is None:
        with contextlib.suppress(WeightsNotFound):
            return store.find(part.name)
        return None
    places = (Path(folder) / Path(part.file).name, *([Path(folder)] if alone else []))
    return next((place for place in places if (place / part.settings).is_file()), None)
