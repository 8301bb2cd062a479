"""The images of a recalibration over HTTP, uploaded or reviewed as good: chosen, then scored."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app import forms
from app.history import training_set
from app.history.history import History
from app.inspection.inspector import Inspector
from app.problems import Problem
from app.recalibration import Measured, UnfitPicturesError, expect_fit_to_calibrate
from flows.fastflow.detector import Detector
from flows.fastflow.fit_pictures import FitPictures

MAX_PICTURES: Final = 2000  # of one calibration: enough to promise 0.05 %


@dataclass(frozen=True)
class Picture:
    """An image to calibrate with.

    Attributes:
        name: for messages.
        sha256: of its bytes.
        data: of an upload, its bytes; None of one that the history has.
        part_id: of one that the history has, the part that it shows, if known.
        of_part: sha256 of all images of that part in the history, its own among them.
    """

    name: str
    sha256: str
    data: bytes | None = None
    part_id: str | None = None
    of_part: frozenset[str] = frozenset()


def uploaded(upload: forms.Upload) -> list[Picture]:
    """Return the images of a request.

    Raises:
        Problem: one of them is too large, or there are texts beside them.
    """
    if upload.texts:
        raise Problem(
            "invalid-request", f"The part {min(upload.texts)!r} is unknown here; station is in the query."
        )
    pictures = []
    for i, file in enumerate(upload.files):
        name = file.name or f"image {i}"
        if isinstance(file.data, Problem):
            raise Problem(file.data.name, f"{name[:64]}: {file.data.detail}")
        pictures.append(Picture(name, hashlib.sha256(file.data).hexdigest(), file.data))
    return pictures


def reviewed(
    history: History, category: str, station: str | None, without: Sequence[str], since_ms: int
) -> list[Picture]:
    """Return the images whose latest review is good, each once, oldest first.

    Args:
        history: all that was inspected.
        category: of the images.
        station: only those inspected there; None for all but those `without`.
        without: stations with a calibration of their own, whose images say nothing of the others.
        since_ms: only those inspected then or later, in milliseconds since 1970, UTC.
    """
    database = history.database
    found = list(
        training_set.good_pictures(database, category, station=station, without=without, since_ms=since_ms)
    )
    parts = {one.part_id for one in found if one.part_id is not None}
    of_part: defaultdict[str | None, set[str]] = defaultdict(set)
    # Also those of other stations and times: a model that was fitted to one of them knows the part.
    for part, sha256 in training_set.pictures_of_parts(database, category, parts):
        of_part[part].add(sha256)
    # One set for all images of a part: of one that was inspected every day there are thousands.
    sets = {part: frozenset(of_part[part]) for part in parts}
    return [
        Picture(
            f"inspection {one.inspection_id}",
            one.sha256,
            part_id=one.part_id,
            of_part=frozenset() if one.part_id is None else sets[one.part_id],
        )
        for one in found
    ]


def choose(beside: Sequence[Picture], found: Sequence[Picture], fitted: FitPictures | None) -> list[Picture]:
    """Return the uploaded images, and the latest reviewed ones that may be used and fit beside them.

    Of the images of a part one is taken, see `flows.fastflow.parts`: that of the least sha256, which nobody
    chooses; none if any of them was uploaded or fitted. An image without a part_id is of a part of its own.

    Raises:
        Problem: invalid-request, naming images that a calibration must not be made of; too-large if there are
            too many.
    """
    if len(beside) > MAX_PICTURES:
        raise Problem("too-large", f"There are {len(beside)} images; the limit is {MAX_PICTURES}.")
    uploads = {picture.sha256 for picture in beside}

    def is_known(sha256: str) -> bool:
        return sha256 in uploads or (fitted is not None and sha256 in fitted)

    parts = {one.part_id: one.of_part for one in found if one.part_id is not None}
    known_parts = {part for part, images in parts.items() if any(map(is_known, images))}
    least: dict[str, str] = {}
    for one in found:
        if one.part_id is not None:
            least[one.part_id] = min(one.sha256, least.get(one.part_id, one.sha256))
    fresh = [
        one
        for one in found
        if not is_known(one.sha256)
        and (one.part_id is None or (one.part_id not in known_parts and one.sha256 == least[one.part_id]))
    ]
    chosen = [*beside, *fresh[max(0, len(fresh) + len(beside) - MAX_PICTURES) :]]
    try:
        expect_fit_to_calibrate([(picture.name, picture.sha256) for picture in chosen], fitted)
    except UnfitPicturesError as error:
        raise Problem("invalid-request", str(error)) from error
    return chosen


async def measure(
    pictures: Sequence[Picture], detector: Detector, inspector: Inspector, history: History
) -> list[Measured]:
    """Score images one by one, in line with other inspections; those that are gone are left out.

    Raises:
        Problem: undecodable-image or another of an image, naming it; draining.
    """
    measured = []
    for picture in pictures:
        data = picture.data
        if data is None:
            data = await asyncio.to_thread(history.pictures.picture, picture.sha256)
            if data is None:
                continue
        try:
            measurement = await inspector.measure(detector, data)
        except Problem as problem:
            raise Problem(
                problem.name, f"{picture.name[:64]}: {problem.detail}", problem.retry_after
            ) from problem
        measured.append(Measured(picture.sha256, measurement))
    if not measured:
        raise Problem("conflict", "None of the reviewed images can be read any more.")
    return measured
