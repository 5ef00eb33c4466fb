"""Reading tensors from files of every kind, and putting them into networks."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facerestore.core.errors import KeyMismatch, WeightsError, WeightsNotFound
from facerestore.nets.rrdbnet import RRDBNet
from facerestore.weights.load import load_into, read_pickle, read_tensors
from facerestore.weights.store import WeightStore


def tiny(seed: int) -> RRDBNet:
    torch.manual_seed(seed)
    return RRDBNet(RRDBNet.Config.tiny())


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for key, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[key]), key


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_round_trip_through_a_pickle(wrapper: str | None, legacy: bool, tmp_path: Path) -> None:
    path, net = tmp_path / "net.pth", tiny(0)
    state = dict(net.state_dict())
    torch.save({wrapper: state} if wrapper else state, path, _use_new_zipfile_serialization=not legacy)
    other = tiny(1)
    load_into(other, read_tensors(path), "net.pth")
    assert_same(net, other)


def test_round_trip_through_safetensors_whatever_the_name(tmp_path: Path) -> None:
    path, net, other = tmp_path / "net.pth", tiny(0), tiny(1)
    save_file(net.state_dict(), path)
    load_into(other, read_tensors(path), "net.pth")
    assert_same(net, other)


def test_halves_fill_a_float32_network_exactly(tmp_path: Path) -> None:
    path, net, other = tmp_path / "net.safetensors", tiny(0).half(), tiny(1)
    save_file(net.state_dict(), path)
    load_into(other, read_tensors(path), "net")
    assert next(other.parameters()).dtype == torch.float32
    assert_same(net.float(), other)


def test_quantised_tensors_are_rounded_once_from_float64(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    levels = torch.randint(0, 256, (4, 3, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scale, minimum = 0.0005260649557207145, -0.07101876902229645
    stored = {"w": levels, "w.scale_min": torch.tensor([scale, minimum], dtype=torch.float64)}
    save_file(stored | {"plain": torch.ones(2, dtype=torch.float16)}, path)
    tensors = read_tensors(path)
    assert tensors.keys() == {"w", "plain"}
    assert tensors["plain"].dtype == torch.float16
    expected = torch.tensor([int(q) * scale + minimum for q in levels.flatten()], dtype=torch.float32)
    assert torch.equal(tensors["w"], expected.view(4, 3, 2))


@pytest.mark.parametrize(
    "stored",
    [
        {"w": torch.zeros(2), "w.scale_min": torch.zeros(2)},
        {"w": torch.zeros(2, dtype=torch.uint8), "w.scale_min": torch.zeros(3)},
    ],
)
def test_wrongly_quantised_file_is_refused(stored: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    save_file(stored, path)
    with pytest.raises(WeightsError, match="w is not quantised as expected"):
        read_tensors(path)


def test_mismatch_lists_everything_and_loads_nothing() -> None:
    net, before, state = tiny(0), tiny(0), dict(tiny(1).state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["conv_last.bias"] = torch.zeros(4)
    del state["conv_first.weight"], state["conv_hr.bias"]
    with pytest.raises(KeyMismatch) as caught:
        load_into(net, state, "some.pth")
    assert caught.value.missing == ("conv_first.weight", "conv_hr.bias")
    assert caught.value.unexpected == ("extra.weight",)
    assert caught.value.misshapen == ("conv_last.bias: expected (3,), got (4,)",)
    assert "some.pth" in str(caught.value)
    assert_same(net, before)


class Malicious:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", ["conv_first.weight", "state_dict"])
def test_pickle_that_would_run_code_is_refused_and_not_run(key: str, legacy: bool, tmp_path: Path) -> None:
    path, trace = tmp_path / "bad.pth", tmp_path / "trace"
    torch.save({key: Malicious(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"bad\.pth is refused, nothing of it was executed"):
        read_tensors(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would have run code"


def test_plain_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "bad.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    with pytest.raises(WeightsError, match=r"bad\.pkl"):
        read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"no weights at all", b"\xff" * 8 + b"{}", b"\x80\x02}."])
def test_other_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"thing\.safetensors"):
        read_tensors(path)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"a": 1}, {"params": {"a": "text"}}, {1: torch.zeros(1)}]
)
def test_pickle_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "thing.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"thing\.pt holds"):
        read_tensors(path)


def test_folder_and_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=tmp_path.name):
        read_tensors(tmp_path)
    with pytest.raises(WeightsNotFound, match=r"none\.pt"):
        read_tensors(tmp_path / "none.pt")


def test_a_network_of_the_users_own_is_checked_against_the_architecture(tmp_path: Path) -> None:
    """An explicit path may have any hash, and must still fit."""
    path = tmp_path / "mine.pth"
    torch.save({"params_ema": tiny(0).state_dict()}, path)
    state = WeightStore(paths={"realesrgan-x4plus": path}).load("realesrgan-x4plus")
    load_into(tiny(1), state, "mine.pth")
    with pytest.raises(KeyMismatch):
        load_into(RRDBNet(RRDBNet.Config(num_block=2, num_feat=8, num_grow_ch=4)), state, "mine.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_single_numbers_of_numpy_become_plain_ones(legacy: bool, tmp_path: Path) -> None:
    kinds = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_)
    content = {kind.__name__: [kind(1), kind(0)] for kind in kinds} | {"big": [np.dtype(">f8").type(2.5)]}
    content["exact"] = [np.float64(0.1) + np.float64(0.2)]
    torch.save(content, tmp_path / "numbers.pth", _use_new_zipfile_serialization=not legacy)
    read = read_pickle(tmp_path / "numbers.pth")
    assert read == {name: [number.item() for number in numbers] for name, numbers in content.items()}
    assert {type(number) for numbers in read.values() for number in numbers} == {float, int, bool}
    torch.save({"text": np.str_("no number"), "wide": np.longdouble(1)}, tmp_path / "other.pth")
    assert not {type(value) for value in read_pickle(tmp_path / "other.pth").values()} & {str, float}
