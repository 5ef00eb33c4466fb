"""What is no checkpoint, is damaged, or would run code is refused by name, and leaves nothing behind."""

import os
import random
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from facerestore.core.errors import OutputError, WeightsError, WeightsNotFound
from facerestore.weights.convert import convert, read_checkpoint

STATE = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "encoder.bias": torch.ones(2)}


class Touches:
    """Pickles as a call that makes a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["os.system", "eval", "open", "pathlib"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(kind: str, legacy: bool, tmp_path: Path) -> None:
    source, out, marker = tmp_path / "evil.ckpt", tmp_path / "out.safetensors", tmp_path / "was_run"
    evil = {
        "os.system": Touches(os.system, f"touch {marker}"),
        "eval": Touches(eval, f"open({str(marker)!r}, 'w')"),
        "open": Touches(open, str(marker), "w"),
        "pathlib": Touches(Path.touch, marker),
    }[kind]
    content = {"state_dict": STATE, "hyper_parameters": {"lr": evil}}
    torch.save(content, source, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="refused, nothing of it was executed"):
        convert(source, out)
    assert not marker.exists()
    assert not out.exists()
    evil.call[0](*evil.call[1])
    assert marker.exists()  # it would have worked


def test_a_name_of_a_framework_is_never_the_framework_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even if an installed package has code under an allowed name, what is called is the stand-in."""
    called: list[Any] = []

    def run(*arguments: Any) -> None:
        called.append(arguments)

    run.__module__, run.__qualname__ = "omegaconf.evil", "run"
    fake = types.ModuleType("omegaconf.evil")
    vars(fake)["run"] = run
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.evil", fake)
    source = tmp_path / "evil.ckpt"
    torch.save({"state_dict": STATE, "x": Touches(run, "argument")}, source)
    assert read_checkpoint(source).tensors.keys() == STATE.keys()
    assert called == []


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_and_leaves_nothing_behind(
    form: str, share: float, tmp_path: Path
) -> None:
    source = tmp_path / "cut.ckpt"
    if form == "safetensors":
        save_file(STATE, source)
    else:
        torch.save({"state_dict": STATE}, source, _use_new_zipfile_serialization=form == "zip")
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="cut"):
        convert(source, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.ckpt"]


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_with_any_byte_changed_is_read_or_refused_by_name(form: str, tmp_path: Path) -> None:
    """Damage makes torch raise a dozen different errors; all of them must come out as ours."""
    source, out, draw = tmp_path / "damaged.ckpt", tmp_path / "out.safetensors", random.Random(form)
    if form == "safetensors":
        save_file(STATE, source, metadata={"lora_adapter_metadata": '{"unet.r": 1}'})
    else:
        torch.save({"state_dict": STATE, "epoch": 1}, source, _use_new_zipfile_serialization=form == "zip")
    whole, refused = source.read_bytes(), 0
    for _ in range(150):
        content = bytearray(whole)
        at = draw.randrange(min(len(content), draw.choice([200, 1000, len(content)])))
        content[at : at + draw.choice([0, 1, 1, 1, 9])] = draw.randbytes(draw.choice([0, 1, 1, 1, 5]))
        source.write_bytes(content)
        out.unlink(missing_ok=True)
        try:
            convert(source, out)
        except WeightsError as error:
            refused += 1
            assert "damaged.ckpt" in str(error)
            assert not out.exists()
    assert refused > 50


@pytest.mark.parametrize("content", [[1, 2], {"lr": 1.0, "names": ["a"]}, {}, 1.0])
def test_a_pickle_without_tensors_by_name_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"no tensors"):
        convert(tmp_path / "x.pt", tmp_path / "out.safetensors")


def itself() -> dict[str, Any]:
    content: dict[str, Any] = dict(STATE)
    content["inner"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (itself(), "holds itself"),
        ({"sparse": torch.ones(3).to_sparse()}, "'sparse' is no dense tensor"),
        ({"empty": torch.ones(3, device="meta")}, "'empty' is no dense tensor"),
        ({"half\ud800": torch.ones(3)}, "readable name"),
    ],
    ids=["cycle", "sparse", "meta", "surrogate"],
)
def test_what_no_network_has_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=rf"odd\.pt.*{message}"):
        convert(tmp_path / "odd.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_dtype_that_safetensors_lacks_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2, dtype=torch.complex128)}, tmp_path / "x.pt")
    with pytest.raises(OutputError, match=r"cannot be written: torch\.complex128"):
        convert(tmp_path / "x.pt", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_notes_that_cannot_be_written_are_left_out_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "note": "half \ud800", "epoch": 1}, tmp_path / "x.pt")
    made = convert(tmp_path / "x.pt", tmp_path / "out.safetensors")
    assert made.left_out == ("note",)
    assert made.metadata["epoch"] == "1"


def test_a_missing_source_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"nothing\.ckpt is no file"):
        convert(tmp_path / "nothing.ckpt", tmp_path / "out.safetensors")
