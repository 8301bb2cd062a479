"""Schemas of API keys, sessions and the audit log."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from app.schemas.body import Body
from app.schemas.timestamp import Timestamp

KeyId = Annotated[str, Field(description="16 hexadecimal digits.", examples=["4f1d8a02c7b96e35"])]
Name = Annotated[str, Field(description="A name for people, of visible characters.", examples=["line 3"])]
Categories = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]] | None,
    Field(description="The categories it is valid for; null for all.", examples=[["bottle"]]),
]
Limit = Annotated[int | None, Field(description="Its own limit; null for the server's.", examples=[600])]
_KEY_TEXT = f"fg_4f1d8a02c7b96e35_{'x' * 43}"


class Permission(StrEnum):
    """A permission: routes require it, roles grant it."""

    PREDICT = "predict"  # inspect images
    MODELS = "models"  # see which models there are
    RESULT = "result"  # see one inspection whose id is known, or a part's
    HISTORY = "history"  # search and export the history, its reports, metrics
    REVIEW = "review"  # review decisions, export reviewed images
    TEACH = "teach"  # change products and their images, start jobs
    TUNE = "tune"  # change thresholds and regions of interest
    ADMIN = "admin"  # change models and keys, read the audit log


class Role(StrEnum):
    """A role of a key."""

    LINE = "line"
    VIEWER = "viewer"
    INSPECTOR = "inspector"
    OPERATOR = "operator"
    ADMIN = "admin"


def _require_visible(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be visible characters")
    return name


class NewKey(Body):
    """A key to create."""

    role: Role = Field(description="Gives the key its permissions.", examples=["line"])
    name: Annotated[Name, Field(min_length=1, max_length=128), AfterValidator(_require_visible)]
    categories: Annotated[Categories, Field(min_length=1, max_length=200)] = None
    expires_days: int | None = Field(
        None, description="Days of validity; null for no limit.", ge=1, le=36_500, examples=[365]
    )
    requests_per_minute: Annotated[Limit, Field(ge=1, le=1_000_000)] = None


class Key(BaseModel):
    """A key without its secret."""

    id: KeyId
    name: Name
    role: Role = Field(description="Gives the key its permissions.")
    categories: Categories
    requests_per_minute: Limit
    created: Timestamp = Field(description="Time of creation.")
    expires: Timestamp | None = Field(description="Time from which it is invalid; null for never.")
    revoked: Timestamp | None = Field(description="Time of revocation; null if it is not revoked.")
    valid: bool = Field(description="Whether the service accepts it now.")


class CreatedKey(Key):
    """A key with its secret, which is shown only once."""

    key: str = Field(description="The text to send as X-API-Key.", examples=[_KEY_TEXT])


class KeyList(BaseModel):
    """All keys, the oldest first."""

    keys: list[Key]


class Login(Body):
    """A key to exchange for a session."""

    key: str = Field(description="A key of the service.", max_length=256, examples=[_KEY_TEXT])


class Session(BaseModel):
    """The caller and its permissions."""

    key_id: str | None = Field(
        description="The key's id; null if the service has no keys.", examples=["4f1d8a02c7b96e35"]
    )
    name: Name
    role: Role = Field(description="The key's role.")
    permissions: list[Permission] = Field(description="The role's permissions.", examples=[["predict"]])
    categories: Categories
    csrf_token: str | None = Field(
        description="Writes with this session must carry it as X-CSRF-Token; null if the caller has no "
        "session.",
        examples=["k2d3nY0m8wq5"],
    )


Outcome = Literal["begun", "done", "refused"]


class AuditEntry(BaseModel):
    """The start or the end of an administrative action, or an event that the server recorded."""

    number: int = Field(description="Increases with every entry.", examples=[4711])
    created: Timestamp = Field(description="Time of the entry.")
    actor: str = Field(
        description="A key's id and name, anonymous, command line, or server.",
        examples=["4f1d8a02c7b96e35 line 3"],
    )
    role: str | None = Field(description="The actor's role at that time.", examples=["admin"])
    action: str = Field(description="The action.", examples=["model.activate"])
    target: str = Field(description="The object of the action.", examples=["bottle/20261125T011500-3f9a2c"])
    outcome: Outcome = Field(
        description="An action has two entries: begun, then done or refused. Without the second, it was "
        "interrupted; look at its target for the result.",
        examples=["done"],
    )
    detail: dict[str, Any] = Field(
        description="Further facts. In a final entry, `begun` is the number of the first one.",
        examples=[{"begun": 4710, "reason": "new camera"}],
    )
    request_id: str | None = Field(description="Leads to the server's log.", examples=["6f1c0e52a9"])


class AuditPage(BaseModel):
    """A page of the audit log, the latest first."""

    entries: list[AuditEntry]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one.", examples=["4711"]
    )
