"""Work on many files of a store."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from app.storage.store import Store

T = TypeVar("T")
R = TypeVar("R")

_PARALLEL: Final = 8


def for_each(store: Store, task: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function on each item; on several at a time if each waits for a network."""
    if store.folder is not None:
        return [task(item) for item in items]
    with ThreadPoolExecutor(_PARALLEL) as threads:
        return [*threads.map(task, items)]
