"""Writing: every format, what it keeps, and what goes wrong."""

import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from facerestore.core.errors import ConfigError, OutputError, RangeError, ShapeError, UnsupportedImage
from facerestore.imaging.photo import MODES, Photo
from facerestore.imaging.read import read_image
from facerestore.imaging.whole import whole_file
from facerestore.imaging.write import write_image

Pattern = Callable[..., NDArray[Any]]
Encode = Callable[..., bytes]


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05"}
    exif[0x8825] = {1: "N"}
    return exif.tobytes()


def _rich(pattern: Pattern, mode: str, dtype: Any, profile: bytes | None = None) -> Photo:
    return Photo(
        pixels=pattern(30, 40, MODES[mode][2], dtype),
        mode=mode,
        icc_profile=profile,
        exif=_exif(),
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
        dpi=(300.0, 150.0),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_lossless_formats_keep_pixels_and_metadata(
    ending: str, mode: str, dtype: Any, pattern: Pattern, tmp_path: Path
) -> None:
    photo = _rich(pattern, mode, dtype)
    again = read_image(write_image(tmp_path / f"x.{ending}", photo))
    if (mode, ending) == ("CMYK", "png"):
        assert again.mode == "RGB" and again.bit_depth == photo.bit_depth
        assert (again.srgb() - photo.srgb()).abs().max() <= 0.51 / np.iinfo(dtype).max
    elif (mode, ending, dtype) == ("LA", "tif", np.uint16):
        assert again.mode == "RGBA" and np.array_equal(again.pixels[..., [0, 3]], photo.pixels)
    else:
        assert again.mode == mode and np.array_equal(again.pixels, photo.pixels)
    assert again.xmp == photo.xmp and again.dpi == pytest.approx(photo.dpi, abs=0.02)
    exif = Image.Exif()
    exif.load(again.exif or b"")
    assert exif[0x010F] == "maker" and exif.get_ifd(0x8825)[1] == "N"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert again.notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "avif"])
def test_profiles_are_kept(
    ending: str, dtype: Any, pattern: Pattern, wide_gamut: bytes, tmp_path: Path
) -> None:
    photo = _rich(pattern, "RGB", dtype, wide_gamut)
    assert (
        read_image(write_image(tmp_path / f"x.{ending}", photo, strip_metadata=True)).icc_profile
        == wide_gamut
    )


@pytest.mark.parametrize(("mode", "ending"), [("L", "webp"), ("CMYK", "png"), ("RGB", "bmp")])
def test_colours_are_converted_where_the_profile_cannot_go_along(
    mode: str, ending: str, pattern: Pattern, wide_gamut: bytes, dark_grey: bytes, inks: bytes, tmp_path: Path
) -> None:
    profile = {"L": dark_grey, "RGB": wide_gamut, "CMYK": inks}[mode]
    photo = _rich(pattern, mode, np.uint8, profile)
    again = read_image(write_image(tmp_path / f"x.{ending}", photo, quality=100))
    assert again.icc_profile is None
    assert (again.srgb() - photo.srgb()).abs().mean() < (0.03 if ending == "webp" else 0.002)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("quality", "progressive"), [(35, False), (92, True)])
def test_a_jpeg_keeps_its_tables_subsampling_and_order(
    quality: int, progressive: bool, subsampling: str, pattern: Pattern, encode: Encode, tmp_path: Path
) -> None:
    options = {
        "quality": quality,
        "subsampling": subsampling,
        "progressive": progressive,
        "comment": b"hello",
    }
    photo = read_image(
        encode(Image.fromarray(pattern(64, 48)), "JPEG", dpi=(72, 72), exif=_exif(), **options)
    )
    path = write_image(tmp_path / "same.jpg", photo)
    with Image.open(path) as written:
        assert isinstance(written, JpegImagePlugin.JpegImageFile)
        tables = [list(written.quantization[key]) for key in sorted(written.quantization)]
        assert tables == photo.encoding["qtables"]
        assert JpegImagePlugin.get_sampling(written) == ["4:4:4", "4:2:2", "4:2:0"].index(subsampling)
        assert ("progressive" in written.info) == progressive
        assert written.info["comment"] == b"hello" and written.info["dpi"] == (72, 72)
    again = read_image(path)
    assert again.exif == photo.exif and np.abs(again.pixels.astype(int) - photo.pixels).mean() < 2


def test_a_grey_jpeg_and_a_cmyk_jpeg_stay_what_they_are(
    pattern: Pattern, encode: Encode, inks: bytes, tmp_path: Path
) -> None:
    for mode, options in (("L", {}), ("CMYK", {"icc_profile": inks})):
        source = Image.frombytes(mode, (64, 48), pattern(48, 64, MODES[mode][2]).tobytes())
        photo = read_image(encode(source, "JPEG", quality=90, **options))
        again = read_image(write_image(tmp_path / f"{mode}.jpg", photo))
        assert again.mode == mode and again.icc_profile == photo.icc_profile
        assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 2
        assert again.encoding["qtables"][0] == photo.encoding["qtables"][0]


