"""The way into the journal: one thread appends what arrives, in the order in which it arrives."""

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from app.history.entry import Entry
from app.history.journal import Journal, JournalFull
from app.history.recent_answers import RecentAnswers
from app.history.settling import Settling
from app.problems import Problem

logger = logging.getLogger("flowgauge.history")


class Appender:
    """Appends entries to a journal.

    Args:
        journal: of the history.
        settling: is told of every entry before anybody can be answered, and when it is in the journal.
        recent: remembers what was answered.
        wake: called when there is something to file.
    """

    def __init__(
        self, journal: Journal, settling: Settling, recent: RecentAnswers, wake: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._settling = settling
        self._recent = recent
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, "journal")
        # What has not begun, by its number in `settling`.
        self._arrived: OrderedDict[int, tuple[Entry, Future[None]]] = OrderedDict()
        self._lock = threading.Lock()

    async def append(self, entry: Entry) -> None:
        """Append an entry; when this returns, the journal has it.

        When the caller is cancelled meanwhile, an entry that has not begun is forgotten at once, picture and
        all. One that has begun may be kept, and is waited for under its names until that is known.

        Raises:
            Problem: history-unavailable; it is not kept.
            ValueError: the entry is not one.
            RuntimeError: the appender is closed.
        """
        names = _names(entry.row)
        future: Future[None] = Future()
        with self._lock:
            self._thread.submit(self._append_next)
            number = self._settling.arrive(names)
            self._arrived[number] = entry, future
        try:
            await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancel():
                with self._lock:
                    self._arrived.pop(number, None)
                self._settling.forget(number)
            raise

    def close(self) -> None:
        """Append what has arrived, and end the thread."""
        self._thread.shutdown()

    def _append_next(self) -> None:
        with self._lock:
            if not self._arrived:  # whoever brought it has left
                return
            number, (entry, future) = self._arrived.popitem(last=False)
        if not future.set_running_or_notify_cancel():
            return
        try:
            position = self._append(entry)
        except BaseException as error:
            self._settling.forget(number)
            future.set_exception(error)
        else:
            self._recent.add(entry.row)
            self._settling.appended(number, position)
            self._wake()
            future.set_result(None)

    def _append(self, entry: Entry) -> int:
        record = entry.record()
        try:
            return self._journal.append(record)
        except JournalFull as error:
            logger.warning("an inspection could not be kept: %s", error, exc_info=error.__cause__)
            raise Problem(
                "history-unavailable",
                f"The history takes no more: {error}. The image was inspected and is not kept, so it gets no "
                "answer; store=false inspects without keeping.",
            ) from error


def _names(row: Mapping[str, Any]) -> list[Hashable]:
    """What an inspection can be asked for by."""
    names: list[Hashable] = [("inspection", row["id"])]
    if row.get("part_id") is not None:
        names.append(("part", row["part_id"]))
    if row.get("idempotency_key") is not None:
        names.append(("idempotency key", row.get("key_id"), row["idempotency_key"]))
    return names
