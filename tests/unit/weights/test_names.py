"""What users may call weights: full names, short ones, groups; and what is said when it is not clear."""

from pathlib import Path

import pytest

from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.recipes import get, list_recipes
from facerestore.weights.names import BASE, resolve
from facerestore.weights.spec import manifest, remote

OSDFACE, PAIR, OMGSR, TADSR = (
    get(name).weights() for name in ("osdface", "osdface+zimage", "omgsr-s", "tadsr")
)
VRE, PROJECTOR, LORA = "osdface/visual-prompt", "osdface/projector", "osdface/lora"


def file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def component(path: Path) -> Path:
    return file(path / "config.json").parent


def peft(path: Path) -> Path:
    return file(path / "adapter_config.json").parent


def test_a_weight_goes_by_its_full_name_its_last_part_and_its_short_name(tmp_path: Path) -> None:
    path, unet = file(tmp_path / "own.ckpt"), component(tmp_path / "unet")
    for key in (VRE, "visual-prompt", "vre"):
        assert resolve({key: str(path)}, OSDFACE) == {VRE: path}
    assert resolve({"projector": path, "lora": path, "unet": unet}, PAIR) == {
        PROJECTOR: path,
        LORA: path,
        "sd21-base/unet": unet,
    }
    assert resolve({"realesrgan-x4plus": path}, get("lite").weights()) == {"realesrgan-x4plus": path}
    assert resolve({}, OSDFACE) == {}


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    unet, vae = component(tmp_path / "sd21" / "unet"), component(tmp_path / "sd21" / "vae")
    path = file(tmp_path / "own.ckpt")
    assert resolve({"vre": "~/own.ckpt", "base": "~/sd21"}, OSDFACE) == {
        VRE: path,
        "sd21-base/unet": unet,
        "sd21-base/vae": vae,
    }


@pytest.mark.parametrize("key", ["base", "sd21-base"])
def test_a_base_model_is_a_folder_of_folders(key: str, tmp_path: Path) -> None:
    """What nobody publishes there, such as a prompt, is searched as usual, and taken if it is there."""
    found = {f"sd21-base/{name}": component(tmp_path / name) for name in ("unet", "vae")}
    assert resolve({key: tmp_path}, OMGSR) == found
    prompt = file(tmp_path / "prompt-empty.safetensors")
    assert resolve({key: tmp_path}, OMGSR) == found | {"sd21-base/prompt-empty": prompt}
    assert resolve({key: tmp_path}, OSDFACE) == found
    assert resolve({key: tmp_path}, TADSR) == {
        "sd21-base/unet": tmp_path / "unet",
        "sd21-base/prompt-empty": prompt,
    }


def test_a_group_is_found_as_its_authors_publish_it(tmp_path: Path) -> None:
    files = {
        VRE: file(tmp_path / "associate_2.ckpt"),
        PROJECTOR: file(tmp_path / "embedding_change_weights.pth"),
        LORA: file(tmp_path / "pytorch_lora_weights.safetensors"),
    }
    assert resolve({"osdface": tmp_path}, PAIR) == files
    folders = {
        "omgsr-s/vae-lora": peft(tmp_path / "vae_encoder_lora_adapter"),
        "omgsr-s/unet-lora": peft(tmp_path / "unet_lora_adapter"),
    }
    assert resolve({"omgsr-s": tmp_path}, OMGSR) == folders
    both = {
        "tadsr/weights": file(tmp_path / "tadsr.pkl"),
        "tadsr/time-vae": component(tmp_path / "time_vae"),
        "sd21-base/unet": component(tmp_path / "unet"),
    }
    assert resolve({"tadsr": tmp_path, "base": tmp_path}, TADSR) == both


def test_a_group_is_found_as_it_lies_below_a_weights_folder_too(tmp_path: Path) -> None:
    files = {
        VRE: file(tmp_path / "visual-prompt.safetensors"),
        PROJECTOR: file(tmp_path / "projector.safetensors"),
        LORA: peft(tmp_path / "lora"),
    }
    assert resolve({"osdface": tmp_path}, OSDFACE) == files
    published = file(tmp_path / "associate_2.ckpt")
    assert resolve({"osdface": tmp_path}, OSDFACE)[VRE] == published


