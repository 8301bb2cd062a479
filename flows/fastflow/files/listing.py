"""Long lists in messages: the first of them, and how many more there are."""

from collections.abc import Sequence


def join_first(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """At most so many texts in a row."""
    shown = between.join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"


def indent_first(texts: Sequence[str], most: int) -> list[str]:
    """At most so many texts, each a line that is indented."""
    shown = [f"  {text}" for text in texts[:most]]
    return shown if len(texts) <= most else [*shown, f"  and {len(texts) - most} more"]
