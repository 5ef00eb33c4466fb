"""What the one-step diffusion restorers share: all but the question that they ask, and their formula."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from facerestore.core.errors import KeyMismatch
from facerestore.core.offload import Need
from facerestore.core.precision import Layout, Target
from facerestore.core.state import RestorationState
from facerestore.diffusion.backbones import sd_vae
from facerestore.diffusion.codec import LatentCodec, Posterior
from facerestore.diffusion.components import CodecChoice, Piece, codec_weights, component, latent_codec
from facerestore.diffusion.configs import TINY_TAESD
from facerestore.diffusion.lora import Adapter, load_adapter, require_made_for
from facerestore.diffusion.upsampling import fold_upsampling
from facerestore.imaging.pad import cut, pad_to_multiple
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.base import ImageStage, StageConfig, StageContract
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

MADE = ""
"""As the name of a refiner: one with random weights, for tests."""
# Beside the weights, for one face of 512 px: OSDFace in float32 on a CPU took 1.76 GB, most in its decoder.
_WORK_BYTES = 1_800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepConfig(StageConfig):
    """Settings that all of them have."""

    backbone: ClassVar[str]
    """Row of the table of layouts."""
    tiny_codec: ClassVar[Mapping[str, Any]] = TINY_TAESD
    """Config of a made small autoencoder."""

    vae: str | None
    """Folder of the autoencoder in the manifest; None makes a tiny one, for tests."""
    posterior: Posterior = "mode"
    """Whether the latent is the mean, or drawn with the seed of the face as the official scripts do."""
    codec: CodecChoice = "full"
    """`full`, `tiny_decoder` or `tiny`: the small autoencoder decodes, or does both, and costs detail. What
    was trained into an encoder is lost with `tiny`."""
    small_vae: str | None = "taesd"
    """Folder of the small autoencoder, made for the same latents; None makes one."""
    adapters: tuple[str, ...] = ()
    """Adapters of your own, merged after the published ones, one after the other."""
    adapter_scale: float | None = None
    """alpha / rank of adapters whose files do not say alpha."""
    refiner: str | None = None
    """File of a residual refiner, as BVI puts it behind TADSR, trained for this restorer; None does without
    one, and an empty name makes one, for tests."""

    def contract(self) -> StageContract:
        """A diffusion model: it invents detail."""
        return StageContract(generative=True)

    @property
    def noise_timestep(self) -> float:
        """Noise level for which the latent is taken, on the scale of 0 to 1000."""
        raise TypeError(f"{type(self).__qualname__} must say at which noise level it asks")

    @property
    def worked_px(self) -> int:
        """Side at which a face of 512 px is worked."""
        return 512

    def made_for(self) -> dict[str, float]:
        """What adapters may say that they were made for, and what they are to be used with."""
        return {}

    def files(self) -> tuple[str | None, ...]:
        """The network, and the published files beside the autoencoders, in the order in which they go in."""
        raise TypeError(f"{type(self).__qualname__} must say what it is made of")

    def weights(self) -> tuple[str, ...]:
        """The network, the autoencoders in use, the published files, the user's adapters, the refiner."""
        net, *published = self.files()
        codec = codec_weights(self.codec, self.vae, self.small_vae)
        names = (net, *codec, *published, *self.adapters, self.refiner)
        return tuple(name for name in names if name)

    def needs(self, store: "WeightStore", target: Target) -> tuple[Need, ...]:
        """Every network in its dtype, adapters merged, and the activations of as many faces as go at once."""
        codec = codec_weights(self.codec, self.vae, self.small_vae)
        layout = target.layout(self.backbone)
        sizes: list[int] = []
        for name in self.weights():
            dtype = target.layout("sd_vae").weights if name in codec else layout.weights
            sizes.append(store.spec(name).parameters * dtype.itemsize)
        stage = type(self).__module__.rsplit(".", 1)[-1]
        work = _WORK_BYTES * layout.batch * self.worked_px**2 // 512**2
        return (Need(stage=stage, networks=tuple(filter(None, sizes)), work=work),)

    def base_names(self, store: "WeightStore") -> tuple[str, ...]:
        """What adapters may call the base model: its group in the manifest, and where a hub has it."""
        network = self.files()[0]
        if network is None:
            return ()
        places = (place.partition(":")[0] for place in store.spec(network).hub)
        return (network.rpartition("/")[0], *places)

    def read_pieces(
        self,
        store: "WeightStore",
        name: str,
        *components: str,
        rank: int | None = None,
        besides: str = "",
    ) -> tuple[Adapter, ...]:
        """The adapters in one file, published or imported, for exactly these components.

        Args:
            store: where weights are found.
            name: of the file in the manifest.
            components: such as "unet"; "" where the file's keys name none.
            rank: of every one, where the scale hangs on it.
            besides: dotted name of what the file may have too, because another weight is taken from there.

        Raises:
            ConfigError: if the file says that it was made for something else.
            KeyMismatch: if the file lacks one of them or has others, so that nothing in it is passed over, or
                if it has another rank.
            WeightsError: if it cannot be read.
        """
        adapter = self._adapter(store, name, rank)
        if besides:
            wholes = tuple(whole for whole in adapter.wholes if not whole.key.startswith(f"{besides}."))
            adapter = replace(adapter, wholes=wholes)
        found = set(adapter.components)
        if found != set(components):
            missing, unexpected = sorted(set(components) - found), sorted(found - set(components))
            hint = f"It is another restorer's, or not whole: see `facerestore weights show {name}`."
            raise KeyMismatch(adapter.source, missing, unexpected, [], hint)
        return tuple(adapter.part(part) for part in components)

    def own_pieces(self, store: "WeightStore") -> tuple[list[Piece], list[Piece]]:
        """The user's adapters with their scales: what they have for the network, and for the autoencoder.

        Raises:
            ConfigError: if one says that it was made for something else.
        """
        net: list[Piece] = []
        vae: list[Piece] = []
        for name in self.adapters:
            adapter = self._adapter(store, name)
            for part in adapter.components:
                (vae if part == "vae" else net).append((adapter.part(part), self.adapter_scale))
        return net, vae

    def _adapter(self, store: "WeightStore", name: str, rank: int | None = None) -> Adapter:
        source = f"{name} ({store.find(name)})"
        adapter = load_adapter(store.readable(name), rank=rank, source=source)
        require_made_for(adapter, base=self.base_names(store), **self.made_for())
        return adapter

    def latent_codec(
        self,
        store: "WeightStore",
        tiny: Mapping[str, Any],
        *,
        name: str,
        pieces: Iterable[Piece] = (),
        finish: Callable[[Any], None] | None = None,
        make: Callable[[Mapping[str, Any]], Any] = sd_vae,
    ) -> LatentCodec:
        """The autoencoder that was chosen, in float32.

        Args:
            store: where weights are found.
            tiny: config of a made one.
            name: of the stage.
            pieces: adapters of the stage's own autoencoder; where the small one takes its place, they are
                left out.
            finish: what is done to it after merging.
            make: builds it from a config.
        """

        def full() -> Any:
            vae = component(store, self.vae, make, tiny, dtype=torch.float32, pieces=list(pieces))
            if finish is not None:
                finish(vae)
            return vae

        return latent_codec(store, self.codec, self.small_vae, full, tiny=self.tiny_codec, name=name)

    def load_refiner(self, store: "WeightStore", codec: LatentCodec) -> ResidualRefiner | None:
        """The refiner from its file, or a made one, or none."""
        if self.refiner is None:
            return None
        net = ResidualRefiner(ResidualRefiner.Config(channels=codec.form[0])).eval()
        if self.refiner == MADE:
            fill_seeded(net)
        else:
            load_into(net, store.load(self.refiner), self.refiner)
        return net


