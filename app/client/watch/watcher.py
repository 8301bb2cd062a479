"""The watcher: finds whole images, has each inspected once, and says what became of it.

Exactly once is made of two halves. The request carries an idempotency key that follows from the folder, the
image's name and its bytes, and the server answers a key it knows with the inspection that it has. And an
image counts as dealt with only when its outcome is on disk. So the watcher may end anywhere: what it asks
again is not inspected again.

An image that is to be moved is first renamed out of the camera's reach: while it is inspected, the camera may
write another one under the same name.
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
from .folder import SIDECAR, UNDECODED_TIMES, Folder, Found, Stamp, printable
from .job import Job, Later, Wait, may_be_half_written
from .ledger import Ledger, LedgerError
from .outcome import Outcome, file_entry

# Attempts at an image before it counts as stuck.
_MOST_ATTEMPTS: Final = 5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class _Attempts:
    """The attempts at an image that came to nothing.

    Attributes:
        stamp: of the image as it was.
        count: how many there were.
        again: when there is to be another, by the clock.
        needs_quiet: seconds without a change before there is to be another.
        reason: the last one that was said of it.
    """

    stamp: Stamp
    count: int = 0
    again: float = 0.0
    needs_quiet: float = 0.0
    reason: str | None = None


class Watcher:
    """Watches a folder.

    Args:
        client: of the server.
        job: what to do.
        report: is called with the outcome of every image.
        say: is called with the reason why nothing goes on, or not with an image; it is tried again.
        clock: seconds from any beginning.

    Raises:
        OSError: the folder cannot be written to, images were taken to be moved and now none is to be, or
            another watcher is at work there.
    """

    def __init__(
        self,
        client: Client,
        job: Job,
        report: Callable[[Outcome], None],
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
        # What was taken was wanted then, whatever names are looked for now; and who held it open may still
        # write to it.
        self._taken = Folder(self._ledger.taken, None, job.settle, clock)
        self._attempts: dict[str, _Attempts] = {}
        self._closed: dict[str, OSError] = {}
        self._reason: str | None = None
        self._look_seconds = 0.0
        self._has_set_aside = False

    def run(self, stop: threading.Event, *, once: bool = False) -> bool:
        """Deal with images until told to stop.

        Args:
            stop: ends it after the image at hand.
            once: end when every image that is there is dealt with, or when nothing can go on.

        Returns:
            Whether every image was inspected: none is left, and none set aside.
        """
        pause = 0.0
        try:
            while not stop.wait(pause):
                try:
                    left = self._round(stop)
                except Wait as wait:
                    self._say(str(wait))
                    if once:
                        return False
                    # Longer and longer, but images should not wait much longer than the server.
                    pause = min(self._job.longest_pause, max(1.0, 2 * pause))
                    continue
                if once and left == sum(one.count >= _MOST_ATTEMPTS for one in self._attempts.values()):
                    return not (left or self._has_set_aside or self._closed)
                # A look at many thousands of files takes long: no more than a fifth of the time.
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
                f"{ledger.taken} has images that were taken to be moved; let a watcher with --move-to deal "
                "with them first"
            )
        return ledger

    def _round(self, stop: threading.Event) -> int:
        """Look once, deal with what is whole; returns how many are left for later."""
        begun = self._clock()
        try:
            found, left = self._folder.look()
            self._look_seconds = self._clock() - begun
            if not self._ledger.is_in_place:  # another disk by now, or a share mounted after the start
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
            raise Wait(_told(error)) from error
        self._say_closed()
        self._attempts = {path: one for path, one in self._attempts.items() if os.path.lexists(path)}
        # Each attempt at one that fails may take seconds, which new ones need not wait for.
        for one in sorted(found, key=lambda one: self._attempts_at(one).count > 0):
            if stop.is_set():
                return left + 1
            left += not self._deal_with(one)
        return left

    def _take(self, found: list[Found]) -> list[Found]:
        """Take images to be moved; gives those that could be taken and have not changed meanwhile."""
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
            except OSError as error:  # its folder is another disk, or may not be written to
                if error.errno in _FULL:
                    raise
                self._later(attempts, f"{one.name}: {_told(error)}")
                continue
            self._attempts.pop(str(one.path), None)
        return taken

    def _deal_with(self, found: Found) -> bool:
        """Deal with an image; returns whether it is dealt with."""
        attempts = self._attempts_at(found)
        if self._clock() < attempts.again or found.quiet < attempts.needs_quiet:
            return False
        try:
            if self._job.move_to is None and file_entry(found.path) == {}:
                told = "it is there already, and not a watcher's"
                raise FileExistsError(errno.EEXIST, told, found.name + SIDECAR)
            data = found.read()
            if data is None:  # written to meanwhile
                return False
            outcome = self._job.inspect(self._client, found, data, self._ledger.identity)
            if may_be_half_written(outcome):
                # The same bytes would be refused again, and once it is written to it is another one.
                attempts.needs_quiet = UNDECODED_TIMES * self._job.settle
                if found.quiet < attempts.needs_quiet:
                    return False
            self._finish(outcome)
        except Later as later:
            self._later(attempts, str(later))
            return False
        except OSError as error:
            if isinstance(error, LedgerError) or error.errno in _FULL:
                raise Wait(_told(error)) from error
            # Gone: it was renamed or overwritten.
            if not isinstance(error, FileNotFoundError) or found.path.exists():
                self._later(attempts, f"{found.name}: {_told(error)}")
            return False
        self._attempts.pop(str(found.path), None)
        self._reason = None
        self._has_set_aside |= not isinstance(outcome.result, Inspection)
        self._report(outcome)
        return True

    def _finish(self, outcome: Outcome) -> None:
        if self._job.move_to is None:
            outcome.write_beside(outcome.file.path)
            self._ledger.finish(outcome.file.name, outcome.file.stamp)
        else:
            outcome.move(self._job.move_to)
            self._ledger.release(outcome.file.path)

    def _attempts_at(self, found: Found) -> _Attempts:
        """The attempts at this very state of an image."""
        attempts = self._attempts.get(str(found.path))
        if attempts is None or attempts.stamp != found.stamp:
            attempts = self._attempts[str(found.path)] = _Attempts(found.stamp)
        return attempts

    def _later(self, attempts: _Attempts, reason: str) -> None:
        attempts.count += 1
        attempts.again = self._clock() + min(self._job.longest_pause, 2.0 ** min(attempts.count, 9) / 2)
        # Of each by itself: where several fail in turn, every attempt has another reason than the last.
        if reason != attempts.reason:
            self._say(reason)
        attempts.reason = reason

    def _say(self, reason: str) -> None:
        """Say it, but not the same thing again and again."""
        if reason != self._reason:
            self._say_aloud(printable(reason))
        self._reason = reason

    def _say_closed(self) -> None:
        """Say which folders are passed over as they cannot be read, each once."""
        for path in sorted(self._folder.closed.keys() - self._closed.keys()):
            self._say_aloud(printable(f"{path}: {self._folder.closed[path].strerror}; it is passed over"))
        self._closed = self._folder.closed


def _told(error: OSError) -> str:
    """What an error of the system says, with the file unless it is a temporary one: its name changes."""
    if error.strerror is None:
        return str(error)
    is_temporary = error.filename is None or str(error.filename).endswith(".part")
    return error.strerror if is_temporary else f"{error.filename}: {error.strerror}"