def test_a_quality_replaces_the_tables(pattern: Pattern, encode: Encode, tmp_path: Path) -> None:
    photo = read_image(encode(Image.fromarray(pattern(64, 48)), "JPEG", quality=30))
    same = write_image(tmp_path / "same.jpg", photo)
    fine = write_image(tmp_path / "fine.jpg", photo, quality=95)
    assert fine.stat().st_size > 1.5 * same.stat().st_size
    with pytest.raises(ConfigError):
        write_image(tmp_path / "x.jpg", photo, quality=0)


def test_a_lossless_webp_stays_lossless(pattern: Pattern, encode: Encode, tmp_path: Path) -> None:
    photo = read_image(encode(Image.fromarray(pattern(30, 40, 4)), "WEBP", lossless=True, exact=True))
    again = read_image(write_image(tmp_path / "x.webp", photo))
    assert np.array_equal(again.pixels, photo.pixels)


def test_an_uncompressed_tiff_stays_uncompressed(pattern: Pattern, encode: Encode, tmp_path: Path) -> None:
    source = Image.fromarray(pattern(30, 40))
    for name, compressed in (("raw", False), ("tiff_lzw", True)):
        photo = read_image(encode(source, "TIFF", compression=name))
        path = write_image(tmp_path / f"{name}.tif", photo)
        with Image.open(path) as written:
            assert (written.info["compression"] != "raw") == compressed
        assert np.array_equal(read_image(path).pixels, photo.pixels)


def test_stripping_leaves_colours_and_drops_the_rest(
    pattern: Pattern, wide_gamut: bytes, encode: Encode, tmp_path: Path
) -> None:
    options = {"exif": _exif(), "comment": b"private", "xmp": b"<private/>", "icc_profile": wide_gamut}
    photo = read_image(encode(Image.fromarray(pattern(30, 40)), "JPEG", **options))
    assert photo.exif and photo.xmp and photo.comment
    for ending in ("jpg", "png", "webp", "tif"):
        path = write_image(tmp_path / f"x.{ending}", photo, strip_metadata=True)
        again = read_image(path)
        assert (again.exif, again.xmp, again.comment) == (None, None, None)
        assert again.icc_profile == wide_gamut
        assert b"private" not in path.read_bytes() and b"maker" not in path.read_bytes()


def test_alpha_in_a_jpeg_is_laid_on_white(
    pattern: Pattern, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (200, 0, 0, 255)
    for dtype, factor in ((np.uint8, 1), (np.uint16, 257)):
        photo = Photo.from_array(pixels.astype(dtype) * dtype(factor))
        again = read_image(write_image(tmp_path / "x.jpg", photo))
        assert (
            np.abs(again.pixels[2, 2].astype(int) - (200, 0, 0)).max() < 4 and again.pixels[13, 2].min() > 251
        )
    assert "laid on white" in caplog.text


def test_16_bits_are_rounded_not_cut_for_a_jpeg(tmp_path: Path) -> None:
    photo = Photo.from_array(np.full((16, 16, 3), 100 * 257 + 200, np.uint16))
    again = read_image(write_image(tmp_path / "x.jpg", photo, quality=100))
    assert np.abs(again.pixels.astype(int) - 101).max() <= 1


def test_the_format_follows_the_name_then_the_photo(pattern: Pattern, encode: Encode, tmp_path: Path) -> None:
    photo = read_image(encode(Image.fromarray(pattern(8, 8)), "JPEG"))
    assert read_image(write_image(tmp_path / "a.PNG", photo)).format == "PNG"
    assert read_image(write_image(tmp_path / "noname", photo)).format == "JPEG"
    assert read_image(write_image(tmp_path / "v1.2", photo)).format == "JPEG"
    assert read_image(write_image(tmp_path / "b", photo, format="png")).format == "PNG"
    with pytest.raises(ConfigError, match=r"c\.png"):
        write_image(tmp_path / "c.png", photo, format="jpg")
    for name, format in (("d.gif", "same"), ("d.heic", "same"), ("d.png", "jxl")):
        with pytest.raises(UnsupportedImage, match=name):
            write_image(tmp_path / name, photo, format=format)
    with pytest.raises(UnsupportedImage):
        write_image(tmp_path / "e", Photo.from_array(pattern(8, 8)))


def test_what_can_be_written(pattern: Pattern, tmp_path: Path) -> None:
    pixels = pattern(8, 12)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    path = tmp_path / "x.png"
    for image in (pixels, Image.fromarray(pixels), tensor, tensor[0], Photo.from_array(pixels)):
        again = read_image(write_image(path, image))
        assert again.bit_depth == 8 and np.array_equal(again.pixels, pixels)
    assert read_image(write_image(path, pixels[..., 0])).mode == "L"
    assert read_image(write_image(path, pattern(8, 12, 3, np.uint16))).bit_depth == 16


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 4, 3), np.float64), UnsupportedImage),
        (np.zeros((4, 4, 7), np.uint8), ShapeError),
        (np.zeros(4, np.uint8), ShapeError),
        (torch.zeros(2, 3, 4, 4), ShapeError),
        (torch.full((3, 4, 4), float("nan")), RangeError),
        (torch.full((3, 4, 4), 1.5), RangeError),
        ("picture.png", UnsupportedImage),
        (None, UnsupportedImage),
    ],
)
def test_what_cannot_be_written_leaves_nothing(image: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        write_image(tmp_path / "x.png", image)
    assert list(tmp_path.iterdir()) == []


def test_metadata_come_from_like(pattern: Pattern, wide_gamut: bytes, encode: Encode, tmp_path: Path) -> None:
    like = read_image(encode(Image.fromarray(pattern(8, 12)), "JPEG", exif=_exif(), icc_profile=wide_gamut))
    from_array = read_image(write_image(tmp_path / "array.jpg", like.to_array(), like=like))
    assert from_array.icc_profile == wide_gamut and from_array.exif == like.exif
    assert from_array.encoding == like.encoding
    from_pillow = read_image(write_image(tmp_path / "pillow.jpg", like.to_pil(), like=like))
    assert from_pillow.icc_profile == wide_gamut
    from_tensor = read_image(write_image(tmp_path / "tensor.png", like.srgb(), like=like))
    assert from_tensor.icc_profile is None and from_tensor.exif == like.exif  # a tensor is sRGB
    assert (from_tensor.srgb() - like.srgb()).abs().max() < 1e-6
    deep = replace(Photo.from_array(pattern(8, 12, 3, np.uint16)), dpi=(90.0, 90.0))
    assert read_image(write_image(tmp_path / "deep.png", deep.srgb(), like=deep)).bit_depth == 16
    grey = read_image(write_image(tmp_path / "grey.png", pattern(8, 12, 1)[..., 0], like=like))
    assert grey.mode == "L" and grey.icc_profile is None  # the profile is for RGB


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "bmp", "avif"])
def test_the_same_picture_gives_the_same_bytes(
    ending: str, pattern: Pattern, wide_gamut: bytes, tmp_path: Path
) -> None:
    photos = [_rich(pattern, "RGB", np.uint8, wide_gamut), _rich(pattern, "RGB", np.uint16, wide_gamut)]
    for photo in photos:
        first, second = (write_image(tmp_path / f"{n}.{ending}", photo).read_bytes() for n in "ab")
        assert first == second


