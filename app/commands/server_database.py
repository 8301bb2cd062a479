"""Access of commands to a server's database and audit log."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.database.engine import Database


@contextmanager
def open_database(settings: Settings, *, new: bool = False) -> "Iterator[Database]":
    """Open a server's database with all its tables; with `new`, create it if it is missing.

    Raises:
        DatabaseError: it is missing, cannot be used, or was made by another version of FlowGauge.
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
    """Write an action of a command to the server's audit log, if there is one.

    Yields:
        The details to log after the action.
    """
    from app.auth.audit import Audit
    from app.auth.permissions import COMMAND_LINE
    from app.errors.problems import Problem

    settings = load_settings()
    if not settings.has_database:
        typer.echo(
            f"There is no audit log in {settings.history.absolute()}, so this action is not logged: set "
            "FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server.",
            err=True,
        )
        yield {}
        return
    with open_database(settings) as database:
        audit = Audit(database)
        begun = audit.write(COMMAND_LINE, action, target, "begun", known)
        detail: dict[str, Any] = {"begun": begun, **(known or {})}
        try:
            yield detail
        except (ValueError, Problem) as error:
            audit.write(COMMAND_LINE, action, target, "refused", {**detail, "refusal": str(error)})
            raise
        audit.write(COMMAND_LINE, action, target, "done", detail)
