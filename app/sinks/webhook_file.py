"""The file of webhooks: who is told of inspections.

webhooks:
  - name: mes
    url: https://mes.plant.example/flowgauge
    secret_file: /etc/flowgauge/mes.secret
    decisions: [REVIEW, REJECT]
    categories: [bottle]
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from app.schemas.predict import Decision
from app.sinks.errors import SinkError, Wrong
from app.sinks.signing import read_secret
from app.sinks.tls import trusting
from flows.fastflow.plain_files import FileError, read_file

_MAX_BYTES: Final = 1024 * 1024


class _Part(BaseModel):
    # What is wrong may be a secret: errors do not show it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Webhook(_Part):
    """A receiver.

    Attributes:
        name: its own; its position and its failed deliveries are kept under it.
        url: where to send to.
        secret: that signs, whsec_ and base64; or secret_file names a file with it.
        decisions: only these; all where it is left out.
        categories: only these; all where it is left out.
        attempts: after so many that the receiver has answered with an error, an event is given up.
        timeout_seconds: for a free connection, for connecting, and for the answer, each.
        ca: PEM file of the authority that signed the receiver's certificate.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    url: str
    secret: SecretStr | None = None
    secret_file: Path | None = None
    decisions: Annotated[frozenset[Decision], Field(min_length=1)] | None = None
    categories: Annotated[frozenset[str], Field(min_length=1)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = 10
    timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10
    ca: Path | None = None

    @field_validator("url")
    @classmethod
    def _expect_url(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for what is none
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or not (url.isascii() and url.isprintable())
        ):
            raise ValueError("must look like https://HOST/PATH")
        if parts.username is not None or parts.password is not None or parts.fragment or " " in url:
            raise ValueError("must hold neither a user nor a password nor a fragment")
        return url

    @property
    def host(self) -> str:
        """The URL's host, in lower case."""
        return urlsplit(self.url).hostname or ""

    @model_validator(mode="after")
    def _expect_one_secret(self) -> Self:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("needs either secret or secret_file")
        return self

    def key(self) -> bytes:
        """What signs.

        Raises:
            SinkError: the secret is none, or its file cannot be read.
        """
        try:
            text = self.secret.get_secret_value() if self.secret else _read(self.secret_file or Path())
            return read_secret(text.strip())
        except SinkError as error:
            raise SinkError(f"the secret of webhook {self.name}: {error}") from error

    def tls(self) -> ssl.SSLContext:
        """What connects.

        Raises:
            SinkError: `ca` cannot be read.
        """
        return trusting(self.ca, f"the `ca` of webhook {self.name}")


class _File(_Part):
    webhooks: tuple[Webhook, ...]

    @model_validator(mode="after")
    def _expect_names_of_their_own(self) -> Self:
        if len({webhook.name for webhook in self.webhooks}) < len(self.webhooks):
            raise ValueError("two webhooks have one name")
        return self


def read_webhooks(path: Path) -> Sequence[Webhook]:
    """Read the file, and make sure that every secret and every authority can be read.

    Raises:
        SinkError: a line for everything that is wrong.
    """
    try:
        file = _File.model_validate(yaml.safe_load(_read(path)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise SinkError(f"FLOWGAUGE_WEBHOOKS: {path} is no YAML{where}") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise SinkError("\n".join(f"FLOWGAUGE_WEBHOOKS: {path}: {line}" for line in lines)) from error
    wrong = Wrong()
    for webhook in file.webhooks:
        with wrong.collected():
            webhook.key()
        with wrong.collected():
            webhook.tls()
    wrong.tell()
    return file.webhooks


def _read(path: Path) -> str:
    try:
        return read_file(path, _MAX_BYTES).decode()
    except OSError as error:
        raise SinkError(f"{path} cannot be read: {error.strerror}") from error
    except (FileError, UnicodeDecodeError) as error:
        raise SinkError(f"{path} cannot be read: it must be a file of text") from error
