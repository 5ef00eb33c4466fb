"""The visual prompt at a size for tests; `tests/parity/test_osdface.py` has it at full size."""

import pytest
import torch

from facerestore.core.errors import ConfigError, KeyMismatch, ShapeError
from facerestore.nets.visual_prompt import (
    PromptProjector,
    VisualPrompt,
    published_state,
    select_tokens,
)
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded


def tiny() -> VisualPrompt:
    """Norms of about one: made ones of about zero would show every image the same codes."""
    net = VisualPrompt(VisualPrompt.Config.tiny())
    fill_seeded(net)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return net.eval()


def test_default_is_what_was_published() -> None:
    """29.17 million numbers, less the norms of the original that nothing reads, and 0.39 in the projector."""
    with torch.device("meta"):
        net, projector = VisualPrompt(VisualPrompt.Config()), PromptProjector(PromptProjector.Config())
        features = net.features(torch.empty(1, 3, 512, 512))
    assert features.shape == (1, 512, 16, 16)
    assert sum(p.numel() for p in net.parameters()) == 29_172_416 - 3 * 2 * 512
    assert sum(p.numel() for p in projector.parameters()) == 394_496


def test_codes_come_once_the_best_match_first() -> None:
    codebook = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [50.0, 50.0]])
    #  position: nearest code, squared distance:  0: 1, 4   1: 0, 1   2: 1, 0.25   3: 2, 9
    features = torch.tensor([[12.0, 1.0, 10.5, 0.0], [0.0, 0.0, 0.0, 13.0]]).view(1, 2, 2, 2)
    tokens = select_tokens(features, codebook, 3)
    assert torch.equal(tokens[0], codebook[[1, 0, 2]])
    assert torch.equal(select_tokens(features, codebook, 2)[0], codebook[[1, 0]])


def test_rows_that_no_code_fills_are_zero() -> None:
    codebook = torch.eye(4)
    features = codebook[2].view(1, 4, 1, 1).expand(1, 4, 3, 3)
    tokens = select_tokens(features, codebook, 5)
    assert torch.equal(tokens[0, 0], codebook[2])
    assert not tokens[0, 1:].any()


def test_codes_of_one_image_do_not_depend_on_the_others() -> None:
    net = tiny()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 3
    with torch.no_grad():
        together, apart = net(images), torch.cat([net(image[None]) for image in images])
    assert together.shape == (3, 77, 16)
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together, apart)


def test_codes_are_chosen_in_float32_whatever_the_dtype_of_the_encoder() -> None:
    net = tiny()
    net.encoder.bfloat16()
    tokens = net(torch.zeros(1, 3, 32, 32))
    assert tokens.dtype == torch.float32
    codes = net.quantize.embedding.weight
    assert bool((torch.cdist(tokens[0, :1], codes).min() == 0).all())


def test_codes_are_chosen_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    features, codes = (
        torch.randn(1, 16, 16, 16, generator=generator),
        torch.randn(96, 16, generator=generator),
    )
    exact = select_tokens(features, codes, 77)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(select_tokens(features, codes, 77), exact)


def test_the_projector_bends_after_both_convolutions() -> None:
    projector = PromptProjector(PromptProjector.Config(inputs=4, outputs=3))
    with torch.no_grad():
        projector.conv1.weight.zero_(), projector.conv1.bias.zero_()
        projector.conv2.weight.zero_(), projector.conv2.bias.fill_(-1.0)
        out = projector(torch.rand(2, 77, 4))
    torch.testing.assert_close(out, torch.full((2, 77, 3), -1 / (1 + torch.e)))


def test_the_published_checkpoint_is_reduced_to_what_is_read() -> None:
    net = tiny()
    own = net.state_dict()
    file = {f"vqvae_LQ.{key}": value for key, value in own.items()}
    file |= {
        "vqvae_LQ.encoder.down.2.attn.0.norm2.weight": torch.ones(64),
        "vqvae_LQ.encoder.mid.attn_1.norm2.bias": torch.ones(64),
        "vqvae_LQ.post_quant_conv.weight": torch.ones(1),
        "vqvae_LQ.decoder.conv_in.weight": torch.ones(1),
        "vqvae.encoder.conv_in.weight": torch.ones(1),
        "loss.discriminator.main.0.weight": torch.ones(1),
        "logit_scale": torch.ones(()),
    }
    assert published_state(file).keys() == own.keys()
    assert published_state(own).keys() == own.keys()
    load_into(net, published_state(file), "made")
    surplus = published_state(file | {"vqvae_LQ.encoder.temb.weight": torch.ones(1)})
    with pytest.raises(KeyMismatch, match=r"encoder\.temb\.weight"):
        load_into(net, surplus, "made")


@pytest.mark.parametrize(
    "wrong", [{"ch": 48}, {"image_px": 30}, {"tokens": 0}, {"ch_mult": ()}, {"num_res_blocks": 0}]
)
def test_bad_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="VisualPrompt"):
        VisualPrompt.Config(**wrong)
    with pytest.raises(ConfigError, match="PromptProjector"):
        PromptProjector.Config(inputs=1)


def test_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(B,3,32,32\)"):
        tiny()(torch.zeros(1, 3, 32, 64))
