"""The watcher: finds whole pictures, has each inspected once, and says what became of it.

Exactly once is made of two halves. The request carries an idempotency key that follows from the folder, the
picture's name and its bytes, and the server answers a key it knows with the inspection that it has. And a
picture counts as dealt with only when its outcome is on disk, see outcome.py. So the watcher may end
anywhere: what it asks again is not inspected again.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..sync import Client
from .asking import Asking, Later, Wait
from .claims import Claims, identity, put_back
from .folder import Folder, Found, Stamp, printable, why
from .in_use import InUse
from .job import Job, Listener
from .outcome import Outcome, expect_own, is_dealt_with, oversized
from .trouble import Trouble, Troubles, is_full, is_of_all

_LONGEST_SECONDS: Final = 30.0


@dataclass
class Tally:
    """How many pictures were inspected, and how many set aside."""

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
        OSError: the folder cannot be written to, pictures that were taken to be moved cannot go back, or a
            watcher is at work there that does something else.
    """

    def __init__(
        self, client: Client, job: Job, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asking = Asking(client, job, listener)
        self._job = job
        self._listener = listener
        self._clock = clock
        self._place: tuple[int, int] | None = None
        self._identity: str | None = None
        self._folder = Folder(job.root, job.patterns, job.settle, clock, beside=job.move_to is None)
        self._claims = None if job.move_to is None else Claims(job.root, job.settle)
        self._in_use = InUse(job, client.url)
        self._done: dict[str, Stamp] = {}
        self._troubles = Troubles()
        self._closed: dict[str, OSError] = {}
        self._said: str | None = None
        self._looked = 0.0  # seconds that the last look took
        self.tally = Tally()
        self._open()

    def run(self, stop: threading.Event, *, once: bool = False) -> bool:
        """Deal with pictures until told to stop.

        Args:
            stop: ends it after the picture at hand.
            once: end when every picture that is there is dealt with, or when nothing can go on.

        Returns:
            Whether nothing is left that could not be dealt with.
        """
        try:
            return self._run(stop, once)
        finally:
            self._in_use.end()

    def _run(self, stop: threading.Event, once: bool) -> bool:
        pause = 0.0
        while not stop.wait(pause):
            try:
                left = self._round(stop)
            except Wait as wait:
                self._say(wait.reason)
                if once:
                    return False
                # Longer and longer, but a camera's pictures should not wait much longer than the server.
                pause = min(_LONGEST_SECONDS, max(1.0, 2 * pause))
                continue
            if once and left == self._troubles.stuck(self.tally.inspected):
                return not left and not any(map(_may_hold_pictures, self._closed.values()))
            # Of a folder with many thousands of files a look takes long: no more than a fifth of the time,
            # but for what would be longer than a camera's pictures should wait.
            pause = min(_LONGEST_SECONDS, max(4 * self._looked, min(1.0, max(0.02, self._job.settle / 4))))
        return False

    def _open(self) -> None:
        """Learn which folder this is, and make what it needs.

        It may be another one by now: a share that is mounted after the start has an identity of its own. That
        is read in every round, and alone tells whether it is the same one: some shares give it other numbers
        of devices and inodes all the time. Where it is wiped, it is written again only into what has the
        numbers that it was read at, as a share that was never watched has none either.

        Raises:
            OSError: it cannot be written to, what was taken from it cannot go back, or a watcher is at work
                there that does something else.
        """
        root = self._job.root
        status = root.stat()
        place = status.st_dev, status.st_ino
        told = identity(root, self._identity if place == self._place else None)
        if self._claims is not None:
            self._claims.open()
        is_another = told != self._identity
        if is_another:
            self._in_use.end()
        self._in_use.begin()
        if is_another:
            if self._claims is None:
                put_back(root)
            self._done.clear()  # of the other one; the JSON beside each picture tells
        self._place, self._identity = place, told

    def _round(self, stop: threading.Event) -> int:
        """Look once, deal with what is whole; returns how many are left for later."""
        begun = self._clock()
        try:
            found, left = self._look()
            self._looked = self._clock() - begun
            closed = self._folder.closed | self._folder.links
            # Only now: these pictures were there in the look before, too, so it is their folder's identity.
            self._open()
            if self._claims is not None:
                whole, waiting = self._claims.folder.look()
                closed = closed | self._claims.folder.closed
                taken = self._take_all(self._claims, found)
                left += waiting + len(found) - len(taken)
                found = whole + taken
        except OSError as error:
            # What cannot go back has no file of its own, but all of them in its words.
            told = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
            raise Wait(told) from error
        self._say_closed(closed)
        present = {str(one.path) for one in found}
        self._done = {path: stamp for path, stamp in self._done.items() if path in present}
        self._troubles.keep(present)
        # Each attempt at one that fails may take seconds, which new ones need not wait for.
        for one in sorted(found, key=self._troubles.is_delayed):
            if stop.is_set():
                return left + 1
            left += not self._deal_with(one)
        return left

    def _look(self) -> tuple[list[Found], int]:
        try:
            return self._folder.look()
        except OSError:
            self._place = None  # what comes next may be another disk, under the very same numbers
            raise

    def _take_all(self, claims: Claims, found: list[Found]) -> list[Found]:
        """Take pictures to be moved; gives those that could be taken."""
        whole = []
        behind = {}
        for one in found:
            before = claims.before(one)
            if before is not None:
                behind[one.path] = before
                continue
            trouble = self._troubles.of(one)
            if self._clock() < trouble.again:
                continue
            try:
                taken = claims.take(one)
            except OSError as error:  # its folder is another disk, or may not be written to
                trouble.delay()
                # That a disk is full is said of all at once. Those that were taken go on, which makes room.
                what = self._job.root if is_full(error) else one.name
                self._later(trouble, f"{what}: {why(error) if is_full(error) else error}")
                continue
            self._troubles.over(one)
            if taken is not None:
                whole.append(taken)
        self._troubles.wait_behind(behind)
        return whole

    def _deal_with(self, found: Found) -> bool:
        """Deal with a picture; returns whether it is dealt with."""
        if self._done.get(str(found.path)) == found.stamp:
            return True
        trouble = self._troubles.of(found)
        if self._clock() < trouble.again or found.quiet < trouble.needs_quiet:
            return False
        outcome = None
        try:
            data = b"" if found.is_oversized else found.read()
            if data is None:
                return False
            sha256 = None if found.is_oversized else hashlib.sha256(data).hexdigest()
            if self._claims is None and is_dealt_with(found, sha256):  # before this process began
                self._done[str(found.path)] = found.stamp
                self._troubles.over(found)
                return True
            if self._claims is None:
                expect_own(found.path)  # before the server is asked in vain
            outcome = self._outcome(found, data, sha256, trouble)
            if outcome is None:
                return False
            self._finish(outcome)
        except Later as later:
            self._later(trouble, later.reason)
            return False
        except OSError as error:
            # Before the next one is uploaded, of which nothing could be written either. One that is too large
            # to be read may be too large for what is free, too.
            if not found.is_oversized:
                self._expect_room(found, outcome, error)
            # Gone: it was renamed or overwritten, or another watcher was faster.
            if not isinstance(error, FileNotFoundError) or found.path.exists():
                trouble.delay()
                self._later(trouble, f"{found.name}: {error}")
            return False
        except MemoryError:
            trouble.delay()
            self._later(trouble, f"{found.name}: there is no memory for its {found.stamp.size} bytes")
            return False
        self._troubles.over(found)
        self._said = None
        self._count(outcome)
        self._listener.dealt_with(outcome)
        return True

    def _outcome(self, found: Found, data: bytes, sha256: str | None, trouble: Trouble) -> Outcome | None:
        if sha256 is None:
            return Outcome(found, None, None, oversized(found))
        identity = self._identity or ""  # it was read before any picture
        return self._asking.outcome(found, data, sha256, identity, trouble, self.tally.inspected)

    def _expect_room(self, found: Found, outcome: Outcome | None, error: OSError) -> None:
        """Expect that not the disk of all outcomes is to blame for what could not be written.

        Below the folder others may be mounted, which are full or read-only on their own.

        Args:
            found: the picture.
            outcome: what was to be written; None where it did not come to that.
            error: why it was not.

        Raises:
            Wait: it is; said of the folder, as the file is another one every time.
        """
        if not is_full(error):
            return
        root, move_to = self._job.root, self._job.move_to
        folder = found.path.parent
        if move_to is not None:
            folder = move_to if outcome is None else outcome.target(move_to).parent
        if is_of_all(error, folder, move_to or root):
            raise Wait(f"{move_to or root}: {why(error)}") from error

    def _finish(self, outcome: Outcome) -> None:
        if self._job.move_to is None or self._claims is None:
            outcome.leave()
            self._done[str(outcome.file.path)] = outcome.file.stamp
        else:
            outcome.move(self._job.move_to)
            self._claims.tidy(outcome.file)

    def _later(self, trouble: Trouble, reason: str) -> None:
        trouble.attempts += 1
        trouble.again = self._clock() + min(_LONGEST_SECONDS, 2.0 ** min(trouble.attempts, 9) / 2)
        # Of each by itself: where several fail in turn, every attempt has another reason than the last.
        if reason != trouble.said:
            self._say(reason)
        trouble.said = reason

    def _say(self, reason: str) -> None:
        """Say it, but not the same thing again and again."""
        if reason != self._said:
            self._listener.waits(printable(reason))
        self._said = reason

    def _say_closed(self, closed: dict[str, OSError]) -> None:
        """Say what is passed over as it cannot be read, each once."""
        for path in sorted(closed.keys() - self._closed.keys()):
            self._listener.waits(printable(f"{path}: {why(closed[path])}; it is passed over"))
        self._closed = closed

    def _count(self, outcome: Outcome) -> None:
        if outcome.inspection is not None:
            self.tally.inspected += 1
        else:
            self.tally.set_aside += 1


def _may_hold_pictures(error: OSError) -> bool:
    """Whether what cannot be read is no folder of somebody else, such as lost+found."""
    return not isinstance(error, PermissionError | NotADirectoryError)
