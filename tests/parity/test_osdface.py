"""OSDFace against the official code on the same made weights (see data/osdface.md)."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from facerestore.nets.visual_prompt import PromptProjector, VisualPrompt
from facerestore.weights.seeded import fill_seeded

DATA = Path(__file__).parent / "data"
PICTURES = {"square": (300, 300, (4, 16, 64)), "wide": (96, 160, (3,))}


def picture(height: int, width: int, sides: tuple[int, ...]) -> torch.Tensor:
    """(1,3,height,width): means of coloured cells, computed in integers, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, height, width, dtype=torch.int64)
    for side in sides:
        cells = torch.randint(0, 256, (3, side, side), generator=generator)
        rows, columns = torch.arange(height) * side // height, torch.arange(width) * side // width
        total += cells[:, rows[:, None], columns]
    return (total // len(sides)).float()[None] / 255


def vivid(net: torch.nn.Module) -> torch.nn.Module:
    """Fill by key names, norms about one."""
    fill_seeded(net)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return net.eval()


@pytest.fixture(scope="module")
def prompt() -> torch.nn.Module:
    return vivid(VisualPrompt(VisualPrompt.Config()))


@pytest.mark.parametrize("name", PICTURES)
def test_prompts_equal_the_original(name: str, prompt: VisualPrompt) -> None:
    """Full size; the square picture names more than 77 codes, the wide one 56. Features and prompt: 1e-5."""
    recorded = load_file(DATA / "osdface_prompt.safetensors")
    codes = recorded[f"{name}.codes"].long()
    assert len(codes) == {"square": 77, "wide": 56}[name]
    image = picture(*PICTURES[name]) * 2 - 1
    if name == "square":
        image = F.interpolate(image, (512, 512), mode="bilinear", align_corners=True)
    image = F.interpolate(image, (512, 512), mode="bilinear", align_corners=False)
    seen: list[torch.Tensor] = []
    hook = prompt.quant_conv.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        tokens = prompt((image - 0.5) / 0.5)
        projected = vivid(PromptProjector(PromptProjector.Config()))(tokens)
    hook.remove()
    torch.testing.assert_close(seen[0][0, ::16], recorded[f"{name}.features"], atol=1e-5, rtol=0)
    assert torch.equal(tokens[0, : len(codes)], prompt.quantize.embedding.weight[codes])
    assert not tokens[0, len(codes) :].any()
    torch.testing.assert_close(projected[0, :, ::16], recorded[f"{name}.prompt"], atol=1e-5, rtol=0)
