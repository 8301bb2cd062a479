"""Whether a snapshot could be brought back: every file that it needs is read."""

from app.backup.contents import Kept, as_models, calibration, kept_files, replacement, say_replaced
from app.backup.copying import sha256_or_none
from app.backup.folder import JOURNAL, BackupError, BackupFolder, Snapshot
from flows.fastflow import bundle
from flows.fastflow.plain_files import FileError


def verify(folder: BackupFolder, name: str) -> list[str]:
    """What is wrong with a snapshot; nothing, if all that it holds can be brought back.

    Reads every file that it needs. Models are verified as the service would, but not run. What was missing
    when it was taken is in its `problems`. Snapshots may be taken and deleted meanwhile: it can take hours,
    for which no night's snapshot shall wait.

    Raises:
        BackupError: it cannot be read at all, or was deleted meanwhile.
    """
    faults = _faults(folder, name, folder.snapshot(name))
    # It goes before its files do, so what is missing since then is no fault.
    if not (folder.snapshots / name).exists():
        raise BackupError(f"snapshot {name} was deleted while it was verified")
    return faults


def _faults(folder: BackupFolder, name: str, snapshot: Snapshot) -> list[str]:
    if sha256_or_none(folder.database_path(name)) != snapshot.database_sha256:
        return [f"its database is not as it was written: {folder.database_path(name)}"]
    return [
        *_journal(folder, name, snapshot),
        *_pictures_and_maps(folder, name),
        *_backbones(folder, snapshot),
        *_models(folder, name, snapshot),
    ]


def unchecked(snapshot: Snapshot) -> list[str]:
    """What `verify` cannot tell of a snapshot, since an earlier version of FlowGauge took it."""
    if snapshot.journal is not None:
        return []
    return [
        "it has no sha256 of its maps: one that can be read as a map may still be another than it was",
        "it does not say which files its journal had: whether all are there cannot be told",
    ]


def _journal(folder: BackupFolder, name: str, snapshot: Snapshot) -> list[str]:
    place = folder.snapshots / name / JOURNAL
    return [
        f"the file {file} of its journal is missing or damaged: {place / file}"
        for file, sha256 in (snapshot.journal or {}).items()
        if sha256_or_none(place / file) != sha256
    ]


def _pictures_and_maps(folder: BackupFolder, name: str) -> list[str]:
    faults = []
    known: dict[str, bool] = {}
    for kept in kept_files(folder, name):
        sha256 = kept.picture_sha256
        if sha256 not in known:
            path = folder.pictures.picture_path(sha256)
            known[sha256] = sha256_or_none(path) == sha256
            if not known[sha256]:
                faults.append(f"the picture {sha256} is missing or damaged: {path}")
        if not _has_its_map(folder, kept):
            path = folder.pictures.map_path(kept.id)
            faults.append(f"the map of inspection {kept.id} is missing or damaged: {path}")
    return faults


def _has_its_map(folder: BackupFolder, kept: Kept) -> bool:
    path = folder.pictures.map_path(kept.id)
    if kept.map_sha256 is not None:
        return sha256_or_none(path) == kept.map_sha256
    return (
        path.is_file()
        and path.stat().st_size == kept.map_bytes
        and folder.pictures.score_map(kept.id) is not None
    )


def _backbones(folder: BackupFolder, snapshot: Snapshot) -> list[str]:
    return [
        f"the weights {file} are missing or damaged: {folder.backbones / file}"
        for file, sha256 in snapshot.backbones.items()
        if sha256_or_none(folder.backbones / file) != sha256
    ]


def _models(folder: BackupFolder, name: str, snapshot: Snapshot) -> list[str]:
    faults = []
    for category, copy in snapshot.models.items():
        if (replaced := replacement(copy, copy.versions)) is not None:
            faults.append(say_replaced(category, *replaced))
        for version, files in copy.calibrations.items():
            for file, sha256 in files.items():
                path = calibration(folder, name, category, version, file)
                if sha256_or_none(path) != sha256:
                    faults.append(f"the calibration of {category}/{version} is missing or damaged: {path}")
        for version, sha256 in copy.versions.items():
            try:
                with as_models(folder, category, copy, version) as models:
                    bundle.verify(models / category / version)
            except (bundle.BundleError, FileError, OSError) as error:
                place = folder.bundles / sha256
                faults.append(f"model {category}/{version} in {place} is missing or damaged: {error}")
    return faults
