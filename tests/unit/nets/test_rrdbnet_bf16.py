"""What bf16 costs on a real face."""

import pytest
import torch
from torch.nn.functional import interpolate

from facerestore.core.precision import cpu_has_fast_bf16
from facerestore.nets.rrdbnet import RRDBNet
from facerestore.weights.load import load_into
from facerestore.weights.store import WeightStore


def test_bf16_stays_within_45_db_of_fp32() -> None:
    """A face of 64 px: half of the smallest size at which faces enter, to keep the test short."""
    data = pytest.importorskip("skimage.data")
    face = torch.from_numpy(data.astronaut()[30:170, 160:300].copy()).permute(2, 0, 1)[None].float() / 255
    face = interpolate(face, size=(64, 64), mode="bilinear", antialias=True)
    if not cpu_has_fast_bf16():  # emulated, in minutes: its middle has to do
        face = face[..., 24:40, 24:40]
    net = RRDBNet(RRDBNet.Config()).eval()
    load_into(net, WeightStore().load("realesrgan-x4plus"), "realesrgan-x4plus")
    with torch.no_grad():
        exact = net(face).clamp(0, 1)
        rough = net.bfloat16()(face.bfloat16()).float().clamp(0, 1)
    assert rough.dtype == torch.float32
    psnr_db = -10 * torch.log10((exact - rough).square().mean())
    assert psnr_db >= 45
    enlarged = interpolate(face, scale_factor=4, mode="bicubic")
    assert (exact - enlarged).abs().mean() < 0.05, "the network enlarges the face it was given"
