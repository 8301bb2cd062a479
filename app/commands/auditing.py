"""What commands beside a server change, in the server's audit log."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from app.settings import Settings, settings_from


@contextmanager
def audited(
    action: str, target: str, known: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> Iterator[dict[str, Any]]:
    """Write what is done here to the audit log of a server, if there is one.

    Args:
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.
        known: details, JSON, that are known before.
        settings: the server's; None for those that the environment names.

    Yields:
        The detail to be logged at the end, JSON.
    """
    from app.access import COMMAND_LINE
    from app.audit import Audit
    from app.database.engine import Database
    from app.problems import Problem

    settings = settings or settings_from()
    if not settings.has_database:
        typer.echo(
            f"There is no audit log in {settings.history.absolute()}, so this is not written down: set "
            "FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server.",
            err=True,
        )
        yield {}
        return
    database = Database(settings.database_url)
    try:
        database.prepare()
        audit = Audit(database)
        begun = audit.write(COMMAND_LINE, action, target, "begun", known)
        detail: dict[str, Any] = {"begun": begun, **(known or {})}
        try:
            yield detail
        except (ValueError, Problem) as error:
            audit.write(COMMAND_LINE, action, target, "refused", {**detail, "refusal": str(error)})
            raise
        audit.write(COMMAND_LINE, action, target, "done", detail)
    finally:
        database.close()
