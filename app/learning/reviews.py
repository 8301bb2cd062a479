"""Reviewed inspections that a version can learn from."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from app.errors.problems import Problem
from app.history import browsing
from app.history.history import History
from app.history.inspection_files import InspectionFiles
from app.history.queries import InspectionFilter
from app.history.reviewed_images import (
    ReviewedInspection,
    find_images,
    find_images_of_parts,
    pick_one_per_part,
)
from app.schemas.history import Verdict
from app.schemas.learning import Obstacle
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.learning.descriptions import DESCRIPTIONS
from flows.fastflow.learning.fit import MIN_DEFECTS
from flows.fastflow.learning.reviewed import (
    find_learned,
    fingerprint_reviews,
    has_learned_already,
    has_no_descriptions,
    read_known_images,
)
from flows.fastflow.manifest import Manifest

MAX_IMAGES: Final = 500  # of each verdict, the latest: more of them take minutes and teach little
_MAX_READ: Final = 4 * MAX_IMAGES  # of each verdict, before those that cannot be used are left out


@dataclass(frozen=True)
class LearningSet:
    """Images for a version to learn from.

    Attributes:
        since_ms: time of the oldest inspection among them, in milliseconds since 1970, UTC; None without any.
        left_out: number of inspections reviewed as defects that are not used.
        obstacle: the reason why the version cannot learn from them, with its description; None if it can.
    """

    defects: list[ReviewedInspection]
    good: list[ReviewedInspection]
    since_ms: int | None
    left_out: int
    obstacle: tuple[Obstacle, str] | None

    def require_enough(self) -> None:
        """Raise the problem conflict if there is an obstacle."""
        if self.obstacle is not None:
            raise Problem("conflict", f"{self.obstacle[1]}.")

    def write(self, files: InspectionFiles, folder: Path) -> None:
        """Write the images to the folders `defects` and, if there are any, `good`, named by inspections.

        Raises:
            Problem: files-lost if one was deleted meanwhile.
        """
        for name, images in (("defects", self.defects), ("good", self.good)):
            for image in images:
                (folder / name).mkdir(exist_ok=True)
                # The suffix means nothing: the format is read from the data.
                target = folder / name / f"{image.inspection_id}.png"
                try:
                    files.provide_image(image.sha256, target)
                except FileNotFoundError as error:
                    detail = f"The image of inspection {image.inspection_id} was deleted."
                    raise Problem("files-lost", detail) from error


def find_learning_set(history: History, models: Path, manifest: Manifest, since_ms: int) -> LearningSet:
    """Find the images reviewed since a time that a version can learn from.

    One image of each part is taken, and none if the version was fitted to or calibrated with any image of the
    part. Good images of parts in the audit sample are left to calibrations, which would leave out the part.

    Raises:
        Problem: rejected-bundle if the version cannot be read.
    """
    database, category = history.database, manifest.category
    bundle = models / category / manifest.version
    try:
        fitted, calibrated = read_known_images(bundle, manifest)
    except BundleError as error:
        raise Problem("rejected-bundle", "The version's list of images is missing or was changed.") from error

    def find(verdict: Verdict) -> list[ReviewedInspection]:
        audit = False if verdict == "good" else None
        images = find_images(database, category, verdict, since_ms=since_ms, audit=audit, newest_first=True)
        found = [*islice(images, _MAX_READ)]
        if verdict == "good":
            drawn = find_images_of_parts(database, category, found, audit=True)
            found = [one for one in found if one.part_id not in drawn]
        of_parts = find_images_of_parts(database, category, found)
        picked = pick_one_per_part(found, of_parts, lambda one: one in fitted or one in calibrated)
        return [one for one in picked if history.files.may_have_image(one.sha256)][:MAX_IMAGES]

    defects, good = find("defect"), find("good")
    where = InspectionFilter(category, verdict="defect", from_ms=since_ms)
    with database.read() as connection:
        left_out = browsing.count_inspections(connection, where) - len(defects)
    since = min((one.created_ms for one in (*defects, *good)), default=None)
    obstacle = _find_obstacle(models, manifest, defects, good, left_out)
    return LearningSet(defects, good, since, left_out, obstacle)


def _find_obstacle(
    models: Path,
    manifest: Manifest,
    defects: list[ReviewedInspection],
    good: list[ReviewedInspection],
    left_out: int,
) -> tuple[Obstacle, str] | None:
    if DESCRIPTIONS not in manifest.files:
        return "no-descriptions", str(has_no_descriptions(manifest))
    if len(defects) < MIN_DEFECTS:
        return "too-few-defects", (
            f"Learning needs {MIN_DEFECTS} images reviewed as defects; there are {len(defects)}. Others that "
            f"cannot be used: {left_out}. Their image is deleted, is another one of the same part, has "
            "contradicting reviews, or is known to the version"
        )
    reviews = fingerprint_reviews((one.sha256 for one in defects), (one.sha256 for one in good))
    if (other := find_learned(models, manifest, reviews)) is not None:
        return "already-learned", str(has_learned_already(manifest.category, other))
    return None
