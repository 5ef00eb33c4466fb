"""PSNR of held-back faces before and after a trained U-Net, by preset, with 95 % intervals of the mean.

    python tests/bench/held_back.py NETWORK FACES PX [WHERE] [SHARE]

NETWORK is what `Trainer.export` wrote, FACES what the job was trained on, PX the side at which the network
works and the faces are compared, WHERE a condition on the rows of a table, SHARE how many people the job held
back (0.15). Faces are degraded at 512 px, each by a seed of its own pixels, and then brought to PX.
"""

import sys

import torch

import facerestore as fr
from facerestore.core.state import RestorationState
from facerestore.stages.face_unet import FaceUNet
from facerestore.training.record import psnr
from facerestore.training.stream import Stream

PRESETS = ("gfpgan", "codeformer_small", "codeformer_large")


def interval(values: torch.Tensor) -> str:
    return f"{values.mean():6.2f} ± {1.96 * values.std() / len(values) ** 0.5:.2f}"


@torch.no_grad()
def main(network: str, faces: str, px: int, where: str, share: float) -> None:
    store = fr.WeightStore(paths={"own/face_unet": network})
    stage = FaceUNet.Config(square_px=px, weight="own/face_unet").build(store)
    stage.place(torch.device("cpu"), "fp32")
    print(f"{'preset':18} faces   PSNR before     PSNR after      gain          worse")
    for preset in PRESETS:
        config = Stream.Config(
            faces=faces,
            where=(where,) if where else (),
            held_back=share,
            shown=1 << 20,
            size_px=px,
            degraded_px=512,
            presets=(preset,),
        )
        stream = Stream(config, seed=0, batch_size=1, device=torch.device("cpu"))
        rows: list[torch.Tensor] = []
        shown = stream.validation()
        assert shown is not None
        for lq, hq in zip(shown.lq.split(1), shown.hq.split(1), strict=True):
            image = stage(RestorationState.start(lq)).image
            rows.append(torch.stack([psnr(lq, hq), psnr(image, hq)], dim=1))
        before, after = torch.cat(rows).unbind(1)
        gain = after - before
        print(
            f"{preset:18} {len(gain):5}  {interval(before)}  {interval(after)}  {interval(gain)}  "
            f"{int((gain < 0).sum())}"
        )


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    network, faces, px, where, share = [*sys.argv[1:], *("", "0.15")[len(sys.argv) - 4 :]]
    main(network, faces, int(px), where, float(share))
