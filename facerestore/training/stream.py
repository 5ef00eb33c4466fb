"""The faces of a job: which ones, in which order, degraded how; and the fixed ones that are looked at."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.seeding import generator
from facerestore.data import (
    Augment,
    Cached,
    Index,
    Order,
    Pictures,
    WithBoxes,
    balanced,
    batches,
    content_seed,
    fill,
    fingerprint,
    held_back,
    index_ffhq,
    index_folder,
    index_list,
    index_pairs,
    index_shards,
    index_table,
    read_components,
    select,
    with_parts_only,
)
from facerestore.data.cached import Make
from facerestore.data.index import require_some
from facerestore.degradations import PRESETS, Preset, degrade, find_preset, read_basicsr
from facerestore.imaging.resize import resize
from facerestore.training.task import Batch

Layout = Literal["auto", "folder", "ffhq", "list", "table", "shards"]
MOMENTS = "_moments"
"""Ending of the names of fields that are posteriors: `z_hq_moments`."""
_RECORD = "seen.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Fixed faces, always degraded alike.

    Attributes:
        hq: (B,3,H,W) float32 in [0,1], on the CPU.
        lq: the same degraded.
        seeds: one each.
        keys: their names.
    """

    hq: Tensor
    lq: Tensor
    seeds: tuple[int, ...]
    keys: tuple[str, ...]


