"""Images for a dataset from the history, or from a folder that the settings allow."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Row, select

from app.auth.permissions import Caller
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history.history import History
from app.history.inspection_files import InspectionFiles
from app.products.image_store import RefusedImage
from app.products.intake import Candidate
from app.schemas.history import Verdict
from app.schemas.products import GOOD_FOLDERS, MASK_FOLDERS, MAX_IMPORTED, DefectKind, NewImport
from app.schemas.texts import MAX_TEXT
from app.settings import Settings
from flows.fastflow.calibration.images_per_part import (
    PARTS,
    PartsError,
    is_single_image,
    parts_or_single_images,
)
from flows.fastflow.files.plain_files import FileError, escape_name, read_file
from flows.fastflow.imaging.image_files import DEFECT_FOLDERS, find_image_files

_KIND: Final = TypeAdapter[str](DefectKind)
_PARTS_LEVELS: Final = 3  # the folder itself, and two above it, may hold a parts.txt


class ImportPage(NamedTuple):
    """Images of one request, and the cursor of the next; None on the last page."""

    candidates: Sequence[Candidate]
    next_cursor: str | None

    def kinds(self) -> set[str]:
        return {candidate.kind for candidate in self.candidates if candidate.kind is not None}


def find_inspections(history: History, caller: Caller, new: NewImport, ids: Sequence[str]) -> ImportPage:
    with history.database.read() as connection:
        chosen = select(inspections).where(inspections.c.id.in_(ids))
        rows = {row.id: row for row in connection.execute(chosen)}
    candidates = [
        _of_inspection(identifier, rows.get(identifier), history.files, caller, new) for identifier in ids
    ]
    return ImportPage(candidates, None)


def find_in_folder(settings: Settings, new: NewImport, folder: str) -> ImportPage:
    """Find the images of a folder, at any depth, without masks.

    Raises:
        Problem: invalid-request if the folder is none of those that the settings allow, or lies in none, or
            if its parts.txt cannot be used.
    """
    root, place = _allowed_folder(settings.import_roots, folder)
    files = {
        escape_name(name): path
        for name, path in find_image_files(place, lambda _: None).items()
        if not MASK_FOLDERS.intersection(name.lower().split("/")[:-1])
    }
    names = [name for name in sorted(files) if new.cursor is None or name > new.cursor]
    shown = names[:MAX_IMPORTED]
    parts = _read_parts([files[name].name for name in shown], root, place)
    limit = settings.max_bytes
    candidates = []
    for name, part in zip(shown, parts, strict=True):
        path = files[name]
        label = (new.label, new.kind) if new.label is not None else _label_of(path.parent, place)
        data = partial(_read, path, root, limit) if label is not None else _unlabelled(path.parent.name)
        verdict, kind = label or ("good", None)
        candidates.append(Candidate(name, data, verdict, kind, "folder", part))
    return ImportPage(candidates, shown[-1] if len(names) > len(shown) else None)


def _of_inspection(
    identifier: str, row: Row[Any] | None, files: InspectionFiles, caller: Caller, new: NewImport
) -> Candidate:
    if row is None or (caller.categories is not None and row.category not in caller.categories):
        unknown = Problem("unknown-inspection", "No inspection has this id, or the key is not for it.")
        return Candidate(identifier[:MAX_TEXT], unknown)
    label = new.label or row.verdict
    if label is None:
        detail = "The inspection has no review: review it, or name a label."
        return Candidate(identifier, RefusedImage("unlabelled", "invalid-request", detail))

    def read() -> bytes:
        data = files.read_image(row.image_sha256)
        if data is None:
            raise Problem("files-lost", "The image of this inspection was deleted, or is damaged.")
        return data

    kind = new.kind or (row.kind if label == "defect" else None)
    return Candidate(identifier, read, label, kind, "inspection", row.part_id, identifier)


def _allowed_folder(roots: Sequence[Path], folder: str) -> tuple[Path, Path]:
    """Return the allowed folder that a given one is in, and the given one, both without links."""
    for root in roots:
        try:
            top, place = root.resolve(), (root / folder).resolve()
            if place.is_relative_to(top) and place.is_dir():
                return top, place
        except (OSError, ValueError, RuntimeError):  # a name that is too long, or a loop of links
            continue
    hint = "ask the administrator for those that it names" if roots else "it names none yet"
    raise Problem(
        "invalid-request", f"The folder does not exist, or is not within FLOWGAUGE_IMPORT_FOLDERS: {hint}."
    )


def _read(path: Path, root: Path, max_bytes: int) -> bytes:
    try:
        # A link to a file is refused, and one to a folder must not lead out.
        if path.resolve(strict=True).is_relative_to(root):
            return read_file(path, max_bytes)
        reason = "it is a link that leads out of the folder"
    except (OSError, FileError):
        reason = f"it is a link, has more than {max_bytes} bytes, or the server may not read it"
    raise RefusedImage("failed", "invalid-request", f"The file is not imported: {reason}.")


def _label_of(folder: Path, place: Path) -> tuple[Verdict, str | None] | None:
    """Return label and kind by the name of a file's folder; None if the name says neither."""
    name = folder.name.lower()
    if name in GOOD_FOLDERS:
        return "good", None
    if name in DEFECT_FOLDERS:
        return "defect", None
    if any((folder.parent / good).is_dir() for good in GOOD_FOLDERS):
        try:
            return "defect", _KIND.validate_python(escape_name(folder.name))
        except ValidationError:
            return None
    return ("good", None) if folder == place else None


def _unlabelled(folder: str) -> Problem:
    return RefusedImage(
        "unlabelled",
        "invalid-request",
        f"Its folder {escape_name(folder)[:64]!r} says neither good nor defect: name a label.",
    )


def _read_parts(names: Sequence[str], root: Path, place: Path) -> list[str | None]:
    """Return the part of each file by the parts.txt in its folder, or above it within the allowed one."""
    above = [one for one in (place, *place.parents)[:_PARTS_LEVELS] if one.is_relative_to(root)]
    folder = next((one for one in above if (one / PARTS).is_file()), place)
    try:
        parts = parts_or_single_images(names, folder)
    except PartsError as error:
        raise Problem(
            "invalid-request", f"The folder's {PARTS} must be one regular expression in UTF-8."
        ) from error
    if parts is None:
        return [None] * len(names)
    return [None if is_single_image(part) else _to_part_id(part) for part in parts]


def _to_part_id(part: str) -> str:
    return "".join(c if c.isprintable() else "/" for c in part)[:MAX_TEXT]
