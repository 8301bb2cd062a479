"""The watcher: finds complete images, has each inspected once, and reports the result.

Exactly once has two halves. The request carries an idempotency key made from the folder, the image's name and
its bytes, and the server answers a known key with the inspection that it has. And an image is finished only
when its result is on the disk. So the watcher may be killed at any time.

An image that is to be moved is first renamed out of the camera's reach: the camera may write another one
under the same name meanwhile.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ...schemas.predict import Inspection
from ..sync import Client
from .folder import SIDECAR, UNDECODED_TIMES, CompleteFile, Folder, Stamp, printable
from .job import AllImagesWaitError, ImageWaitsError, WatchJob, may_be_half_written
from .ledger import Ledger, LedgerError
from .outcome import ImageOutcome, file_entry

# Attempts at an image before it counts as stuck.
_MOST_ATTEMPTS: Final = 5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class _Attempts:
    """Failed attempts at an image.

    Attributes:
        again: time of the next attempt, by the clock.
        needs_quiet: seconds without a change before the next attempt.
        reason: last reported.
    """

    stamp: Stamp
    count: int = 0
    again: float = 0.0
    needs_quiet: float = 0.0
    reason: str | None = None


class Watcher:
    """Watcher of a folder.

    Args:
        report: called with the result of each image.
        say: called with the reason if an image, or all of them, must wait.

    Raises:
        OSError: the folder cannot be written to, another watcher uses it, or it has images that an earlier
            watcher took to move, and `job.move_to` is None.
    """

    def __init__(
        self,
        client: Client,
        job: WatchJob,
        report: Callable[[ImageOutcome], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._job = job
        self._report = report
        self._say_aloud = say
        self._clock = clock
        self._ledger = self._open()
        self._folder = Folder(job.root, job.patterns, job.settle, clock)
        # All names: taken images matched the patterns of their time. A writer may still have one open.
        self._taken = Folder(self._ledger.taken, None, job.settle, clock)
        self._attempts: dict[str, _Attempts] = {}
        self._closed: dict[str, OSError] = {}
        self._reason: str | None = None
        self._look_seconds = 0.0
        self._has_set_aside = False

    def run(self, stop: threading.Event, *, once: bool = False) -> bool:
        """Process images until stopped.

        Args:
            stop: ends the run after the present image.
            once: end when every present image is finished, or none can be inspected.

        Returns:
            True if every image was inspected: none is left, and none was set aside.
        """
        pause = 0.0
        try:
            while not stop.wait(pause):
                try:
                    left = self._round(stop)
                except AllImagesWaitError as wait:
                    self._say(str(wait))
                    if once:
                        return False
                    # Exponential, but images should not wait much longer than the server does.
                    pause = min(self._job.longest_pause, max(1.0, 2 * pause))
                    continue
                if once and left == sum(one.count >= _MOST_ATTEMPTS for one in self._attempts.values()):
                    return not (left or self._has_set_aside or self._closed)
                # A look at many thousands of files takes long: spend at most a fifth of the time on it.
                least = max(4 * self._look_seconds, min(1.0, self._job.settle / 4))
                pause = min(self._job.longest_pause, least)
            return False
        finally:
            self._ledger.close()

    def _open(self) -> Ledger:
        ledger = Ledger(self._job.root)
        if self._job.move_to is None and any(path.is_file() for path in ledger.taken.rglob("*")):
            ledger.close()
            raise FileExistsError(
                f"{ledger.taken} has images that were taken to be moved; finish them with a watcher with "
                "--move-to first"
            )
        return ledger

    def _round(self, stop: threading.Event) -> int:
        """Look once, process complete images, and return how many are left."""
        begun = self._clock()
        try:
            found, left = self._folder.look()
            self._look_seconds = self._clock() - begun
            if not self._ledger.is_in_place:  # another disk, or a share mounted after the start
                self._ledger.close()
                self._ledger = self._open()
            if self._job.move_to is None:
                found = [one for one in found if not self._ledger.is_done(one.name, one.stamp)]
            else:
                taken, waiting = self._taken.look()
                taken = [replace(one, name=one.name.partition("/")[2]) for one in taken]
                new = self._take(found)
                left += waiting + len(found) - len(new)
                found = taken + new
        except OSError as error:
            raise AllImagesWaitError(_describe(error)) from error
        self._say_closed()
        self._attempts = {path: one for path, one in self._attempts.items() if os.path.lexists(path)}
        # New images first: each attempt at one that fails may take seconds.
        for one in sorted(found, key=lambda one: self._attempts_at(one).count > 0):
            if stop.is_set():
                return left + 1
            left += not self._process(one)
        return left

    def _take(self, found: list[CompleteFile]) -> list[CompleteFile]:
        """Take images to be moved, and return those that were taken unchanged."""
        taken = []
        for one in found:
            attempts = self._attempts_at(one)
            if self._clock() < attempts.again:
                continue
            try:
                path = self._ledger.take(one.name, one.path)
                if Stamp.of(path) == one.stamp:
                    taken.append(replace(one, path=path))
            except FileNotFoundError:
                continue
            except OSError as error:  # its folder is another disk, or is not writable
                if error.errno in _FULL:
                    raise
                self._later(attempts, f"{one.name}: {_describe(error)}")
                continue
            self._attempts.pop(str(one.path), None)
        return taken

    def _process(self, found: CompleteFile) -> bool:
        """Process an image, and return True if it is finished."""
        attempts = self._attempts_at(found)
        if self._clock() < attempts.again or found.quiet < attempts.needs_quiet:
            return False
        try:
            if self._job.move_to is None and file_entry(found.path) == {}:
                reason = "it exists already, and is not a watcher's"
                raise FileExistsError(errno.EEXIST, reason, found.name + SIDECAR)
            data = found.read()
            if data is None:  # written to meanwhile
                return False
            outcome = self._job.inspect(self._client, found, data, self._ledger.identity)
            if may_be_half_written(outcome):
                # The same bytes would be refused again; wait for the camera to complete the file.
                attempts.needs_quiet = UNDECODED_TIMES * self._job.settle
                if found.quiet < attempts.needs_quiet:
                    return False
            self._finish(outcome)
        except ImageWaitsError as later:
            self._later(attempts, str(later))
            return False
        except OSError as error:
            if isinstance(error, LedgerError) or error.errno in _FULL:
                raise AllImagesWaitError(_describe(error)) from error
            # Gone: it was renamed or overwritten.
            if not isinstance(error, FileNotFoundError) or found.path.exists():
                self._later(attempts, f"{found.name}: {_describe(error)}")
            return False
        self._attempts.pop(str(found.path), None)
        self._reason = None
        self._has_set_aside |= not isinstance(outcome.result, Inspection)
        self._report(outcome)
        return True

    def _finish(self, outcome: ImageOutcome) -> None:
        if self._job.move_to is None:
            outcome.write_beside(outcome.file.path)
            self._ledger.finish(outcome.file.name, outcome.file.stamp)
        else:
            outcome.move(self._job.move_to)
            self._ledger.release(outcome.file.path)

    def _attempts_at(self, found: CompleteFile) -> _Attempts:
        """Return the attempts at this state of an image."""
        attempts = self._attempts.get(str(found.path))
        if attempts is None or attempts.stamp != found.stamp:
            attempts = self._attempts[str(found.path)] = _Attempts(found.stamp)
        return attempts

    def _later(self, attempts: _Attempts, reason: str) -> None:
        attempts.count += 1
        attempts.again = self._clock() + min(self._job.longest_pause, 2.0 ** min(attempts.count, 9) / 2)
        # Compared per image: if several fail in turn, each reason differs from the last.
        if reason != attempts.reason:
            self._say(reason)
        attempts.reason = reason

    def _say(self, reason: str) -> None:
        """Report a reason, unless it is the last one again."""
        if reason != self._reason:
            self._say_aloud(printable(reason))
        self._reason = reason

    def _say_closed(self) -> None:
        """Report each unreadable folder once."""
        for path in sorted(self._folder.closed.keys() - self._closed.keys()):
            self._say_aloud(printable(f"{path}: {self._folder.closed[path].strerror}; it is skipped"))
        self._closed = self._folder.closed


def _describe(error: OSError) -> str:
    """Describe a system error with its file, unless that is temporary: its name changes."""
    if error.strerror is None:
        return str(error)
    is_temporary = error.filename is None or str(error.filename).endswith(".part")
    return error.strerror if is_temporary else f"{error.filename}: {error.strerror}"
