"""pyiqa's metrics through our door against pyiqa as it comes, on equal made weights; nothing downloads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from facerestore.core.errors import KeyMismatch
from facerestore.imaging.range import to_signed
from facerestore.imaging.read import read_image
from facerestore.imaging.write import write_image
from facerestore.metrics import build
from facerestore.metrics.fid import clean_resize
from facerestore.weights.store import WeightStore

pyiqa: Any = pytest.importorskip("pyiqa", reason="pyiqa is not installed: pip install 'facerestore[metrics]'")
pytestmark = pytest.mark.live
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(aligned: Path) -> torch.Tensor:
    return torch.cat([read_image(path).srgb() for path in sorted(aligned.glob("*.png"))])


def test_niqe(tmp_path: Path, faces: torch.Tensor) -> None:
    io = pytest.importorskip("scipy.io")
    shipped = WeightStore().load("niqe")
    arrays = {"mu_prisparam": shipped["mean"].numpy()[None], "cov_prisparam": shipped["covariance"].numpy()}
    io.savemat(tmp_path / "niqe.mat", arrays)
    ours = build("niqe-pyiqa", WeightStore(paths={"pyiqa/niqe": tmp_path / "niqe.mat"}))
    theirs = pyiqa.create_metric("niqe", device=CPU, pretrained_model_path=str(tmp_path / "niqe.mat"))
    for number, face in zip(ours(faces), faces, strict=True):
        assert float(number) == pytest.approx(float(theirs(face[None])), abs=1e-9)
    # The same statistics read another luma: near, and never the same.
    other = build("niqe-basicsr", WeightStore())(faces)
    assert 1e-3 < float((ours(faces) - other).abs().max()) < 2


def test_what_the_network_of_clean_fid_is_given(tmp_path: Path, faces: torch.Tensor) -> None:
    from pyiqa.archs.fid_arch import ResizeDataset

    for number, face in enumerate(faces):
        write_image(tmp_path / f"{number}.png", face[None])
    files = sorted(tmp_path.iterdir())
    theirs = torch.stack([(each - 128) / 128 for each in ResizeDataset(files, "clean")])
    torch.testing.assert_close(to_signed(clean_resize(faces)), theirs, atol=1e-6, rtol=0)


def test_musiq_takes_a_state_dict_and_refuses_another(tmp_path: Path, faces: torch.Tensor) -> None:
    torch.manual_seed(0)
    empty = pyiqa.create_metric("musiq", device=CPU, pretrained=False)
    torch.save(empty.net.state_dict(), tmp_path / "musiq.pth")
    store = WeightStore(paths={"pyiqa/musiq": tmp_path / "musiq.pth"})
    ours = build("musiq", store)(faces)
    for number, face in zip(ours, faces, strict=True):
        assert float(number) == pytest.approx(float(empty(face[None])), abs=1e-6)
    state = empty.net.state_dict()
    state.pop(next(iter(state)))
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(KeyMismatch):
        build("musiq", WeightStore(paths={"pyiqa/musiq": tmp_path / "other.pth"}))


def test_an_error_in_maniqa_does_not_reach_the_next_picture(
    tmp_path: Path, faces: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network, made small; it is built without the download of a backbone that it replaces anyway."""
    from pyiqa.archs import maniqa_arch

    from facerestore.metrics import iqa

    with iqa._empty_backbone(maniqa_arch):  # pyright: ignore[reportPrivateUsage]
        torch.manual_seed(0)
        made = maniqa_arch.MANIQA(pretrained=False, scale=0.8, test_sample=1)
    torch.save(made.state_dict(), tmp_path / "maniqa.pt")
    created = iqa._created  # pyright: ignore[reportPrivateUsage]

    nets: list[Any] = []

    def one_crop(name: str, device: torch.device, **options: Any) -> Any:
        nets.append(created(name, device, **options, test_sample=1))
        return nets[-1]

    monkeypatch.setattr(iqa, "_created", one_crop)
    metric = build("maniqa", WeightStore(paths={"pyiqa/maniqa": tmp_path / "maniqa.pt"}))
    before = float(metric(faces[:1]))
    with torch.no_grad():
        expected = float(made.eval()(faces[:1]))
    made.save_output.outputs.clear()
    assert before == pytest.approx(expected, abs=1e-6)

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    hook = nets[0].net.conv1.register_forward_pre_hook(out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        metric(faces[1:])
    hook.remove()
    assert float(metric(faces[:1])) == before
