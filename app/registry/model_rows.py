"""The table of the small files of models that servers share."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.database import locks
from app.database.notifications import notify
from app.database.shared_tables import model_files

_COLUMNS: Final = model_files.columns


class SmallFile(NamedTuple):
    """A file in the folder of a category, such as 20261125T011500-3f9a2c/manifest.json."""

    category: str
    name: str
    data: bytes | None  # None for a deleted one


def store(connection: Connection, files: Sequence[SmallFile]) -> None:
    """Store changed files, and notify all servers at the commit."""
    if not files:
        return
    locks.take(connection, locks.MODELS)  # until the commit, so that no smaller number appears later
    last = last_number(connection)
    insertion = insert(model_files)
    changed = {"number": insertion.excluded.number, "data": insertion.excluded.data}
    connection.execute(
        insertion.on_conflict_do_update(index_elements=["category", "name"], set_=changed),
        [{**file._asdict(), "number": last + i} for i, file in enumerate(files, 1)],
    )
    notify(connection, "models")


def last_number(connection: Connection) -> int:
    """Return the number of the last change; 0 if there was none."""
    return connection.scalar(select(func.max(_COLUMNS.number))) or 0


def read_after(connection: Connection, number: int) -> Iterator[tuple[int, SmallFile]]:
    """Yield the files that were changed after a number, each with its own, in their order."""
    query = select(model_files).where(_COLUMNS.number > number).order_by(_COLUMNS.number)
    for row in connection.execute(query.execution_options(yield_per=50)):
        yield row.number, SmallFile(row.category, row.name, row.data)


def read_data(connection: Connection, category: str, name: str) -> bytes | None:
    """Return the data of a file; None if there is none."""
    data: bytes | None = connection.scalar(
        select(_COLUMNS.data).where(_COLUMNS.category == category, _COLUMNS.name == name)
    )
    return data


def find_below(connection: Connection, category: str, name: str) -> list[SmallFile]:
    """Find a file, or all files of a folder."""
    is_below = or_(_COLUMNS.name == name, _COLUMNS.name.startswith(f"{name}/", autoescape=True))
    query = select(_COLUMNS.name, _COLUMNS.data).where(_COLUMNS.category == category, is_below)
    rows = connection.execute(query.where(_COLUMNS.data.is_not(None)))
    return [SmallFile(category, row.name, row.data) for row in rows]
