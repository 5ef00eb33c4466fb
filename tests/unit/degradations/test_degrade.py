"""The presets and the main door: a result is a function of a picture, a preset and a seed."""

import json
from dataclasses import replace

import pytest
import torch

from facerestore.core.errors import ConfigError, RangeError, ShapeError
from facerestore.degradations import (
    PRESETS,
    Classic,
    Kernel,
    SecondOrder,
    apply,
    degrade,
    draw,
    find_preset,
    target,
)
from facerestore.degradations.jitter import JITTERS

SMALL = {"realesrgan_x4": 4, "realesrgan_x2": 2}
SEEDS = [3, 1, 4, 15]


@pytest.fixture(scope="module")
def batch(portrait: torch.Tensor) -> torch.Tensor:
    return torch.cat([portrait, portrait.flip(3), portrait * 0.5, 1 - portrait])[..., ::2, 10:170:2]


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_is_degraded_alike_in_any_batch_and_order(name: str, batch: torch.Tensor) -> None:
    together = degrade(batch, name, SEEDS)
    scale = SMALL.get(name, 1)
    assert together.shape == (4, 3, 96 // scale, 80 // scale)
    assert together.dtype == torch.float32
    assert torch.equal((together * 255).round() / 255, together)
    assert together.min() >= 0 and together.max() <= 1
    backwards = degrade(batch.flip(0), name, SEEDS[::-1])
    for i, seed in enumerate(SEEDS):
        alone = degrade(batch[i : i + 1], name, [seed])
        assert torch.equal(alone[0], together[i])
        assert torch.equal(backwards[3 - i], together[i])


@pytest.mark.parametrize("name", PRESETS)
def test_another_seed_degrades_otherwise(name: str, batch: torch.Tensor) -> None:
    same, other = degrade(batch[:1].expand(2, -1, -1, -1), name, [1, 2])
    assert not torch.equal(same, other)
    torch.rand(5)  # nobody's global generator is asked
    assert torch.equal(degrade(batch[:1], name, [1])[0], same)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_works_in_tiny_and_says_what_it_drew(name: str, batch: torch.Tensor) -> None:
    preset = find_preset(name).tiny()
    assert type(preset) is type(PRESETS[name])
    draws = draw(preset, SEEDS)
    lq = apply(batch, preset, draws)
    assert torch.equal(lq, degrade(batch, preset, SEEDS))
    assert min(lq.shape[2:]) >= 40
    records = json.loads(json.dumps([drawn.to_dict() for drawn in draws]))
    assert [record["seed"] for record in records] == SEEDS


def test_stronger_presets_damage_more(portrait: torch.Tensor) -> None:
    def damage(name: str) -> float:
        seeds = range(12)
        return float((degrade(portrait.expand(12, -1, -1, -1), name, seeds) - portrait).abs().mean())

    assert damage("codeformer_small") < damage("diffbir_cf") < damage("codeformer_large")
    assert damage("vqfr") < damage("vqfr_v2")
    assert damage("omgsr") < damage("realesrgan_x1")


@pytest.mark.parametrize("field", ["sigma", "downsample", "noise_sigma", "quality"])
def test_each_number_counts(field: str, portrait: torch.Tensor) -> None:
    mild = replace(
        find_preset("gfpgan").tiny(), downsample=(1.0, 1.0), noise_sigma=(0.0, 0.0), quality=(100.0, 100.0),
        colour_shift_probability=0.0, grey_probability=0.0, photometric_probability=0.0,
        kernel=replace(find_preset("gfpgan").tiny().kernel, sigma=(0.05, 0.05)),
    )  # fmt: skip
    changes = {"downsample": (4.0, 4.0), "noise_sigma": (10.0, 10.0), "quality": (10.0, 10.0)}
    strong = (
        replace(mild, kernel=replace(mild.kernel, sigma=(3.0, 3.0)))
        if field == "sigma"
        else replace(mild, **{field: changes[field]})
    )
    nothing = (degrade(portrait, mild, [0]) - portrait).abs().mean()
    assert nothing < 0.01
    assert (degrade(portrait, strong, [0]) - portrait).abs().mean() > 2 * nothing


def test_numbers_lie_in_their_ranges_and_fill_them() -> None:
    preset = PRESETS["gfpgan"]
    assert isinstance(preset, Classic)
    draws = [drawn.to_dict() for drawn in draw(preset, range(400))]
    for name, low, high in (("downsample", 0.8, 8), ("noise_sigma", 0, 20), ("quality", 60, 99)):
        values = [drawn[name] for drawn in draws]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    shapes = [drawn["kernel"]["shape"] for drawn in draws]
    assert shapes.count("iso") == pytest.approx(200, abs=40)
    assert sum(drawn["colour_shift"] is not None for drawn in draws) == pytest.approx(120, abs=36)
    jittered = [drawn["photometric"] for drawn in draws if drawn["photometric"]]
    assert len(jittered) == pytest.approx(120, abs=36)
    assert all({name for name, _ in names} == set(JITTERS) for names in jittered)
    assert len({tuple(name for name, _ in names) for names in jittered}) == 24  # every order


def test_the_second_order_model_draws_everything_that_it_can() -> None:
    draws = draw("realesrgan_x4", range(300))
    for order in ("first", "second"):
        passes = [getattr(drawn, order) for drawn in draws]
        assert {p.mode for p in passes} == {"area", "bilinear", "bicubic"}
        assert {p.noise for p in passes} == {"gaussian", "poisson"}
        assert {p.grey_noise for p in passes} == {True, False}
        assert sum(p.scale == 1 for p in passes) == pytest.approx(30 if order == "first" else 90, abs=25)
        assert len({p.kernel.shape for p in passes if p.kernel}) == 7
    assert all(drawn.first.kernel for drawn in draws)
    assert sum(drawn.second.kernel is None for drawn in draws) == pytest.approx(60, abs=25)
    assert sum(drawn.jpeg_last for drawn in draws) == pytest.approx(150, abs=35)
    assert sum(drawn.final_kernel is None for drawn in draws) == pytest.approx(60, abs=25)
    finals = [drawn.final_kernel for drawn in draws if drawn.final_kernel]
    assert {kernel.shape for kernel in finals} == {"sinc"}
    assert min(kernel.cutoff for kernel in finals) >= torch.pi / 3
    assert {drawn.enlarge_mode for drawn in draws} == {None}
    assert {drawn.enlarge_mode for drawn in draw("realesrgan_x1", range(9))} == {"bicubic"}
    assert len({drawn.enlarge_mode for drawn in draw("omgsr", range(30))}) == 3


def test_each_order_of_the_last_steps_is_taken(batch: torch.Tensor) -> None:
    preset = PRESETS["realesrgan_x1"]
    drawn = replace(draw(preset, [0])[0], final_kernel=Kernel(shape="sinc", size=7, cutoff=1.5))
    last, first = (apply(batch[:1], preset, [replace(drawn, jpeg_last=flag)]) for flag in (True, False))
    assert not torch.equal(last, first)


@pytest.mark.parametrize("name", ["gfpgan", "realesrgan_x1"])
def test_the_codec_makes_nearly_the_same_picture(name: str, portrait: torch.Tensor) -> None:
    preset = find_preset(name)
    computed, coded = (degrade(portrait, replace(preset, jpeg=jpeg), [5]) for jpeg in ("dct", "codec"))
    assert not torch.equal(computed, coded)
    assert (computed - coded).abs().mean() < 0.02


def test_the_target_is_grey_where_the_picture_was_made_grey(batch: torch.Tensor) -> None:
    preset = replace(PRESETS["stablesr_face"], grey_probability=0.5)
    seeds = [seed for seed, drawn in enumerate(draw(preset, range(20))) if drawn.grey][:2]
    seeds += [seed for seed, drawn in enumerate(draw(preset, range(20))) if not drawn.grey][:2]
    lq, hq = degrade(batch, preset, seeds), target(batch, preset, seeds)
    for images in (lq, hq):
        spread = (images.amax(1) - images.amin(1)).flatten(1).amax(1)
        assert spread[:2].max() < 1e-6 and spread[2:].min() > 0.05
    assert torch.equal(hq[2:], batch[2:])
    assert target(batch, "gfpgan", seeds) is batch


def test_a_strong_hue_turns_red_to_green() -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    torch.testing.assert_close(JITTERS["hue"](red, 1 / 3), red.roll(1, 1))
    torch.testing.assert_close(JITTERS["hue"](red, -1 / 3), red.roll(-1, 1))
    grey = torch.full((1, 3, 2, 2), 0.3)
    torch.testing.assert_close(JITTERS["hue"](grey, 0.4), grey)


def test_what_is_no_batch_of_pictures_is_refused(batch: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"hq \(B,3,H,W\)"):
        degrade(batch[0], "gfpgan", [0])
    with pytest.raises(RangeError, match="divide by 255"):
        degrade(batch * 255, "gfpgan", SEEDS)
    with pytest.raises(ShapeError, match="32 px"):
        degrade(batch[..., :31], "gfpgan", SEEDS)
    for seeds in ([0], [0] * 5):
        with pytest.raises(ShapeError, match="4 seeds"):
            degrade(batch, "gfpgan", seeds)
        with pytest.raises(ShapeError, match="4 seeds"):
            target(batch, "gfpgan", seeds)
    assert degrade(batch[:0], "gfpgan", []).shape == (0, 3, 96, 80)


def test_unknown_presets_are_refused_with_near_names(batch: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="did you mean 'gfpgan'"):
        degrade(batch, "gfpgam", SEEDS)
    with pytest.raises(ConfigError, match="there are gfpgan, vqfr"):
        find_preset("zzz")


def test_numbers_of_one_model_are_refused_by_the_other(batch: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="Classic preset"):
        apply(batch, "gfpgan", draw("omgsr", SEEDS))


def test_presets_are_what_their_authors_published() -> None:
    """The table of the spec, for the numbers that differ."""
    expected = {
        "gfpgan": ((0.1, 10), (0.8, 8), (0, 20), (60, 100)),
        "codeformer_small": ((0.1, 10), (1, 12), (0, 15), (60, 100)),
        "codeformer_large": ((1, 15), (4, 30), (0, 20), (30, 80)),
        "diffbir_cf": ((0.1, 12), (1, 12), (0, 15), (30, 100)),
        "stablesr_face": ((0.1, 15), (0.8, 32), (0, 20), (30, 100)),
    }
    for name, ranges in expected.items():
        preset = PRESETS[name]
        assert isinstance(preset, Classic)
        assert (preset.kernel.sigma, preset.downsample, preset.noise_sigma, preset.quality) == ranges
        assert preset.kernel.sizes == (41,)
    omgsr = PRESETS["omgsr"]
    assert isinstance(omgsr, SecondOrder)
    assert (omgsr.first.quality, omgsr.second.quality) == ((60, 95), (60, 100))
    assert (omgsr.second.blur_probability, omgsr.sharpen) == (0.5, False)
    assert PRESETS["omgsr_1024"].first.kernel.sizes == tuple(range(11, 42, 2))
    assert len({preset.fingerprint() for preset in PRESETS.values()}) == len(PRESETS)
