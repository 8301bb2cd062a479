"""A call of a server: a request and a reader of its answer, without sending it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from .errors import require_media_type, to_error, unexpected

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PageT = TypeVar("PageT", bound="ListPage")
Image = bytes | str | os.PathLike[str]
segment = partial(quote, safe="")  # of a path


class ListPage(Protocol):
    """A page of a list; `next_cursor` selects the next one, None at the end."""

    next_cursor: str | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request that has not been sent.

    Attributes:
        path: with its parameters quoted.
        read: turns a successful response into the result.
        arguments: of httpx's `request`, besides method and path.
        repeatable: True if sending it again is harmless.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True

    def result(self, response: httpx.Response) -> T:
        """Read a complete response, or raise the FlowGaugeError of an unsuccessful one."""
        if not response.is_success:
            raise to_error(response)
        return self.read(response)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def read_bytes(image: Image) -> bytes:
    """Return the bytes of an image, or read its file."""
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def read_json(kind: type[M]) -> Callable[[httpx.Response], M]:
    """Make a reader of answers in JSON."""

    def read(response: httpx.Response) -> M:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise unexpected(response) from error

    return read


def read_file(path: str, media_type: str) -> Call[bytes]:
    """Make a call that reads a file of a type."""

    def read(response: httpx.Response) -> bytes:
        require_media_type(response, media_type)
        return response.content

    return Call("GET", path, read)
