"""Which watchers are at work in a folder, told to those that would do something else with its pictures.

What is taken to be moved lies in one place for all watchers of a folder, and outlasts them: whoever moves
pictures deals with it, one for another category by its own model. So those that run at once must do the same.
Each holds a lock, whose name says what it does; the system lets go of it when the process ends in any way.
"""

import contextlib
import errno
import hashlib
import json
import uuid
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .folder import OWN
from .job import Job

_WATCHERS: Final = "watchers"
# What the names begin with of those that leave pictures where they are: these go well with each other.
_STAYS: Final = "stays"
# Who looks whether a lock is held has it for a moment.
_LOOKED_AT_SECONDS: Final = 1.0
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_NOT_YET: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM)


class InUse:
    """That this watcher is at work in a folder.

    Args:
        job: what it does.
        server: whom it asks.
    """

    def __init__(self, job: Job, server: str) -> None:
        part = None if job.part is None else job.part.pattern
        # Not where it moves them: two machines may name the same share in their own ways.
        what = [server, job.category, job.station, part]
        moves = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self._doing = _STAYS if job.move_to is None else moves
        self._folder = job.root / OWN / _WATCHERS
        self._path = self._folder / f"{self._doing}-{uuid.uuid4().hex}"
        self._lock: FileLock | None = None
        self._has_locks = True

    def begin(self) -> None:
        """Tell others; again where somebody has tidied up meanwhile.

        Where the share has no locks, nobody is told, and nobody found; where it is full, or the folder is
        another user's, nobody is told yet.

        Raises:
            OSError: a watcher that does something else is at work there; or the share fails.
        """
        if not self._has_locks or (self._lock is not None and self._path.exists()):
            return
        self.end()
        lock = FileLock(self._path, thread_local=False)
        try:
            self._folder.mkdir(exist_ok=True)
            lock.acquire(timeout=_LOOKED_AT_SECONDS)
        except (OSError, NotImplementedError) as error:
            _remove(self._path)
            number = getattr(error, "errno", None)
            # Nobody else has this name, so it was not waited for anybody.
            self._has_locks = not isinstance(error, Timeout | NotImplementedError) and number not in _NO_LOCKS
            if self._has_locks and number not in _NOT_YET:
                raise
            # A watcher may be what makes room on a full disk; one in another user's folder can look at least.
        else:
            self._lock = lock
        if not self._has_locks:
            return
        try:
            self._expect_none_else()
        except OSError:
            self.end()
            raise

    def end(self) -> None:
        """Tell others no more; what was found out of the share's locks is forgotten."""
        lock, self._lock, self._has_locks = self._lock, None, True
        if lock is not None:
            _let_go(lock)

    def _expect_none_else(self) -> None:
        for path in self._folder.glob("*"):  # of a folder that is not there, none
            if path == self._path:
                continue
            doing = path.name.partition("-")[0]
            if _is_held(path) and doing != self._doing:
                raise OSError(
                    f"{self._folder.parent.parent}: another watcher is at work in this folder, and one of "
                    "the two has --move-to: it would deal with what is meant for the other, whose --url, "
                    "--category, --station or --part is another one. Give each its own folder"
                )


def _is_held(path: Path) -> bool:
    """Whether a watcher is alive; what one that was killed has left is removed."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # another user's
        return False
    _let_go(lock)
    return False


def _let_go(lock: FileLock) -> None:
    with contextlib.suppress(OSError):  # of a share that is away
        lock.release()
    _remove(Path(lock.lock_file))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # as on Windows, where another watcher looks at it just now
        path.unlink()
