"""Low-rank adapters, read in every published key style.

Nothing is guessed and nothing is dropped. The scale is the trap: peft's default alpha is 8, so recipes that
leave it out run at 8/rank, others at 1, and few files say which. Where a file says nothing, the caller must.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.weights.convert import read_checkpoint

PEFT_DEFAULT_ALPHA = 8.0
"""What peft takes for `lora_alpha` where a training script names none: OSEDiff, TADSR, PiSA-SR and S3Diff."""

_COMPONENTS = ("unet", "vae", "transformer", "text_encoder", "text_encoder_2")
_WRAPPER = "base_model.model."  # PeftModel puts it before every key, wherever the wrapped part begins
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<peft>[AB])(?:\.(?P<name>[^.]+))?|lora[._](?P<diffusers>down|up))\.weight"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """The update of one weight: `up @ down` times a scale.

    Attributes:
        key: what the file calls `down`.
        component: "unet", "vae", "transformer" or another part of a pipeline; "" if the file names none.
        module: dotted name of the layer within the component.
        name: of the adapter it belongs to, "default" if the file does not say.
        down: (r, Cin) or (r, Cin, *kernel).
        up: (Cout, r) or (Cout, r, 1, ...).
        alpha: the scale times the rank, where the file says it.
    """

    key: str
    component: str
    module: str
    name: str
    down: Tensor
    up: Tensor
    alpha: float | None

    @property
    def rank(self) -> int:
        """The inner width r."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A tensor of the network that was trained in full and comes with the adapter.

    Attributes:
        key: what the file calls it.
        component: as in `LowRank`.
        parameter: its name in the component's state dict.
        value: the tensor.
    """

    key: str
    component: str
    parameter: str
    value: Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """Everything that one adapter file changes in a network.

    Attributes:
        updates: low-rank updates; those of one layer add up.
        wholes: tensors that replace the network's.
        source: where they come from, for messages.
        metadata: what the file says about itself.
    """

    updates: tuple[LowRank, ...]
    wholes: tuple[Whole, ...] = ()
    source: str = "the adapter"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of a pipeline that it changes, sorted."""
        return tuple(sorted({part.component for part in (*self.updates, *self.wholes)}))

    @property
    def names(self) -> tuple[str, ...]:
        """The named adapters in it, sorted."""
        return tuple(sorted({update.name for update in self.updates}))

    @property
    def rank(self) -> int:
        """The rank of all updates.

        Raises:
            ConfigError: if they differ, or there are none.
        """
        ranks = {update.rank for update in self.updates}
        if len(ranks) != 1:
            raise ConfigError(f"{self.source} has no single rank but {sorted(ranks)}; ask its updates")
        return ranks.pop()

    def part(self, component: str) -> "Adapter":
        """What it changes in one component.

        Raises:
            ConfigError: if that is nothing.
        """
        if component not in self.components:
            raise ConfigError(f"{self.source} has nothing for {component!r}, only for {self.components}")
        return replace(
            self,
            updates=tuple(update for update in self.updates if update.component == component),
            wholes=tuple(whole for whole in self.wholes if whole.component == component),
        )

    def below(self, path: str) -> "Adapter":
        """The same adapter for a network in which its own is called `path`."""
        return replace(
            self,
            updates=tuple(replace(update, module=f"{path}.{update.module}") for update in self.updates),
            wholes=tuple(replace(whole, parameter=f"{path}.{whole.parameter}") for whole in self.wholes),
        )

    def named(self, *names: str) -> "Adapter":
        """The updates of some of its named adapters, without tensors trained in full.

        Raises:
            ConfigError: if there is no such name.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise ConfigError(f"{self.source} has no adapter named {unknown[0]!r}, only {self.names}")
        return replace(
            self, updates=tuple(update for update in self.updates if update.name in names), wholes=()
        )


def read_adapter(
    state: Mapping[str, Tensor],
    *,
    source: str = "the adapter",
    rank: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Adapter:
    """Make an adapter of a file's tensors, whose keys may be of several styles at once.

    Layers may be called `X.lora_A.weight`, `X.lora_A.NAME.weight`, `X.lora.down.weight` or
    `X.lora_down.weight`, with a scalar `X.alpha` beside them, below a component (`unet.`) and below peft's
    `base_model.model.`. `X.base_layer.weight` and every key that is no factor is a tensor trained in full.

    Args:
        state: the tensors of the file.
        source: where they come from, for messages.
        rank: what every update must have whose alpha is not said, if that is known.
        metadata: what the file says about itself.

    Raises:
        KeyMismatch: if a key speaks of LoRA and is not understood, if a factor lacks its partner, or if
            the ranks of two partners, or the rank asked for, differ.
    """
    factors: dict[tuple[str, str, str], dict[str, str]] = {}
    alphas: dict[tuple[str, str], tuple[str, float]] = {}
    wholes: list[Whole] = []
    unknown: list[str] = []
    for key, tensor in state.items():
        component, rest = _split_component(key)
        if match := _FACTOR.fullmatch(rest):
            side = "down" if match["peft"] == "A" or match["diffusers"] == "down" else "up"
            place = (component, match["module"], match["name"] or "default")
            if side in factors.setdefault(place, {}):
                unknown.append(key)  # the same factor again, in another style: which one is meant?
            factors[place].setdefault(side, key)
        elif rest.endswith(".alpha") and tensor.numel() == 1:
            module = rest.removesuffix(".alpha").removesuffix(".lora")
            alphas[component, module] = key, float(tensor)
        elif "lora" in rest.lower():
            unknown.append(key)
        else:
            parameter = rest.replace(".base_layer.", ".")
            wholes.append(Whole(key=key, component=component, parameter=parameter, value=tensor))

    layers = {(component, module) for component, module, _ in factors}
    unknown += [key for place, (key, _) in alphas.items() if place not in layers]
    missing = [
        f"the partner of {key}" for pair in factors.values() if len(pair) == 1 for key in pair.values()
    ]
    whole = {place: pair for place, pair in factors.items() if len(pair) == 2}
    misshapen = [
        line
        for (component, module, _), pair in whole.items()
        for line in _ill_fitting(pair, state, None if (component, module) in alphas else rank)
    ]
    if missing or unknown or misshapen:
        hint = "Where alpha is not said, the scale hangs on the rank: set both if you trained it."
        raise KeyMismatch(source, missing, unknown, misshapen, hint if rank is not None and misshapen else "")
    updates = tuple(
        LowRank(
            key=pair["down"],
            component=component,
            module=module,
            name=name,
            down=state[pair["down"]],
            up=state[pair["up"]],
            alpha=alphas.get((component, module), (None, None))[1],
        )
        for (component, module, name), pair in whole.items()
    )
    return Adapter(updates, tuple(wholes), source, dict(metadata or {}))


def load_adapter(path: str | Path, *, take: str = "", rank: int | None = None, source: str = "") -> Adapter:
    """Read an adapter from a file or a PEFT folder, with the alphas that its settings name.

    Args:
        path: what `facerestore.weights.convert` reads: nothing of a pickle is executed.
        take: a dotted name: only what lies below it.
        rank: what every update must have whose alpha is not said, if that is known.
        source: what it is called in messages; by default its path.

    Raises:
        KeyMismatch: if keys are not understood, see `read_adapter`.
        WeightsError: if it cannot be read.
    """
    checkpoint = read_checkpoint(path, take=take)
    source = source or str(path)
    return read_adapter(checkpoint.tensors, source=source, rank=rank, metadata=checkpoint.metadata)


def require_made_for(adapter: Adapter, **wanted: str | float | tuple[str, ...]) -> None:
    """Check what an adapter says it was made for, such as its base and timestep; silence is accepted.

    Args:
        adapter: any.
        wanted: a number, a name, or all names of one thing; no names accept what is said.

    Raises:
        ConfigError: if it says something else.
    """
    for name, value in wanted.items():
        said = adapter.metadata.get(name)
        if said is None or value == () or _is(said, value):
            continue
        found = " or ".join(value) if isinstance(value, tuple) else value
        raise ConfigError(
            f"{adapter.source} was made for {name} {said}, and is to be used with {name} {found}; "
            "an adapter works only with what it was trained with"
        )


def scaled(adapter: Adapter, scale: float | None) -> list[tuple[LowRank, float]]:
    """Each update with its scale, from the file or from the caller, who must not contradict each other.

    Raises:
        ConfigError: if neither says it.
        KeyMismatch: if they differ.
    """
    wrong: list[str] = []
    found: list[tuple[LowRank, float]] = []
    for update in adapter.updates:
        if update.alpha is not None:
            own = update.alpha / update.rank
            if scale is not None and abs(own - scale) > 1e-6 * abs(own):
                said = f"alpha {update.alpha:g} / rank {update.rank}"
                wrong.append(f"{update.key}: expected scale {scale:g}, got {said}")
            found.append((update, own))
        elif scale is not None:
            found.append((update, scale))
        else:
            raise ConfigError(
                f"{adapter.source} does not say alpha, so pass scale=alpha / rank: 1.0 where the training "
                f"script set alpha to the rank {update.rank}, {PEFT_DEFAULT_ALPHA / update.rank:g} where it "
                f"left peft's default of {PEFT_DEFAULT_ALPHA:g}"
            )
    if wrong:
        hint = "Give the file that was published, or the scale that it says if you trained it."
        raise KeyMismatch(adapter.source, [], [], wrong, hint)
    return found


def _is(said: str, value: str | float | tuple[str, ...]) -> bool:
    """Whether a text is a name or one of several, or a number; a sigma may be written with six digits."""
    if isinstance(value, str | tuple):
        return said in ((value,) if isinstance(value, str) else value)
    try:
        return abs(float(said) - value) <= 1e-5 * abs(value)
    except ValueError:
        return False


def _split_component(key: str) -> tuple[str, str]:
    """The component that a key names, or "", and the rest of the key without what peft put into it."""
    rest = key.replace(_WRAPPER, "")
    head, _, tail = rest.partition(".")
    return (head, tail) if head in _COMPONENTS and tail else ("", rest)


def _ill_fitting(pair: Mapping[str, str], state: Mapping[str, Tensor], rank: int | None) -> Iterable[str]:
    down, up = state[pair["down"]], state[pair["up"]]
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
        yield f"{pair['up']}: expected (Cout, {down.shape[0]}), got {tuple(up.shape)}"
    elif rank is not None and down.shape[0] != rank:
        yield f"{pair['down']}: expected rank {rank}, got {tuple(down.shape)}"
