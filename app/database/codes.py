"""A column type for short lists of codes."""

from collections.abc import Sequence

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator


class Codes(TypeDecorator[Sequence[str]]):
    """A list of codes, as text with spaces in between; null for an empty one."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, _: Dialect) -> str | None:
        return " ".join(value or ()) or None

    def process_result_value(self, value: str | None, _: Dialect) -> list[str]:
        return (value or "").split()
