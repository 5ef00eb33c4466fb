"""Losses by name: what a job writes down, and what becomes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.features.adaface import AdaFace
from facerestore.features.arcface import ArcFace, GreyArcFace
from facerestore.features.dists import Dists
from facerestore.features.dv3d import Dv3D
from facerestore.features.edges import EdgeAware
from facerestore.features.identity import FaceDescriptor
from facerestore.features.inception import FidFeatures
from facerestore.features.lpips import Lpips
from facerestore.imaging.resize import resize
from facerestore.losses import frequency, latent, pixel
from facerestore.losses.clip import ClipLoss
from facerestore.losses.correction import ratio_cap
from facerestore.losses.identity import DescriptorLoss, IdentityLoss
from facerestore.losses.objective import Term
from facerestore.losses.perceptual import VggLoss
from facerestore.training.draws import noise_like
from facerestore.training.fid_queue import FidQueue

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Build = Callable[["WeightStore", bool], Callable[..., Tensor]]
"""From where weights are found, and whether a small made network is wanted, to a loss."""
_FACE_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Config):
    """One term of an objective.

    Raises:
        ConfigError: if there is no loss of this name.
    """

    name: str
    """One of `LOSSES`."""
    weight: float = 1.0
    """What its mean is multiplied by."""
    level: float | None = None
    """Of noise, where the loss has one: a timestep of 0 to 999 for `lrr`, sigma for `lrr_flow`."""
    statistics: str | None = None
    """Of `fid_proxy`: the file with what real faces are like, of `facerestore data statistics`."""
    made: bool = False
    """Whether its network is a small one of random weights, for tests."""

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ConfigError(f"there is no loss {self.name!r}; there are {', '.join(LOSSES)}")
        if self.statistics is None and self.name == _COMPARED and not self.made:
            raise ConfigError(
                f"{_COMPARED}: statistics names the file with what real faces are like; "
                "`facerestore data statistics FACES -o real.safetensors` makes one"
            )
        if self.statistics is not None and self.name != _COMPARED:
            raise ConfigError(f"{self.name}: statistics are given to {_COMPARED}, and to no other")
        if (self.level is not None) != (self.name in _LEVELLED):
            raise ConfigError(
                f"{self.name}: a noise level is given to {' and '.join(_LEVELLED)}, and to no other"
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that are its arguments."""
        return LOSSES[self.name].reads

    def weights(self) -> tuple[str, ...]:
        """Names of the weights that its network needs."""
        return () if self.made else LOSSES[self.name].weights

    def tiny(self) -> Self:
        """The same with a small made network, which real statistics would not fit."""
        return replace(self, made=True, statistics=None)


@dataclass(frozen=True, slots=True)
class Row:
    """What a name stands for.

    Attributes:
        build: makes the loss.
        weights: that its network needs.
        reads: the fields that are its arguments.
        note: what of it was not published, for the cards.
    """

    build: Build
    weights: tuple[str, ...] = ()
    reads: tuple[str, ...] = ("image", "hq")
    note: str = ""


def build_terms(losses: Sequence[Loss], store: "WeightStore") -> list[Term]:
    """The terms of an objective, their networks loaded.

    Raises:
        ConfigError: if two losses have one name, or statistics are those of another network.
        DataError: if a file of statistics cannot be read.
        WeightsError: if a weight is missing, damaged, or does not fit.
    """
    terms: list[Term] = []
    for loss in losses:
        row = LOSSES[loss.name]
        call: Any = row.build(store, loss.made)
        if loss.level is not None:
            call = partial(call, level=loss.level)
        if loss.name == _COMPARED:
            call = FidQueue.of(call, loss.statistics)
        pred, *others = row.reads
        target = others.pop(0) if others else None
        terms.append(Term(loss.name, call, loss.weight, pred, target, tuple(others)))
    return terms


class _AtFacePx(nn.Module):
    """A loss of aligned faces, which are brought to 512 px for it."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.loss(*(resize(faces, _FACE_PX, _FACE_PX) for faces in (pred, target)))


def _lrr(z_lq: Tensor, z_hq: Tensor, seeds: tuple[int, ...], *, level: float) -> Tensor:
    alpha = float(sd_alpha_bar()[int(level)])
    return latent.lrr(z_lq, z_hq, noise_like(z_hq, seeds, "lrr"), alpha)


def _lrr_flow(z_lq: Tensor, z_hq: Tensor, seeds: tuple[int, ...], *, level: float) -> Tensor:
    return latent.lrr_flow(z_lq, z_hq, noise_like(z_hq, seeds, "lrr"), level)


def _plain(loss: Callable[..., Tensor], *reads: str, note: str = "") -> Row:
    """A loss without a network."""
    return Row(lambda store, made: loss, reads=reads or ("image", "hq"), note=note)


def _network(kind: Any, *weights: str, **settings: Any) -> Row:
    """A loss, or a distance, that is a network."""
    return Row(lambda store, made: kind.tiny() if made else kind.load(store, **settings), weights)


def _edge_aware(kind: Any, *weights: str) -> Row:
    return Row(lambda store, made: EdgeAware(kind.tiny() if made else kind.load(store)), weights)


def _identity(kind: Any, *weights: str, **settings: Any) -> Row:
    def build(store: "WeightStore", made: bool) -> nn.Module:
        return _AtFacePx(IdentityLoss(kind.tiny() if made else kind.load(store, **settings)))

    return Row(build, weights)


LOSSES: dict[str, Row] = {
    "l1": _plain(pixel.l1),
    "mse": _plain(pixel.mse),
    "charbonnier": _plain(pixel.charbonnier),
    "high_frequency": _plain(frequency.high_frequency_charbonnier, note="its numbers are ours"),
    "gradient": _plain(frequency.gradient_charbonnier, note="its numbers are ours"),
    "wavelet": _plain(frequency.wavelet_high_frequency, note="the absolute difference is our reading"),
    "vgg": _network(VggLoss, "torchvision/vgg19"),
    "lpips": _network(Lpips, "torchvision/vgg16"),
    "dists": _network(Dists, "dists", "torchvision/vgg16"),
    "edge_dists": _edge_aware(Dists, "dists", "torchvision/vgg16"),
    "dv3d": _network(Dv3D, "dinov3-convnext-large"),
    "clip": _network(ClipLoss, "clip-vit-l14"),
    "arcface": _identity(ArcFace, "arcface/ir-se50"),
    "arcface_grey": _identity(GreyArcFace, "arcface/grey-resnet18"),
    "adaface": _identity(AdaFace, "adaface/ir50"),
    "identity": Row(lambda store, made: _AtFacePx(DescriptorLoss(FaceDescriptor.load(store)))),
    "fid_proxy": Row(
        lambda store, made: FidFeatures.tiny() if made else FidFeatures.load(store),
        ("fid-inception",),
        reads=("image",),
        note="the equation is ours; published is the name",
    ),
    "latent_mse": _plain(latent.latent_mse, "z_0", "z_hq"),
    "lrr": _plain(_lrr, "z_lq", "z_hq", "seeds"),
    "lrr_flow": _plain(_lrr_flow, "z_lq", "z_hq", "seeds"),
    "blurred_mse": _plain(pixel.blurred_mse, "image", "hq", "timesteps"),
    "ratio_cap": _plain(ratio_cap, "correction", "predicted", note="norms, square and 0.1 are our reading"),
}
"""Every loss that a job can name."""
_LEVELLED, _COMPARED = ("lrr", "lrr_flow"), "fid_proxy"
