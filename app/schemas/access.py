"""What goes over the wire about who may do what: keys, sessions, the audit log."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from app.schemas.body import Body
from app.schemas.timestamp import Timestamp

KeyId = Annotated[str, Field(description="16 hexadecimal digits.", examples=["4f1d8a02c7b96e35"])]
Name = Annotated[str, Field(description="What people call it: visible characters.", examples=["line 3"])]
Categories = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]] | None,
    Field(description="The only categories it is for; null for all.", examples=[["bottle"]]),
]
Limit = Annotated[int | None, Field(description="Its own limit; null for the server's.", examples=[600])]
_KEY_TEXT = f"fg_4f1d8a02c7b96e35_{'x' * 43}"


class Permission(StrEnum):
    """A permission, which routes ask for and roles have."""

    PREDICT = "predict"  # inspect images
    MODELS = "models"  # see which models there are
    RESULT = "result"  # see one inspection whose id is known, or a part's
    HISTORY = "history"  # search and export the history, its reports, metrics
    REVIEW = "review"  # say whether a decision was right, export reviewed pictures
    TUNE = "tune"  # change thresholds and regions of interest
    ADMIN = "admin"  # change models and keys, read the audit log


class Role(StrEnum):
    """A role of a key."""

    LINE = "line"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def _require_visible(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be visible characters")
    return name


class NewKey(Body):
    """A key to be made."""

    role: Role = Field(description="What it may do.", examples=["line"])
    name: Annotated[Name, Field(min_length=1, max_length=128), AfterValidator(_require_visible)]
    categories: Annotated[Categories, Field(min_length=1, max_length=200)] = None
    expires_days: int | None = Field(
        None, description="Days for which it is valid; null for always.", ge=1, le=36_500, examples=[365]
    )
    requests_per_minute: Annotated[Limit, Field(ge=1, le=1_000_000)] = None


class Key(BaseModel):
    """A key, without its secret."""

    id: KeyId
    name: Name
    role: Role = Field(description="What it may do.")
    categories: Categories
    requests_per_minute: Limit
    created: Timestamp = Field(description="When it was made.")
    expires: Timestamp | None = Field(description="From when on it is invalid; null for never.")
    revoked: Timestamp | None = Field(description="When it was revoked; null if it was not.")
    valid: bool = Field(description="Whether it opens the service now.")


class CreatedKey(Key):
    """A key with its secret, which cannot be had again."""

    key: str = Field(description="What to send as X-API-Key.", examples=[_KEY_TEXT])


class KeyList(BaseModel):
    """All keys, the oldest first."""

    keys: list[Key]


class Login(Body):
    """A key to be exchanged for a session."""

    key: str = Field(description="A key of the service.", max_length=256, examples=[_KEY_TEXT])


class Session(BaseModel):
    """Who the caller is, and what the caller may do."""

    key_id: str | None = Field(
        description="The key's id; null where the service has no keys.", examples=["4f1d8a02c7b96e35"]
    )
    name: Name
    role: Role = Field(description="The key's role.")
    permissions: list[Permission] = Field(description="What the role may do.", examples=[["predict"]])
    categories: Categories
    csrf_token: str | None = Field(
        description="What writes with this session must carry as X-CSRF-Token; null where the caller did not "
        "come with a session.",
        examples=["k2d3nY0m8wq5"],
    )


Outcome = Literal["begun", "done", "refused"]


class AuditEntry(BaseModel):
    """The begin or the end of an administrative act, or what the server has noticed."""

    number: int = Field(description="Counts up.", examples=[4711])
    created: Timestamp = Field(description="When it was.")
    actor: str = Field(
        description="Whose act: a key's id and name, anonymous, command line, or the server itself.",
        examples=["4f1d8a02c7b96e35 line 3"],
    )
    role: str | None = Field(description="The actor's role at that time.", examples=["admin"])
    action: str = Field(description="What was done, or was to be done.", examples=["model.activate"])
    target: str = Field(description="To what.", examples=["bottle/20261125T011500-3f9a2c"])
    outcome: Outcome = Field(
        description="An act has two entries: begun, and how it ended. Without an end it was cut off, and "
        "what became of it is seen in what it was about.",
        examples=["done"],
    )
    detail: dict[str, Any] = Field(
        description="What else there is to know; of an end, `begun` is the number of its begin.",
        examples=[{"begun": 4710, "reason": "new camera"}],
    )
    request_id: str | None = Field(description="Leads to the server's log.", examples=["6f1c0e52a9"])


class AuditPage(BaseModel):
    """A page of the audit log, the latest first."""

    entries: list[AuditEntry]
    next_cursor: str | None = Field(
        description="Where the next page begins; null on the last one.", examples=["4711"]
    )
