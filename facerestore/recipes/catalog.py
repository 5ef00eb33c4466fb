"""The systems by name. Each is a function, so that nothing is built before it is asked for."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from facerestore.core.errors import ConfigError
from facerestore.recipes.recipe import Recipe, Status
from facerestore.stages.base import StageConfig
from facerestore.stages.color_fix import ColorFix
from facerestore.stages.compose import Chain
from facerestore.stages.omgsr_f import OMGSRF
from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.osdface import OSDFace
from facerestore.stages.osediff import OSEDiff
from facerestore.stages.pisa_sr import PiSASR
from facerestore.stages.realesrgan import RealESRGAN
from facerestore.stages.sdface import SDFace
from facerestore.stages.tadsr import TADSR
from facerestore.stages.zimage import ZImage
from facerestore.weights.store import WeightStore


def realesrgan() -> Recipe:
    """Real-ESRGAN x4plus on faces, entering at the size that their real sharpness asks for."""
    return Recipe(
        name="realesrgan",
        summary="Real-ESRGAN x4plus at a size that follows the face's real sharpness, in the input's colours",
        status="runs offline",
        stage=Chain.Config(stages=(RealESRGAN.Config(), ColorFix.Config())),
    )


def osdface() -> Recipe:
    """OSDFace: Stable Diffusion 2.1 asked once at timestep 399, prompted by the degraded face itself."""
    return Recipe(
        name="osdface",
        summary="OSDFace: one step of Stable Diffusion 2.1, prompted by what the face shows",
        status="needs weights",
        stage=Chain.Config(stages=(OSDFace.Config(), ColorFix.Config(method="none"))),
    )


def zimage() -> Recipe:
    """Z-Image-Turbo asked once at a fixed noise level, for detail; a face adapter is the user's to train."""
    return Recipe(
        name="zimage",
        summary="One step of Z-Image-Turbo at sigma 0.244, in the input's colours; bring your adapters",
        status="needs weights",
        stage=Chain.Config(stages=(ZImage.Config(), ColorFix.Config())),
    )


def sdface() -> Recipe:
    """SDFace, team 2 of NTIRE 2025: the UNet of SDXL-Turbo returns the clean face in one call."""
    return Recipe(
        name="sdface",
        summary="SDFace (NTIRE 2025, team 2): one call of SDXL-Turbo's UNet, tuned on faces",
        status="needs weights",
        stage=Chain.Config(stages=(SDFace.Config(), ColorFix.Config(method="none"))),
    )


def omgsr_s() -> Recipe:
    """OMGSR-S: Stable Diffusion 2.1 asked once at timestep 273, where degraded latents belong."""
    return Recipe(
        name="omgsr-s",
        summary="OMGSR-S: one step of Stable Diffusion 2.1 from mid-schedule, in the input's colours",
        status="needs weights",
        stage=Chain.Config(stages=(OMGSRS.Config(), ColorFix.Config(method="adain"))),
    )


def omgsr_f() -> Recipe:
    """OMGSR-F: FLUX.1-dev asked once at sigma 0.505112, where degraded latents belong."""
    return Recipe(
        name="omgsr-f",
        summary="OMGSR-F: one step of FLUX.1-dev from mid-schedule, in the input's colours",
        status="needs weights",
        stage=Chain.Config(stages=(OMGSRF.Config(), ColorFix.Config(method="adain"))),
    )


def osediff() -> Recipe:
    """OSEDiff for photographs: Stable Diffusion 2.1 asked once at timestep 999, with an empty prompt."""
    return Recipe(
        name="osediff",
        summary="OSEDiff: one step of Stable Diffusion 2.1 from its last timestep, in the input's colours",
        status="needs weights",
        stage=Chain.Config(stages=(OSEDiff.Config(), ColorFix.Config(method="adain"))),
    )


def osediff_face() -> Recipe:
    """OSEDiff as its authors trained it on faces; they use it without a colour fix."""
    return Recipe(
        name="osediff-face",
        summary="OSEDiff trained on faces: one step of Stable Diffusion 2.1 from its last timestep",
        status="needs weights",
        stage=Chain.Config(
            stages=(OSEDiff.Config(adapter="osediff-face/weights"), ColorFix.Config(method="none"))
        ),
    )


def pisa_sr() -> Recipe:
    """PiSA-SR: Stable Diffusion 2.1 asked once, with knobs for fidelity and for invented detail."""
    return Recipe(
        name="pisa-sr",
        summary="PiSA-SR: one step of Stable Diffusion 2.1; lambda_pix cleans, lambda_sem invents detail",
        status="needs weights",
        stage=Chain.Config(stages=(PiSASR.Config(), ColorFix.Config(method="adain"))),
    )


def tadsr() -> Recipe:
    """TADSR: Stable Diffusion 2.1 asked once at the timestep that the user chooses, by default 500."""
    return Recipe(
        name="tadsr",
        summary="TADSR: one step of Stable Diffusion 2.1; timestep 1 keeps to the input, 999 invents most",
        status="needs weights",
        stage=Chain.Config(stages=(TADSR.Config(), ColorFix.Config(method="adain"))),
    )


