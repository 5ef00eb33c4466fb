"""pyiqa's quality metrics, each as its authors of the challenges use it; the only door to that package.

pyiqa downloads what it needs, unasked and unchecked, and reads pickles that may run code. Here it gets its
networks empty, and their weights from the `WeightStore` like everything else. Pictures go through one by one
in float32, with no autocast, so that a number does not depend on what was measured beside it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facerestore.core.errors import DownloadFailed, MissingDependency, WeightsNotFound
from facerestore.metrics.perceptual import Measure
from facerestore.weights.load import load_into, read_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Build = Callable[["WeightStore", torch.device], Measure]
ONE_ALIGN = "q-future/one-align"


def _pyiqa() -> Any:
    try:
        import pyiqa
    except ImportError as error:
        raise MissingDependency(
            f"this metric is pyiqa's, which cannot be imported ({error}); pip install 'facerestore[metrics]' "
            "(non-commercial licence)"
        ) from error
    return pyiqa


def niqe(store: "WeightStore", device: torch.device) -> Measure:
    """NIQE by pyiqa: YIQ's luma, the original parameters. The one that enters an NTIRE total."""
    path = store.find("pyiqa/niqe")
    return _measure(_created("niqe", device, pretrained_model_path=str(path)))


def clipiqa(store: "WeightStore", device: torch.device) -> Measure:
    """CLIP-IQA by pyiqa: RN50 without position embedding, five pairs of prompts."""
    store.sha256("pyiqa/clip-rn50")
    return _measure(_created("clipiqa", device, backbone=str(store.find("pyiqa/clip-rn50"))))


def musiq(store: "WeightStore", device: torch.device) -> Measure:
    """MUSIQ by pyiqa, trained on KonIQ-10k."""
    path = store.readable("pyiqa/musiq")
    metric = _created("musiq", device, pretrained=False)
    load_into(metric.net, read_tensors(path), "pyiqa/musiq")
    return _measure(metric)


def maniqa(store: "WeightStore", device: torch.device) -> Measure:
    """MANIQA by pyiqa, trained on KonIQ-10k, at scale 0.8: twenty crops that miss the last 72 of 512 rows."""
    path = store.readable("pyiqa/maniqa")
    pyiqa = _pyiqa()
    with _empty_backbone(pyiqa.archs.maniqa_arch):
        metric = _created("maniqa", device, pretrained=False)
    load_into(metric.net, read_tensors(path), "pyiqa/maniqa")
    measure = _measure(metric)

    def measured(pred: Tensor, reference: Tensor | None, points: Tensor | None) -> Tensor:
        try:
            return measure(pred, reference, points)
        finally:  # what an error leaves in this list would go into the next picture's number
            metric.net.save_output.outputs.clear()

    return measured


def qalign(store: "WeightStore", device: torch.device) -> Measure:
    """Q-Align by pyiqa: a language model of 16 GB in float16, from the hub's cache, never fetched here."""
    del store
    _pyiqa()
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(ONE_ALIGN, "config.json"), str):
        raise WeightsNotFound(
            f"{ONE_ALIGN} (about 16 GB, fp16) is not in the cache of the hub; "
            f"`hf download {ONE_ALIGN}` brings it"
        )
    metric = _created("qalign", device)
    tokenizer = metric.net.model.tokenizer
    if tokenizer("good").input_ids[0] != tokenizer.bos_token_id:
        # Newer tokenizers leave it out, which shifts every score without a word.
        tokenizer.add_bos_token = True
        if tokenizer("good").input_ids[0] != tokenizer.bos_token_id:
            raise MissingDependency(
                "Q-Align's prompt would begin without its first token, and every score "
                "be shifted: this version of transformers does not add "
                "it. Install transformers 4.37.2 in an environment of its own"
            )
    return _measure(metric)


def _created(name: str, device: torch.device, **options: Any) -> Any:
    """A metric of pyiqa, on its device from the start: it does not move well."""
    pyiqa = _pyiqa()
    try:
        with redirect_stdout(StringIO()):  # it prints the paths of its files
            return pyiqa.create_metric(name, device=device, **options)
    except ImportError as error:
        raise MissingDependency(
            f"{name} needs what pyiqa does not declare ({error}); pip install 'facerestore[metrics]'"
        ) from error
    except OSError as error:
        raise DownloadFailed(f"{name}: pyiqa could not load what it needs ({error})") from error


@contextmanager
def _empty_backbone(module: Any) -> Iterator[None]:
    """Let a network be built without downloading the ImageNet weights that its checkpoint replaces anyway."""
    timm = module.timm

    class Empty:
        @staticmethod
        def create_model(name: str, **options: Any) -> Any:
            return timm.create_model(name, **(options | {"pretrained": False}))

    module.timm = Empty
    try:
        yield
    finally:
        module.timm = timm


def _measure(metric: Any) -> Measure:
    def measure(pred: Tensor, reference: Tensor | None, points: Tensor | None) -> Tensor:
        with torch.autocast(pred.device.type, enabled=False):
            values = [metric(one[None].float()).reshape(1) for one in pred]
        return torch.cat(values)

    return measure
