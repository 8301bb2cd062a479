"""Query parameters that are texts of a client's own: a category, a part, a station."""

from typing import Any

from fastapi import Query

from app.schemas.texts import MAX_TEXT, TEXT_PATTERN


def text_query(description: str, example: str, *, least: int | None = None) -> Any:
    """A query parameter within the limits of texts, of so many characters at least."""
    return Query(
        description=description,
        min_length=least,
        max_length=MAX_TEXT,
        pattern=TEXT_PATTERN,
        examples=[example],
    )
