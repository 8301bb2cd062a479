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

from ..sync import Client
from .asking import MOST_ATTEMPTS, Asking, Attempts, Later, Wait
from .folder import Folder, Found, Stamp, printable
from .job import Job, Listener
from .ledger import OWN, Ledger, LedgerError
from .outcome import Outcome, require_no_foreign_json

_LONGEST_SECONDS: Final = 30.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_HELD_OPEN: Final = 32  # Windows' ERROR_SHARING_VIOLATION


@dataclass
class Tally:
    """How many images were inspected, and how many set aside."""

    inspected: int = 0
    set_aside: int = 0


class Watcher:
    """Watches a folder.

    Args:
        client: of the server.
        job: what to do.
        listener: is told what goes on.
        clock: seconds from any beginning.

    Raises:
        OSError: the folder cannot be written to, images that were taken to be moved cannot go back, or
            another watcher is at work there.
    """

    def __init__(
        self, client: Client, job: Job, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asking = Asking(client, job, listener)
        self._job = job
        self._listener = listener
        self._clock = clock
        self._folder = Folder(job.root, job.patterns, job.settle, clock)
        # What was taken was wanted then, whatever names are looked for now; and who held it open may still
        # write to it.
        self._taken = Folder(job.root / OWN / "taken", ("*",), job.settle, clock)
        self._attempts: dict[str, Attempts] = {}
        self._closed: dict[str, OSError] = {}
        self._said: str | None = None
        self._looked = 0.0  # seconds that the last look took
        self.tally = Tally()
        self._ledger = self._open()

    def run(self, stop: threading.Event, *, once: bool = False) -> bool:
        """Deal with images until told to stop.

        Args:
            stop: ends it after the image at hand.
            once: end when every image that is there is dealt with, or when nothing can go on.

        Returns:
            Whether nothing is left that could not be dealt with.
        """
        try:
            return self._run(stop, once)
        finally:
            self._ledger.close()

    def _run(self, stop: threading.Event, once: bool) -> bool:
        pause = 0.0
        while not stop.wait(pause):
            try:
                left = self._round(stop)
            except Wait as wait:
                self._say(wait.reason)
                if once:
                    return False
                # Longer and longer, but a camera's images should not wait much longer than the server.
                pause = min(_LONGEST_SECONDS, max(1.0, 2 * pause))
                continue
            if once and left == sum(one.count >= MOST_ATTEMPTS for one in self._attempts.values()):
                # What is somebody else's, such as lost+found, holds no images; a share that is away does.
                away = (one for one in self._closed.values() if not isinstance(one, PermissionError))
                return not left and not any(away)
            # Of a folder with many thousands of files a look takes long: no more than a fifth of the time.
            pause = min(_LONGEST_SECONDS, max(4 * self._looked, min(1.0, max(0.02, self._job.settle / 4))))
        return False

    def _open(self) -> Ledger:
        """Open the folder's ledger, and give back what was taken where nothing is to be moved."""
        ledger = Ledger(self._job.root)
        try:
            if self._job.move_to is None:
                ledger.put_back(self._job.root)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _round(self, stop: threading.Event) -> int:
        """Look once, deal with what is whole; returns how many are left for later."""
        begun = self._clock()
        try:
            found, left = self._folder.look()
            self._looked = self._clock() - begun
            if not self._ledger.is_in_place:  # another disk by now, or a share mounted after the start
                self._ledger.close()
                self._ledger = self._open()
            if self._job.move_to is None:
                found = [one for one in found if not self._ledger.is_done(one.name, one.stamp)]
            else:
                taken, waiting = self._taken.look()
                taken = [replace(one, name=self._ledger.name_of(one.path)) for one in taken]
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
            except LedgerError:
                raise
            except FileNotFoundError:
                continue
            except OSError as error:  # its folder is another disk, or may not be written to
                if getattr(error, "winerror", None) != _HELD_OPEN:
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
            if self._job.move_to is None:
                require_no_foreign_json(found.path)  # before the server is asked in vain
            identity, inspected = self._ledger.identity, self.tally.inspected
            outcome = self._asking.outcome(found, identity, attempts, inspected)
            if outcome is None:
                return False
            self._finish(outcome)
        except Later as later:
            self._later(attempts, later.reason)
            return False
        except OSError as error:
            if isinstance(error, LedgerError) or error.errno in _FULL:
                raise Wait(_told(error)) from error
            # Gone: it was renamed or overwritten.
            if not isinstance(error, FileNotFoundError) or found.path.exists():
                self._later(attempts, f"{found.name}: {_told(error)}")
            return False
        self._attempts.pop(str(found.path), None)
        self._said = None
        if outcome.inspection is not None:
            self.tally.inspected += 1
        else:
            self.tally.set_aside += 1
        self._listener.dealt_with(outcome)
        return True

    def _finish(self, outcome: Outcome) -> None:
        if self._job.move_to is None:
            outcome.leave()
            self._ledger.finish(outcome.file.name, outcome.file.stamp)
        else:
            outcome.move(self._job.move_to)
            self._ledger.release(outcome.file.path)

    def _attempts_at(self, found: Found) -> Attempts:
        """The attempts at this very state of an image."""
        attempts = self._attempts.get(str(found.path))
        if attempts is None or attempts.stamp != found.stamp:
            attempts = self._attempts[str(found.path)] = Attempts(found.stamp)
        return attempts

    def _later(self, attempts: Attempts, reason: str) -> None:
        attempts.count += 1
        attempts.again = self._clock() + min(_LONGEST_SECONDS, 2.0 ** min(attempts.count, 9) / 2)
        # Of each by itself: where several fail in turn, every attempt has another reason than the last.
        if reason != attempts.said:
            self._say(reason)
        attempts.said = reason

    def _say(self, reason: str) -> None:
        """Say it, but not the same thing again and again."""
        if reason != self._said:
            self._listener.waits(printable(reason))
        self._said = reason

    def _say_closed(self) -> None:
        """Say which folders are passed over as they cannot be read, each once."""
        for path in sorted(self._folder.closed.keys() - self._closed.keys()):
            error = self._folder.closed[path]
            self._listener.waits(printable(f"{path}: {error.strerror}; it is passed over"))
        self._closed = self._folder.closed


def _told(error: OSError) -> str:
    """What an error of the system says, with the file unless it is a temporary one: its name changes."""
    if error.strerror is None:
        return str(error)
    is_temporary = error.filename is None or str(error.filename).endswith(".part")
    return error.strerror if is_temporary else f"{error.filename}: {error.strerror}"