def bvi() -> Recipe:
    """BVI's entry to NTIRE 2026: TADSR, whose prediction a small network, never published, corrects."""
    return Recipe(
        name="ntire2026/bvi",
        summary="BVI (NTIRE 2026): TADSR, its prediction corrected by a refiner that you train",
        status="train it yourself",
        stage=Chain.Config(stages=(TADSR.Config(refiner="bvi/refiner"), ColorFix.Config(method="adain"))),
    )


def mipluscv() -> Recipe:
    """MiPlusCV's entry to NTIRE 2026, its winner: OSDFace, then Z-Image with an adapter for detail."""
    detail = ZImage.Config(adapters=("mipluscv/detail-lora",))
    return Recipe(
        name="ntire2026/mipluscv",
        summary="MiPlusCV (NTIRE 2026, first): OSDFace, then Z-Image with an adapter that you train",
        status="train it yourself",
        stage=Chain.Config(stages=(OSDFace.Config(), detail, ColorFix.Config())),
    )


def honoraicamera() -> Recipe:
    """HONORAICamera's entry to NTIRE 2026: Z-Image at sigma 0.244, three adapters merged in turn."""
    adapters = tuple(f"honoraicamera/stage{i}" for i in (1, 2, 3))
    return Recipe(
        name="ntire2026/honoraicamera",
        summary="HONORAICamera (NTIRE 2026, third): one step of Z-Image with adapters that you train",
        status="train it yourself",
        stage=Chain.Config(stages=(ZImage.Config(sigma=0.244, adapters=adapters), ColorFix.Config())),
    )


def yufans() -> Recipe:
    """The first stage of YuFans's entry to NTIRE 2026: SDFace as published; pixels are optimised after it."""
    return replace(
        sdface(),
        name="ntire2026/yufans",
        summary="YuFans (NTIRE 2026, fourth), its first stage alone: SDFace; the optimisation is to come",
    )


def pair(coarse: Recipe, detail: Recipe) -> Recipe:
    """The stages of `coarse`, then those of `detail`; colours are fixed once, at the end."""
    first, second = (
        r.stage.stages if isinstance(r.stage, Chain.Config) else (r.stage,) for r in (coarse, detail)
    )
    kept = tuple(stage for stage in first if not isinstance(stage, ColorFix.Config))
    statuses = (coarse.status, detail.status)
    return replace(
        coarse,
        name=f"{coarse.name}+{detail.name}",
        summary=f"{coarse.name}, then {detail.name}",
        status=max(statuses, key=get_args(Status).index),
        stage=Chain.Config(stages=(*kept, *second)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "realesrgan": realesrgan,
    "osdface": osdface,
    "zimage": zimage,
    "sdface": sdface,
    "omgsr-s": omgsr_s,
    "omgsr-f": omgsr_f,
    "osediff": osediff,
    "osediff-face": osediff_face,
    "pisa-sr": pisa_sr,
    "tadsr": tadsr,
    "ntire2026/mipluscv": mipluscv,
    "ntire2026/honoraicamera": honoraicamera,
    "ntire2026/yufans": yufans,
    "ntire2026/bvi": bvi,
}
ALIASES = {"lite": "realesrgan"}  # the default, until a face network of the project's own is trained


def get(name: str) -> Recipe:
    """The recipe of a name, or of a pair such as `osdface+zimage`: a coarse restorer, then one for detail.

    Raises:
        ConfigError: if there is none; says which ones there are.
    """
    if "+" in name:
        coarse, _, rest = name.partition("+")
        return pair(get(coarse), get(rest))
    known = {**RECIPES, **{alias: RECIPES[target] for alias, target in ALIASES.items()}}
    if name in known:
        return known[name]()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ConfigError(f"there is no recipe {name!r}; {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeInfo:
    """One row of the table of recipes.

    Attributes:
        name: what users type.
        summary: one line.
        stages: names of its stages in order.
        status: whether it can be run.
        weights: names of the weights it needs.
        bytes: of all its weights together.
        licences: of its weights, each once.
        alias_of: the recipe that this name stands for, if it is another's.
    """

    name: str
    summary: str
    stages: tuple[str, ...]
    status: Status
    weights: tuple[str, ...]
    bytes: int
    licences: tuple[str, ...]
    alias_of: str | None = None


def list_recipes() -> tuple[RecipeInfo, ...]:
    """Every recipe, the default first."""
    return tuple(_info(name) for name in (*ALIASES, *RECIPES))


def _info(name: str) -> RecipeInfo:
    recipe, store = get(name), WeightStore()
    specs = [store.spec(weight) for weight in recipe.weights()]
    return RecipeInfo(
        name=name,
        summary=recipe.summary,
        stages=_stage_names(recipe.stage),
        status=recipe.status,
        weights=recipe.weights(),
        bytes=sum(spec.bytes for spec in specs),
        licences=tuple(dict.fromkeys(spec.licence for spec in specs)),
        alias_of=ALIASES.get(name),
    )


def _stage_names(stage: StageConfig) -> tuple[str, ...]:
    if isinstance(stage, Chain.Config):
        return tuple(name for member in stage.stages for name in _stage_names(member))
    return (type(stage).__module__.rsplit(".", 1)[-1],)
