"""Degrading a picture of 512 px on the CPU, against the same preset done with the functions of basicsr.

basicsr is used as its own datasets and models use it: numpy and OpenCV for the classic model
(FFHQDegradationDataset), torch for the second-order one (RealESRGANDataset, RealESRGANModel). Both sides draw
anew for every picture, and take as many threads as they like, or one, as in a loader's process.
"""

import math
import random
import runpy
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from measure import REPO, Row, interleaved
from PIL import Image

from facerestore.degradations import PRESETS, Classic, KernelRange, SecondOrder, degrade
from facerestore.degradations.second_order import Pass

PICTURES = {"gfpgan": 8, "codeformer_large": 8, "realesrgan_x1": 4}
MODES = ("area", "bilinear", "bicubic")


def degradations() -> Iterator[Row]:
    """Seconds a picture for a weak, a strong and a second-order preset."""
    try:
        import cv2

        basicsr = runpy.run_path(str(REPO / "tests" / "parity" / "basicsr_oracle.py"))["load"]()
    except ImportError as error:
        print(f"degradations: nothing to compare with ({error})")
        cv2 = basicsr = None
    face = picture()
    tensor = torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1)[None]
    usual = torch.get_num_threads()
    for threads in sorted({usual, 1}, reverse=True):
        torch.set_num_threads(threads)
        if cv2 is not None:
            cv2.setNumThreads(threads)
        for name, count in PICTURES.items():
            calls = {"ours": partial(each, count, lambda seed, name=name: degrade(tensor, name, [seed]))}
            if basicsr is not None:
                calls["basicsr"] = partial(each, count, theirs(basicsr, cv2, name, face, tensor))
            seconds = interleaved(calls)
            reference = seconds.get("basicsr")
            yield Row(
                name=f"degrading 512 px as {name}, {threads} thread{'s' * (threads > 1)}",
                value=seconds["ours"] / count,
                unit="s",
                compared_with="" if reference is None else "with basicsr",
                reference=None if reference is None else reference / count,
                target=None if reference is None else 1.0,
            )
    torch.set_num_threads(usual)


def picture() -> np.ndarray:
    """A face, (512,512,3) float32, blue first."""
    with Image.open(REPO / "tests" / "data" / "faces" / "grace_hopper.jpg") as image:
        pixels = np.asarray(image.convert("RGB").resize((512, 512)), np.float32) / 255
    return pixels[..., ::-1].copy()


def each(count: int, one: Callable[[int], object]) -> None:
    for seed in range(count):
        one(seed)


def theirs(
    basicsr: SimpleNamespace, cv2: object, name: str, face: np.ndarray, tensor: torch.Tensor
) -> Callable[[int], object]:
    preset = PRESETS[name]

    def one(seed: int) -> object:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        if isinstance(preset, Classic):
            return classic(basicsr, cv2, preset, face)
        return second_order(basicsr, preset, tensor)

    return one


def kernel(basicsr: SimpleNamespace, ranges: KernelRange, size: int) -> np.ndarray:
    return basicsr.degradations.random_mixed_kernels(
        ranges.shapes,
        ranges.weights,
        size,
        ranges.sigma,
        ranges.sigma,
        [-math.pi, math.pi],
        ranges.beta_generalized,
        ranges.beta_plateau,
        noise_range=None,
    )