def test_what_is_named_alone_goes_before_its_group(tmp_path: Path) -> None:
    """In either order, and whether or not the group's folder has one as well."""
    unet, own = component(tmp_path / "sd21" / "unet"), component(tmp_path / "own")
    for _ in range(2):
        for given in ({"base": unet.parent, "vae": own}, {"vae": own, "base": unet.parent}):
            assert resolve(given, OSDFACE) == {"sd21-base/unet": unet, "sd21-base/vae": own}
        component(tmp_path / "sd21" / "vae")


@pytest.mark.parametrize(
    ("key", "recipe", "message"),
    [
        ("vrre", OSDFACE, r"no weight named 'vrre'; did you mean 'vre'\?"),
        ("osdfase", OSDFACE, r"did you mean 'osdface'\?"),
        ("sd21-base/unett", OSDFACE, r"did you mean 'sd21-base/unet'\?"),
        ("zzz", OSDFACE, "it needs .*osdface/projector"),
        ("pisa-sr/weights", OSDFACE, "this recipe has no weight named 'pisa-sr/weights'"),
        ("base", get("lite").weights(), "no weight named 'base'"),
        ("base", PAIR, "'base' may be sd21-base or z-image-turbo here; say which"),
        ("vae", PAIR, "'vae' may be sd21-base/vae or z-image-turbo/vae here; say which"),
    ],
)
def test_a_key_that_is_not_clear_is_refused(
    key: str, recipe: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({key: tmp_path}, recipe)


@pytest.mark.parametrize("keys", [("vre", "visual-prompt"), ("base", "sd21-base"), (LORA, "lora")])
def test_two_keys_for_one_weight_are_refused(keys: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"given twice, as '{keys[0]}' and as '{keys[1]}'"):
        resolve(dict.fromkeys(keys, tmp_path), OSDFACE)


def test_a_path_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    for key, kind in (
        ("vre", "no file;"),
        ("lora", "no file nor a PEFT folder"),
        ("unet", "no folder with a"),
    ):
        with pytest.raises(WeightsNotFound, match=rf"gone, given for '{key}', is {kind}"):
            resolve({key: tmp_path / "gone"}, OSDFACE)
    for path in (tmp_path / "gone", file(tmp_path / "file")):
        with pytest.raises(WeightsNotFound, match=rf"{path.name}, given for 'base', is no folder;"):
            resolve({"base": path}, OSDFACE)
    component(tmp_path / "unet")
    with pytest.raises(WeightsNotFound, match=r"given for 'base', lacks vae \(sd21-base/vae\);"):
        resolve({"base": tmp_path}, OSDFACE)
    file(tmp_path / "associate_2.ckpt")
    with pytest.raises(WeightsNotFound) as caught:
        resolve({"osdface": tmp_path}, OSDFACE)
    for part in ("embedding_change_weights.pth (osdface/projector)", "pytorch_lora_weights.safetensors"):
        assert part in str(caught.value)
    assert "associate_2.ckpt" not in str(caught.value)
    with pytest.raises(WeightsNotFound, match=r"lacks net_g_final\.pth \(sdface/lora\), prompt_embeds\.pt"):
        resolve({"sdface": tmp_path}, get("sdface").weights())


def test_no_two_things_of_the_manifest_are_called_the_same() -> None:
    """Within each recipe a group is no weight, and a short name is nobody's last part."""
    every = (*manifest(), *remote())
    groups = {spec.name.partition("/")[0] for spec in every if "/" in spec.name} | {BASE}
    singles = {name for spec in every for name in (spec.name, spec.name.rpartition("/")[2], spec.short)}
    assert not groups & singles
    for info in list_recipes():
        specs = [spec for spec in every if spec.name in info.weights]
        keys = [key for spec in specs for key in (spec.name, spec.short) if key]
        assert len(keys) == len(set(keys))
        assert not {spec.short for spec in specs if spec.short} & {
            spec.name.rpartition("/")[2] for spec in specs
        }
        for published in {spec.name.partition("/")[0] for spec in specs}:
            names = [s.published for s in specs if s.name.partition("/")[0] == published and s.published]
            assert len(names) == len(set(names))
