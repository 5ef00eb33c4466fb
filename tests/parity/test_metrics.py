"""Metrics against the packages that the field measures with, live where they are installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facerestore.core.errors import WeightsError
from facerestore.imaging.read import read_image
from facerestore.metrics import Statistics, build, frechet_distance
from facerestore.metrics.fid import ffhq_statistics
from facerestore.metrics.fidelity import luma, psnr, ssim
from facerestore.weights.store import WeightStore
from tests.parity import basicsr_oracle


@pytest.fixture(scope="module")
def basicsr() -> Any:
    try:
        return basicsr_oracle.load_metrics()
    except ImportError as error:
        pytest.skip(str(error))


def pair(aligned: Path) -> tuple[torch.Tensor, torch.Tensor]:
    face = read_image(sorted(aligned.iterdir())[0]).srgb()
    noise = torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    return (face + 0.05 * noise).clamp(0, 1), face


def array(image: torch.Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    return image[0].permute(1, 2, 0).double().numpy()


def test_psnr_and_ssim_are_those_of_scikit_image(aligned: Path) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    pred, target = pair(aligned)
    x, y = array(pred), array(target)
    assert float(psnr(pred, target)) == pytest.approx(
        skimage.peak_signal_noise_ratio(y, x, data_range=1), abs=1e-6
    )
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    _, found = skimage.structural_similarity(y, x, channel_axis=2, full=True, **options)
    assert float(ssim(pred, target)) == pytest.approx(found[5:-5, 5:-5].mean(), abs=1e-6)
    _, found = skimage.structural_similarity(
        array(luma(target))[..., 0], array(luma(pred))[..., 0], full=True, **options
    )
    assert float(ssim(luma(pred.double()), luma(target.double()))) == pytest.approx(
        found[5:-5, 5:-5].mean(), abs=1e-6
    )


def test_psnr_ssim_and_luma_are_those_of_basicsr(aligned: Path, basicsr: Any) -> None:
    theirs, colours = basicsr.psnr_ssim, basicsr.color_util
    pred, target = pair(aligned)
    assert float(psnr(pred, target)) == pytest.approx(
        float(theirs.calculate_psnr_pt(pred, target, 0)), abs=1e-3
    )
    assert float(ssim(pred, target)) == pytest.approx(
        float(theirs.calculate_ssim_pt(pred, target, 0)), abs=1e-6
    )
    torch.testing.assert_close(luma(pred), colours.rgb2ycbcr_pt(pred, y_only=True), atol=1e-6, rtol=0)


@pytest.mark.live
def test_niqe_is_that_of_basicsr(aligned: Path, basicsr: Any) -> None:
    theirs = basicsr.niqe
    metric = build("niqe-basicsr", WeightStore())

    def differs(image: torch.Tensor) -> float:
        bgr = np.ascontiguousarray((array(image) * 255).round()[..., ::-1])
        return abs(float(metric(image)) - theirs.calculate_niqe(bgr, 0))

    images = {path.name: read_image(path).srgb() for path in sorted(aligned.iterdir())}
    odd = images["hopper_shaken.jpg"][:, :, :300, :450]
    assert max(differs(image) for image in (odd, images["hopper_soft_grain.jpg"])) < 1e-4
    flat = images["astronaut_blocks.jpg"]
    assert differs(flat) < 5e-3, "where a picture is flat, its float32 rounding is all that NIQE sees"


def features(count: int, width: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=random)
    return torch.randn(count, width, generator=random) @ mixing / width**0.5 + seed


@pytest.mark.parametrize("counts", [(20, 500), (500, 20), (20, 30), (400, 500)])
def test_fid_is_that_of_scipy(counts: tuple[int, int]) -> None:
    pytest.importorskip("scipy")
    a, b = (Statistics.of(features(count, 48, seed)) for seed, count in enumerate(counts))
    exact = frechet_distance(a, b)
    assert frechet_distance(a, b, "scipy") == pytest.approx(exact, rel=1e-4)
    assert frechet_distance(b, a) == pytest.approx(exact, rel=1e-9)
    bare = Statistics(b.mean, b.covariance)
    assert frechet_distance(a, bare) == pytest.approx(exact, rel=1e-6)
    assert frechet_distance(Statistics(a.mean, a.covariance), bare) == pytest.approx(exact, rel=1e-4)


def test_fid_of_a_set_to_itself_is_zero_and_a_shift_is_its_square() -> None:
    drawn = features(60, 16, 3)
    here = Statistics.of(drawn)
    assert abs(frechet_distance(here, here)) < 1e-8
    assert frechet_distance(here, Statistics.of(drawn + 2)) == pytest.approx(16 * 4, rel=1e-6)


def test_published_statistics_go_in_as_they_are(tmp_path: Path) -> None:
    """`inception_FFHQ_512.pth` is a pickled dict with arrays of NumPy."""
    here = Statistics.of(features(60, 16, 3))
    data = {
        "name": "FFHQ_512",
        "size": 512,
        "mean": here.mean.numpy().astype(np.float32),
        "cov": here.covariance.numpy(),
    }
    torch.save(data, tmp_path / "inception_FFHQ_512.pth")
    store = WeightStore(paths={"fid-ffhq-512": tmp_path / "inception_FFHQ_512.pth"})
    read = ffhq_statistics(store, "fid")
    torch.testing.assert_close(read.mean, here.mean, atol=1e-6, rtol=0)
    assert torch.equal(read.covariance, here.covariance)


def test_statistics_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"mean": Hostile(), "cov": np.eye(2)}, tmp_path / "inception_FFHQ_512.pth")
    store = WeightStore(paths={"fid-ffhq-512": tmp_path / "inception_FFHQ_512.pth"})
    with pytest.raises(WeightsError, match="refused"):
        ffhq_statistics(store, "fid")
    assert not (tmp_path / "ran").exists()
