"""The pictures that a calibration is renewed with, uploaded or reviewed as good: checked, then scored."""

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
    """A picture to calibrate with.

    Attributes:
        name: for messages.
        sha256: of its bytes.
        data: of an upload, its bytes; None of one that the history has.
        part_id: of one that the history has, the part that it shows, where that was said.
        of_part: sha256 of all pictures of that part that the history knows of, its own among them.
    """

    name: str
    sha256: str
    data: bytes | None = None
    part_id: str | None = None
    of_part: frozenset[str] = frozenset()


def uploaded(upload: forms.Upload) -> list[Picture]:
    """The pictures of a request.

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
    """The pictures of the history that belong into a training set, each once, oldest first.

    Args:
        history: all that was inspected.
        category: of the pictures.
        station: only those inspected there; None for all but those `without`.
        without: stations with a calibration of their own, whose pictures say nothing of the others.
        since_ms: only those inspected then or later, in milliseconds since 1970, UTC.
    """
    chosen = training_set.good_pictures(
        history.database, category, station=station, without=without, since_ms=since_ms
    )
    found = list(chosen)
    parts = {one.part_id for one in found if one.part_id is not None}
    of_part: defaultdict[str | None, set[str]] = defaultdict(set)
    # Those of other stations and times, too: a model that was fitted to one of them knows the part.
    for part, sha256 in training_set.pictures_of_parts(history.database, category, parts):
        of_part[part].add(sha256)
    # One set for all pictures of a part: of one that was inspected every day there are thousands.
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
    """The pictures that a calibration is made of: those uploaded, and of those of the history what is fresh.

    Raises:
        Problem: as `expect_fit`.
    """
    chosen = [*beside, *fresh(found, beside, fitted)]
    expect_fit(chosen, fitted)
    return chosen


def fresh(found: Sequence[Picture], beside: Sequence[Picture], fitted: FitPictures | None) -> list[Picture]:
    """Those of the history that may be taken beside the uploaded ones: the latest that there is room for.

    Of the pictures of a part one is taken, see `flows.fastflow.parts`: that of the least sha256, which nobody
    chooses; and none where one of them, wherever it was inspected, is known. Without a part_id each is
    of a part of its own.
    """
    uploaded = {picture.sha256 for picture in beside}

    def is_known(sha256: str) -> bool:
        return sha256 in uploaded or (fitted is not None and sha256 in fitted)

    known = {one.sha256 for one in found if is_known(one.sha256)}
    parts = {one.part_id: one.of_part for one in found if one.part_id is not None}
    known_parts = {part for part, pictures in parts.items() if any(map(is_known, pictures))}
    least: dict[str, str] = {}
    for one in found:
        if one.part_id is not None:
            least[one.part_id] = min(one.sha256, least.get(one.part_id, one.sha256))
    fit = [
        one
        for one in found
        if one.sha256 not in known
        and (one.part_id is None or (one.part_id not in known_parts and one.sha256 == least[one.part_id]))
    ]
    return fit[max(0, len(fit) + len(beside) - MAX_PICTURES) :]


def expect_fit(pictures: Sequence[Picture], fitted: FitPictures | None) -> None:
    """Refuse pictures that a calibration must not be made of.

    Raises:
        Problem: invalid-request, naming them; too-large where there are too many.
    """
    if len(pictures) > MAX_PICTURES:
        raise Problem("too-large", f"There are {len(pictures)} images; the limit is {MAX_PICTURES}.")
    try:
        expect_fit_to_calibrate([(picture.name, picture.sha256) for picture in pictures], fitted)
    except UnfitPicturesError as error:
        raise Problem("invalid-request", str(error)) from error


async def measure(
    pictures: Sequence[Picture], detector: Detector, inspector: Inspector, history: History
) -> list[Measured]:
    """Score pictures one by one, in line with what is inspected meanwhile; those that are gone are left out.

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
        measured.append(Measured(picture.name, picture.sha256, measurement))
    if not measured:
        raise Problem("conflict", "None of the reviewed images can be read any more.")
    return measured
