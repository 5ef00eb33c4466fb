"""Both branches of the visual prompt, their judges, their association, and the file that comes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import ConfigError, WiringError
from facerestore.losses.codebook import nearest_codes
from facerestore.stages.osdface import OSDFace
from facerestore.training import Job, Trainer
from facerestore.training.adversary import Adversary
from facerestore.training.stream import Stream
from facerestore.training.task import Batch, only, trainable
from facerestore.training.terms import Loss
from facerestore.training.visual_prompt import VisualPromptTask, reconstruct
from facerestore.weights.load import read_tensors
from facerestore.weights.store import WeightStore

STORE = WeightStore()
CONFIG = VisualPromptTask.Config(associates_at=200)
TINY = CONFIG.tiny()

CURVE = (
    1.47954, 1.43735, 1.47961, 1.43421, 1.46431, 1.42762, 1.43767, 1.39801, 1.43551, 1.43970,
    1.45353, 1.44861, 1.46500, 1.43112, 1.44807, 1.45956, 1.44025, 1.42533, 1.43217, 1.42754,
)  # fmt: skip


@pytest.fixture
def task() -> VisualPromptTask:
    return TINY.build(STORE)


def batch(step: int = 9, side: int = 32) -> Batch:
    """Two faces of coloured cells, and the same blurred."""
    cells = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    hq = cells.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    return Batch(hq=hq, lq=torch.nn.functional.avg_pool2d(hq, 5, 1, 2), seeds=(1, 2), step=step)


def slopes(task: VisualPromptTask, player: str, batch: Batch) -> dict[str, Tensor]:
    """Gradients by name after one loss of one player, the others frozen as the trainer does it."""
    players = {name: trainable(net) for name, net in task.players().items()}
    with only(player, players):
        loss, _ = task.loss(player, batch)
    loss.backward()
    return {name: value.grad.clone() for name, value in task.named_parameters() if value.grad is not None}


def test_every_part_of_both_branches_is_moved_and_no_judge(task: VisualPromptTask) -> None:
    moved = slopes(task, "generator", batch())
    assert moved.keys() == {f"branches.{name}" for name in trainable(task.branches)}
    for name, slope in moved.items():
        if ".k.bias" not in name:  # attention does not notice what is added to all keys alike
            assert bool(slope.any()), name
    for branch in ("vqvae", "vqvae_LQ"):
        used = moved[f"branches.{branch}.quantize.embedding.weight"].any(1).sum()
        assert 1 < used < 96  # the codes that were chosen, and no others


def test_judges_learn_from_pictures_alone(task: VisualPromptTask) -> None:
    seen = batch()
    task.loss("generator", seen)
    moved = slopes(task, "discriminator", seen)
    assert moved.keys() == {f"judges.{name}" for name in trainable(task.judges)}
    for name, slope in moved.items():
        if "head.bias" not in name:  # what is added to all logits costs as much there as it saves here
            assert bool(slope.any()), name
    assert not any(made.made["image"].requires_grad for made in seen.made.values())
    weights = [task.judges[side].net.head.weight for side in ("hq", "lq")]
    assert not torch.equal(*weights)


def test_each_branch_reconstructs_its_own_faces(task: VisualPromptTask) -> None:
    """Without an association, what one branch is shown changes nothing for the other."""
    alone = replace(batch(0), lq=torch.zeros(2, 3, 32, 32))
    one = slopes(task, "generator", batch(0))
    task.zero_grad()
    other = slopes(task, "generator", alone)
    for name, slope in one.items():
        assert torch.equal(slope, other[name]) == name.startswith("branches.vqvae."), name


def test_the_association_is_silent_before_its_step_and_moves_both_encoders_after() -> None:
    before, after = batch(TINY.associates_at - 1), batch(TINY.associates_at)
    silent, terms = TINY.build(STORE).loss("generator", before)
    loud, more = TINY.build(STORE).loss("generator", after)
    assert more.keys() - terms.keys() == {"association"}
    torch.testing.assert_close(loud - silent, more["association"], atol=1e-5, rtol=0)
    first, then = (slopes(TINY.build(STORE), "generator", one) for one in (before, after))
    changed = {name for name in then if name not in first or not torch.equal(first[name], then[name])}
    assert "branches.association.logit_scale" in then.keys() - first.keys()
    for branch in ("vqvae", "vqvae_LQ"):
        assert f"branches.{branch}.encoder.conv_in.weight" in changed
        assert f"branches.{branch}.quant_conv.weight" in changed
        assert not any(name.startswith(f"branches.{branch}.decoder") for name in changed)


def test_the_judge_pulls_the_last_layer_as_hard_as_the_rest_times_its_weight() -> None:
    """What is left of the gradient there without the judge, and what the judge adds, are 1 to 0.8."""
    quiet = replace(TINY, adversary=replace(TINY.adversary, starts_at=99))
    last = "branches.vqvae.decoder.conv_out.weight"
    alone = slopes(quiet.build(STORE), "generator", batch())[last]
    judged = slopes(TINY.build(STORE), "generator", batch())[last]
    assert float((judged - alone).norm() / alone.norm()) == pytest.approx(0.8, rel=5e-3)
    _, terms = quiet.build(STORE).loss("generator", batch())
    assert "hq/adversary" not in terms


def test_faces_of_another_size_are_brought_to_that_of_the_prompt(task: VisualPromptTask) -> None:
    large = batch(side=64)
    with torch.no_grad():
        out = task.restore(large.lq, large.seeds)
        assert out.shape == large.lq.shape
        small = torch.nn.functional.interpolate(large.lq, (32, 32), mode="bilinear")
        expected = reconstruct(task.branches["vqvae_LQ"], small).image.clamp(0, 1)
        torch.testing.assert_close(task.restore(small, large.seeds), expected)
    task.loss("generator", large)
    assert large.made["hq"].hq.shape == (2, 3, 32, 32)


def test_in_bf16_codes_are_chosen_as_in_float32(task: VisualPromptTask) -> None:
    """Distances of half precision choose other codes."""
    features = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    codebook = task.branches["vqvae"].quantize.embedding.weight.detach() * 20
    _, exact = nearest_codes(features, codebook)
    with torch.autocast("cpu", torch.bfloat16):
        _, chosen = nearest_codes(features, codebook)
        loss, _ = task.loss("generator", batch())
    assert torch.equal(chosen, exact)
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite())


@pytest.fixture
def prompt_job(faces: Path, tmp_path: Path) -> Job:
    """As a job has it, faster."""
    adam = replace(TINY.generator, learning_rate=1e-3)
    task = replace(CONFIG, generator=adam, discriminator=adam)
    data = Stream.Config(faces=str(faces), presets=("restoreformer",))
    out = str(tmp_path / "run")
    return Job(name="prompt", task=task, data=data, output_dir=out, max_steps=1, ema_decay=None).tiny()


def test_a_resumed_training_is_the_uninterrupted_one(prompt_job: Job, tmp_path: Path) -> None:
    """Cut where the association begins."""
    whole = Trainer(prompt_job, device="cpu")
    assert whole.fit()
    halved = replace(prompt_job, output_dir=str(tmp_path / "halved"))
    Trainer(replace(halved, max_steps=2), device="cpu").fit()
    again = Trainer(halved, device="cpu")
    assert again.step == 2
    again.fit()
    one, other = (trainer._state().tensors for trainer in (whole, again))
    for group, tensors in one.items():
        assert tensors.keys() == other[group].keys()
        for name, value in tensors.items():
            assert torch.equal(value, other[group][name]), (group, name)
    assert any("association.logit_scale" in name for name in one["optimizer"])
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert [f'"step": {step}' in log and '"generator/association"' in log for step in (1, 4)] == [True, True]


def test_twenty_steps_are_the_recorded_ones(prompt_job: Job) -> None:
    """The parts of both branches' losses but the adversary and the association, in float32 on a CPU.

    With few codes and small steps, since training is chaotic where codes are chosen: losses of weights that
    begin a relative 1e-7 off stay within 1e-6 here, and lie 1e-3 off after four steps at the job's own rate.
    At three times the rate of this test the last one is 0.013 less.
    """
    slow = replace(TINY.generator, learning_rate=1e-6)
    task = replace(TINY, generator=slow, discriminator=slow, net=replace(TINY.net, codes=4))
    trainer = Trainer(replace(prompt_job, task=task, max_steps=20), device="cpu")
    parts = [f"generator/{side}/{name}" for side in ("hq", "lq") for name in ("l1", "lpips", "vq")]
    steps = [trainer.train_step() for _ in CURVE]
    assert [sum(step[part] for part in parts) for step in steps] == pytest.approx(CURVE, abs=1e-4)
    assert "generator/association" in steps[-1] and "generator/lq/adversary" in steps[-1]


def test_the_exported_file_is_osdfaces_prompt_bit_for_bit(task: VisualPromptTask, tmp_path: Path) -> None:
    (path,) = task.export(tmp_path, {"job": "prompt", "step": "3"})
    tensors = read_tensors(path)
    assert {key.partition(".")[0] for key in tensors} == {"vqvae", "vqvae_LQ", "logit_scale"}
    assert {"vqvae.decoder.conv_out.bias", "vqvae_LQ.quantize.embedding.weight"} <= tensors.keys()
    store = WeightStore(paths={"osdface/visual-prompt": path})
    config = replace(OSDFace.Config().tiny(), visual_prompt="osdface/visual-prompt", vre_double_norm=False)
    stage = config.build(store)
    faces = batch().lq
    entered: list[Tensor] = []
    stage.prompt.encoder.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        stage.embed(faces)
        made = reconstruct(task.branches["vqvae_LQ"], faces)
        assert torch.equal(stage.prompt.features(entered[0]), made.features)
    codebooks = [net.quantize.embedding.weight for net in (stage.prompt, task.branches["vqvae_LQ"])]
    assert torch.equal(*codebooks)
    with pytest.raises(ConfigError, match=r"vre_double_norm=false.*used with vre_double_norm=true"):
        replace(config, vre_double_norm=True).build(store)
    wide = replace(config.prompt_net, image_px=64)
    with pytest.raises(ConfigError, match="image_px=32"):
        replace(config, prompt_net=wide).build(store)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"commitment": -1.0}, "below 0"),
        ({"associates_at": -1}, "below 0"),
        ({"adversary": Adversary.Config(net="latent")}, "there are none"),
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **wrong)


def test_a_loss_of_latents_is_refused_by_what_it_reads() -> None:
    latents = replace(TINY, losses=(Loss(name="latent_mse"),)).build(STORE)
    with pytest.raises(WiringError, match="z_0"):
        latents.loss("generator", batch())


def test_the_defaults_are_daefrs() -> None:
    for player in CONFIG.optimizers().values():
        assert player.betas == (0.5, 0.9)
        assert player.learning_rate == pytest.approx(7.2e-5)
    assert CONFIG.weights() == ("torchvision/vgg16",)
