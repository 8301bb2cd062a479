"""Which media type a client wants: the Accept header of RFC 9110, section 12.5.1."""

from collections.abc import Sequence
from typing import TypeVar

Offer = TypeVar("Offer", bound=str)


def negotiate(header: str | None, offers: Sequence[Offer]) -> Offer | None:
    """Choose what to answer with.

    Each offer gets the quality of the most specific range that matches it; the best quality wins,
    and among equals the first offer. Ranges that cannot be parsed are passed over.

    >>> negotiate("image/*, application/json;q=0.5", ["application/json", "image/png"])
    'image/png'

    Args:
        header: the Accept header; None or empty accepts anything.
        offers: media types in the server's order of preference.

    Returns:
        One of the offers, or None when none is acceptable.
    """
    if header is None or not header.strip():
        return offers[0]
    ranges = [parsed for item in header.split(",") if (parsed := _parse(item)) is not None]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


def _parse(item: str) -> tuple[str, str, float] | None:
    """Split a range like `image/*;q=0.8` into type, subtype and quality."""
    media_range, *parameters = (part.strip() for part in item.lower().split(";"))
    # A lone "*" is no range of the standard, but Java's HttpURLConnection has always sent it.
    kind, slash, subtype = ("*/*" if media_range == "*" else media_range).partition("/")
    if not slash or not kind or not subtype:
        return None
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return (kind, subtype, quality) if 0 <= quality <= 1 else None


def _quality(offer: str, ranges: Sequence[tuple[str, str, float]]) -> float:
    kind, _, subtype = offer.partition("/")
    for wanted in ((kind, subtype), (kind, "*"), ("*", "*")):
        found = [quality for k, s, quality in ranges if (k, s) == wanted]
        if found:
            return max(found)
    return 0.0
