"""Images of a recalibration over HTTP, uploaded or of the audit sample: selection and scoring."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.database.engine import Database
from app.errors.problems import Problem
from app.history import browsing, reviewed_images
from app.history.inspection_files import InspectionFiles
from app.history.queries import InspectionFilter
from app.history.reviewed_images import ReviewedInspection
from app.http import forms
from app.inspection.image_pipeline import InspectionPipeline
from app.recalibration.recalibrate import MeasuredImage, require_usable_images
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.detector import Detector

MAX_IMAGES: Final = 2000  # per calibration: enough to promise 0.05 %


@dataclass(frozen=True)
class CalibrationImage:
    """An image for calibration: its name in messages, and its bytes unless the history has them."""

    name: str
    sha256: str
    data: bytes | None = None


class AuditedImages(NamedTuple):
    """Good images of the audit sample.

    Attributes:
        images: the images whose latest review is good.
        of_parts: the SHA-256 of all images of their parts.
        unreviewed: number of inspections in the sample without a review: of the station, or of all stations.
    """

    images: Sequence[ReviewedInspection] = ()
    of_parts: Mapping[str, set[str]] = {}
    unreviewed: int = 0

    def warnings(self, fitted: ImageDigests | None) -> list[str]:
        """Return conditions of the promise, for a person to check."""
        warnings = []
        if self.unreviewed:
            warnings.append(
                f"Inspections of the audit sample without a review: {self.unreviewed}. The promise holds "
                "only if they were not skipped for their look."
            )
        of_part = [{image.sha256, *self.of_parts.get(image.part_id or "", ())} for image in self.images]
        if learned := sum(any(one in fitted for one in part) for part in of_part) if fitted else 0:
            warnings.append(
                f"Images of the audit sample whose part the version has learned: {learned}. They are left "
                "out. If they were chosen for their look, calibrate with images made since."
            )
        return warnings


def uploaded_images(upload: forms.Upload) -> list[CalibrationImage]:
    """Return the images of a request.

    Raises:
        Problem: an image is too large, or the form has text fields.
    """
    upload.require_no_texts()
    images = []
    for i, file in enumerate(upload.files):
        name = file.name or f"image {i}"
        if isinstance(file.data, Problem):
            raise Problem(file.data.name, f"{name[:64]}: {file.data.detail}")
        images.append(CalibrationImage(name, hashlib.sha256(file.data).hexdigest(), file.data))
    return images


def find_audited_images(
    database: Database, category: str, station: str | None, without: Sequence[str], since_ms: int
) -> AuditedImages:
    """Find the good images of the audit sample; for the arguments see `find_images`."""
    found = list(
        reviewed_images.find_images(
            database, category, station=station, without=without, since_ms=since_ms, audit=True
        )
    )
    # Include other stations and times: a model that was fitted to one image knows the part.
    of_parts = reviewed_images.find_images_of_parts(database, category, found)
    queue = InspectionFilter(category, station=station, audit=True, reviewed=False, from_ms=since_ms)
    with database.read() as connection:
        unreviewed = browsing.count_inspections(connection, queue)
    return AuditedImages(found, of_parts, unreviewed)


def choose_images(
    uploads: Sequence[CalibrationImage], audited: AuditedImages, fitted: ImageDigests | None
) -> list[CalibrationImage]:
    """Return the uploaded images, and as many of the latest audited ones as the limit allows.

    One audited image of each part is taken, see `pick_one_per_part`, and none if any image of the part was
    uploaded or fitted.

    Raises:
        Problem: invalid-request, naming unusable images.
    """
    known = {image.sha256 for image in uploads}

    def is_known(sha256: str) -> bool:
        return sha256 in known or (fitted is not None and sha256 in fitted)

    taken = reviewed_images.pick_one_per_part(audited.images, audited.of_parts, is_known)
    fresh = [CalibrationImage(f"inspection {image.inspection_id}", image.sha256) for image in taken]
    chosen = [*uploads, *fresh[max(0, len(fresh) + len(uploads) - MAX_IMAGES) :]]
    require_usable_images([(image.name, image.sha256) for image in chosen], fitted)
    return chosen


async def measure_images(
    images: Sequence[CalibrationImage],
    detector: Detector,
    pipeline: InspectionPipeline,
    files: InspectionFiles,
) -> list[MeasuredImage]:
    """Score images one by one between other inspections; skip images of the history that are gone.

    Raises:
        Problem: undecodable-image or another problem of an image, with its name; draining.
    """
    measured = []
    for image in images:
        data = image.data
        if data is None:
            data = await asyncio.to_thread(files.read_image, image.sha256)
            if data is None:
                continue
        try:
            measurement = await pipeline.measure(detector, data)
        except Problem as problem:
            raise Problem(
                problem.name, f"{image.name[:64]}: {problem.detail}", problem.retry_after
            ) from problem
        measured.append(MeasuredImage(image.sha256, measurement))
    if not measured:
        raise Problem("conflict", "No image of the audit sample can be read any more.")
    return measured
