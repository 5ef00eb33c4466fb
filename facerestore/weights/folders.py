"""The files of one folder of a pipeline: a network as diffusers or transformers saves it, or a tokenizer."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facerestore.core.errors import WeightsError, WeightsNotFound
from facerestore.weights.spec import Form

STEMS: dict[Form, str] = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""What the files with a network's tensors are called, before their endings."""
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
"""What a tokenizer can be made of, any of them."""
TOKENIZER_EXTRAS = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
"""What some tokenizers have besides their settings and their vocabulary."""
INDEX_ENDING = ".safetensors.index.json"
_PICKLES: dict[Form, str] = {"diffusers": "diffusion_pytorch_model.bin", "transformers": "pytorch_model.bin"}
_SHARD_NAME = re.compile(r"\w[\w.-]*\.safetensors")
_AGAIN = "get it again"


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        remedy: what to do if it is missing, for the message.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it cannot be read, or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsNotFound(f"{path} is missing; {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no object")
    return content


def folder_files(folder: Path, form: Form) -> list[Path]:
    """Every file of a folder that is read when it is used, its settings first.

    Raises:
        WeightsNotFound: if the tensors of a network or the vocabulary of a tokenizer are missing.
        WeightsError: if the index of shards is damaged, or names files outside its folder.
    """
    if form == "tokenizer":
        require_vocabulary(folder, VOCABULARIES)
        names = ("tokenizer_config.json", *sum(VOCABULARIES, ()), *TOKENIZER_EXTRAS)
        return [folder / name for name in names if (folder / name).is_file()]
    files = (folder / "config.json", _index_of(folder, form), *weight_files(folder, form))
    return list(dict.fromkeys(files))


def require_vocabulary(folder: Path, choices: Iterable[tuple[str, ...]]) -> None:
    """Refuse a tokenizer that lacks its vocabulary: transformers would make an empty one and say nothing.

    Args:
        folder: of the tokenizer.
        choices: names of files of which it can be made, any of them.

    Raises:
        WeightsNotFound: if none of the choices is there whole.
    """
    if not any(all((folder / name).is_file() for name in names) for names in choices):
        wanted = ", or ".join(" and ".join(names) for names in choices)
        raise WeightsNotFound(f"{folder} holds no vocabulary: {wanted}")


def weight_files(folder: Path, form: Form) -> list[Path]:
    """The files that hold a network's tensors, in one or in shards; safetensors before a pickle.

    Raises:
        WeightsNotFound: if there are none, or a shard is missing.
        WeightsError: if the index of the shards is damaged, or names files outside its folder.
    """
    index = _index_of(folder, form)
    return _shards(index) if index.suffix == ".json" else [index]


def _index_of(folder: Path, form: Form) -> Path:
    """The one file that holds a network's tensors, or the index that names its shards."""
    stem = STEMS[form]
    names = (
        f"{stem}.safetensors",
        stem + INDEX_ENDING,
        f"{stem}.safetensors.index.fp16.json",
        f"{stem}.fp16.safetensors",
        _PICKLES[form],
    )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsNotFound(f"{folder} holds none of {', '.join(names)}")


def _shards(index: Path) -> list[Path]:
    files = sorted(set(weight_map(index).values()))
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise WeightsNotFound(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names")
    return [index.parent / name for name in files]


def weight_map(index: Path) -> dict[str, str]:
    """The name of the shard of each tensor, by the tensor's name.

    Raises:
        WeightsError: if an index names nothing, or anything but safetensors files beside it.
    """
    table = read_json(index, _AGAIN).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise WeightsError(f"{index} has no weight_map; {_AGAIN}")
    names = {str(key): str(name) for key, name in table.items()}
    strange = sorted({name for name in names.values() if not _SHARD_NAME.fullmatch(name)})
    if strange:
        raise WeightsError(
            f"{index} names {strange[0]!r}, which is no safetensors file beside it; it is refused"
        )
    return names


def tensor_names(path: Path) -> set[str]:
    """What a safetensors file holds; only its head is read, and that its length is right is checked.

    Raises:
        WeightsError: if it is damaged, or holds nothing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            names = set(opened.keys())
    except SafetensorError as error:
        raise WeightsError(f"{path.name} is damaged: {error}; {_AGAIN}") from error
    if not names:
        raise WeightsError(f"{path.name} holds no tensors; it is not what it should be")
    return names


def require_complete(files: Iterable[Path]) -> None:
    """Refuse shards that lack a tensor which the index among the files promises.

    Raises:
        WeightsError: if one is lacking, or a shard is damaged.
    """
    at = {file.name: file for file in files}
    for index in (file for name, file in at.items() if name.endswith(INDEX_ENDING)):
        promised = weight_map(index)
        held = {name: tensor_names(at[name]) for name in set(promised.values())}
        for tensor, name in promised.items():
            if tensor not in held[name]:
                raise WeightsError(f"{name} lacks {tensor}, which {index.name} says that it has; {_AGAIN}")
