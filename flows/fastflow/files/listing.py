"""Long lists in messages: the first entries and the number of the others."""

from collections.abc import Sequence


def join_first(texts: Sequence[str], max_shown: int, separator: str = ", ") -> str:
    """Join the first texts and append the number of the others."""
    shown = separator.join(texts[:max_shown])
    return shown if len(texts) <= max_shown else f"{shown} and {len(texts) - max_shown} more"


def indent_first(texts: Sequence[str], max_shown: int) -> list[str]:
    """Indent the first texts, one per line, and append the number of the others."""
    shown = [f"  {text}" for text in texts[:max_shown]]
    return shown if len(texts) <= max_shown else [*shown, f"  and {len(texts) - max_shown} more"]
