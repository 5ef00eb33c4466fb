"""SDFace against its official code: its checkpoint goes in as published, the recorded picture comes out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.core.errors import ConfigError, KeyMismatch, WeightsError
from facerestore.core.state import RestorationState
from tests.made.downloads import Download, sdface_state, write, write_sdface

RECORDED = Path(__file__).parent / "data" / "sdface.safetensors"


def check(download: Download) -> None:
    recorded = load_file(RECORDED)
    pictures = recorded["pictures"].float() / 255
    with torch.no_grad():
        restored = download.restorer().restore(pictures, RestorationState.start(pictures))
    torch.testing.assert_close(restored, recorded["restored"], atol=1e-4, rtol=0)  # merged here, added there


def test_a_checkpoint_of_adapters_alone(tmp_path: Path) -> None:
    check(write("sdface", tmp_path))


def test_a_checkpoint_that_brings_the_whole_base_model(tmp_path: Path) -> None:
    check(write_sdface(tmp_path, sdface_state()))


def test_an_adapter_that_finds_no_place_is_not_passed_over(tmp_path: Path) -> None:
    adapters = {key: tensor for key, tensor in sdface_state().items() if "lora" in key}
    elsewhere = {key.replace("mid_block", "middle"): tensor for key, tensor in adapters.items()}
    with pytest.raises(KeyMismatch, match="middle"):
        write_sdface(tmp_path, elsewhere).load()


def test_the_prompt_is_three_files_of_one_tensor(tmp_path: Path) -> None:
    download = write("sdface", tmp_path)
    with pytest.raises(ConfigError, match="prompt names 3 files"):
        download.load(prompt="sdface/prompt-embeds")
    torch.save({"a": torch.ones(1), "b": torch.ones(1)}, download.weights["sdface"] / "add_time_ids.pt")
    with pytest.raises(WeightsError, match=r"sdface/time-ids: expected a file of one tensor, got 2"):
        download.load()
