"""`flowgauge keys`: create, list and revoke API keys."""

import json
from typing import Annotated, Any

import typer

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.commands.options import AsJson, History
from app.commands.server_database import open_database
from app.database import clock
from app.database.engine import redact_url
from app.schemas.access import Role
from app.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def keys() -> None:
    """Create, list and revoke API keys in the server's database.

    Set FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server. A running server sees a change within two
    seconds.
    """


@app.command("create")
def create(
    role: Annotated[
        Role,
        typer.Option(
            help="line predicts; viewer reads the history; inspector predicts, reads and reviews; "
            "operator also teaches and tunes; admin may do all."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name for people, such as 'line 3'.")],
    category: Annotated[
        list[str] | None, typer.Option(help="Limit the key to this category. May be repeated.")
    ] = None,
    expires_days: Annotated[int | None, typer.Option(help="Days until the key expires.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Rate limit of this key.")] = None,
    history: History = None,
) -> None:
    """Create a key and print it to standard output. It is shown only once."""
    settings = load_settings(history=history)
    is_new = not settings.has_database
    with open_database(settings, new=True) as database:
        limits: dict[str, Any] = {
            "categories": category or None,
            "expires_days": expires_days,
            "requests_per_minute": requests_per_minute,
        }
        key, text = KeyStore(database).create(COMMAND_LINE, role, name, **limits)
        place = redact_url(database.engine.url)
        typer.echo(f"Key {key.id} with the role {role} is stored as a hash in {place}.", err=True)
        if is_new:
            typer.echo("That database is new: only a server that uses it knows the key.", err=True)
        typer.echo("Keep this key secret and send it as X-API-Key. It is not shown again.", err=True)
    typer.echo(text)


@app.command("list")
def list_keys(as_json: AsJson = False, history: History = None) -> None:
    """List all keys without their secrets, the oldest first, invalid ones included."""
    with open_database(load_settings(history=history)) as database:
        place = redact_url(database.engine.url)
        keys = KeyStore(database).list()
    if as_json:
        typer.echo(json.dumps([key.to_schema().model_dump(mode="json") for key in keys], indent=1))
        return
    for key in keys:
        categories = "all categories" if key.categories is None else ", ".join(sorted(key.categories))
        state = key.invalid_reason(clock.now_ms()) or "valid"
        # repr() escapes control characters: a name is free text.
        typer.echo(f"{key.id}  {key.role:<9}  {state:<15}  {key.name!r}  {categories}")
    if not keys:
        typer.echo(f"There are no keys in {place}: a server with this database needs none.", err=True)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, see `flowgauge keys list`.")],
    history: History = None,
) -> None:
    """Revoke a key and its sessions for ever."""
    with open_database(load_settings(history=history)) as database:
        key = KeyStore(database).revoke(COMMAND_LINE, key_id)
    typer.echo(f"Key {key.id} {key.name!r} is revoked.")
