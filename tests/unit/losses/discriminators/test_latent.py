"""OSDFace's discriminator of noised latents."""

from typing import Any

import pytest
import torch

from facerestore.core.errors import ConfigError, ShapeError, WeightsNotFound
from facerestore.diffusion.noising import alpha_bar_at, noised
from facerestore.losses.adversarial import discriminator_loss, generator_loss
from facerestore.losses.discriminators.latent import LatentDiscriminator
from facerestore.weights.store import WeightStore

TIMESTEPS = torch.tensor([10, 800])
SDXL = LatentDiscriminator.Config(unet="sdxl-turbo/unet", rank=2, hidden=16)


@pytest.fixture(scope="module")
def sd21() -> LatentDiscriminator:
    return make()


def make(config: Any = None) -> LatentDiscriminator:
    torch.manual_seed(0)
    return LatentDiscriminator.tiny(config)


def latents(count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(count, 4, 8, 8, generator=generator) for _ in range(2))
    return z, noise, torch.randn(count, 5, 32, generator=generator)


@pytest.mark.parametrize("config", [None, SDXL])
def test_each_latent_gets_one_logit_of_its_own(config: Any) -> None:
    net, (z, noise, prompt) = make(config), latents()
    with torch.no_grad():
        (logits,) = net(z, TIMESTEPS, noise, prompt)
        alone = [
            net(z[i : i + 1], TIMESTEPS[i : i + 1], noise[i : i + 1], prompt[i : i + 1])[0] for i in range(2)
        ]
        (shared,) = net(z, TIMESTEPS, noise, prompt[:1])
    assert logits.shape == (2, 1)
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[0], shared[0], atol=1e-5, rtol=0)
    assert (logits[1] - shared[1]).abs() > 1e-4  # told another prompt


def test_it_depends_on_latent_noise_and_timestep(sd21: LatentDiscriminator) -> None:
    z, noise, _ = latents()
    with torch.no_grad():
        (logits,) = sd21(z, TIMESTEPS, noise)
        others = [
            sd21(-z, TIMESTEPS, noise)[0],
            sd21(z, TIMESTEPS, -noise)[0],
            sd21(z, TIMESTEPS.flip(0), noise)[0],
        ]
    assert all((other - logits).abs().min() > 1e-5 for other in others)


def test_the_unet_sees_the_noised_latent(sd21: LatentDiscriminator) -> None:
    z, noise, _ = latents()
    seen: list[torch.Tensor] = []
    hook = sd21.backbone.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        sd21(z, TIMESTEPS, noise)
    hook.remove()
    torch.testing.assert_close(seen[0], noised(z, noise, alpha_bar_at(TIMESTEPS)))


@pytest.mark.parametrize("rank", [0, 2])
def test_only_adapter_and_head_are_trained_and_gradients_pass_to_the_latent(rank: int) -> None:
    net = make(LatentDiscriminator.Config(rank=rank, hidden=16)).train()
    trained = {name for name, tensor in net.named_parameters() if tensor.requires_grad}
    assert {name.partition(".")[0] for name in trained} == ({"head", "backbone"} if rank else {"head"})
    assert all("lora_" in name for name in trained if name.startswith("backbone."))
    assert not any("up_blocks" in name or "conv_out" in name for name in net.state_dict())
    z, noise, prompt = latents()
    pred = z.clone().requires_grad_()
    generator_loss(net(pred, TIMESTEPS, noise, prompt)).sum().backward()
    assert pred.grad is not None and bool((pred.grad.flatten(1).abs().sum(1) > 0).all())
    frozen = {name: tensor for name, tensor in net.named_parameters() if name not in trained}
    assert all(tensor.grad is None for tensor in frozen.values())


def test_it_learns_to_tell_two_latents_apart() -> None:
    net = make().train()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    z, noise, _ = latents()
    timesteps, losses = torch.tensor([50, 100]), []
    for _ in range(12):
        real, fake = net(z, timesteps, noise), net(z.flip(3) * 0.3, timesteps, noise.flip(0))
        loss = discriminator_loss(real, fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_one_seed_makes_one_adapter() -> None:
    first, second = (LatentDiscriminator.tiny(seed=7).state_dict() for _ in range(2))
    down = [name for name in first if "lora_A" in name]
    assert down and all(torch.equal(first[name], second[name]) for name in down)


def test_what_does_not_fit_is_refused(sd21: LatentDiscriminator) -> None:
    z, noise, prompt = latents()
    with pytest.raises(ShapeError, match=r"timesteps \(2,\)"):
        sd21(z, TIMESTEPS[:1], noise)
    with pytest.raises(ShapeError, match="whole timesteps"):
        sd21(z, TIMESTEPS / 1000, noise)
    with pytest.raises(ShapeError, match=r"prompt \(2,N,32\)"):
        sd21(z, TIMESTEPS, noise, prompt[:, :, :8])
    with pytest.raises(ShapeError, match=r"latents \(B,4,h,w\)"):
        sd21(z[:, :3], TIMESTEPS, noise[:, :3])
    with pytest.raises(ConfigError, match="rank"):
        LatentDiscriminator.Config(rank=-1)
    with pytest.raises(WeightsNotFound, match="sd21-base/unet"):
        LatentDiscriminator.load(WeightStore())


def test_gradients_of_latents() -> None:
    net, (z, noise, prompt) = make().double().eval(), (each.double() for each in latents())
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, TIMESTEPS, noise, prompt)[0], z, fast_mode=True)
