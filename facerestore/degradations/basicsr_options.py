"""Option files of BasicSR and of the projects that took its datasets over, read into presets."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from facerestore.core.errors import ConfigError
from facerestore.degradations.choices import Range
from facerestore.degradations.classic import Classic
from facerestore.degradations.kernels import KernelRange
from facerestore.degradations.presets import MIXED_SHAPES, Preset
from facerestore.degradations.second_order import Pass, SecondOrder

# Where files keep the options of the training pictures, from the top of the file.
_SECTIONS = (
    (),
    ("degradation",),  # StableSR
    ("kernel_info",),  # OMGSR
    ("datasets", "train"),  # BasicSR, GFPGAN, CodeFormer, VQFR, Real-ESRGAN
    ("dataset", "train", "params"),  # DiffBIR
    ("batch_transform", "params"),  # DiffBIR
    ("data", "params", "train", "params"),  # StableSR, RestoreFormer
)

_KERNEL = ("kernel_list", "kernel_prob", "blur_sigma")
_CLASSIC_NEEDS = (*_KERNEL, "blur_kernel_size", "downsample_range", "noise_range", "jpeg_range")
_CLASSIC_MAY = (
    "color_jitter_prob", "color_jitter_shift", "color_jitter_pt_prob", "gray_prob", "gt_gray",
    "brightness", "contrast", "saturation", "hue",
)  # fmt: skip
_PASS = (
    *_KERNEL, "betag_range", "betap_range", "sinc_prob", "resize_prob", "resize_range",
    "gaussian_noise_prob", "noise_range", "poisson_scale_range", "gray_noise_prob", "jpeg_range",
)  # fmt: skip
_SECOND_ORDER_NEEDS = (*_PASS, *(f"{name}2" for name in _PASS), "second_blur_prob", "final_sinc_prob")
_SECOND_ORDER_MAY = (
    "blur_kernel_size", "blur_kernel_size2", "scale", "stage2_scale", "sf", "l1_gt_usm", "percep_gt_usm",
    "gan_gt_usm", "use_sharpener",
)  # fmt: skip

# Degrading options that change a picture and that we do not have, with the value that switches them off.
_UNKNOWN_TO_US = {
    "use_motion_kernel": False,
    "gen_inpaint_mask": False,
    "no_degradation_prob": 0,
    "high_order_degradation": True,
    "use_corrupt": True,
    "color_jitter_prob": 0,  # of the second-order model; the classic one has them
    "gray_prob": 0,
}
# What else stands in these sections, about files, loading and training.
_ELSEWHERE = (
    "name", "type", "model_type", "num_gpu", "manual_seed", "sf", "scale", "gt_size", "crop_size",
    "out_size", "in_size", "resolution", "queue_size", "dataroot_gt", "dataroot_lq", "dataroot", "gt_path",
    "face_gt_path", "num_face", "meta_info", "meta_info_file", "io_backend", "file_list", "file_metas",
    "file_backend_cfg", "filename_tmpl", "mean", "std", "use_hflip", "use_rot", "crop_type",
    "crop_components", "component_path", "eye_enlarge_ratio", "nose_enlarge_ratio", "mouth_enlarge_ratio",
    "latent_gt_path", "motion_kernel_prob", "motion_kernel_path", "use_shuffle", "num_worker_per_gpu",
    "batch_size_per_gpu", "dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue", "pin_memory",
    "phase", "syncbn", "color", "cache_memory", "p_long_prompt", "p_empty_prompt", "is_train", "dist",
    "find_unused_parameters", "force_yml", "auto_resume", "blur_sigma_large", "downsample_range_large",
    "noise_range_large", "jpeg_range_large",
)  # fmt: skip
_RANGES = ("blur_sigma", "downsample_range", "noise_range", "jpeg_range")


def read_basicsr(path: str | os.PathLike[str], *, large: bool = False) -> Preset:
    """Read the degradation of a BasicSR option file.

    Understood are the options of `FFHQDegradationDataset` and `FFHQBlindDataset` (a classic preset) and those
    of `RealESRGANDataset` with `RealESRGANModel` (a second-order one), as they stand in the files of BasicSR,
    GFPGAN, Real-ESRGAN, CodeFormer, VQFR, RestoreFormer, DiffBIR, StableSR and OMGSR. What is missing and
    what nobody knows is an error: a misspelt option must not quietly change what a network is trained with.

    Args:
        path: a YAML file.
        large: take the second set of ranges (`blur_sigma_large`, ...) of CodeFormer's third stage.

    Returns:
        A preset that equals the one of `PRESETS` where that file is the one it was taken from. JPEG is `dct`.

    Raises:
        ConfigError: if the file cannot be read, is no option file, or options are missing, unknown, of the
            wrong kind, or ask for what is not supported.
    """
    source = Path(path)
    data = _loaded(source)
    options = _flattened(data, source)
    if large:
        _require(source, options, [f"{name}_large" for name in _RANGES])
        options |= {name: options[f"{name}_large"] for name in _RANGES}
    second_order = "resize_prob" in options or "resize_prob2" in options
    if not second_order and "downsample_range" not in options:
        raise ConfigError(
            f"{source}: no degradation in it: neither downsample_range (FFHQDegradationDataset) nor "
            "resize_prob (RealESRGANModel)"
        )
    needs, may = (_SECOND_ORDER_NEEDS, _SECOND_ORDER_MAY) if second_order else (_CLASSIC_NEEDS, _CLASSIC_MAY)
    _refuse_unknown(source, options, (*needs, *may))
    _require(source, options, needs)
    try:
        return _second_order(options, "kernel_info" in data) if second_order else _classic(options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _loaded(source: Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{source}: is no option file that can be read ({error})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: is no option file: expected names with values")
    return cast("Mapping[str, Any]", data)


def _flattened(data: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The options of every section that may hold some, in one dictionary."""
    options: dict[str, Any] = {}
    for section in _SECTIONS:
        for name, value in _plain(data, section):
            if name in options and options[name] != value and name not in _ELSEWHERE:
                raise ConfigError(f"{source}: {name} stands in it twice: {options[name]} and {value}")
            options[name] = value
    return options