def test_too_large_for_a_format_is_said_before(tmp_path: Path) -> None:
    photo = Photo.from_array(np.zeros((16_400, 2, 3), np.uint8))
    with pytest.raises(UnsupportedImage, match="16383 px a side"):
        write_image(tmp_path / "x.webp", photo)
    assert write_image(tmp_path / "x.png", photo).exists()


def test_metadata_too_long_for_a_jpeg_are_left_out_and_said(
    pattern: Pattern, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = replace(_rich(pattern, "RGB", np.uint8), xmp=b"<x/>" + b" " * 70_000)
    again = read_image(write_image(tmp_path / "x.jpg", photo))
    assert again.xmp is None and again.exif == photo.exif and "xmp of 70004 bytes" in caplog.text


def test_a_taken_name_a_missing_folder_and_a_bad_name(pattern: Pattern, tmp_path: Path) -> None:
    photo = Photo.from_array(pattern(8, 8))
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("taken.png", "none/x.png", "file/x.png", "n" * 300 + ".png", "nul\0.png"):
        with pytest.raises(OutputError) as caught:
            write_image(tmp_path / name, photo)
        assert str(tmp_path / name) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.png"]


def test_a_folder_that_cannot_be_written(pattern: Pattern, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    folder = closed if os.geteuid() else Path("/proc/self")  # root may write anywhere but there
    if not folder.exists():
        pytest.skip("running as root, and there is no /proc")
    with pytest.raises(OutputError, match=r"x\.png"):
        write_image(folder / "x.png", Photo.from_array(pattern(8, 8)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting needs more rights")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _noise() -> Photo:
    return Photo.from_array(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(ending: str, small_disk: Path) -> None:
    path = small_disk / f"x.{ending}"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=rf"x\.{ending}.*No space left"):
        write_image(path, _noise(), quality=100)
    assert [entry.name for entry in small_disk.iterdir()] == [path.name] and path.read_bytes() == b"old"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
def test_a_limit_on_file_size_is_an_error_that_names_the_file(ending: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match=rf"x\.{ending}"):
            write_image(tmp_path / f"x.{ending}", _noise(), quality=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as stream:
        stream.write(b"half of the new")
        assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_files_get_the_permissions_of_any_new_file(pattern: Pattern, tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    path = write_image(tmp_path / "x.png", Photo.from_array(pattern(8, 8)))
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_long_names_and_names_in_any_script(pattern: Pattern, tmp_path: Path) -> None:
    for name in ("家" * 83 + ".png", "n" * 251 + ".png", "👪.jpg", "a b'c\"d.png"):
        path = write_image(tmp_path / name, Photo.from_array(pattern(8, 8)))
        assert read_image(path).width == 8
