"""The YAML file of webhooks.

webhooks:
  - name: mes
    url: https://mes.plant.example/flowgauge
    secret_file: /etc/flowgauge/mes.secret
    decisions: [REVIEW, REJECT]
    categories: [bottle]
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
    field_validator,
    model_validator,
)

from app.events.sinks.config import SinkError
from app.schemas.predict import Decision

_PREFIX: Final = "whsec_"
_MIN_BYTES, _MAX_BYTES = 24, 64


class _StrictModel(BaseModel):
    # A wrong value may be a secret: errors must not show it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Webhook(_StrictModel):
    """A receiver of inspections.

    Attributes:
        name: unique; identifies its position and its failed deliveries.
        secret: signing key; in the file whsec_ and base64, or secret_file names a file with that.
        decisions: to send; all by default.
        categories: to send; all by default.
        attempts: failed responses after which an event is given up.
        timeout_seconds: each for a free connection, for connecting and for the response.
        ca: PEM file of the authority that signed the receiver's certificate.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    url: HttpUrl
    secret: Annotated[bytes, BeforeValidator(lambda text: read_secret(str(text))), Field(repr=False)]
    decisions: Annotated[frozenset[Decision], Field(min_length=1)] | None = None
    categories: Annotated[frozenset[str], Field(min_length=1)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = 10
    timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10
    ca: Path | None = None

    @field_validator("url")
    @classmethod
    def _refuse_credentials(cls, url: HttpUrl) -> HttpUrl:
        if url.username is not None or url.password is not None or url.fragment is not None:
            raise ValueError("must contain neither a user nor a password nor a fragment")
        return url

    @model_validator(mode="before")
    @classmethod
    def _read_secret_file(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "secret_file" not in given:
            return given
        rest = dict(given)
        path = rest.pop("secret_file")
        if "secret" in rest:
            raise ValueError("needs either secret or secret_file")
        return {**rest, "secret": _read(Path(str(path))).strip()}

    @property
    def host(self) -> str:
        """The URL's host, in lower case."""
        return self.url.host or ""


class _WebhookFile(_StrictModel):
    webhooks: tuple[Webhook, ...]

    @field_validator("webhooks")
    @classmethod
    def _require_distinct_names(cls, webhooks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        if len({webhook.name for webhook in webhooks}) < len(webhooks):
            raise ValueError("two webhooks have the same name")
        return webhooks


def read_webhooks(path: Path) -> Sequence[Webhook]:
    """Read the file and the secret files that it names.

    Raises:
        SinkError: one line per fault.
    """
    try:
        return _WebhookFile.model_validate(yaml.safe_load(_read(path))).webhooks
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise SinkError(f"FLOWGAUGE_WEBHOOKS: {path} is not valid YAML{where}") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise SinkError("\n".join(f"FLOWGAUGE_WEBHOOKS: {path}: {line}" for line in lines)) from error


def read_secret(text: str) -> bytes:
    """Decode a secret such as whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD to its key.

    Raises:
        SinkError: it is not valid.
    """
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(_PREFIX) or not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise SinkError(
            f"the secret must be {_PREFIX} and 24 to 64 random bytes in base64; make one with: "
            f"echo {_PREFIX}$(openssl rand -base64 32)"
        )
    return key


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SinkError(f"{path} cannot be read: {error}") from error
