"""Since when what drift depends on is as it is: the active version, the regions, the calibration in force.

Of a file one sees when it was last changed, not what of it; that the audit log has. A time that the log does
not explain, or a revision of the settings that it does not have, counts as a change of all that is in the
file. So an edit by hand counts until an act that the log has writes there again. What it was is then
forgotten: a region changed under the same revision, with the next rate that is set; a calibration removed,
with the next one that is made for any station.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.calibrations import Slot
from app.category_settings import SETTINGS
from app.database import clock
from app.history.changes import CALIBRATION, REGION, THRESHOLDS, Act
from flows.fastflow import models_folder

# A share's clock may differ from ours by so much.
_CLOCKS_MS: Final = 1000


def unchanged_since(
    models: Path, slot: Slot, revision: int, acts: Sequence[Act], stations: Collection[str], *, renewed: bool
) -> int:
    """Since when a category has had its active version, its regions and a calibration.

    Args:
        models: the models folder.
        slot: whose calibration it is, a station's or that of all others; of the version that serves.
        revision: of the category's settings.
        acts: what the audit log has of the category, the latest first.
        stations: those that have a calibration of their own.
        renewed: whether the calibration is one made after the version.

    Returns:
        Milliseconds since 1970, UTC, never later than now.
    """
    folder = models / slot.manifest.category
    renewals = models_folder.renewals_of(folder / slot.manifest.version)
    times = [_changed_ms(folder / models_folder.ACTIVE), _regions_ms(folder, revision, acts)]
    if renewed:
        times.append(_changed_ms(renewals / slot.file))
    if slot.station is None:
        times.append(_removed_ms(renewals, acts, stations))
    return min(max(times), clock.now_ms())


def _regions_ms(folder: Path, revision: int, acts: Sequence[Act]) -> int:
    """When a region was last changed, or may have been; 0 where none ever was."""
    edited = _changed_ms(folder / SETTINGS)
    told = [act for act in acts if act.action in (REGION, THRESHOLDS) and act.outcome == "done"]
    if not edited:
        # Whatever is done to a category makes files in its folder, and there may have been no settings ever.
        edited = _changed_ms(folder)
        return edited if told or edited > _latest_ms(acts) else 0
    if edited > _latest_ms(told):
        return edited
    for act in told:
        if act.detail.get("revision") != revision:
            return edited  # the change before the last one that was told, the log does not have
        if act.action == REGION:
            return act.created_ms
        edited, revision = act.created_ms, revision - 1
    return edited if revision else 0


def _removed_ms(renewals: Path, acts: Sequence[Act], stations: Collection[str]) -> int:
    """When a calibration was last removed, or may have been: then that of all others holds in its place."""
    all_told = [act for act in acts if act.action == CALIBRATION]
    told = [act for act in all_told if act.outcome == "done"]
    ended = {act.detail.get("begun") for act in all_told}
    cut_off = [act for act in all_told if act.outcome == "begun" and act.number not in ended]
    removed = [
        *(act for act in told if "removed" in act.detail),
        # It may have removed one before its end could be written down. Before acts said that they remove, it
        # was those without a reason that did.
        *(act for act in cut_off if act.detail.get("removing") or "reason" not in act.detail),
    ]
    edited = _changed_ms(renewals)
    # One that was made by a command, say, beside another audit log.
    made = max((_changed_ms(path) for path in renewals.glob("*.json")), default=0) + _CLOCKS_MS
    if edited > max(made, _latest_ms(told)):
        return edited
    gone = (act.created_ms for act in removed if act.detail.get("station") not in stations)
    return max(gone, default=0)


def _latest_ms(acts: Sequence[Act]) -> int:
    """Until when the acts explain that a file was changed."""
    return acts[0].created_ms + _CLOCKS_MS if acts else 0


def _changed_ms(path: Path) -> int:
    """When a file or a folder was changed, 0 where there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns // 1_000_000
    return 0
