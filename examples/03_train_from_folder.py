"""Train the small U-Net on a folder of sharp faces, write down what it learned, restore a picture with it.

python examples/03_train_from_folder.py FACES OUTPUT PICTURE [STEPS]

FACES holds sharp, aligned faces, the more the better: thousands of steps on thousands of faces make a
restorer, a few make a demonstration. What is restored is invented, no evidence of what somebody looked like.
Stop it with Ctrl-C and start it again: it goes on where it stopped, as if it never had.
"""

import sys
from dataclasses import replace
from pathlib import Path

import facerestore as fr
from facerestore.recipes import Recipe
from facerestore.recipes.training import face_unet
from facerestore.stages.face_unet import FaceUNet
from facerestore.training import StepReport, Trainer

SIDE_PX = "128"  # of the faces; 256 is better, and four times as slow


def say(report: StepReport) -> None:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    print(f"{report.step}/{report.max_steps}  {losses}  {report.faces_per_second:.1f} faces/s")


def main(faces: str, output: str, picture: str, steps: int = 2000) -> None:
    job = face_unet(faces, output).override("data.size_px", SIDE_PX).override("task.stage.square_px", SIDE_PX)
    # What the presets do is chosen face by face; a fifth of the people is kept apart, to judge by.
    job = replace(job, max_steps=steps, batch_size=4, data=replace(job.data, held_back=0.2))

    trainer = Trainer(job)
    print(trainer.stream.describe())
    if not trainer.fit(on_step=say):
        sys.exit("stopped; start it again to go on")
    network, card = trainer.export()
    print(f"network: {network}\ncard: {card}\nsheets: {trainer.folder / 'sheets'}")

    stage = FaceUNet.Config(square_px=int(SIDE_PX), weight="own/face_unet")
    recipe = Recipe(name="mine", summary="my own", status="runs offline", stage=stage)
    pipe = recipe.build(fr.WeightStore(paths={"own/face_unet": network}))
    target = Path(output) / "restored.png"
    pipe.restore(picture).image.save(target)
    print(f"restored: {target}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    folder, target, photo, *steps = sys.argv[1:]
    main(folder, target, photo, *map(int, steps))