@dataclass(frozen=True, slots=True)
class OneStep:
    """What one step made of pictures; training looks at all of it, restoring at the picture alone.

    Attributes:
        image: (B,3,H,W) float32, not clamped to [0,1].
        z_lq: the scaled latents (B,C,h,w) of what came in, of the padded picture.
        z_0: the clean ones.
    """

    image: Tensor
    z_lq: Tensor
    z_0: Tensor


class OneStepStage(ImageStage):
    """Abstract: encode without adding noise, ask a network once, take its answer by `step`, decode.

    Args:
        codec: the autoencoder, adapters merged.
        config: the settings.
        refiner: corrects the network's answer; None leaves it.
    """

    def __init__(self, codec: LatentCodec, config: OneStepConfig, refiner: ResidualRefiner | None) -> None:
        super().__init__()
        self.config: OneStepConfig = config
        self.codec = codec
        self.refiner = refiner

    @property
    def multiple_px(self) -> int:
        """To which the sides of pictures are padded."""
        return self.codec.factor

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """All but the autoencoder run as the largest network does."""
        layout = target.layout(self.config.backbone, batch)
        for net in self.children():
            if net is not self.codec:
                yield net, layout
        yield self.codec, target.layout("sd_vae", batch)

    def settle(self) -> None:
        """Let the decoder upsample without making doubled maps."""
        fold_upsampling(self.codec)

    @abstractmethod
    def step(self, z: Tensor) -> Tensor:
        """From scaled latents (B,C,h,w) to clean ones, float32."""

    def refined(self, z: Tensor, predicted: Tensor) -> Tensor:
        """What the network said of latents (B,C,h,w), corrected where there is a refiner; float32."""
        if self.refiner is None:
            return predicted
        steps = torch.full((len(z),), self.config.noise_timestep, device=z.device)
        return predicted + self.refiner(self.layout.tensor(z), self.layout.tensor(predicted), steps).float()

    def through_latents(
        self,
        image: Tensor,
        seeds: tuple[int, ...],
        step: Callable[[Tensor], Tensor],
        moments: Tensor | None = None,
    ) -> OneStep:
        """Pad by reflection, encode, step, decode and cut pictures (B,3,H,W) in [0,1]; see `one_step`."""
        with self.using(self.codec):
            if moments is None:
                moments = self.codec.moments(pad_to_multiple(image, self.multiple_px))
            z_lq = self.codec.from_moments(moments, seeds, self.config.posterior)
        with self.using(*(net for net in self.children() if net is not self.codec)):
            z_0 = step(z_lq)
        with self.using(self.codec):
            return OneStep(cut(self.codec.decode(z_0), *image.shape[2:]), z_lq, z_0)

    def one_step(self, image: Tensor, seeds: tuple[int, ...], moments: Tensor | None = None) -> OneStep:
        """Restore pictures (B,3,H,W) in [0,1] that go together, at their own size and with one seed each.

        Gradients pass to what is trainable, and to the pictures.

        Args:
            image: the pictures.
            seeds: one each.
            moments: `codec.moments` of the padded pictures, where a training has computed them before.
        """
        return self.through_latents(image, seeds, self.step, moments)

    def restore(self, image: Tensor, state: RestorationState) -> Tensor:
        """(B,3,H,W) float32 in [0,1] of any size to the same form; not yet clamped."""
        parts = (slice(start, start + self.layout.batch) for start in range(0, len(image), self.layout.batch))
        return torch.cat([self.one_step(image[part], state.seeds[part]).image for part in parts])


def require_parts(adapter: Adapter, *, names: Iterable[str], wholes: Iterable[str] = ()) -> None:
    """Check that an adapter is made of exactly these named ones and these tensors trained whole.

    Raises:
        KeyMismatch: if something is missing or too much.
    """
    wanted = {f"adapter {name}" for name in names} | set(wholes)
    found = {f"adapter {name}" for name in adapter.names} | {whole.parameter for whole in adapter.wholes}
    if found != wanted:
        raise KeyMismatch(adapter.source, sorted(wanted - found), sorted(found - wanted), [])