class Stream:
    """Batches of faces, degraded on the device; a function of the seed and the number of the step.

    Args:
        config: the settings.
        seed: of the order and of every draw.
        batch_size: faces per batch.
        device: where batches lie.
        world: number of this process, and how many there are.
        record: folder in which to remember which pictures are usable; None for nowhere.

    Raises:
        ConfigError: if the settings name what is not there.
        DataError: if the faces cannot be listed, or none can be used.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings.

        Raises:
            ConfigError: if a number is out of range, or no preset has a name.
        """

        faces: str = ""
        """A folder, a CSV table with a column `file`, a BasicSR list, FFHQ, or tar shards."""
        layout: Layout = "auto"
        """What `faces` is; `auto` goes by the ending of its name, and takes a folder for a plain one."""
        folder: str = ""
        """To which the names of a list or table are relative; empty for the list's own folder."""
        lq: str = ""
        """A folder of degraded faces at the same places; empty degrades by the presets."""
        where: tuple[str, ...] = ()
        """Rows of a table that are taken: `licence=CC0*|MIT*`; all must hold."""
        balance: str = ""
        """Column whose values come equally often; empty takes every face once in an epoch."""
        held_back: float = 0.05
        """Share of the people whose faces are not trained on; 0 trains on all, and shows none."""
        person: str = "identity"
        """Column that tells people apart; a face without it is a person of its own."""
        shown: int = 8
        """Held-back faces that are restored and measured at each validation."""
        components: str = ""
        """File with eyes and mouths (`facerestore data components` makes one), where a loss looks at them. A
        face that it lacks is not trained on: it is counted as `no parts` among what was left out."""
        size_px: int = 512
        """Side of the faces."""
        presets: tuple[str, ...] = ("gfpgan",)
        """Degradations, of which each face gets one by its seed; a name, or a BasicSR option file."""
        degraded_px: int | None = None
        """Side at which they are degraded: presets are made for 512 px, and on a smaller face the same blur
        is more. None degrades them at `size_px`."""
        augment: Augment = Augment()
        """How faces are changed before."""
        workers: int = 2
        """Threads that read ahead."""

        def __post_init__(self) -> None:
            small = min(self.size_px, self.degraded_px or self.size_px)
            if not 0 <= self.held_back < 1 or self.shown < 0 or small < 16 or not self.presets:
                raise ConfigError(
                    f"held_back lies in [0,1), sizes above 15, one preset is needed: got {self}"
                )
            for name in self.presets:
                _preset(name)

        def tiny(self) -> Self:
            """Small faces."""
            return replace(self, size_px=64, degraded_px=None, shown=2, workers=0)

    def __init__(
        self,
        config: Config,
        *,
        seed: int,
        batch_size: int,
        device: torch.device,
        world: tuple[int, int] = (0, 1),
        record: Path | None = None,
    ) -> None:
        self.config, self.seed, self.batch_size, self.device, self.world = (
            config,
            seed,
            batch_size,
            device,
            world,
        )
        self.presets = tuple(_preset(name) for name in config.presets)
        self.index = _index(config, None if record is None else record / _RECORD)
        self.held: Index | None = None
        if config.held_back > 0:
            self.index, self.held = held_back(self.index, config.held_back, by=config.person)
        pictures: Any = Pictures(self.index, config.size_px)
        if config.components:
            parts = read_components(config.components, config.size_px)
            self.index = require_some(with_parts_only(self.index, parts), config.components)
            pictures = WithBoxes(Pictures(self.index, config.size_px), parts)
        self.dataset = pictures
        weights = balanced(self.index, config.balance) if config.balance else None
        self.order = Order(len(self.index), seed, weights=weights)
        self._source: Generator[Mapping[str, Any]] | None = None
        self._position = -1
        self._cache: tuple[str, str, tuple[str, ...]] = ("", "", ())

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The batch of a step, or one part of it; asked for in order, the next ones are read meanwhile."""
        stride = self.batch_size * self.world[1]
        start = (step * parts + part) * stride
        if self._source is None or self._position != start:
            self.close()
            self._source = batches(
                self.dataset,
                self.order,
                batch=self.batch_size,
                start=start,
                rank=self.world[0],
                world=self.world[1],
                workers=self.config.workers,
                augment=self.config.augment,
            )
        read = next(self._source)
        self._position = start + stride
        hq, seeds = read["hq"].to(self.device, non_blocking=True), tuple(read["seed"])
        lq = self.lq(read)
        boxes = {name: box.to(self.device) for name, box in read.get("boxes", {}).items()}
        coarse = read["coarse"].to(self.device) if "coarse" in read else None
        moments = {
            name.removesuffix(MOMENTS): value.to(self.device)
            for name, value in read.items()
            if name.endswith(MOMENTS)
        }
        return Batch(
            hq=hq,
            lq=lq,
            seeds=seeds,
            keys=tuple(read["key"]),
            step=step,
            coarse=coarse,
            moments=moments,
            boxes=boxes,
        )

    def keep(self, folder: str, fields: Sequence[str], make: Make, made_by: Sequence[str]) -> int:
        """Compute fields of every face once, unless they are there from an earlier run of the same settings.

        Files of weights are not compared: a cache belongs to one set of weights.

        Args:
            folder: of all caches.
            fields: pictures, or latents `z_...`.
            make: computes them from a batch as it is read, whose pictures lie on the device.
            made_by: fingerprints of all that it depends on beside the settings of the faces.

        Returns:
            How many faces were computed.

        Raises:
            OutputError: if a file cannot be written.
        """
        facts = "".join([*made_by, replace(self.config, faces="", workers=0).fingerprint()])
        self._cache = (folder, hashlib.sha256(facts.encode()).hexdigest()[:16], tuple(fields))
        if self.world[0] != 0:
            return 0

        def made(batch: Mapping[str, Any]) -> dict[str, Tensor]:
            here = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            return {name: value.cpu() for name, value in make(here).items()}

        return fill(self.dataset, folder, self._cache[1], made, fields, batch=self.batch_size)

    def use_kept(self) -> None:
        """Read what `keep` has made; every process does, once the first is done.

        Raises:
            DataError: if something is missing.
        """
        self.close()
        self.dataset = Cached(self.dataset, *self._cache)

    def lq(self, read: Mapping[str, Any]) -> Tensor:
        """The degraded faces (B,3,H,W) of what was read, on the device: its own, or made by its seeds."""
        if "lq" in read:
            return read["lq"].to(self.device)
        return self.degraded(read["hq"].to(self.device), tuple(read["seed"]))

    def degraded(self, hq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """Each face by the preset that its seed takes."""
        side = self.config.degraded_px or self.config.size_px
        rows = [
            degrade(resize(hq[i : i + 1], side, side), self.presets[_choice(len(self.presets), seed)], [seed])
            for i, seed in enumerate(seeds)
        ]
        return resize(torch.cat(rows), *hq.shape[2:])

    def validation(self) -> Shown | None:
        """The fixed faces; None where none are held back."""
        if self.held is None or not self.config.shown:
            return None
        held = Index(self.held.entries[: self.config.shown])
        samples = [Pictures(held, self.config.size_px)[i] for i in range(len(held))]
        hq, seeds = torch.stack([sample["hq"] for sample in samples]), tuple(map(content_seed, held.entries))
        lq = (
            torch.stack([sample["lq"] for sample in samples])
            if "lq" in samples[0]
            else self.degraded(hq, seeds)
        )
        return Shown(hq=hq, lq=lq, seeds=seeds, keys=tuple(entry.key for entry in held.entries))

    def facts(self) -> dict[str, Any]:
        """For the run card: counts, hash and licences of what is trained on, and what was left out."""
        held = 0 if self.held is None else len(self.held)
        return fingerprint(self.index.entries).to_dict() | {
            "held_back": held,
            "left_out": self.index.counts(),
        }

    def describe(self) -> str:
        """A few lines for people."""
        facts = self.facts()
        licences = "\n".join(f"* {count} under: {name}" for name, count in facts["licences"].items())
        return (
            f"{facts['pictures']} faces (hash {facts['hash']}), {facts['held_back']} held back\n\n{licences}"
        )

    def close(self) -> None:
        """End the threads that read ahead."""
        if self._source is not None:
            self._source.close()
            self._source = None


def _choice(count: int, seed: int) -> int:
    return int(torch.randint(count, (), generator=generator(seed, "preset")))


def _preset(name: str) -> Preset:
    return read_basicsr(name) if name.endswith((".yml", ".yaml")) else find_preset(name)


def _index(config: Stream.Config, record: Path | None) -> Index:
    if not config.faces:
        raise ConfigError(
            "no faces to train on: set data.faces to a folder of aligned faces, a table or a list; "
            f"degradations are {', '.join(PRESETS)}"
        )
    path = Path(config.faces)
    endings: dict[str, Layout] = {".csv": "table", ".txt": "list", ".tar": "shards"}
    layout = endings.get(path.suffix.lower(), "folder") if config.layout == "auto" else config.layout
    folder = config.folder or str(path.parent)
    if layout == "table":
        return index_table(path, where=_conditions(config.where), folder=folder, record=record)
    if layout == "list":
        index = index_list(path, folder, config.lq or None, record=record)
    elif layout == "shards":
        index = index_shards(config.faces, record=record)
    elif layout == "ffhq":
        index = index_ffhq(path, record=record)
    elif config.lq:
        index = index_pairs(path, config.lq, record=record)
    else:
        index = index_folder(path, record=record)
    return select(index, _conditions(config.where)) if config.where else index


def _conditions(where: tuple[str, ...]) -> dict[str, str | tuple[str, ...]]:
    conditions: dict[str, str | tuple[str, ...]] = {}
    for text in where:
        name, equals, patterns = text.partition("=")
        if not equals:
            raise ConfigError(f"data.where: {text!r} is no condition; write licence=CC0*|MIT*")
        conditions[name.strip()] = tuple(pattern.strip() for pattern in patterns.split("|"))
    return conditions
