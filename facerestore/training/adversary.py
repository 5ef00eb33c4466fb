"""Who tells restored from sharp faces: a discriminator, and its part in both players' losses."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.seeding import generator, seeded_layers
from facerestore.imaging.resize import resize
from facerestore.losses.adversarial import Kind, discriminator_loss, generator_loss, r1_penalty
from facerestore.losses.diffaugment import augment
from facerestore.losses.discriminators.dino import DinoV2Discriminator
from facerestore.losses.discriminators.dinov3_convnext import DinoV3Discriminator
from facerestore.losses.discriminators.latent import LatentDiscriminator
from facerestore.losses.discriminators.patch import PatchDiscriminator
from facerestore.training.draws import integers, noise_like
from facerestore.training.task import DISCRIMINATOR, Batch

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Judge = Literal["patch", "dinov2", "dinov3", "latent"]
_WEIGHTS: dict[str, tuple[str, ...]] = {
    "patch": (),
    "dinov2": ("dinov2-small",),
    "dinov3": ("dinov3-convnext-large",),
    "latent": ("sd21-base/unet",),
}
_FROZEN_FEATURES = ("dinov2", "dinov3")
"""Whose features are computed once for both players: only heads are trained on them."""
_LEAST_DINOV3_PX = 512  # its heads halve the maps to one number, and no further
_TIMESTEPS = (1, 1000)  # of the latent one, uniformly


class Adversary(nn.Module):
    """A discriminator with the form of its game.

    Args:
        net: one of `facerestore.losses.discriminators`.
        config: the settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings.

        Raises:
            ConfigError: if a number is negative.
        """

        net: Judge
        """`patch` is trained from nothing; `dinov2` and `dinov3` are heads on frozen networks; `latent`
        judges noised latents by half a diffusion UNet."""
        kind: Kind = "hinge"
        """Of both losses."""
        weight: float = 0.1
        """Of the generator's part."""
        starts_at: int = 0
        """Steps before the generator listens; the discriminator learns meanwhile."""
        augmented: bool = True
        """Whether it sees recoloured, moved and cut pictures; latents never are."""
        r1: float = 0.0
        """Weight of the slope at real faces; 0 leaves it out."""
        image_px: Literal[512, 1024] = 512
        """Side of the pictures that the heads of `dinov3` are made for."""
        made: bool = False
        """Whether it stands on a small made network, for tests."""
        seed: int = 0
        """Of its first weights."""

        def __post_init__(self) -> None:
            if min(self.weight, self.starts_at, self.r1) < 0:
                raise ConfigError(f"Adversary: no number lies below 0, got {self}")

        @property
        def reads(self) -> frozenset[str]:
            """Fields beside `image` and `hq` that it needs."""
            return frozenset({"z_hq"} if self.net == "latent" else set())

        def notes(self) -> tuple[str, ...]:
            """None: each is as published."""
            return ()

        def weights(self) -> tuple[str, ...]:
            """Names of the weights it needs."""
            return () if self.made else _WEIGHTS[self.net]

        def tiny(self) -> Self:
            """The same on a small made network."""
            return replace(self, made=True)

        def build(self, store: "WeightStore", target: Target = FP32) -> "Adversary":
            """Load what is frozen, draw what is trained, and bring it to the target's device."""
            with seeded_layers(self.seed, f"adversary/{self.net}"):
                return Adversary(self._net(store), self).to(target.device)

        def _net(self, store: "WeightStore") -> nn.Module:
            if self.net == "patch":
                return (
                    PatchDiscriminator.tiny()
                    if self.made
                    else PatchDiscriminator(PatchDiscriminator.Config())
                )
            kinds: dict[str, Any] = {
                "patch": PatchDiscriminator,
                "dinov2": DinoV2Discriminator,
                "dinov3": DinoV3Discriminator,
                "latent": LatentDiscriminator,
            }
            if self.made:
                return kinds[self.net].tiny()
            more = {"image_px": self.image_px} if self.net == "dinov3" else {}
            return kinds[self.net].load(store, **more)

    def __init__(self, net: nn.Module, config: Config) -> None:
        super().__init__()
        self.net: Any = net
        self.config = config

    player = DISCRIMINATOR

    def say(self, fields: dict[str, Any], batch: Batch) -> Iterator[tuple[str, float, Tensor]]:
        """Its part in the generator's loss, once that listens."""
        each = self.generator(fields, batch)
        if each is not None:
            yield "adversary", self.config.weight, each

    def own(self, batch: Batch) -> tuple[str, Tensor]:
        """What it minimises itself."""
        return "adversary", self.discriminator(batch)

    def generator(self, fields: dict[str, Any], batch: Batch) -> Tensor | None:
        """How little the pictures of the generator are taken for real: (B,), or None before its start."""
        if batch.step < self.config.starts_at:
            return None
        features = self._features(fields[self._judged], batch, "fake")
        if self.config.net in _FROZEN_FEATURES:
            batch.made["fake features"] = [level.detach() for level in features]
        return generator_loss(self.net.score(features), self.config.kind)

    def discriminator(self, batch: Batch) -> Tensor:
        """How badly it tells them apart: (B,); what the generator's turn computed is used again."""
        real = self._features(batch.made["z_hq"] if self._judged == "z_0" else batch.hq, batch, "real")
        fake = batch.made.get("fake features")
        if fake is None:
            fake = self._features(batch.made[self._judged], batch, "fake")
        sloped = self.config.r1 > 0
        if sloped:
            real = [level.detach().requires_grad_() for level in real]
        judged = self.net.score(real)
        loss = discriminator_loss(judged, self.net.score(fake), self.config.kind)
        return loss + 0.5 * self.config.r1 * r1_penalty(judged, real) if sloped else loss

    @property
    def _judged(self) -> str:
        return "z_0" if self.config.net == "latent" else "image"

    def _features(self, what: Tensor, batch: Batch, side: str) -> list[Tensor]:
        if self.config.net == "latent":
            timesteps = integers(*_TIMESTEPS, batch.seeds, "adversary/timesteps", what.device)
            return self.net.features(what, timesteps, noise_like(what, batch.seeds, f"adversary/{side}"))
        if self.config.augmented:
            draws: list[torch.Generator] = [generator(seed, "adversary/augment") for seed in batch.seeds]
            what = augment(what, draws)
        if self.config.net == "dinov3" and min(what.shape[2:]) < _LEAST_DINOV3_PX:
            what = resize(what, _LEAST_DINOV3_PX, _LEAST_DINOV3_PX)
        return self.net.features(what)
