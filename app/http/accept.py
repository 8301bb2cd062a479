"""Which media type a client wants: the Accept header of RFC 9110, section 12.5.1."""

from collections.abc import Sequence
from typing import TypeVar

Offer = TypeVar("Offer", bound=str)


def negotiate(header: str | None, offers: Sequence[Offer]) -> Offer | None:
    """Choose what to answer with.

    Each offer gets the quality of the most specific range that matches it; the best quality wins,
    and among equals the first offer.

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
    qualities = dict(map(_parse, header.lower().split(",")))

    def quality(offer: str) -> float:
        # A lone "*" is no range of the standard, but Java's HttpURLConnection has always sent it.
        ranges = (offer, f"{offer.partition('/')[0]}/*", "*/*", "*")
        return next((qualities[wanted] for wanted in ranges if wanted in qualities), 0.0)

    best = max(offers, key=quality)
    return best if quality(best) > 0 else None


def _parse(item: str) -> tuple[str, float]:
    """Split a range like `image/*;q=0.8` into media type and quality; one that cannot be read counts 0."""
    media_range, *parameters = (part.strip() for part in item.split(";"))
    quality = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
    try:
        return media_range, float(quality)
    except ValueError:
        return media_range, 0.0
