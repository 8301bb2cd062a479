"""The images of a recalibration over HTTP, uploaded or reviewed as good: chosen, then scored."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.database.engine import Database
from app.errors.problems import Problem
from app.history import training_set
from app.history.inspection_files import InspectionFiles
from app.history.training_set import GoodImage
from app.http import forms
from app.inspection.pipeline import InspectionPipeline
from app.recalibration.recalibrate import MeasuredImage, require_usable_images
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.detector import Detector

MAX_PICTURES: Final = 2000  # of one calibration: enough to promise 0.05 %


@dataclass(frozen=True)
class CalibrationImage:
    """An image to calibrate with: its name for messages, and its bytes unless the history has them."""

    name: str
    sha256: str
    data: bytes | None = None


class ReviewedImages(NamedTuple):
    """Images whose latest review is good, and the sha256 of all images of their parts."""

    images: Sequence[GoodImage] = ()
    of_parts: Mapping[str, set[str]] = {}


def uploaded_images(upload: forms.Upload) -> list[CalibrationImage]:
    """Return the images of a request; a problem if one is too large, or there are texts beside them."""
    if upload.texts:
        raise Problem(
            "invalid-request", f"The part {min(upload.texts)!r} is unknown here; station is in the query."
        )
    pictures = []
    for i, file in enumerate(upload.files):
        name = file.name or f"image {i}"
        if isinstance(file.data, Problem):
            raise Problem(file.data.name, f"{name[:64]}: {file.data.detail}")
        pictures.append(CalibrationImage(name, hashlib.sha256(file.data).hexdigest(), file.data))
    return pictures


def find_reviewed_images(
    database: Database, category: str, station: str | None, without: Sequence[str], since_ms: int
) -> ReviewedImages:
    """Return the images whose latest review is good.

    Arguments are those of `good_pictures`; stations with a calibration of their own say nothing of others.
    """
    found = list(
        training_set.good_images(database, category, station=station, without=without, since_ms=since_ms)
    )
    of_parts: defaultdict[str, set[str]] = defaultdict(set)
    parts = {one.part_id for one in found if one.part_id is not None}
    # Also those of other stations and times: a model that was fitted to one of them knows the part.
    for part, sha256 in training_set.images_of_parts(database, category, parts):
        of_parts[part].add(sha256)
    return ReviewedImages(found, of_parts)


def choose_images(
    uploads: Sequence[CalibrationImage], reviewed: ReviewedImages, fitted: ImageDigests | None
) -> list[CalibrationImage]:
    """Return the uploaded images, and the latest reviewed ones that may be used and fit beside them.

    Of the images of a part one is taken, see `flows.fastflow.calibration.parts`: that of the least sha256,
    which nobody chooses; none if any of them was uploaded or fitted. An image without
    a part_id is of a part of its own.

    Raises:
        Problem: invalid-request, naming images that a calibration must not be made of; too-large if there are
            too many.
    """
    if len(uploads) > MAX_PICTURES:
        raise Problem("too-large", f"There are {len(uploads)} images; the limit is {MAX_PICTURES}.")
    known = {picture.sha256 for picture in uploads}

    def is_known(sha256: str) -> bool:
        return sha256 in known or (fitted is not None and sha256 in fitted)

    by_part: defaultdict[str, list[str]] = defaultdict(list)
    for one in reviewed.images:
        by_part[one.part_id or one.sha256].append(one.sha256)
    taken = {
        min(images)
        for part, images in by_part.items()
        if not any(map(is_known, (*images, *reviewed.of_parts.get(part, ()))))
    }
    fresh = [
        CalibrationImage(f"inspection {one.inspection_id}", one.sha256)
        for one in reviewed.images
        if one.sha256 in taken
    ]
    chosen = [*uploads, *fresh[max(0, len(fresh) + len(uploads) - MAX_PICTURES) :]]
    require_usable_images([(picture.name, picture.sha256) for picture in chosen], fitted)
    return chosen


async def measure_images(
    pictures: Sequence[CalibrationImage],
    detector: Detector,
    inspector: InspectionPipeline,
    kept: InspectionFiles,
) -> list[MeasuredImage]:
    """Score images one by one, in line with other inspections; those that are gone are left out.

    Raises:
        Problem: undecodable-image or another of an image, naming it; draining.
    """
    measured = []
    for picture in pictures:
        data = picture.data
        if data is None:
            data = await asyncio.to_thread(kept.read_image, picture.sha256)
            if data is None:
                continue
        try:
            measurement = await inspector.measure(detector, data)
        except Problem as problem:
            raise Problem(
                problem.name, f"{picture.name[:64]}: {problem.detail}", problem.retry_after
            ) from problem
        measured.append(MeasuredImage(picture.sha256, measurement))
    if not measured:
        raise Problem("conflict", "None of the reviewed images can be read any more.")
    return measured