def classic(basicsr: SimpleNamespace, cv2, preset: Classic, face: np.ndarray) -> torch.Tensor:
    lq = cv2.filter2D(face, -1, kernel(basicsr, preset.kernel, 41))
    scale = np.random.uniform(*preset.downsample)
    lq = cv2.resize(lq, (int(512 // scale), int(512 // scale)), interpolation=cv2.INTER_LINEAR)
    lq = basicsr.degradations.random_add_gaussian_noise(lq, preset.noise_sigma)
    # OpenCV takes no fractions any more, which basicsr's random_add_jpg_compression passes.
    lq = basicsr.degradations.add_jpg_compression(lq, int(np.random.uniform(*preset.quality)))
    lq = cv2.resize(lq, (512, 512), interpolation=cv2.INTER_LINEAR)
    if np.random.uniform() < preset.colour_shift_probability:
        shift = preset.colour_shift / 255
        lq = np.clip(lq + np.random.uniform(-shift, shift, 3).astype(np.float32), 0, 1)
    if np.random.uniform() < preset.grey_probability:
        lq = np.tile(cv2.cvtColor(lq, cv2.COLOR_BGR2GRAY)[:, :, None], [1, 1, 3])
    lq = torch.from_numpy(cv2.cvtColor(lq, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)).float()
    if np.random.uniform() < preset.photometric_probability:
        lq = photometric(lq, preset)
    return torch.clamp((lq * 255.0).round(), 0, 255) / 255.0


def photometric(lq: torch.Tensor, preset: Classic) -> torch.Tensor:
    from torchvision.transforms import functional

    for name in np.random.permutation(["brightness", "contrast", "saturation", "hue"]):
        lq = getattr(functional, f"adjust_{name}")(lq, np.random.uniform(*getattr(preset, name)))
    return lq


def second_order(basicsr: SimpleNamespace, preset: SecondOrder, hq: torch.Tensor) -> torch.Tensor:
    filter2d, code = basicsr.img_process_util.filter2D, basicsr.diffjpeg.DiffJPEG(differentiable=False)
    height, width = hq.shape[2:]
    small = height // preset.scale, width // preset.scale

    def coded(lq: torch.Tensor, order: Pass) -> torch.Tensor:
        return code(lq.clamp(0, 1), quality=lq.new_zeros(1).uniform_(*order.quality))

    def resized_and_filtered(lq: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
        return filter2d(F.interpolate(lq, size=small, mode=random.choice(MODES)), final)

    kernels = [padded(basicsr, order.kernel) for order in (preset.first, preset.second)]
    final = torch.zeros(1, 21, 21)
    final[0, 10, 10] = 1
    if np.random.uniform() < preset.final_sinc_probability:
        final = sinc(basicsr, random.choice(preset.second.kernel.sizes), 3)
    sharp = basicsr.img_process_util.USMSharp()(hq) if preset.sharpen else hq
    lq = filter2d(sharp, kernels[0])
    lq = F.interpolate(lq, scale_factor=drawn_scale(preset.first), mode=random.choice(MODES))
    lq = coded(noisy(basicsr, lq, preset.first), preset.first)
    if np.random.uniform() < preset.second.blur_probability:
        lq = filter2d(lq, kernels[1])
    scale = drawn_scale(preset.second) / preset.scale
    lq = F.interpolate(lq, size=(int(height * scale), int(width * scale)), mode=random.choice(MODES))
    lq = noisy(basicsr, lq, preset.second)
    if np.random.uniform() < 0.5:
        lq = coded(resized_and_filtered(lq, final), preset.second)
    else:
        lq = resized_and_filtered(coded(lq, preset.second), final)
    if preset.enlarge == "bicubic":
        lq = F.interpolate(lq, size=(height, width), mode="bicubic")
    return torch.clamp((lq * 255.0).round(), 0, 255) / 255.0


def padded(basicsr: SimpleNamespace, ranges: KernelRange) -> torch.Tensor:
    size = random.choice(ranges.sizes)
    if np.random.uniform() < ranges.sinc_probability:
        return sinc(basicsr, size, 3 if size < ranges.sinc_large_px else 5)
    pad = (21 - size) // 2
    return torch.FloatTensor(np.pad(kernel(basicsr, ranges, size), ((pad, pad), (pad, pad))))[None]


def sinc(basicsr: SimpleNamespace, size: int, lowest: int) -> torch.Tensor:
    cutoff = np.random.uniform(np.pi / lowest, np.pi)
    return torch.FloatTensor(basicsr.degradations.circular_lowpass_kernel(cutoff, size, pad_to=21))[None]


def drawn_scale(order: Pass) -> float:
    low, high = order.resize
    way = random.choices(["up", "down", "keep"], order.resize_weights)[0]
    return np.random.uniform(1, high) if way == "up" else np.random.uniform(low, 1) if way == "down" else 1


def noisy(basicsr: SimpleNamespace, lq: torch.Tensor, order: Pass) -> torch.Tensor:
    if np.random.uniform() < order.gaussian_probability:
        return basicsr.degradations.random_add_gaussian_noise_pt(
            lq, order.gaussian_sigma, order.grey_probability
        )
    return basicsr.degradations.random_add_poisson_noise_pt(lq, order.poisson_scale, order.grey_probability)
