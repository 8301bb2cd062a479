"""The server's database beside a server, and its audit log of what commands change."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.database.engine import Database


@contextmanager
def opened(settings: Settings, *, new: bool = False) -> "Iterator[Database]":
    """The database of a server, with all tables.

    Args:
        settings: the server's.
        new: whether it may be made.

    Raises:
        DatabaseError: it is not there, cannot be used, or another version of FlowGauge has made it.
    """
    from app.database.engine import Database, DatabaseError

    if not new and not settings.has_database:
        raise DatabaseError(
            f"there is no database in {settings.history.absolute()}: set FLOWGAUGE_HISTORY and "
            "FLOWGAUGE_DATABASE as for the server"
        )
    database = Database(settings.database_url)
    try:
        database.prepare()
        yield database
    finally:
        database.close()


@contextmanager
def audited(action: str, target: str, known: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Write what is done here to the audit log of a server, if there is one.

    Args:
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.
        known: details, JSON, that are known before.

    Yields:
        The detail to be logged at the end, JSON.
    """
    from app.auth.access import COMMAND_LINE
    from app.auth.audit import Audit
    from app.errors.problems import Problem

    settings = load_settings()
    if not settings.has_database:
        typer.echo(
            f"There is no audit log in {settings.history.absolute()}, so this is not written down: set "
            "FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server.",
            err=True,
        )
        yield {}
        return
    with opened(settings) as database:
        audit = Audit(database)
        begun = audit.write(COMMAND_LINE, action, target, "begun", known)
        detail: dict[str, Any] = {"begun": begun, **(known or {})}
        try:
            yield detail
        except (ValueError, Problem) as error:
            audit.write(COMMAND_LINE, action, target, "refused", {**detail, "refusal": str(error)})
            raise
        audit.write(COMMAND_LINE, action, target, "done", detail)
