"""The pipeline on real portraits, with a tiny restoring network: what comes back, and every promise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import facerestore as fr
from facerestore.core.errors import ConfigError, ImageUnreadable, RangeError, ShapeError
from facerestore.faces.align import unwarp
from facerestore.pipeline import Pipeline
from facerestore.placement import box_size
from facerestore.recipes import get
from facerestore.restoration import RestorationOptions

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = EXAMPLES / "photos" / "astronaut_thumbnail.jpg"
FIVE = EXAMPLES / "photos" / "wall_of_five.jpg"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return get("lite").tiny().build(device="cpu", dtype="fp32")


def _changed(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a != b).reshape(*a.shape[:2], -1).any(2)


def test_the_kind_that_came_in_comes_out(pipe: Pipeline) -> None:
    picture = Image.open(PHOTO).convert("RGB")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255
    from_path, from_pil = pipe.restore(PHOTO).image, pipe.restore(picture).image
    assert isinstance(from_path, Image.Image) and isinstance(from_pil, Image.Image)
    from_array = pipe.restore(array).image
    assert (
        isinstance(from_array, np.ndarray)
        and from_array.dtype == np.uint8
        and from_array.shape == array.shape
    )
    from_tensor = pipe.restore(tensor).image
    assert from_tensor.shape == tensor.shape and from_tensor.dtype == torch.float32
    assert isinstance(pipe.restore(fr.read_image(PHOTO)).image, fr.Photo)
    assert np.array_equal(np.asarray(from_pil), from_array)
    assert np.abs(from_tensor[0].permute(1, 2, 0).numpy() * 255 - from_array).max() <= 1.01
    three = pipe.restore(tensor[0]).image
    assert torch.equal(three, from_tensor[0])


def test_outside_the_masks_nothing_changes_and_inside_something_does(pipe: Pipeline) -> None:
    before = fr.read_image(FIVE)
    result = pipe.restore(before)
    changed = _changed(before.pixels, result.photo.pixels)
    inside = np.zeros(changed.shape, bool)
    places = pipe._prepare(before, RestorationOptions(), 10**9).places  # pyright: ignore[reportPrivateUsage]
    whole = (0, 0, before.width, before.height)
    for place in places:
        mask = unwarp(place.mask, place.matrix_within(whole)[None], box_size(whole))
        inside |= mask[0, 0].numpy() > 0
    assert len(places) == 5
    assert changed.any() and not (changed & ~inside).any()
    tensor = before.srgb()
    kept = pipe.restore(tensor).image
    outside = torch.from_numpy(~inside)
    assert torch.equal(kept[0][:, outside], tensor[0][:, outside]), (
        "values of a tensor survive to the last bit"
    )


def test_strength_zero_is_the_input_and_half_lies_between(pipe: Pipeline) -> None:
    before = fr.read_image(PHOTO)
    assert np.array_equal(pipe.restore(before, strength=0).photo.pixels, before.pixels)
    half, full = (pipe.restore(before, strength=s).faces[0] for s in (0.5, 1.0))
    assert half.after is not None and full.after is not None
    torch.testing.assert_close(half.after, (half.before + full.after) / 2, atol=1e-6, rtol=0)


def test_faces_are_reported_and_chosen_by_size(pipe: Pipeline) -> None:
    everyone = pipe.restore(FIVE)
    assert [face.status for face in everyone.faces] == ["restored"] * 5
    sizes = [face.size_px for face in everyone.faces]
    assert sizes == sorted(sizes, reverse=True)
    two = pipe.restore(FIVE, faces=2)
    assert [face.status for face in two.faces] == ["restored"] * 2 + ["not chosen"] * 3
    assert [face.status for face in pipe.restore(FIVE, faces="largest").faces].count("restored") == 1
    for face in everyone.faces:
        assert face.identity_distance is not None and face.identity_distance >= 0
        assert face.identity_similarity == pytest.approx(max(0.0, 1 - face.identity_distance / 1.2), abs=1e-6)
        assert face.before.shape == (1, 3, 512, 512) and set(face.stages) == {"realesrgan", "color_fix"}
        assert face.facts["entry_px"] in (64, 128, 192, 256)


def test_a_face_does_not_depend_on_the_others(pipe: Pipeline) -> None:
    everyone, largest = pipe.restore(FIVE), pipe.restore(FIVE, faces="largest")
    a, b = everyone.faces[0].after, largest.faces[0].after
    assert a is not None and b is not None
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_small_faces_are_reported_and_left_alone() -> None:
    recipe = get("lite").tiny().override("min_face_px", "10000")
    before = fr.read_image(FIVE)
    result = recipe.build(device="cpu", dtype="fp32").restore(before)
    assert {face.status for face in result.faces} == {"too small"}
    assert np.array_equal(result.photo.pixels, before.pixels)


def test_no_face_gives_the_picture_and_a_note(pipe: Pipeline) -> None:
    flat = np.full((80, 100, 3), 128, np.uint8)
    result = pipe.restore(flat)
    assert np.array_equal(result.image, flat) and result.faces == () and "no face found" in result.notes


def test_many_go_on_after_a_bad_one_and_keep_their_order(pipe: Pipeline, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    items = list(pipe.restore_many([PHOTO, bad, tmp_path / "missing.png", PHOTO]))
    assert [type(item).__name__ for item in items] == ["Restoration", "Failure", "Failure", "Restoration"]
    assert isinstance(items[1].error, ImageUnreadable) and "bad.jpg" in str(items[1].error)
    first, last = items[0], items[3]
    assert isinstance(first, fr.Restoration) and isinstance(last, fr.Restoration)
    assert np.array_equal(first.photo.pixels, last.photo.pixels)
    assert np.array_equal(first.photo.pixels, pipe.restore(PHOTO).photo.pixels)


def test_what_the_caller_breaks_reaches_the_caller(pipe: Pipeline) -> None:
    def sources() -> Any:
        yield PHOTO
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        list(pipe.restore_many(sources()))
    for _ in pipe.restore_many([PHOTO] * 50):
        break  # leaving early must not hang


def test_aligned_faces(pipe: Pipeline) -> None:
    crops = torch.cat([face.before for face in pipe.restore(FIVE).faces])
    out = pipe.restore_aligned(crops)
    assert out.shape == crops.shape and out.dtype == torch.float32
    singles = torch.cat([pipe.restore_aligned(crops[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(out, singles, atol=1e-5, rtol=0)
    torch.testing.assert_close(out, pipe.restore_aligned(crops.flip(0)).flip(0), atol=1e-5, rtol=0)
    assert torch.equal(pipe.restore_aligned(crops, strength=0), crops)
    assert pipe.restore_aligned(crops[:0]).shape == (0, 3, 512, 512)


@pytest.mark.parametrize(
    ("faces", "error"),
    [
        (torch.rand(1, 3, 256, 256), ShapeError),
        (torch.rand(1, 1, 512, 512), ShapeError),
        (torch.rand(1, 4, 512, 512), ShapeError),
        (torch.full((1, 3, 512, 512), 1.5), RangeError),
        (torch.full((1, 3, 512, 512), float("nan")), RangeError),
        (torch.zeros(1, 3, 512, 512, dtype=torch.uint8), RangeError),
    ],
)
def test_bad_tensors_are_refused(pipe: Pipeline, faces: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        pipe.restore_aligned(faces)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (256, 256), (300, 200), (700, 700)])
def test_an_aligned_file_of_any_size(pipe: Pipeline, height: int, width: int) -> None:
    crop = Image.open(EXAMPLES / "faces" / "hopper_x8.png").convert("RGB").resize((width, height))
    result = pipe.restore(crop, aligned=True)
    scale = max(1, 512 / max(height, width))
    assert result.image.size == (round(width * scale), round(height * scale))
    assert len(result.faces) == 1 and result.faces[0].status in ("restored", "already sharp")


def test_an_aligned_file_of_512_px_is_what_the_tensor_call_gives(pipe: Pipeline) -> None:
    path = EXAMPLES / "faces" / "hopper_x8.png"
    result = pipe.restore(path, aligned=True)
    expected = pipe.restore_aligned(fr.read_image(path).srgb())
    assert np.abs(result.photo.srgb().numpy() - expected.numpy()).max() <= 1.01 / 255


def test_a_large_face_is_never_made_blurrier(pipe: Pipeline) -> None:
    """The tiny network destroys everything: a sharp 900 px face must survive it."""
    face = fr.read_image(EXAMPLES / "photos" / "hopper_nearly_sharp.jpg").to_pil()
    large = face.resize((face.width * 4, face.height * 4), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, 6, (large.height, large.width, 1))
    sharp = (np.asarray(large) + noise).clip(0, 255).round().astype(np.uint8)
    result = pipe.restore(sharp)
    assert result.faces[0].size_px > 512

    def finest(x: np.ndarray[Any, Any]) -> float:
        grey = x.mean(2)
        return float(np.abs(np.diff(grey, axis=0)).mean())

    assert finest(result.image) > 0.98 * finest(sharp)


def test_grey_stays_grey(pipe: Pipeline) -> None:
    grey = Image.open(PHOTO).convert("L")
    result = pipe.restore(grey)
    assert result.image.mode == "L" and result.faces[0].status == "restored"
    three = pipe.restore(grey.convert("RGB")).image
    pixels = np.asarray(three)
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("upscale", [2, 4])
def test_upscale_with_the_background_kept(pipe: Pipeline, upscale: int) -> None:
    small = Image.open(PHOTO).convert("RGB")
    result = pipe.restore(small, upscale=upscale)
    assert result.image.size == (small.width * upscale, small.height * upscale)
    lanczos = np.asarray(small.resize(result.image.size, Image.Resampling.LANCZOS))
    changed = _changed(lanczos, np.asarray(result.image))
    assert changed.any() and not changed.all()
    assert not changed[:4].any(), "the border is Lanczos alone"


@pytest.mark.parametrize("upscale", [1, 2, 4])
def test_the_background_is_restored(pipe: Pipeline, upscale: int) -> None:
    small = Image.open(PHOTO).convert("RGB").resize((96, 64))
    done: list[float] = []
    result = pipe.restore(small, upscale=upscale, background="restore", on_background=done.append)
    assert result.image.size == (96 * upscale, 64 * upscale)
    assert done[-1] == 1.0
    plain = small.resize(result.image.size, Image.Resampling.LANCZOS)
    assert _changed(np.asarray(plain), np.asarray(result.image)).mean() > 0.5


def test_provenance_follows_everything_that_changes_pixels(pipe: Pipeline) -> None:
    photo = fr.read_image(np.full((40, 40, 3), 90, np.uint8))

    def print_of(**options: Any) -> str:
        return pipe.restore(photo, **options).provenance["fingerprint"]

    prints = {
        print_of(),
        print_of(seed=1),
        print_of(strength=0.5),
        print_of(upscale=2),
        print_of(faces=1),
        get("lite")
        .tiny()
        .override("soft_px", "9")
        .build(device="cpu", dtype="fp32")
        .restore(photo)
        .provenance["fingerprint"],
    }
    assert len(prints) == 6 and print_of() in prints
    provenance = pipe.restore(photo).provenance
    assert provenance["recipe"] == "realesrgan" and set(provenance["weights"]) == {
        "mtcnn",
        "face-recognition",
    }


@pytest.mark.parametrize(
    "options", [{"strength": 1.5}, {"upscale": 3}, {"background": "blur"}, {"faces": "some"}, {"faces": -1}]
)
def test_bad_options_are_refused(pipe: Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        pipe.restore(np.zeros((8, 8, 3), np.uint8), **options)


def test_a_face_half_outside_the_picture(pipe: Pipeline) -> None:
    whole = fr.read_image(EXAMPLES / "photos" / "hopper_nearly_sharp.jpg")
    face = pipe.restore(whole).faces[0]
    middle = int(face.landmarks[2, 0]) + 20  # a little more than half of the face stays
    half = np.ascontiguousarray(whole.pixels[:, :middle])
    result = pipe.restore(half)
    assert result.image.shape == half.shape
    assert len(result.faces) == 1 and result.faces[0].box[2] > 0.9 * middle
    changed = _changed(half, result.image)
    assert changed[:, -1].any(), "what is left of the face is restored up to the edge of the picture"
