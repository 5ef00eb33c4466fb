"""Every metric by its name."""

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch

from facerestore.core.errors import ConfigError
from facerestore.metrics import fidelity, identity, iqa, niqe, perceptual
from facerestore.metrics.metric import Card, Compares, Metric
from facerestore.metrics.perceptual import Measure

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Build = Callable[["WeightStore", torch.device], Measure]


def _row(
    name: str,
    build: Build,
    direction: Literal["higher", "lower"],
    compares: Compares,
    how: str,
    *weights: str,
    unit: str = "",
    package: str = "",
) -> tuple[str, tuple[Card, Build]]:
    card = Card(
        name=name,
        direction=direction,
        compares=compares,
        how=how,
        weights=weights,
        unit=unit,
        package=package,
        batched=not package,
    )
    return name, (card, build)


def _niqe(store: "WeightStore", device: torch.device) -> Measure:
    del device  # float64, which not every device has
    net = niqe.Niqe.load(store)
    return lambda pred, reference, points: net(pred)


def _pair(function: Callable[..., torch.Tensor], *, of_luma: bool = False) -> Build:
    def build(store: "WeightStore", device: torch.device) -> Measure:
        del store, device

        def measure(
            pred: torch.Tensor, target: torch.Tensor | None, points: torch.Tensor | None
        ) -> torch.Tensor:
            assert target is not None
            return function(*(fidelity.luma(each.double()) if of_luma else each for each in (pred, target)))

        return measure

    return build


_ROWS = (
    _row(
        "psnr", _pair(fidelity.psnr), "higher", "sharp",
        "PSNR over R, G and B, no border left out; equal pictures get 100 dB",
        unit="dB",
    ),
    _row(
        "psnr-y", _pair(fidelity.psnr, of_luma=True), "higher", "sharp",
        "PSNR of Y of YCbCr (BT.601, 16 to 235, not rounded)",
        unit="dB",
    ),
    _row(
        "ssim", _pair(fidelity.ssim), "higher", "sharp",
        "SSIM, Gaussian window of 11 px, mean of R, G and B, 5 px of border left out, as BasicSR",
    ),
    _row(
        "ssim-y", _pair(fidelity.ssim, of_luma=True), "higher", "sharp",
        "SSIM of Y of YCbCr, the window as for ssim",
    ),
    _row(
        "lpips-vgg", perceptual.lpips("vgg"), "lower", "sharp",
        "LPIPS 0.1, VGG-16: as GFPGAN and VQFR",
        "torchvision/vgg16",
    ),
    _row(
        "lpips-alex", perceptual.lpips("alex"), "lower", "sharp",
        "LPIPS 0.1, AlexNet: the default of lpips and pyiqa",
        "torchvision/alexnet",
    ),
    _row(
        "dists", perceptual.dists, "lower", "sharp",
        "DISTS of the pictures as they are: as pyiqa",
        "dists", "torchvision/vgg16",
    ),
    _row(
        "dists-256", perceptual.dists_256, "lower", "sharp",
        "DISTS, the shorter side brought to 256 px first: as its authors",
        "dists", "torchvision/vgg16",
    ),
    _row(
        "niqe-basicsr", _niqe, "lower", "nothing",
        "NIQE of Y of YCbCr rounded to 8 bits, as BasicSR; not comparable with niqe-pyiqa",
        niqe.WEIGHT,
    ),
    _row(
        "niqe-pyiqa", iqa.niqe, "lower", "nothing",
        "NIQE of YIQ's luma, original parameters; the one of the NTIRE totals",
        "pyiqa/niqe", package="pyiqa",
    ),
    _row(
        "clipiqa", iqa.clipiqa, "higher", "nothing",
        "CLIP-IQA, RN50 without position embedding, five pairs of prompts",
        "pyiqa/clip-rn50", package="pyiqa",
    ),
    _row(
        "maniqa", iqa.maniqa, "higher", "nothing",
        "MANIQA trained on KonIQ-10k, 20 crops that miss the last 72 rows of 512",
        "pyiqa/maniqa", package="pyiqa",
    ),
    _row(
        "musiq", iqa.musiq, "higher", "nothing",
        "MUSIQ trained on KonIQ-10k, three scales",
        "pyiqa/musiq", package="pyiqa",
    ),
    _row(
        "qalign", iqa.qalign, "higher", "nothing",
        "Q-Align (one-align), task quality, float16",
        package="pyiqa",
    ),
    _row(
        "identity-adaface", identity.adaface, "higher", "person",
        "cosine of AdaFace IR-50 (MS1MV2), 112 px by five points, BGR: as the NTIRE challenges",
        "adaface/ir50",
    ),
    _row(
        "identity-arcface", identity.arcface, "higher", "person",
        "cosine of ArcFace IR-SE50, 112 px by five points, RGB",
        "arcface/ir-se50",
    ),
    _row(
        "identity-arcface-degrees", identity.arcface_degrees, "lower", "person",
        "angle of the grey ResNet-18 of GFPGAN, the whole aligned face at 128 px: the Deg. of VQFR, "
        "DAEFR and OSDFace, here of every pair (VQFR's script leaves out angles below 1)",
        "arcface/grey-resnet18", unit="degrees",
    ),
    _row(
        "identity-recognition", identity.recognition, "higher", "person",
        "the shipped recognition network (dlib), its distance as a similarity, 0.5 at its threshold",
        "face-recognition",
    ),
    _row(
        "identity-description", identity.description, "higher", "person",
        "cosine of an independent network (HSE FaceRes) that nothing is trained against",
        "face-description",
    ),
)  # fmt: skip
_TABLE: dict[str, tuple[Card, Build]] = dict(_ROWS)
ALIASES = {"musiq-koniq": "musiq", "maniqa-koniq": "maniqa"}
"""What others call them. Bare `niqe` and `lpips` are no names: each is that of two metrics."""
METRICS = tuple(_TABLE)
"""The name of every metric."""


def card(name: str) -> Card:
    """What a metric is; nothing is loaded.

    Raises:
        ConfigError: if there is none of this name.
    """
    name = ALIASES.get(name, name)
    if name not in _TABLE:
        variants = [each for each in METRICS if each.startswith(f"{name}-")]
        near = variants or difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(METRICS)}"
        raise ConfigError(f"there is no metric {name!r}; {hint}")
    return _TABLE[name][0]


def build(name: str, store: "WeightStore", device: torch.device | str = "cpu") -> Metric:
    """A metric, its network loaded and frozen.

    Raises:
        ConfigError: if there is none of this name.
        WeightsError: if a weight is missing, damaged, or does not fit.
        MissingDependency: if it is another package's, which is not there.
    """
    known = card(name)
    return Metric(known, _TABLE[known.name][1](store, torch.device(device)))
