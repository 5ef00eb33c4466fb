"""Train OSDFace's visual prompt: an autoencoder of sharp and one of degraded faces, which are associated.

What is wanted is the encoder and the codebook of the degraded branch (`facerestore.nets.visual_prompt`). The
rest is there so that its codes say something: a decoder, so that they describe a face, and the sharp branch,
so that a place of a degraded face is described like the same place of the sharp one.

Reference:
    Wang et al., 2025, OSDFace, arXiv:2411.17163, first stage, whose code and settings are not published; its
    checkpoint is that of the association stage of DAEFR (Tsai et al., 2024, arXiv:2308.07314). So the
    defaults are those of GitHub LIAGM/DAEFR, commit 02d50109, where nothing else is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.seeding import seeded_layers
from facerestore.imaging.range import from_signed, to_signed
from facerestore.imaging.resize import resize
from facerestore.losses.adversarial import balance
from facerestore.losses.association import AssociationLoss
from facerestore.losses.codebook import codebook_loss, commitment_loss, nearest_codes, straight_through
from facerestore.losses.objective import Objective
from facerestore.nets.visual_prompt import VisualPrompt
from facerestore.nets.vq_autoencoder import VQAutoencoder
from facerestore.training.adversary import Adversary
from facerestore.training.optimizer import Optimizer
from facerestore.training.task import (
    DISCRIMINATOR,
    GENERATOR,
    Batch,
    Task,
    TaskConfig,
    Terms,
    mean_of_batch,
)
from facerestore.training.terms import Loss, build_terms
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

FILE = "visual-prompt.safetensors"
BRANCHES = {"hq": "vqvae", "lq": "vqvae_LQ"}
"""Which faces of a batch a branch sees, and what the published checkpoint calls it."""
_ASSOCIATION = "association"
# DAEFR's rate is 4.5e-6 times the faces of a step, over all passes and processes; this is for 16.
_ADAM = Optimizer(name="adam", learning_rate=16 * 4.5e-6, betas=(0.5, 0.9), clip_norm=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What a branch makes of faces.

    Attributes:
        features: before they are quantised (B,code_dim,s,s).
        codes: nearest to them, the same shape; gradients reach the codebook.
        indices: their rows in it (B,s,s).
        image: decoded from the codes (B,3,S,S), [0,1] but not clamped; its gradients pass by the choice of
            codes to the features.
    """

    features: Tensor
    codes: Tensor
    indices: Tensor
    image: Tensor


def reconstruct(net: VQAutoencoder, image: Tensor) -> Reconstruction:
    """Encode pictures (B,3,S,S) in [0,1], replace each place by its nearest code, and decode.

    They enter in [-1,1]: once normalised, and not twice as in the published inference.
    """
    features = net.features(to_signed(image))
    codes, indices = nearest_codes(features, net.quantize.embedding.weight)
    decoded = net.decode(straight_through(features, codes)).float()
    return Reconstruction(features=features, codes=codes, indices=indices, image=from_signed(decoded))