def _plain(data: Any, section: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key in section:
        data = data.get(key) if isinstance(data, dict) else None
    if isinstance(data, dict):
        yield from ((str(name), value) for name, value in data.items() if not isinstance(value, dict))


def _refuse_unknown(source: Path, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name, off in _UNKNOWN_TO_US.items():
        if name in options and name not in known and options[name] not in (off, None):
            raise ConfigError(f"{source}: {name}: {options[name]} is not supported; set it to {off}")
    unknown = [name for name in options if name not in {*known, *_UNKNOWN_TO_US, *_ELSEWHERE}]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove what is not about degradation"
        raise ConfigError(f"{source}: unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}; {hint}")


def _require(source: Path, options: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in options]
    if missing:
        raise ConfigError(f"{source}: missing option{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _classic(options: Mapping[str, Any]) -> Classic:
    size = options["blur_kernel_size"]
    if isinstance(size, list):  # RestoreFormer gives a range of half sizes
        low, high = (int(half) for half in _pair(size, "blur_kernel_size"))
        sizes = tuple(2 * half + 1 for half in range(low, high + 1))
    else:
        sizes = (_whole(size, "blur_kernel_size"),)
    return Classic(
        kernel=KernelRange(
            sizes=sizes,
            shapes=_shapes(options["kernel_list"]),
            weights=_numbers(options["kernel_prob"], "kernel_prob"),
            sigma=_pair(options["blur_sigma"], "blur_sigma"),
        ),
        downsample=_pair(options["downsample_range"], "downsample_range"),
        noise_sigma=_range(options, "noise_range"),
        quality=_range(options, "jpeg_range"),
        colour_shift=float(options.get("color_jitter_shift") or 20),
        colour_shift_probability=_probability(options, "color_jitter_prob"),
        grey_probability=_probability(options, "gray_prob"),
        # Without a grey picture there is nothing to make its target grey for.
        grey_target=bool(options.get("gt_gray")) and _probability(options, "gray_prob") > 0,
        photometric_probability=_probability(options, "color_jitter_pt_prob"),
        brightness=_jitter(options, "brightness", (0.5, 1.5), 1.0),
        contrast=_jitter(options, "contrast", (0.5, 1.5), 1.0),
        saturation=_jitter(options, "saturation", (0.0, 1.5), 1.0),
        hue=_jitter(options, "hue", (-0.1, 0.1), 0.0),
    )


def _second_order(options: Mapping[str, Any], omgsr: bool) -> SecondOrder:
    scale = options.get("stage2_scale", options.get("scale", options.get("sf", 4)))
    # RealESRGANModel degrades the sharpened picture and keeps the result small; the others say in code what
    # they do: OMGSR (`kernel_info`) does not sharpen and enlarges in any way, DiffBIR and StableSR bicubic.
    enlarge = "any" if omgsr else "bicubic" if "stage2_scale" in options or "sf" in options else "no"
    return SecondOrder(
        first=_pass(options, "", 1.0),
        second=_pass(options, "2", float(options["second_blur_prob"])),
        scale=_whole(scale, "scale"),
        final_sinc_probability=float(options["final_sinc_prob"]),
        sharpen=bool(options.get("use_sharpener", not omgsr)),
        enlarge=enlarge,
    )


def _pass(options: Mapping[str, Any], suffix: str, blur_probability: float) -> Pass:
    def pair(name: str) -> Range:
        return _pair(options[name + suffix], name + suffix)

    largest = _whole(options.get(f"blur_kernel_size{suffix}", 21), f"blur_kernel_size{suffix}")
    return Pass(
        kernel=KernelRange(
            sizes=tuple(range(7, largest + 1, 2)),
            shapes=_shapes(options[f"kernel_list{suffix}"]),
            weights=_numbers(options[f"kernel_prob{suffix}"], f"kernel_prob{suffix}"),
            sigma=pair("blur_sigma"),
            beta_generalized=pair("betag_range"),
            beta_plateau=pair("betap_range"),
            sinc_probability=float(options[f"sinc_prob{suffix}"]),
        ),
        blur_probability=blur_probability,
        resize_weights=_numbers(options[f"resize_prob{suffix}"], f"resize_prob{suffix}"),
        resize=pair("resize_range"),
        gaussian_probability=float(options[f"gaussian_noise_prob{suffix}"]),
        gaussian_sigma=pair("noise_range"),
        poisson_scale=pair("poisson_scale_range"),
        grey_probability=float(options[f"gray_noise_prob{suffix}"]),
        quality=pair("jpeg_range"),
    )


def _shapes(value: Any) -> tuple[Any, ...]:
    unknown = [shape for shape in value if shape not in MIXED_SHAPES]
    if unknown:
        raise ValueError(f"unknown kernels {unknown}; there are {', '.join(MIXED_SHAPES)}")
    return tuple(value)


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int):
        raise ValueError(f"expected a whole number for {name}, got {value!r}")
    return value


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"expected a list of numbers for {name}, got {value!r}")
    return tuple(float(v) for v in value)


def _pair(value: Any, name: str) -> Range:
    numbers = _numbers(value, name)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(f"expected [lowest, highest] for {name}, got {value!r}")
    return numbers[0], numbers[1]


def _range(options: Mapping[str, Any], name: str) -> Range | None:
    """A range that may be left out or empty, which means that there is none."""
    return None if options.get(name) is None else _pair(options[name], name)


def _jitter(options: Mapping[str, Any], name: str, usual: Range, nothing: float) -> Range:
    """The usual range where the option is left out; none where it is empty."""
    return (_range(options, name) or (nothing, nothing)) if name in options else usual


def _probability(options: Mapping[str, Any], name: str) -> float:
    return float(options.get(name) or 0)
