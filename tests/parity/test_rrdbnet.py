"""RRDBNet against spandrel's ESRGAN on the shipped weights."""

import pytest
import torch

from facerestore.nets.rrdbnet import RRDBNet
from facerestore.weights.load import load_into
from facerestore.weights.store import WeightStore


@pytest.mark.live
@pytest.mark.parametrize("shape", [(1, 3, 24, 24), (2, 3, 17, 31)])
def test_outputs_equal_spandrel(shape: tuple[int, ...]) -> None:
    """Both get the same file; 1e-5 abs in float32."""
    spandrel = pytest.importorskip("spandrel")
    state = WeightStore().load("realesrgan-x4plus")
    ours = RRDBNet(RRDBNet.Config()).eval()
    load_into(ours, state, "realesrgan-x4plus")
    theirs = spandrel.ModelLoader().load_from_state_dict({k: v.float() for k, v in state.items()})
    assert theirs.architecture.name == "ESRGAN"
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.model.eval()(image)
        actual = ours(image)
    assert expected.std() > 0.05
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
