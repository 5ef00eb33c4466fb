"""Option files of BasicSR: the layouts that are in use, and what is wrong with a file, by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from facerestore.core.errors import ConfigError
from facerestore.degradations import PRESETS, Classic, SecondOrder, read_basicsr

CLASSIC: dict[str, Any] = {
    "blur_kernel_size": 41,
    "kernel_list": ["iso", "aniso"],
    "kernel_prob": [0.5, 0.5],
    "blur_sigma": [0.1, 10],
    "downsample_range": [0.8, 8],
    "noise_range": [0, 20],
    "jpeg_range": [60, 100],
}
FILES = {"dataroot_gt": "datasets/ffhq", "io_backend": {"type": "disk"}, "mean": [0.5] * 3, "use_hflip": True}
JITTER = {"color_jitter_prob": 0.3, "color_jitter_shift": 20, "color_jitter_pt_prob": 0.3, "gray_prob": 0.01}
SHAPES = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]


def blurs(suffix: str, sigma: list[float]) -> dict[str, Any]:
    options = {
        "blur_kernel_size": 21,
        "kernel_list": SHAPES,
        "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
        "sinc_prob": 0.1,
        "blur_sigma": sigma,
        "betag_range": [0.5, 4],
        "betap_range": [1, 2],
    }
    return {name + suffix: value for name, value in options.items()}


KERNELS = {**blurs("", [0.2, 3]), **blurs("2", [0.2, 1.5]), "final_sinc_prob": 0.8}
PASSES: dict[str, Any] = {
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(data: Any) -> Path:
        path = tmp_path / "options.yml"
        path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
        return path

    return write


def test_gfpgan(file: Any) -> None:
    data = {
        "name": "train_GFPGANv1_512",
        "model_type": "GFPGANModel",
        "manual_seed": 0,
        "datasets": {
            "train": {"type": "FFHQDegradationDataset", **FILES, **CLASSIC, **JITTER},
            "val": {"a": 1},
        },
        "network_g": {"type": "GFPGANv1", "narrow": 1},
        "train": {"optim_g": {"lr": 2e-3}},
    }
    assert read_basicsr(file(data)) == PRESETS["gfpgan"]


def test_codeformer_with_its_two_sets_of_ranges(file: Any) -> None:
    small = {"blur_sigma": [0.1, 10], "downsample_range": [1, 12], "noise_range": [0, 15]}
    large = {
        "blur_sigma": [1, 15],
        "downsample_range": [4, 30],
        "noise_range": [0, 20],
        "jpeg_range": [30, 80],
    }
    train = {
        **CLASSIC, **FILES, **small, **{f"{name}_large": value for name, value in large.items()},
        "use_corrupt": True, "use_motion_kernel": False, "motion_kernel_prob": 0.001, "latent_gt_path": None,
    }  # fmt: skip
    path = file({"datasets": {"train": train}})
    assert read_basicsr(path) == PRESETS["codeformer_small"]
    assert read_basicsr(path, large=True) == PRESETS["codeformer_large"]
    with pytest.raises(ConfigError, match="missing options blur_sigma_large"):
        read_basicsr(file({"datasets": {"train": CLASSIC}}), large=True)


def test_stablesr_and_restoreformer(file: Any) -> None:
    faces = {**CLASSIC, "blur_sigma": [0.1, 15], "downsample_range": [0.8, 32], "jpeg_range": [30, 100]}
    params = {
        **FILES,
        **faces,
        "color_jitter_prob": None,
        "gray_prob": 0.01,
        "gt_gray": True,
        "queue_size": 180,
    }
    data = {
        "sf": 4,
        "model": {"target": "x"},
        "data": {"params": {"batch_size": 6, "train": {"params": params}}},
    }
    assert read_basicsr(file(data)) == PRESETS["stablesr_face"]
    params = {**FILES, **CLASSIC, "blur_kernel_size": [19, 20], "gray_prob": None, "gt_gray": True}
    assert read_basicsr(file({"data": {"params": {"train": {"params": params}}}})) == PRESETS["restoreformer"]


def test_realesrgan(file: Any) -> None:
    data = {"scale": 4, "l1_gt_usm": True, "gan_gt_usm": False, **PASSES, "gt_size": 256, "queue_size": 180}
    data |= {"datasets": {"train": {"type": "RealESRGANDataset", **FILES, **KERNELS, "gt_size": 256}}}
    assert read_basicsr(file(data)) == PRESETS["realesrgan_x4"]
    assert read_basicsr(file(data | {"scale": 2})) == PRESETS["realesrgan_x2"]


def test_diffbir_and_omgsr(file: Any) -> None:
    data = {
        "dataset": {
            "train": {"params": {**KERNELS, "out_size": 512, "crop_type": "none", "p_empty_prompt": 0.2}}
        },
        "batch_transform": {
            "params": {"use_sharpener": True, "queue_size": 256, "stage2_scale": 4, **PASSES}
        },
    }
    assert read_basicsr(file(data)) == PRESETS["realesrgan_x1"]
    milder = {
        "resize_range": [0.3, 1.5], "noise_range": [1, 15], "poisson_scale_range": [0.05, 2.0],
        "jpeg_range": [60, 95], "second_blur_prob": 0.5, "resize_range2": [0.6, 1.2], "noise_range2": [1, 12],
        "poisson_scale_range2": [0.05, 1.0], "jpeg_range2": [60, 100],
    }  # fmt: skip
    kernels = {name: value for name, value in KERNELS.items() if not name.startswith("blur_kernel_size")}
    data = {
        "scale": 4,
        "color_jitter_prob": 0.0,
        "gray_prob": 0.0,
        **PASSES,
        **milder,
        "kernel_info": kernels,
    }
    assert read_basicsr(file(data)) == PRESETS["omgsr"]


def test_empty_options_switch_off(file: Any) -> None:
    options = {**CLASSIC, "noise_range": None, "jpeg_range": None, **JITTER, "hue": None}
    preset = read_basicsr(file({"datasets": {"train": options}}))
    assert isinstance(preset, Classic)
    assert (preset.noise_sigma, preset.quality, preset.hue) == (None, None, (0.0, 0.0))
    assert preset.brightness == (0.5, 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur_sgima": [1, 2]}, "unknown option blur_sgima; did you mean blur_sigma?"),
        ({"wobble": 3, "twist": 4}, "unknown options twist, wobble"),
        ({"use_motion_kernel": True}, "use_motion_kernel: True is not supported"),
        ({"kernel_list": ["iso", "skew"]}, "skew"),
        ({"kernel_prob": [0.5]}, "weight for each of its 2 shapes, got"),
        ({"blur_sigma": [10, 0.1]}, r"\[lowest, highest\] for blur_sigma"),
        ({"blur_sigma": 3}, "list of numbers for blur_sigma, got 3"),
        ({"downsample_range": ["a", "b"]}, "downsample_range"),
        ({"blur_kernel_size": 40}, "odd"),
        ({"blur_kernel_size": "big"}, "blur_kernel_size"),
        ({"color_jitter_prob": "often"}, "often"),
        ({"jpeg_range": [0, 100]}, "1 to 100"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(file: Any, change: dict[str, Any], message: str) -> None:
    path = file({"datasets": {"train": CLASSIC | change}})
    with pytest.raises(ConfigError, match=message) as error:
        read_basicsr(path)
    assert str(path) in str(error.value)


def test_what_is_missing_is_named(file: Any) -> None:
    left = {name: value for name, value in CLASSIC.items() if name not in ("kernel_prob", "jpeg_range")}
    with pytest.raises(ConfigError, match="missing options kernel_prob, jpeg_range"):
        read_basicsr(file({"datasets": {"train": left}}))
    passes = {name: value for name, value in PASSES.items() if name != "resize_range2"}
    with pytest.raises(ConfigError, match="missing option resize_range2"):
        read_basicsr(file({**passes, "datasets": {"train": KERNELS}}))
    with pytest.raises(ConfigError, match="no degradation in it"):
        read_basicsr(file({"datasets": {"train": FILES}}))


def test_what_is_no_option_file_is_named(file: Any, tmp_path: Path) -> None:
    for content in ("- a\n- b\n", "", "a: [", "!!python/object/apply:os.getcwd []", "\x00"):
        with pytest.raises(ConfigError, match=r"options\.yml: is no option file"):
            read_basicsr(file(content))
    with pytest.raises(ConfigError, match=r"gone\.yml"):
        read_basicsr(tmp_path / "gone.yml")
    twice = {"noise_range": [0, 1], "datasets": {"train": CLASSIC}}
    with pytest.raises(ConfigError, match=r"noise_range stands in it twice: \[0, 1\] and \[0, 20\]"):
        read_basicsr(file(twice))


def test_a_file_gives_a_preset_that_works(file: Any) -> None:
    preset = read_basicsr(file({"scale": 2, **PASSES, "datasets": {"train": KERNELS}}))
    assert isinstance(preset, SecondOrder)
    assert preset.tiny().first.kernel.sizes == (3, 5, 7)
