"""Which watchers take pictures out of a folder, told to those that would do something else with them.

What is taken lies in one place for all watchers of a folder, and outlasts them: whoever is there deals with
it, one for another category by its own model. So those that run at once must do the same. Each holds a lock,
whose name begins with what it does; the system lets go of it when the process ends, however it ends.
"""

import contextlib
import hashlib
import json
import uuid
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .folder import OWN
from .job import Job

_WATCHERS: Final = "watchers"
# Who looks whether a lock is held has it for a moment.
_LOOKED_AT_SECONDS: Final = 1.0


class InUse:
    """That a folder's pictures are taken by this watcher.

    Args:
        job: what it does.
    """

    def __init__(self, job: Job) -> None:
        part = None if job.part is None else job.part.pattern
        what = [job.category, job.station, part, str(job.move_to and job.move_to.resolve())]
        self._doing = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self._root = job.root
        self._lock: FileLock | None = None

    def begin(self) -> None:
        """Tell others; again where somebody has tidied up meanwhile, or mounted a share over the folder.

        Raises:
            OSError: a watcher that does something else takes pictures there; or the folder is not there.
        """
        if self._lock is not None and Path(self._lock.lock_file).exists():
            return
        self.end()
        folder = self._root / OWN / _WATCHERS
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{self._doing}-{uuid.uuid4().hex}", thread_local=False)
        with contextlib.suppress(NotImplementedError):  # there are no locks on this share
            lock.acquire(timeout=_LOOKED_AT_SECONDS)
            self._lock = lock
        try:
            expect_unused(self._root, self._doing)
        except OSError:
            self.end()
            raise

    def end(self) -> None:
        """Tell others that it takes none any more."""
        if self._lock is not None:
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock = None


def expect_unused(root: Path, doing: str = "none") -> None:
    """Expect that no watcher takes pictures out of a folder that does something else with them.

    Args:
        root: the watched folder.
        doing: what may be done with them, as locks begin.

    Raises:
        OSError: one does, or it cannot be found out.
    """
    folder = root / OWN / _WATCHERS
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.name.startswith(f"{doing}-") and _is_held(path):
            raise OSError(
                f"{root}: a watcher with another --category, --station, --part or --move-to takes pictures "
                "out of this folder, and would deal with those of this one, too: give each its own folder"
            )


def _is_held(path: Path) -> bool:
    """Whether a watcher is alive; what one that was killed has left is removed."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # another user's, or there are no locks on this share
        return False
    lock.release()
    path.unlink(missing_ok=True)
    return False
