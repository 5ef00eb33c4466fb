"""Who tells restored eyes and mouths from sharp ones: a discriminator for each, and what they ask for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.seeding import seeded_layers
from facerestore.losses.adversarial import Kind, discriminator_loss, generator_loss
from facerestore.losses.discriminators.roi import CROP_PX, ComponentDiscriminator, component_crops
from facerestore.losses.roi import component_style_loss, embedding, symmetry_loss, triplet_loss
from facerestore.training.task import Batch

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

ROI = "roi"
"""The player."""
PARTS = tuple(CROP_PX)
"""The fields with boxes that it reads."""
_CROPS = "roi crops"
Crops = Mapping[str, Tensor]


class RoiAdversary(nn.Module):
    """A discriminator for each of left eye, right eye and mouth, and what its features compare.

    The losses of the parts are added. The boxes come with the faces, and are mirrored and moved with them
    (`Stream.Config.components` names their file). All crops of restored and sharp faces are cut in the
    generator's turn, and used again in its own.

    Reference:
        GFPGAN, arXiv:2101.04061 (adversary and style, with these weights); NTIRE 2026's MaDENN,
        arXiv:2604.10532, names triplets and symmetry without formula: see `facerestore.losses.roi`.

    Args:
        nets: one for each of `PARTS`.
        config: the settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the defaults are GFPGAN's.

        Raises:
            ConfigError: if a weight is negative.
        """

        kind: Kind = "non_saturating"
        """Of the game."""
        weight: float = 1.0
        """Of how little the crops are taken for real."""
        style: float = 200.0
        """Of the distance of their Gram matrices to those of the sharp crops; 0 leaves it out."""
        triplet: float = 0.0
        """Of how much nearer the degraded crops are than the sharp ones; 0 leaves it out, 0.1 is a start."""
        symmetry: float = 0.0
        """Of how much more, or less, the eyes differ than the sharp ones do; 0 leaves it out."""
        made: bool = False
        """Whether the networks are small, for tests."""
        seed: int = 0
        """Of their first weights."""

        def __post_init__(self) -> None:
            if min(self.weight, self.style, self.triplet, self.symmetry) < 0:
                raise ConfigError(f"RoiAdversary: no weight lies below 0, got {self}")

        @property
        def reads(self) -> frozenset[str]:
            """Fields beside the pictures that it needs: the boxes."""
            return frozenset(PARTS)

        def notes(self) -> tuple[str, ...]:
            """Where triplets or symmetry count."""
            own = {"triplet": self.triplet, "symmetry": self.symmetry}
            return tuple(
                f"roi/{name}: the formula is our reading of a name" for name, counts in own.items() if counts
            )

        def weights(self) -> tuple[str, ...]:
            """None: it is trained from nothing."""
            return ()

        def tiny(self) -> Self:
            """The same with small networks."""
            return replace(self, made=True)

        def build(self, store: "WeightStore", target: Target = FP32) -> "RoiAdversary":
            """Draw fresh networks on the target's device."""
            del store
            nets = nn.ModuleDict()
            for part in PARTS:
                with seeded_layers(self.seed, f"{ROI}/{part}"):
                    sizes = ComponentDiscriminator.Config()
                    nets[part] = ComponentDiscriminator.tiny() if self.made else ComponentDiscriminator(sizes)
            return RoiAdversary(nets, self).to(target.device)

    player = ROI

    def __init__(self, nets: nn.ModuleDict, config: Config) -> None:
        super().__init__()
        self.nets: Any = nets
        self.config = config

    def say(self, fields: dict[str, Any], batch: Batch) -> Iterator[tuple[str, float, Tensor]]:
        """Its part in the generator's loss.

        Args:
            fields: `image`, `hq` and `lq` (B,3,S,S) in [0,1], and the boxes of `PARTS` (B,4).
            batch: in whose `made` the crops are left.
        """
        config = self.config
        fake, real = self._crops(fields, "image"), self._crops(fields, "hq")
        batch.made[_CROPS] = {part: crop.detach() for part, crop in fake.items()}, real
        pred = {part: self.nets[part].features(fake[part]) for part in PARTS}
        with torch.no_grad():
            true = {part: self.nets[part].features(real[part]) for part in PARTS}
        taken = [generator_loss(self.nets[part].score(pred[part]), config.kind) for part in PARTS]
        yield "roi/adversary", config.weight, torch.stack(taken).sum(0)
        if config.style > 0:
            styles = [component_style_loss(pred[part], true[part]) for part in PARTS]
            yield "roi/style", config.style, torch.stack(styles).sum(0)
        if config.triplet > 0:
            with torch.no_grad():
                crops = self._crops(fields, "lq")
                degraded = {part: embedding(self.nets[part].features(crops[part])[-1]) for part in PARTS}
            nearer = [
                triplet_loss(embedding(pred[part][-1]), embedding(true[part][-1]), degraded[part])
                for part in PARTS
            ]
            yield "roi/triplet", config.triplet, torch.stack(nearer).sum(0)
        if config.symmetry > 0:
            yield (
                "roi/symmetry",
                config.symmetry,
                symmetry_loss(*self._eyes(pred, fake), *self._eyes(true, real)),
            )

    def own(self, batch: Batch) -> tuple[str, Tensor]:
        """How badly they tell the crops of the generator's turn apart: (B,), the parts added."""
        fake, real = batch.made[_CROPS]
        losses = [
            discriminator_loss(self.nets[part](real[part]), self.nets[part](fake[part]), self.config.kind)
            for part in PARTS
        ]
        return "adversary", torch.stack(losses).sum(0)

    def _crops(self, fields: Mapping[str, Any], image: str) -> Crops:
        return component_crops(fields[image], {part: fields[part] for part in PARTS})

    def _eyes(self, described: Mapping[str, list[Tensor]], crops: Crops) -> tuple[Tensor, Tensor]:
        """Left and mirrored right eyes as the network of the left one describes them, (B,D) each."""
        mirrored = self.nets["left_eye"].features(crops["right_eye"].flip(3))
        return embedding(described["left_eye"][-1]), embedding(mirrored[-1])
