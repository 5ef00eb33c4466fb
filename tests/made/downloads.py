"""What a user has on disk after downloading a restorer as its authors publish it: tiny, with made weights.

Folders, file names, pickles, wrappers and key styles are those of the official downloads; the networks are
the tiny ones of `facerestore.diffusion.configs`, and every tensor is drawn from its key, the same on every
machine. The official code ran on these very files to record `tests/parity/data`.
"""

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import facerestore as fr
from facerestore import recipes
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import (
    TINY_FLUX_TRANSFORMER,
    TINY_FLUX_VAE,
    TINY_SD_VAE,
    TINY_SDXL_UNET,
    TINY_SDXL_VAE,
    TINY_UNET,
    TINY_ZIMAGE_TRANSFORMER,
)
from facerestore.diffusion.time_vae import time_keys
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.nets.visual_prompt import PromptProjector, VisualPrompt
from facerestore.recipes import Recipe
from facerestore.stages.base import Stage
from facerestore.stages.compose import Chain
from facerestore.stages.osdface import OSDFace
from facerestore.stages.sdface import SDFace
from facerestore.weights.store import WeightStore
from tests.made.parts import (
    ATTENTION,
    draw,
    factors,
    projections,
    vivid,
    write_peft,
    write_pipeline,
    write_prompt,
)

