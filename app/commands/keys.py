"""`flowgauge keys`: who may use the service."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.access import COMMAND_LINE, Role
from app.database import clock
from app.database.engine import Database, DatabaseError, shown
from app.keys import Key, Keys
from app.settings import Settings, settings_from

History = Annotated[
    Path | None,
    typer.Option(help="The server's history folder, where its database is.", show_default="history"),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def keys() -> None:
    """Who may use the service, and for what.

    Works on the server's database, whether the server runs or not: FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE
    must be set as for the server. A running one sees a change within two seconds.
    """


@app.command("create")
def create(
    role: Annotated[
        Role,
        typer.Option(
            help="line predicts; viewer sees the history; operator also reviews and tunes; admin does all."
        ),
    ],
    name: Annotated[str, typer.Option(help="What people call it, such as 'line 3'.")],
    category: Annotated[
        list[str] | None, typer.Option(help="The only category it is for; may be repeated.")
    ] = None,
    expires_days: Annotated[float | None, typer.Option(help="Days for which it is valid.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Its own limit.")] = None,
    history: History = None,
) -> None:
    """Make a key and print it, alone on standard output. It cannot be had again."""
    settings = settings_from(history=history)
    is_new = not settings.has_database
    with _database(settings) as database:
        key, text = Keys(database).create(
            COMMAND_LINE,
            role,
            name,
            categories=category or None,
            expires_days=expires_days,
            requests_per_minute=requests_per_minute,
        )
        place = shown(database.engine.url)
        typer.echo(f"Key {key.id} of role {role} is kept, as a hash, in {place}.", err=True)
        if is_new:
            typer.echo(
                "That database is new: only a server that is started on it will know the key.", err=True
            )
        typer.echo("Keep what follows secret, and send it as X-API-Key. It is not shown again.", err=True)
    typer.echo(text)


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    history: History = None,
) -> None:
    """List all keys, the oldest first, with those that are no longer valid; never their secrets."""
    with _database(_of_a_server(history)) as database:
        place = shown(database.engine.url)
        rows = [_row(key) for key in Keys(database).list()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        categories = "all categories" if row["categories"] is None else ", ".join(row["categories"])
        # As Python would write it: a name is free text, and this is a terminal.
        typer.echo(f"{row['id']}  {row['role']:<8}  {row['state']:<15}  {row['name']!r}  {categories}")
    if not rows:
        typer.echo(f"There are no keys in {place}: a service with this database asks for none.", err=True)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `flowgauge keys list`.")],
    history: History = None,
) -> None:
    """Make a key and its sessions invalid, for ever."""
    with _database(_of_a_server(history)) as database:
        key = Keys(database).revoke(COMMAND_LINE, key_id)
    typer.echo(f"Key {key.id} {key.name!r} is revoked.")


def _of_a_server(history: Path | None) -> Settings:
    """The settings; what is not there has no keys, which must not be taken for a service that asks for none.

    Raises:
        DatabaseError: there is no database.
    """
    settings = settings_from(history=history)
    if not settings.has_database:
        raise DatabaseError(
            f"there is no database in {settings.history.absolute()}: set FLOWGAUGE_HISTORY and "
            "FLOWGAUGE_DATABASE as for the server, or name its folder with --history"
        )
    return settings


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    try:
        database.prepare()
        yield database
    finally:
        database.close()


def _row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "state": key.fault(clock.now_ms()) or "valid",
        "categories": None if key.categories is None else sorted(key.categories),
        "requests_per_minute": key.requests_per_minute,
        "created": clock.iso(key.created_ms),
        "expires": None if key.expires_ms is None else clock.iso(key.expires_ms),
        "revoked": None if key.revoked_ms is None else clock.iso(key.revoked_ms),
    }
