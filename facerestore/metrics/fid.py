"""FID: the distance between the statistics of what a network says of two sets of pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerestore.core.errors import ConfigError, MissingDependency, ShapeError, WeightsError
from facerestore.features.inception import SIDE_PX, WEIGHT, FidFeatures
from facerestore.metrics.metric import Card
from facerestore.weights.load import is_safetensors, read_arrays, read_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

CARDS = {
    "fid": Card(
        name="fid",
        direction="lower",
        compares="nothing",
        how="FID of the NTIRE challenges, VQFR and BasicSR: Inception of 2015, pictures in [-1,1], bilinear "
        "to 299 px without antialiasing; only sets of one size compare",
        weights=(WEIGHT,),
    ),
    "fid-clean": Card(
        name="fid-clean",
        direction="lower",
        compares="nothing",
        how="clean-fid 0.1.35: the same network, pictures in 8 bits reduced to 299 px by Pillow's "
        "antialiased bicubic, a channel at a time in float, as (x - 128) / 128",
        weights=(WEIGHT,),
    ),
}
_FFHQ = {"fid": "fid-ffhq-512"}
_EPS = 1e-6  # that SciPy's form adds to both diagonals where their product has no root


@dataclass(frozen=True, slots=True)
class Extractor:
    """What describes pictures for a distance.

    Attributes:
        card: which variant it is.
        describe: (B,3,H,W) float32 in [0,1] to (B,D).
    """

    card: Card
    describe: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Describe (B,3,H,W) in [0,1]: (B,D)."""
        return self.describe(images)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and covariance of the descriptions of a set.

    Attributes:
        mean: (D,) float64.
        covariance: (D,D) float64, unbiased.
        deviations: (N,D) float64, the descriptions less their mean over sqrt(N - 1), where they are known.
    """

    mean: Tensor
    covariance: Tensor
    deviations: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Of descriptions (N,D), in float64.

        Raises:
            ShapeError: if there are fewer than two.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ShapeError("descriptions (N,D), two or more", features.shape)
        wide = features.double().cpu()
        mean = wide.mean(0)
        deviations = (wide - mean) / (len(wide) - 1) ** 0.5
        return cls(mean, deviations.T @ deviations, deviations)


def frechet_distance(a: Statistics, b: Statistics, how: Literal["exact", "scipy"] = "exact") -> float:
    """|mean_a - mean_b|^2 + Tr(A + B - 2 sqrt(A B)).

    Args:
        a: of a set.
        b: of another.
        how: `exact` takes the trace of the root from the eigenvalues of a symmetric matrix, N x N where the
            descriptions of N pictures of a side are known, and cannot fail; `scipy` is what the official
            programs do, a root of a general matrix, to compare with them.

    Raises:
        ShapeError: if the widths differ.
        MissingDependency: if SciPy is asked for and not there.

    Reference:
        Heusel et al., 2017, arXiv:1706.08500. With A = X^T X, Tr sqrt(A B) is the sum of the roots of the
        eigenvalues of X B X^T.
    Parity:
        the form with SciPy's `sqrtm`, as VQFR and pytorch-fid have it: 1e-4 relative; 6e-8 at 450 x 2048.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError(f"statistics of {len(a.mean)} numbers", b.mean.shape)
    apart = (a.mean - b.mean).square().sum()
    root = _root_scipy(a, b) if how == "scipy" else _root(a, b)
    return float(apart + a.covariance.trace() + b.covariance.trace() - 2 * root)


def _root(a: Statistics, b: Statistics) -> float:
    """Tr sqrt(A B)."""
    if b.deviations is not None and (a.deviations is None or len(b.deviations) < len(a.deviations)):
        a, b = b, a
    x = a.deviations
    if x is None or len(x) > len(a.mean):  # a root of A that is no larger than A
        values, vectors = torch.linalg.eigh(a.covariance)
        x = (vectors * values.clamp(min=0).sqrt()).T
    return float(torch.linalg.eigvalsh(x @ b.covariance @ x.T).clamp(min=0).sqrt().sum())


def _root_scipy(a: Statistics, b: Statistics) -> float:
    try:
        from scipy.linalg import sqrtm
    except ImportError as error:
        raise MissingDependency("FID by SciPy needs it: pip install scipy") from error
    first, second = a.covariance.numpy(), b.covariance.numpy()
    root: Any = sqrtm(first @ second)
    if not np.isfinite(root).all():
        offset = np.eye(len(first)) * _EPS
        root = sqrtm((first + offset) @ (second + offset))
    return float(np.trace(root.real))


def statistics_of(metric: str, against: str) -> tuple[str, ...]:
    """Names of the weights that hold published statistics of `against`, by the network of a metric."""
    return (_FFHQ[metric],) if against == "ffhq" and metric in _FFHQ else ()


def ffhq_statistics(store: "WeightStore", metric: str) -> Statistics:
    """Of the 70,000 faces of FFHQ at 512 px, as VQFR publishes them (`inception_FFHQ_512.pth`).

    Raises:
        WeightsError: if the file is missing, or holds something else.
        ConfigError: if nobody published them for this variant.
    """
    if metric not in _FFHQ:
        raise ConfigError(
            f"{metric} to FFHQ: no statistics that we read are published; compare with the sharp pictures"
        )
    path = store.find(_FFHQ[metric])
    data: Any = read_tensors(path) if is_safetensors(path) else read_arrays(path)
    try:
        mean, covariance = (torch.as_tensor(np.asarray(data[key])).double() for key in ("mean", "cov"))
    except (TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: a mean and a cov were expected ({error})") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise WeightsError(f"{path}: mean {tuple(mean.shape)} and cov {tuple(covariance.shape)} do not fit")
    return Statistics(mean, covariance)


def _official(store: "WeightStore", device: torch.device) -> Extractor:
    return Extractor(CARDS["fid"], FidFeatures.load(store).to(device))


def _clean(store: "WeightStore", device: torch.device) -> Extractor:
    net = FidFeatures.load(store).to(device)
    return Extractor(CARDS["fid-clean"], lambda images: net(clean_resize(images).to(device)))


EXTRACTORS: dict[str, Callable[["WeightStore", torch.device], Extractor]] = {
    "fid": _official,
    "fid-clean": _clean,
}
"""What describes pictures, by the name of the distance."""


def clean_resize(images: Tensor) -> Tensor:
    """Reduce as clean-fid does: rounded to 8 bits, then each channel in float by Pillow's bicubic, clipped.

    Args:
        images: (B,3,H,W) in [0,1].

    Returns:
        (B,3,299,299) float32 in [0,255/256], on the CPU: what becomes (x - 128) / 128 in [-1,1], where the
        other FID has x / 127.5 - 1.

    Parity:
        pyiqa 0.1.16 `fid_arch.py`, mode `clean`, which is clean-fid's: exactly.
    """
    channels = (images * 255).round().clamp(0, 255).cpu().numpy()

    def one(channel: Any) -> Any:
        image = Image.fromarray(channel.astype(np.float32), mode="F")
        return np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)).clip(0, 255)

    reduced = np.stack([np.stack([one(channel) for channel in image]) for image in channels])
    return torch.from_numpy(reduced / 256).float()


def card(name: str) -> Card:
    """What a distance is.

    Raises:
        ConfigError: if there is none of this name.
    """
    if name not in CARDS:
        raise ConfigError(f"there is no distance {name!r}; there are {', '.join(CARDS)}")
    return CARDS[name]
