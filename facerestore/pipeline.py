# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch leaves parts of its own types open
"""Restore whole photographs, or aligned faces, through one stage.

`Pipeline` finds the faces, aligns them, runs the stage, measures identity, and puts the faces back. It keeps
no state
between pictures.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, Protocol

import torch

from facerestore.background import background_seconds, restore_background
from facerestore.core.errors import FaceRestoreError, ShapeError
from facerestore.core.state import RestorationState, check_images
from facerestore.faces.align import align, source_box
from facerestore.faces.detect import FaceDetector
from facerestore.features.identity import FaceDescriptor, identity_distance, identity_similarity
from facerestore.imaging.photo import Photo
from facerestore.imaging.read import DEFAULT_MAX_PIXELS, read_image
from facerestore.imaging.sharpness import edge_blur_px
from facerestore.placement import FacePlace, enlarged, paste, place_aligned, place_face
from facerestore.restoration import FaceResult, Failure, Restoration, RestorationOptions, as_came, provenance
from facerestore.stages.base import Stage
from facerestore.stages.realesrgan import RealESRGAN

FACE_PX = 512
_FACES_AT_ONCE = 8  # crops that go through the stage together; bounds memory, never changes a result
_DETECTION_SIDE_PX = 2560  # a photo is reduced to this before faces are searched


class RecipeFacts(Protocol):
    """What the pipeline asks of a recipe."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def fingerprint(self) -> str:
        """Equal settings, equal fingerprint."""
        ...


@dataclass(slots=True)
class _Prepared:
    """A picture that was read and searched, before any network of the recipe ran."""

    source: str
    given: Any
    photo: Photo
    places: list[FacePlace]
    seconds: dict[str, float] = field(default_factory=dict[str, float])


