"""What a sink has given up, in files for people: one JSON object a line."""

import json
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from app.database import clock
from app.feed.log import Event
from app.sinks.errors import SinkError
from flows.fastflow.plain_files import replace_file

logger = logging.getLogger("flowgauge.sinks")

MAX_BYTES: Final = 16 * 1024 * 1024
# Letters are added in no time, and what is taken out is read and written at once.
_LOCK_SECONDS: Final = 30


class DeadLetters:
    """A file that grows to a limit, and the one before it: the newest letters are there, the oldest go.

    Threads may share one, as stations of a sink do, and processes: a server adds while a command takes.

    Args:
        path: of the file; the one before it ends in .1, what is taken out at present in .taken.
        max_bytes: of each; what is put back may be both in one.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._before = path.with_name(f"{path.name}.1")
        self._taken = path.with_name(f"{path.name}.taken")
        self._max_bytes = max_bytes
        # A file's lock is asked for again and again; threads of one process need not wait like that.
        self._threads = threading.Lock()
        self._processes = FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_SECONDS)
        self._taking = FileLock(path.with_name(f"{path.name}.taken.lock"), timeout=0)

    def add(self, event: Event, reason: str) -> None:
        """Write an event down; where even that fails, the log has it.

        Args:
            event: what could not be delivered.
            reason: why.
        """
        letter = {"given_up": clock.iso(clock.now_ms()), "reason": reason, "data": json.loads(event.data)}
        line = json.dumps(letter) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if self.path.exists() and self.path.stat().st_size + len(line) > self._max_bytes:
                    self.path.replace(self._before)
                with self.path.open("ab+") as file:
                    # A line that a kill or a full disk has cut off is that one alone.
                    whole = not file.tell() or (file.seek(-1, os.SEEK_END), file.read(1))[1] == b"\n"
                    file.write((b"" if whole else b"\n") + line.encode())
        except OSError:  # also of a lock
            logger.exception("a dead letter cannot be written to %s: %s", self.path, line)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all())

    @contextmanager
    def taken(self) -> Iterator[deque[str]]:
        """Take all letters out, the oldest first; those that are still in the queue at the end are put back.

        A process that is killed meanwhile loses none: the next who takes finds them all.

        Yields:
            Their lines.

        Raises:
            SinkError: somebody else is at it, or this is another user than the server's.
            OSError: they cannot be read, or written.
        """
        letters: deque[str] = deque()
        if not len(self):
            yield letters
            return
        _expect_same_user(self.path.parent)
        try:
            self._taking.acquire()
        except Timeout as error:
            raise SinkError(f"somebody else takes letters out of {self.path} at this moment") from error
        try:
            with self._locked():
                letters.extend(dict.fromkeys(self._all()))  # a kill may have left some in two files
                _write(self._taken, letters, like=self.path.parent)
                self._before.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
            try:
                yield letters
            finally:
                with self._locked():
                    if letters:
                        kept = self._newest([*letters, *_lines(self._before)])
                        _write(self._before, kept, like=self.path.parent)
                    self._taken.unlink()
        finally:
            self._taking.release()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads, self._processes:
            yield

    def _all(self) -> list[str]:
        """The lines of all files, the oldest first."""
        return [line for path in (self._taken, self._before, self.path) for line in _lines(path)]

    def _newest(self, lines: list[str]) -> deque[str]:
        """As many of the last lines as two files hold."""
        size, kept = 0, deque[str]()
        for line in reversed(lines):
            size += len(line) + 1
            if size > 2 * self._max_bytes:
                break
            kept.appendleft(line)
        return kept


def _expect_same_user(folder: Path) -> None:
    """Raise SinkError unless the folder is this user's: what others leave in it the server cannot change."""
    if hasattr(os, "geteuid") and (owner := folder.stat().st_uid) != os.geteuid():
        raise SinkError(
            f"{folder} belongs to the user {owner}: run this as that one, as whom the server runs"
        )


def read(line: str) -> Event | None:
    """The event of a letter, without its number; None where the line was cut off, or changed by hand."""
    try:
        data: dict[str, Any] = json.loads(line)["data"]
        if not all(isinstance(data[name], str) for name in ("inspection_id", "created_at", "category")):
            return None
        return Event(
            "inspection", data["category"], data["station"], data["decision"], json.dumps(data), number=0
        )
    except (ValueError, KeyError, TypeError):
        return None


def _lines(path: Path) -> list[str]:
    """The file's lines that are not empty; none where there is no file."""
    try:
        return [line for line in path.read_text(errors="replace").split("\n") if line]
    except FileNotFoundError:
        return []


def _write(path: Path, lines: Iterable[str], like: Path) -> None:
    """Write a file in one step; who may enter a folder may read it, and nobody else."""
    replace_file(path, "".join(f"{line}\n" for line in lines).encode())
    path.chmod(0o600 | (stat.S_IMODE(like.stat().st_mode) & 0o044))
