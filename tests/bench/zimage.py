"""Z-Image at full width and one block of each kind: what folding prompt and noise level into it gains."""

import copy
from collections.abc import Iterator

import torch
from measure import Row, interleaved
from torch import nn

from facerestore.core.precision import cpu_has_fast_bf16
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import ZIMAGE_TRANSFORMER
from facerestore.diffusion.zimage_constants import fold_constants
from facerestore.weights.seeded import fill_seeded

SIGMA = 0.244
RUNS = 7  # the gain is a few per cent
BLOCKS, REFINERS = 30, 2  # of the whole network


def zimage() -> Iterator[Row]:
    """Equality in float32 at 128 px, time at 512 px in the CPU's best dtype, and the size of what is left."""
    net = backbones.zimage_transformer(ZIMAGE_TRANSFORMER | {"n_layers": 1, "n_refiner_layers": 1})
    fill_seeded(net.eval().requires_grad_(False))
    for name, parameter in net.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter += 1
    draw = torch.Generator().manual_seed(0)
    prompt, z = torch.randn(8, 2560, generator=draw), torch.randn(1, 16, 64, 64, generator=draw)

    def plain(z: torch.Tensor) -> torch.Tensor:
        t = torch.full((1,), 1 - SIGMA)
        return net(list(z.unsqueeze(2)), t, [prompt.to(z)], return_dict=False)[0][0].squeeze(1)[None]

    folded = fold_constants(copy.deepcopy(net), prompt, SIGMA)
    small = z[..., :16, :16]
    yield Row(
        name="Z-Image folded against unfolded, fp32, full width, 3 blocks: largest difference",
        value=float((folded(small) - plain(small)).abs().max()),
        unit="",
        target=1e-5,
        of="value",
        runs=1,
    )
    dtype = torch.bfloat16 if cpu_has_fast_bf16() else torch.float32
    for part in (net, folded):
        nn.Module.to(part, dtype)
    z = z.to(dtype)
    tokens = torch.randn(1, 1056, 3840, generator=draw).to(dtype)
    rope = net.rope_embedder(torch.zeros(1056, 3, dtype=torch.int64))[None]
    vector = torch.randn(1, 256, generator=draw).to(dtype)
    seconds = interleaved(
        {
            "unfolded": lambda: plain(z),
            "folded": lambda: folded(z),
            "block": lambda: net.layers[0](tokens, None, rope, vector),
            "folded block": lambda: folded.layers[0](tokens, None, rope),
            "context": lambda: net.context_refiner[0](tokens[:, :32], None, rope[:, :32]),
        },
        RUNS,
    )
    yield Row(
        name="Z-Image folded, full width, 3 blocks, 512 px",
        value=seconds["folded"],
        unit="s",
        compared_with="as diffusers runs it",
        reference=seconds["unfolded"],
        runs=RUNS,
    )
    blocks = BLOCKS + REFINERS
    yield Row(
        name="the same at full depth, from the time of one block of each kind",
        value=blocks * seconds["folded block"],
        unit="s",
        compared_with="as diffusers runs it",
        reference=blocks * seconds["block"] + REFINERS * seconds["context"],
        target=1.02,
        runs=RUNS,
    )