# What the published training scripts wrap: suffixes of layers, or parts of their names.
OMGSR_LAYERS = (*ATTENTION, "conv", "conv1", "conv2", "conv_in", "conv_out", "conv_shortcut")
FLUX_LAYERS = ("x_embedder", *(f"attn.{name}" for name in ATTENTION), "attn.to_add_out")
FLUX_LAYERS += ("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj")
FLUX_LAYERS += ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
UNET_PARTS = (*ATTENTION, "conv", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_TINY = OSDFace.Config().tiny()
OSDFACE_SIZES: dict[str, Any] = {
    name: getattr(_TINY, name) for name in ("prompt_net", "projector_net", "square_px")
}
ZIMAGE_LAYERS = tuple(f"attention.{name}" for name in ATTENTION)


@dataclass(frozen=True, slots=True)
class Download:
    """A download, and how a user loads it.

    Attributes:
        recipe: with the sizes of the made networks where no file says them; else as it is.
        weights: what the user gives to `load`.
    """

    recipe: Recipe
    weights: dict[str, Path]

    def load(self, **settings: object) -> fr.Pipeline:
        """By the door that users take, in float32; settings are those of the first stage."""
        by_path = {f"stage.stages.0.{name}": value for name, value in settings.items()}
        given: Any = {"weights": self.weights, "settings": by_path, "offload": "none"}
        return fr.load(self.recipe, device="cpu", dtype="fp32", **given)

    def restorer(self, **settings: object) -> Any:
        """The first stage of what is loaded."""
        stage: Any = self.load(**settings).stage
        return stage.stages[0]


def write(name: str, folder: Path) -> Download:
    """Write the download of a recipe into a folder."""
    return WRITERS[name](folder)


def picture(width: int = 160) -> torch.Tensor:
    """(1,3,96,width): coloured cells made of integers, the same on every machine."""
    cells = torch.randint(0, 256, (3, 12, 20), generator=torch.Generator().manual_seed(0))
    rows, columns = torch.arange(96) * 12 // 96, torch.arange(160) * 20 // 160
    return cells[:, rows[:, None], columns].float()[None, ..., :width] / 255


def restored(stage: Stage, pictures: torch.Tensor | None = None) -> torch.Tensor:
    """What a stage makes of pictures, by default of that one."""
    with torch.no_grad():
        return stage(RestorationState.start(picture() if pictures is None else pictures)).image


def sd21(folder: Path, *, vae: bool = True) -> dict[str, Any]:
    """Stable Diffusion 2.1-base."""
    networks: dict[str, Any] = {"unet": backbones.sd_unet(TINY_UNET)}
    networks |= {"vae": backbones.sd_vae(TINY_SD_VAE)} if vae else {}
    return write_pipeline(folder, "StableDiffusionPipeline", **networks)


def thirds(unet: nn.Module) -> dict[str, list[str]]:
    """The layers that OSEDiff and its kin wrap, by the adapter that they give each."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for layer in projections(unet):
        if any(part in layer for part in UNET_PARTS):
            down = "down_blocks" in layer or layer == "conv_in"
            up = "up_blocks" in layer or layer == "conv_out"
            groups["encoder" if down else "decoder" if up else "others"].append(layer)
    return groups


def osediff_kind(unet: Any, vae: Any, rank: int = 4) -> dict[str, Any]:
    """Two state dicts beside lists of layer names, as OSEDiff and TADSR pickle them."""
    groups = thirds(unet)
    of_vae = [
        name
        for name in projections(vae)
        if name.startswith(("encoder.", "quant_conv")) and "time" not in name
    ]
    state: dict[str, torch.Tensor] = {}
    for group, layers in groups.items():
        state |= factors(unet, layers, rank, f".default_{group}")
    state["conv_in.base_layer.weight"] = torch.empty_like(unet.conv_in.weight)
    state["conv_in.base_layer.bias"] = torch.empty_like(unet.conv_in.bias)
    content: dict[str, Any] = {f"unet_lora_{group}_modules": layers for group, layers in groups.items()}
    return content | {
        "vae_lora_encoder_modules": of_vae,
        "rank_unet": rank,
        "rank_vae": rank,
        "state_dict_unet": draw(state),
        "state_dict_vae": draw(factors(vae, of_vae, rank, ".default_encoder")),
    }


# --- one restorer after the other ---------------------------------------------------------------------------


def osdface_lora(unet: nn.Module, rank: int = 16) -> dict[str, torch.Tensor]:
    """An adapter of every layer but the time embedding, in the two key styles of the published file."""
    tensors: dict[str, torch.Tensor] = {}
    for layer in projections(unet):
        if not layer.startswith("time_embedding"):
            own = {f"unet.{key}": value for key, value in factors(unet, [layer], rank).items()}
            if layer.endswith(ATTENTION):
                own = {
                    key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value
                    for key, value in own.items()
                }
            tensors |= own
    return draw(tensors)


def write_associate(path: Path, net: VisualPrompt) -> None:
    """`associate_2.ckpt`: what Lightning 1.0 writes, a pickle that names one of its classes.

    It holds both branches, their decoders and losses.
    """
    own, width = net.state_dict(), net.config.z_channels
    state = {f"vqvae_LQ.{key}": tensor for key, tensor in own.items()}
    for key in own:
        if key.endswith("norm1.weight") and "attn" in key:
            unused = key.replace("norm1.weight", "norm2")
            state |= {f"vqvae_LQ.{unused}.{part}": torch.ones(width) for part in ("weight", "bias")}
    for branch in ("vqvae", "vqvae_LQ"):
        state[f"{branch}.decoder.conv_in.weight"] = torch.ones(width, width, 3, 3)
        state[f"{branch}.post_quant_conv.weight"] = torch.ones(width, width, 1, 1)
    state |= {
        "vqvae.quant_conv.bias": torch.ones(width),
        "loss.logvar": torch.ones(()),
        "logit_scale": torch.ones(()),
    }
    module = "pytorch_lightning.callbacks.model_checkpoint"
    checkpoint = type("ModelCheckpoint", (), {"__module__": module})
    with pytest.MonkeyPatch.context() as patch:
        for depth in range(3):
            name = ".".join(module.split(".")[: depth + 1])
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setattr(sys.modules[module], "ModelCheckpoint", checkpoint, raising=False)
        content = {
            "epoch": 3,
            "global_step": 1000,
            "pytorch-lightning_version": "1.0.8",
            "callbacks": {checkpoint: {"best_model_score": torch.ones(()), "best_model_path": "a/b.ckpt"}},
            "optimizer_states": [
                {"state": {0: {"step": 1, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
            ],
            "lr_schedulers": [],
            "state_dict": state,
        }
        torch.save(content, path)


def write_osdface(folder: Path, *, full: bool = False) -> Download:
    """OSDFace: `associate_2.ckpt` of Lightning, a plain state dict, and an adapter of mixed key styles.

    Args:
        folder: where.
        full: whether prompt encoder and projector have their full sizes.
    """
    sizes = {} if full else OSDFACE_SIZES
    prompt = sizes.get("prompt_net", VisualPrompt.Config())
    projector = sizes.get("projector_net", PromptProjector.Config())
    unet = backbones.sd_unet(TINY_UNET | {"cross_attention_dim": projector.outputs})
    vae = backbones.sd_vae(TINY_SD_VAE)
    write_pipeline(folder / "sd21-base", "StableDiffusionPipeline", unet=unet, vae=vae)
    own = folder / "OSDFace"
    own.mkdir()
    save_file(osdface_lora(unet), own / "pytorch_lora_weights.safetensors")
    torch.save(dict(vivid(PromptProjector(projector)).state_dict()), own / "embedding_change_weights.pth")
    write_associate(own / "associate_2.ckpt", vivid(VisualPrompt(prompt)))
    return Download(_sized("osdface", **sizes), {"base": folder / "sd21-base", "osdface": own})


def write_omgsr_s(folder: Path) -> Download:
    """OMGSR-S: two folders of PEFT."""
    networks = sd21(folder / "sd21-base")
    own = folder / "omgsr-s-512-adapter"
    write_peft(own / "vae_encoder_lora_adapter", networks["vae"].encoder, OMGSR_LAYERS, 16)
    write_peft(own / "unet_lora_adapter", networks["unet"], OMGSR_LAYERS, 32)
    return Download(_sized("omgsr-s"), _with_prompt(folder) | {"omgsr-s": own})


def write_omgsr_f(folder: Path) -> Download:
    """OMGSR-F: FLUX.1-dev in several files, and two folders of PEFT."""
    transformer, vae = backbones.flux_transformer(TINY_FLUX_TRANSFORMER), backbones.sd_vae(TINY_FLUX_VAE)
    base = folder / "FLUX.1-dev"
    write_pipeline(base, "FluxPipeline", transformer=transformer, vae=vae)
    own = folder / "omgsr-f-1024-adapter"
    write_peft(own / "flux_adapter", transformer, FLUX_LAYERS, 64)
    write_peft(own / "vae_encoder_adapter", vae.get_submodule("encoder"), OMGSR_LAYERS, 64)
    noise = torch.Generator().manual_seed(1)
    tokens, pooled = torch.randn(16, 32, generator=noise), torch.randn(32, generator=noise)
    save_file({"prompt_embeds": tokens, "pooled_prompt_embeds": pooled}, base / "prompt-empty.safetensors")
    return Download(_sized("omgsr-f", least_px=16), {"base": base, "omgsr-f": own})


def write_osediff(folder: Path, file: str = "osediff.pkl") -> Download:
    """OSEDiff: one pickle beside the tagger's, which is not needed."""
    networks = sd21(folder / "sd21-base")
    own = folder / "preset" / "models"
    own.mkdir(parents=True)
    torch.save(osediff_kind(networks["unet"], networks["vae"]), own / file)
    (own / "DAPE.pth").write_bytes(b"what describes pictures in words")
    name = file.removesuffix(".pkl").replace("_", "-")
    return Download(_sized(name), _with_prompt(folder) | {name: own})


def write_pisa_sr(folder: Path) -> Download:
    """PiSA-SR: the factors of six adapters in one pickle."""
    unet, own = sd21(folder / "sd21-base")["unet"], folder / "preset" / "models"
    content: dict[str, Any] = {"lora_rank_unet_pix": 4, "lora_rank_unet_sem": 4, "state_dict_unet": {}}
    for kind in ("pix", "sem"):
        for group, layers in thirds(unet).items():
            content[f"unet_lora_{group}_modules_{kind}"] = layers
            content["state_dict_unet"] |= factors(unet, layers, 4, f".default_{group}_{kind}")
    draw(content["state_dict_unet"])
    own.mkdir(parents=True)
    torch.save(content, own / "pisa_sr.pkl")
    return Download(_sized("pisa-sr"), _with_prompt(folder) | {"pisa-sr": own})


def write_tadsr(folder: Path, *, refiner: bool = False) -> Download:
    """TADSR: everything in one folder, Stable Diffusion's too; BVI's checkpoint is that of both networks."""
    own = folder / "preset" / "weights"
    unet = sd21(own, vae=False)["unet"]
    vae = vivid(backbones.time_vae(TINY_SD_VAE))
    vae.save_pretrained(own / "time_vae")
    config = own / "time_vae" / "config.json"
    settings = json.loads(config.read_text()) | {"_class_name": "TimeAwareAutoencoderKL"}
    config.write_text(json.dumps(settings | {"time_scale_shift": "scale_shift"}))
    time = draw({key: torch.empty_like(vae.state_dict()[key]) for key in time_keys(vae)})
    content = osediff_kind(unet, vae)
    content["state_dict_vae_time"] = {key: tensor.flip(0) for key, tensor in time.items()}
    given = {"base": own, "tadsr": own, "prompt-empty": write_prompt(folder / "prompt.safetensors")}
    if not refiner:
        torch.save(content, own / "tadsr.pkl")
        return Download(_sized("tadsr"), given)
    content["state_dict_noise_refiner"] = draw(dict(ResidualRefiner(ResidualRefiner.Config()).state_dict()))
    torch.save(content, own / "bvi.pkl")
    given |= {"tadsr/weights": own / "bvi.pkl", "refiner": own / "bvi.pkl"}
    return Download(_sized("ntire2026/bvi"), given)


def sdface_state() -> dict[str, torch.Tensor]:
    """The state dict of the official module: the base model with peft's adapters of rank 32 attached."""
    from peft import LoraConfig

    net = nn.Module()
    for name, part, targets in (
        ("unet", backbones.sd_unet(TINY_SDXL_UNET), ATTENTION),
        ("vae", backbones.sd_vae(TINY_SDXL_VAE), (*ATTENTION, "conv1", "conv2")),
    ):
        part.add_adapter(LoraConfig(r=32, lora_alpha=32, target_modules=list(targets)))  # type: ignore[operator]
        net.add_module(name, part)
    return draw(net.state_dict())


def write_sdface(
    folder: Path, state: Mapping[str, torch.Tensor] | None = None, name: str = "sdface"
) -> Download:
    """SDFace: a checkpoint of BasicSR, the prompt in three files of one tensor each, and SDXL-Turbo.

    Args:
        folder: where.
        state: what the checkpoint holds; None for adapters alone. The base model is drawn from its own keys
            otherwise than in the official module, whose weights it gets only in that case.
        name: of the recipe: SDFace's own, or that of a system which begins with it.
    """
    unet, vae = backbones.sd_unet(TINY_SDXL_UNET), backbones.sd_vae(TINY_SDXL_VAE)
    write_pipeline(folder / "sdxl-turbo", "StableDiffusionXLPipeline", unet=unet, vae=vae)
    if state is None:
        whole = sdface_state()
        own = {key.replace(".base_layer", ""): value for key, value in whole.items() if "lora" not in key}
        for part, net in (("unet", unet), ("vae", vae)):
            net.load_state_dict({key: own[f"{part}.{key}"] for key in net.state_dict()})
            net.save_pretrained(folder / "sdxl-turbo" / part)  # type: ignore[operator]
        state = {key: value for key, value in whole.items() if "lora" in key}
    models, zoo = (folder / place / "team02_SDFace" for place in ("models", "model_zoo"))
    for place in (models, zoo):
        place.mkdir(parents=True)
    torch.save({"params": dict(state)}, zoo / "net_g_final.pth")
    made: Any = SDFace.Config().tiny().build(WeightStore())
    prompt = {"prompt_embeds": made.tokens, "add_text_embeds": made.pooled, "add_time_ids": made.sizes}
    for key, tensor in prompt.items():
        torch.save(tensor, models / f"{key}.pt")
    given = {"base": folder / "sdxl-turbo", "lora": zoo / "net_g_final.pth", "sdface": models}
    return Download(_sized(name), given)


def zimage_turbo(folder: Path) -> tuple[Any, dict[str, Path]]:
    """Z-Image-Turbo, its transformer in several files; returns that, and what a user gives."""
    transformer = backbones.zimage_transformer(TINY_ZIMAGE_TRANSFORMER)
    vae = backbones.sd_vae(TINY_FLUX_VAE)
    write_pipeline(folder, "ZImagePipeline", transformer=transformer, vae=vae)
    prompt = torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    save_file({"prompt": prompt}, folder / "prompt.safetensors")
    return transformer, {"z-image-turbo": folder}


def write_zimage(folder: Path) -> Download:
    """Z-Image-Turbo alone."""
    return Download(_sized("zimage"), zimage_turbo(folder / "Z-Image-Turbo")[1])


def write_honoraicamera(folder: Path) -> Download:
    """Z-Image-Turbo, and three folders of PEFT as in the team's public entry to another track."""
    transformer, given = zimage_turbo(folder / "Z-Image-Turbo")
    for number, name in enumerate(("stage1_6k", "stage2_31k", "stage3_17k"), start=1):
        place = folder / name / "z_image_turbo_adapter"
        given[f"stage{number}"] = write_peft(place, transformer, ZIMAGE_LAYERS, rank=16 * number)
    return Download(_sized("ntire2026/honoraicamera"), given)


def write_mipluscv(folder: Path) -> Download:
    """OSDFace, Z-Image-Turbo, and an adapter as diffusers saves it."""
    first = write_osdface(folder)
    transformer, given = zimage_turbo(folder / "Z-Image-Turbo")
    given |= {"sd21-base": first.weights["base"], "osdface": first.weights["osdface"]}
    given["detail-lora"] = write_peft(folder / "detail", transformer, ZIMAGE_LAYERS, rank=16)
    return Download(_sized("ntire2026/mipluscv", **OSDFACE_SIZES), given)


WRITERS: dict[str, Callable[[Path], Download]] = {
    "osdface": write_osdface,
    "zimage": write_zimage,
    "sdface": write_sdface,
    "omgsr-s": write_omgsr_s,
    "omgsr-f": write_omgsr_f,
    "osediff": write_osediff,
    "osediff-face": lambda folder: write_osediff(folder, "osediff_face.pkl"),
    "pisa-sr": write_pisa_sr,
    "tadsr": write_tadsr,
    "ntire2026/mipluscv": write_mipluscv,
    "ntire2026/honoraicamera": write_honoraicamera,
    "ntire2026/yufans": lambda folder: write_sdface(folder, name="ntire2026/yufans"),
    "ntire2026/bvi": lambda folder: write_tadsr(folder, refiner=True),
}


# One recipe for each one-step stage.
ONE_STEP = (
    "osdface",
    "omgsr-s",
    "omgsr-f",
    "osediff",
    "pisa-sr",
    "tadsr",
    "sdface",
    "ntire2026/honoraicamera",
)


def _with_prompt(folder: Path) -> dict[str, Path]:
    return {"base": folder / "sd21-base", "prompt-empty": write_prompt(folder / "prompt.safetensors")}


def _sized(name: str, **sizes: Any) -> Recipe:
    """A recipe whose first stage has other sizes."""
    recipe = recipes.get(name)
    assert isinstance(recipe.stage, Chain.Config)
    first, *others = recipe.stage.stages
    return replace(recipe, stage=Chain.Config(stages=(replace(first, **sizes), *others)))