class Pipeline:
    """Restore faces; made by `facerestore.load` or `Recipe.build`.

    Attributes:
        recipe: the settings that it was built from.
        device: where the networks are.
    """

    def __init__(
        self,
        recipe: RecipeFacts,
        stage: Stage,
        *,
        detector: FaceDetector,
        descriptor: FaceDescriptor,
        upscaler: Callable[[], RealESRGAN],
        min_face_px: float,
        device: torch.device,
        dtype: str,
        weights: dict[str, str],
    ) -> None:
        self.recipe = recipe
        self.stage = stage
        self.device = device
        self._detector = detector
        self._descriptor = descriptor
        self._upscaler = cache(upscaler)  # built when a background is first restored
        self._min_face_px = min_face_px
        self._dtype = dtype
        self._weights = weights

    def restore(
        self,
        source: Any,
        *,
        seed: int = 0,
        strength: float = 1.0,
        faces: Literal["all", "largest"] | int = "all",
        upscale: Literal[1, 2, 4] = 1,
        background: Literal["keep", "restore"] = "keep",
        aligned: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        on_background: Callable[[float], None] | None = None,
    ) -> Restoration:
        """Restore one picture.

        Args:
            source: a path, PIL image, `Photo`, uint8 array (H,W,3), or float tensor (1,3,H,W) or (3,H,W) in
            [0,1].
            seed: of every random draw; each face gets the noise of (seed, stage).
            strength: 0 gives the input back, 1 the restored face.
            faces: which are restored; a number means that many, largest first.
            upscale: size of the output photo in sizes of the input.
            background: whether the photo around the faces goes through the x4 network too (slow on a CPU:
                see `background_seconds`).
            aligned: the picture is one FFHQ-aligned face; the output is at least 512 px on its longer side.
            max_pixels: pictures with more are refused before they are decoded.
            on_background: called with the share of the background that is done.

        Returns:
            A `Restoration`; `.image` is the kind of thing that came in. A picture without a face comes back
            as it was,
            with a note.

        Raises:
            ImageError: if the picture cannot be used.
            ConfigError: if an option has a bad value.
        """
        options = RestorationOptions(
            strength=strength, faces=faces, upscale=upscale, background=background, aligned=aligned
        )
        return self._finish(self._prepare(source, options, max_pixels), options, seed, on_background)

    def restore_many(
        self,
        sources: Iterable[Any],
        *,
        seed: int = 0,
        strength: float = 1.0,
        faces: Literal["all", "largest"] | int = "all",
        upscale: Literal[1, 2, 4] = 1,
        background: Literal["keep", "restore"] = "keep",
        aligned: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Iterator[Restoration | Failure]:
        """Restore pictures in order; the next one is read and searched while the networks run.

        Takes what `restore` takes. A picture that cannot be used yields a `Failure` with a typed error, and
        the rest go on. At most two pictures are in memory beside the one that the caller holds.
        """
        options = RestorationOptions(
            strength=strength, faces=faces, upscale=upscale, background=background, aligned=aligned
        )
        for item in _ahead(sources, lambda source: self._prepare(source, options, max_pixels)):
            if isinstance(item, Failure):
                yield item
                continue
            try:
                yield self._finish(item, options, seed, None)
            except FaceRestoreError as error:
                yield Failure(source=item.source, error=error)

    def restore_aligned(self, faces: torch.Tensor, *, seed: int = 0, strength: float = 1.0) -> torch.Tensor:
        """Restore FFHQ-aligned faces; nothing is detected, and no identity is measured.

        Args:
            faces: (B,3,512,512) float32 in [0,1].
            seed: of every random draw; the same for each face, whatever the batch.
            strength: 0 gives the input back, 1 the restored face.

        Returns:
            (B,3,512,512) float32 in [0,1], on the device of the input.

        Raises:
            ShapeError: if the faces have another shape.
            RangeError: if values are outside [0,1] or not finite.
        """
        RestorationOptions(strength=strength)
        check_images(faces, "faces")
        if faces.shape[2:] != (FACE_PX, FACE_PX):
            raise ShapeError(
                "faces (B,3,512,512)", faces.shape, "Resize them, or use restore(..., aligned=True)."
            )
        if not len(faces):
            return faces.clone()
        parts: list[torch.Tensor] = []
        for chunk in faces.split(_FACES_AT_ONCE):
            lq = chunk.to(device=self.device, dtype=torch.float32)
            restored = self._run(lq, seed).image
            parts.append(_mix(lq, restored, strength).to(faces.device))
        return torch.cat(parts)

    def background_seconds(self, source: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> float:
        """Estimate the time that `background="restore"` adds for a picture; runs two tiles."""
        photo = source if isinstance(source, Photo) else read_image(source, max_pixels=max_pixels)
        with torch.no_grad():
            return background_seconds(photo.height, photo.width, self._upscaler())

    def provenance(self, seed: int, options: RestorationOptions) -> dict[str, Any]:
        """Everything that the pixels depend on, and the versions that made them; ready for JSON.

        `fingerprint` is equal exactly when recipe, weights, device kind, dtype, seed and options are.
        """
        return provenance(
            recipe=self.recipe.name,
            config_fingerprint=self.recipe.fingerprint(),
            weights=self._weights,
            device=self.device.type,
            dtype=self._dtype,
            seed=seed,
            options=options,
        )

    @torch.no_grad()
    def _prepare(self, source: Any, options: RestorationOptions, max_pixels: int) -> _Prepared:
        """Read, search, and say where the faces are."""
        start = time.perf_counter()
        photo = source if isinstance(source, Photo) else read_image(source, max_pixels=max_pixels)
        name = str(photo.path) if photo.path else "<image>"
        read = time.perf_counter()
        if options.aligned:
            if max(photo.height, photo.width) < FACE_PX:
                photo = enlarged(photo, FACE_PX / max(photo.height, photo.width))
            places = [place_aligned(photo.height, photo.width, FACE_PX)]
        else:
            small, scale = photo.reduced_srgb(_DETECTION_SIDE_PX)
            found = self._detector.detect(small.to(self.device))
            places = [place_face(face, scale, FACE_PX) for face in found]
            places.sort(key=lambda place: place.size_px, reverse=True)
        done = time.perf_counter()
        return _Prepared(name, source, photo, places, {"read": read - start, "detect": done - read})

    @torch.no_grad()
    def _finish(
        self,
        prepared: _Prepared,
        options: RestorationOptions,
        seed: int,
        on_background: Callable[[float], None] | None,
    ) -> Restoration:
        """Restore the faces of a prepared picture and put them back."""
        photo, seconds = prepared.photo, dict(prepared.seconds)
        notes = list(photo.notes)
        start = time.perf_counter()
        faces = self._restore_faces(photo, prepared.places, options, seed)
        seconds["faces"] = time.perf_counter() - start

        start = time.perf_counter()
        canvas = enlarged(photo, options.upscale) if options.upscale > 1 else photo.copy()
        if options.background == "restore":
            restore_background(
                photo, canvas, self._upscaler(), upscale=options.upscale, on_strip=on_background
            )
            seconds["background"] = time.perf_counter() - start
            start = time.perf_counter()
        for face, place in reversed(
            list(zip(faces, prepared.places, strict=True))
        ):  # the largest face lies on top
            if face.after is not None and options.strength > 0:
                paste(canvas, place, face.after.to(self.device), options.upscale)
        seconds["paste"] = time.perf_counter() - start
        if not faces:
            notes.append("no face found")
        return Restoration(
            source=prepared.source,
            photo=canvas,
            image=as_came(prepared.given, canvas),
            faces=tuple(faces),
            notes=tuple(notes),
            provenance=self.provenance(seed, options),
            seconds=seconds,
        )

    def _restore_faces(
        self, photo: Photo, places: list[FacePlace], options: RestorationOptions, seed: int
    ) -> list[FaceResult]:
        wanted = options.wanted()
        results: list[FaceResult] = []
        chosen: list[int] = []
        for index, place in enumerate(places):
            box = source_box(place.matrix, FACE_PX, photo.height, photo.width, place.margin_px)
            before = align(photo.srgb(box).to(self.device), place.matrix_within(box)[None], FACE_PX).clamp(
                0, 1
            )
            small = not options.aligned and place.face_px < self._min_face_px
            status = "too small" if small else "restored"
            if status == "restored":
                if wanted is not None and len(chosen) >= wanted:
                    status = "not chosen"
                else:
                    chosen.append(index)
            results.append(
                FaceResult(
                    index=index,
                    box=place.box,
                    landmarks=place.landmarks,
                    confidence=place.confidence,
                    status=status,
                    size_px=place.size_px,
                    roll_deg=place.roll_deg,
                    before=before,
                )
            )
        for at in range(0, len(chosen), _FACES_AT_ONCE):
            part = [results[i] for i in chosen[at : at + _FACES_AT_ONCE]]
            for result in self._restore_part(part, options, seed):
                results[result.index] = result
        return [replace(result, before=result.before.cpu()) for result in results]

    def _restore_part(
        self, part: list[FaceResult], options: RestorationOptions, seed: int
    ) -> list[FaceResult]:
        lq = torch.cat([result.before for result in part])
        state = self._run(lq, seed)
        after = _mix(lq, state.image, options.strength)
        blur_before, blur_after = edge_blur_px(lq).tolist(), edge_blur_px(after).tolist()
        descriptors = self._descriptor(torch.cat([lq, after]))
        distance = identity_distance(descriptors[: len(lq)], descriptors[len(lq) :])
        similarity = identity_similarity(distance)
        done: list[FaceResult] = []
        for i, result in enumerate(part):
            facts = {name: values[i] for name, values in state.facts.items()}
            facts |= {"blur_before_px": blur_before[i], "blur_after_px": blur_after[i]}
            # The 512 px crop is all that a stage sees. A larger face that is sharper than what came out
            # stays as it is.
            kept = result.size_px > FACE_PX and blur_after[i] > blur_before[i]
            done.append(
                replace(
                    result,
                    status="already sharp" if kept else "restored",
                    after=None if kept else after[i : i + 1].cpu(),
                    stages={name: image[i : i + 1].cpu() for name, image in state.kept.items()},
                    facts=facts,
                    identity_distance=None if kept else float(distance[i]),
                    identity_similarity=None if kept else float(similarity[i]),
                )
            )
        return done

    def _run(self, lq: torch.Tensor, seed: int) -> RestorationState:
        with torch.no_grad():
            return self.stage(RestorationState.start(lq, seed))


def _mix(lq: torch.Tensor, restored: torch.Tensor, strength: float) -> torch.Tensor:
    return restored if strength == 1 else torch.lerp(lq, restored, strength)


def _ahead(sources: Iterable[Any], prepare: Callable[[Any], _Prepared]) -> Iterator[_Prepared | Failure]:
    """Run `prepare` over the sources in a thread, one picture ahead of the caller."""

    def attempt(source: Any) -> _Prepared | Failure:
        try:
            return prepare(source)
        except FaceRestoreError as error:
            is_path = isinstance(source, str) or hasattr(source, "__fspath__")
            return Failure(source=str(source) if is_path else "<image>", error=error)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="facerestore-reader") as pool:
        pending = None
        for source in sources:
            following = pool.submit(attempt, source)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