class VisualPromptTask(Task):
    """Each branch reconstructs its own faces; from some step on, their features are associated.

    With E the mean over a batch, and for both branches alike, on pictures of `image_px` (others are resized
    as OSDFace's prompt does it)

        L = l1 + perceptual + w * L_G + commitment * |h - sg(c)|^2 + codebook * |sg(h) - c|^2

    where h are features, c the codes nearest to them, and w is 0.8 times the weight at which L_G pulls the
    last layer as hard as the first two terms (see `facerestore.losses.adversarial.balance`). To the sum of
    both branches comes the association loss, whose weight is 0 before the step `associates_at`.

    Fields that losses read: `image`, the reconstruction, and `hq`, what was reconstructed, of either branch.

    Deviations from DAEFR: its three stages (sharp, degraded, both) are one, as OSDFace describes it; its
    optimisers leave `logit_scale` where it begins, and here it is trained; discriminators have spectral
    normalisation, learn from the first step, and their loss is not halved, which Adam does not notice.

    The balance and the association look at a whole pass, so that accumulating passes, or sharing a batch
    among processes, is not the same as one larger pass.

    Args:
        branches: `vqvae` and `vqvae_LQ`, the autoencoders, and `association`.
        judges: `hq` and `lq`, who tell reconstructions from faces.
        objective: of reconstructions.
        config: the settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(TaskConfig):
        """Settings.

        Raises:
            ConfigError: if a number is negative, or something reads latents of a diffusion model.
        """

        net: VisualPrompt.Config = VisualPrompt.Config()
        """Sizes of both branches, those of the published prompt."""
        losses: tuple[Loss, ...] = (Loss(name="l1", weight=2.0), Loss(name="lpips"))
        """Of a reconstruction. DAEFR takes both at 1, L1 of pictures in [-1,1], where it is twice as much."""
        adversary: Adversary.Config = Adversary.Config(
            net="patch", kind="hinge", weight=0.8, starts_at=30_000, augmented=False
        )
        """One for each branch; its weight is multiplied by the balance."""
        commitment: float = 1.0
        """Weight of what pulls features to their codes."""
        codebook: float = 0.25
        """Weight of what pulls codes to their features."""
        association: float = 1.0
        """Weight of the association loss, once it counts."""
        associates_at: int
        """Steps before it counts. OSDFace has some, and does not say how many."""
        generator: Optimizer = _ADAM
        """Of both branches and the association's scale; the rate is DAEFR's, 4.5e-6 times 16 faces a step."""
        discriminator: Optimizer = _ADAM
        """Of both judges."""
        seed: int = 0
        """Of the first weights."""

        def __post_init__(self) -> None:
            if min(self.commitment, self.codebook, self.association, self.associates_at) < 0:
                raise ConfigError(f"VisualPromptTask: no weight and no step lies below 0, got {self}")
            if self.adversary.net == "latent":
                raise ConfigError("VisualPromptTask: adversary.net=latent judges latents, and there are none")

        def optimizers(self) -> Mapping[str, Optimizer]:
            """Of both players."""
            return {GENERATOR: self.generator, DISCRIMINATOR: self.discriminator}

        def notes(self) -> tuple[str, ...]:
            """What its PSNR means."""
            return ("What is validated is no restoration: degraded faces are to come back as they came.",)

        def weights(self) -> tuple[str, ...]:
            """Those of the losses and the judges."""
            named = [*(loss.weights() for loss in self.losses), self.adversary.weights()]
            return tuple(dict.fromkeys(name for names in named for name in names))

        def build(self, store: "WeightStore", target: Target = FP32) -> "VisualPromptTask":
            """Draw fresh branches, and load what judges them.

            Raises:
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            store.require(self.weights())
            branches = nn.ModuleDict({name: self._branch(name) for name in BRANCHES.values()})
            branches[_ASSOCIATION] = AssociationLoss()
            judges = nn.ModuleDict(
                {
                    side: replace(self.adversary, seed=self.adversary.seed + index).build(store)
                    for index, side in enumerate(BRANCHES)
                }
            )
            objective = Objective(build_terms(self.losses, store)).requires_grad_(False)
            return VisualPromptTask(branches, judges, objective, self).to(target.device)

        def _branch(self, name: str) -> VQAutoencoder:
            with seeded_layers(self.seed, f"visual_prompt/{name}"):
                net = VQAutoencoder(self.net)
                # torch's normal codes lie far beyond any feature, so that one would be nearest to all.
                nn.init.uniform_(net.quantize.embedding.weight, -1 / self.net.codes, 1 / self.net.codes)
            return net

        def tiny(self) -> "VisualPromptTask.Config":
            """The same with the smallest networks, every term counting after two steps."""
            return replace(
                self,
                net=VisualPrompt.Config.tiny(),
                losses=tuple(loss.tiny() for loss in self.losses),
                adversary=replace(self.adversary.tiny(), starts_at=min(1, self.adversary.starts_at)),
                associates_at=min(2, self.associates_at),
            )

    def __init__(
        self, branches: nn.ModuleDict, judges: nn.ModuleDict, objective: Objective, config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.branches: Any = branches
        self.judges: Any = judges
        self.objective = objective

    def players(self) -> Mapping[str, nn.Module]:
        """Both branches with the association's scale, then both judges."""
        return {GENERATOR: self.branches, DISCRIMINATOR: self.judges}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Terms]:
        """The sum over both branches; terms are called `hq/l1`, `lq/l1` and so on.

        Beside the parts of the loss, `balance` is what w is 0.8 times of, and `codes` how many different ones
        were chosen: where few are, a prompt of 77 is mostly empty.
        """
        if player == DISCRIMINATOR:
            return self._judges_loss(batch)
        losses: list[Tensor] = []
        terms: Terms = {}
        features: dict[str, Tensor] = {}
        for side in BRANCHES:
            loss, own, features[side] = self._branch_loss(side, batch)
            losses.append(loss)
            terms |= {f"{side}/{name}": value.detach() for name, value in own.items()}
        if self.config.association > 0 and batch.step >= self.config.associates_at:
            associated = mean_of_batch(self.branches[_ASSOCIATION](features["lq"], features["hq"]))
            losses.append(self.config.association * associated)
            terms[_ASSOCIATION] = associated.detach()
        return torch.stack(losses).sum(), terms

    def restore(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """What the degraded branch makes of its faces: (B,3,H,W) in [0,1] to the same, clamped.

        It is no restoration. The branch learns to give a degraded face back as degraded as it came, so that
        its codes say how it is degraded; OSDFace's UNet restores. So look in the sheets for a middle that is
        like the left, and expect no more dB than the degraded face has.
        """
        image = reconstruct(self.branches[BRANCHES["lq"]], self._sized(lq)).image
        return resize(image.clamp(0, 1), lq.shape[2], lq.shape[3])

    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """One file with the keys of the published checkpoint, for `OSDFace.Config(visual_prompt=...)`.

        It says `vre_double_norm: false`, since it was trained on [-1,1] and not on the [-3,1] of the
        published inference. OSDFace refuses it where its own `vre_double_norm` is true, which is the default.
        """
        tensors = {
            f"{name}.{key}": value
            for name in BRANCHES.values()
            for key, value in self.branches[name].state_dict().items()
        }
        tensors["logit_scale"] = self.branches[_ASSOCIATION].logit_scale
        facts = {"vre_double_norm": "false", "image_px": str(self.config.net.image_px)}
        path = folder / FILE
        write_tensors(path, tensors, facts | dict(metadata))
        return (path,)

    def _judges_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        losses = [mean_of_batch(self.judges[side].discriminator(batch.made[side])) for side in BRANCHES]
        terms = {f"{side}/adversary": loss.detach() for side, loss in zip(BRANCHES, losses, strict=True)}
        return torch.stack(losses).sum(), terms

    def _branch_loss(self, side: str, batch: Batch) -> tuple[Tensor, Terms, Tensor]:
        """A branch's loss, its parts, and its features."""
        net, judge, config = self.branches[BRANCHES[side]], self.judges[side], self.config
        faces = self._sized(getattr(batch, side))
        made = reconstruct(net, faces)
        loss, terms = self.objective({"image": made.image, "hq": faces})
        shown = replace(batch, hq=faces, made={"image": made.image.detach()})
        batch.made[side] = shown
        judged = judge.generator({"image": made.image}, shown)
        if judged is not None:
            against = mean_of_batch(judged)
            share = balance(loss, against, net.decoder.conv_out.weight)
            loss = loss + config.adversary.weight * share * against
            terms |= {"adversary": against, "balance": share}
        drawn = mean_of_batch(commitment_loss(made.features, made.codes))
        drawing = mean_of_batch(codebook_loss(made.features, made.codes))
        vq = config.commitment * drawn + config.codebook * drawing
        terms |= {"vq": vq, "codes": vq.new_tensor(made.indices.unique().numel())}
        return loss + vq, terms, made.features

    def _sized(self, faces: Tensor) -> Tensor:
        """Faces (B,3,H,W) at the side of the prompt's encoder, as OSDFace brings them to it."""
        side = self.config.net.image_px
        if faces.shape[2:] == (side, side):
            return faces
        return F.interpolate(faces, (side, side), mode="bilinear", align_corners=False)
