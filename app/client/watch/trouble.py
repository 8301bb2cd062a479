"""What stands in the way of a picture, and whether that is its own fault."""

import errno
import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import UnexpectedAnswerError
from .folder import Found, Stamp

# Attempts at a picture on which the server fails, or that is refused on the way, before it is set aside; and
# that are not done in time, before it counts as stuck.
MOST_FAULTS: Final = 5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What a proxy says of too many requests, which is no picture's fault.
_TOO_OFTEN: Final = 429
_TOO_BUSY: Final = 503  # or of these, as nginx does
# What it says of a request that did not come in time, which is none either.
_STALLED: Final = 408


@dataclass
class Trouble:
    """What stood in the way of a picture.

    Attributes:
        stamp: of the picture as it was.
        attempts: that came to nothing, whatever for.
        again: when there is to be another, by the clock.
        faults: attempts that may have failed for the picture's sake.
        before: how many pictures had been inspected when it was first refused, by the server or before it.
        delays: attempts that were not done in time, which is no fault of the picture.
        needs_quiet: seconds without a change before there is to be another; of one that could not be decoded.
        said: the last reason that was said of it.
    """

    stamp: Stamp
    attempts: int = 0
    again: float = 0.0
    faults: int = 0
    before: int | None = None
    delays: int = 0
    needs_quiet: float = 0.0
    said: str | None = None

    def fail(self) -> bool:
        """Count an attempt that may have failed for the picture's sake; whether there were enough."""
        self.faults += 1
        return self.faults >= MOST_FAULTS

    def refuse(self, inspected: int) -> bool:
        """Count an attempt that the server or something before it has refused; whether to set it aside.

        It may as well refuse everything. So others must have come through since the first time.

        Args:
            inspected: how many pictures were, of all that there were.
        """
        if self.before is None:
            self.before = inspected
        return self.fail() and not self._is_refused(inspected)

    def delay(self) -> None:
        """Count an attempt that was not done in time; for these it is never set aside."""
        self.delays += 1

    def is_stuck(self, inspected: int) -> bool:
        """Whether it was tried often enough in vain, for no fault of its own that anybody knows of."""
        return self.delays >= MOST_FAULTS or self._is_refused(inspected)

    def _is_refused(self, inspected: int) -> bool:
        """Whether it was refused often enough, and nothing else has come through that would tell why."""
        return self.faults >= MOST_FAULTS and self.before == inspected


def is_a_refusal(error: UnexpectedAnswerError) -> bool:
    """Whether an answer on the way may be for this request's own sake, and others come through."""
    return 400 <= error.status < 500 and error.status != _TOO_OFTEN


def is_too_late(error: UnexpectedAnswerError) -> bool:
    """Whether something on the way says that the request did not come in time."""
    return error.status == _STALLED


def may_be_its_own(error: UnexpectedAnswerError) -> bool:
    """Whether a proxy could not pass this request on, and may pass others: one was broken off, say."""
    return error.status >= 500 and error.status != _TOO_BUSY


def is_full(error: OSError) -> bool:
    """Whether a disk takes nothing more, whatever picture it is of."""
    return error.errno in _FULL


def is_of_all(error: OSError, folder: Path, base: Path) -> bool:
    """Whether what a disk does not take in one folder, it would not take in any other.

    Args:
        error: that it is full, over its quota or read-only.
        folder: in which, or in one that is yet to be made in it.
        base: the folder below which all of them are.
    """
    if error.errno == errno.EDQUOT and folder != base:  # a folder may have a quota of its own
        return False
    for there in (folder, *folder.parents):
        try:
            return there.stat().st_dev == base.stat().st_dev
        except FileNotFoundError:
            continue
        except OSError:  # it is away by now
            return False
    return False


class Troubles:
    """What stands in the way of pictures, each by where it lies."""

    def __init__(self) -> None:
        self._all: dict[str, Trouble] = {}
        self._behind: dict[str, str] = {}

    def of(self, found: Found) -> Trouble:
        """What there was with this very state of a picture; else a new one."""
        trouble = self._all.get(str(found.path))
        if trouble is None or trouble.stamp != found.stamp:
            trouble = self._all[str(found.path)] = Trouble(found.stamp)
        return trouble

    def is_delayed(self, found: Found) -> bool:
        """Whether an attempt at this very state of a picture has come to nothing."""
        trouble = self._all.get(str(found.path))
        return trouble is not None and trouble.stamp == found.stamp and trouble.attempts > 0

    def over(self, found: Found) -> None:
        """It is dealt with."""
        self._all.pop(str(found.path), None)

    def keep(self, present: Container[str]) -> None:
        """Forget those of pictures that are gone."""
        # One that was just taken to be moved is not whole again yet, and still the same.
        self._all = {path: one for path, one in self._all.items() if path in present or os.path.lexists(path)}

    def wait_behind(self, waiting: dict[Path, Path]) -> None:
        """Say which pictures wait for which others, of the same name, before them."""
        self._behind = {str(path): str(first) for path, first in waiting.items()}

    def stuck(self, inspected: int) -> int:
        """How many pictures are tried in vain, and would be for as long as no other comes."""
        stuck = {path for path, one in self._all.items() if one.is_stuck(inspected)}
        return len(stuck | {path for path, first in self._behind.items() if first in stuck})
