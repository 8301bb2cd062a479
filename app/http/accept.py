"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from typing import TypeVar

Offer = TypeVar("Offer", bound=str)


def negotiate(header: str | None, offers: Sequence[Offer]) -> Offer | None:
    """Choose the media type of a response.

    Each offer gets the quality of the most specific range that matches it. The best quality wins; ties go to
    the first offer.

    >>> negotiate("image/*, application/json;q=0.5", ["application/json", "image/png"])
    'image/png'

    Args:
        header: the Accept header; None or empty accepts anything.
        offers: media types in the server's order of preference.

    Returns:
        One of the offers; None if none is acceptable.
    """
    if header is None or not header.strip():
        return offers[0]
    qualities = dict(map(_parse, header.lower().split(",")))

    def quality(offer: str) -> float:
        # A single "*" is not in the standard, but Java's HttpURLConnection sends it.
        ranges = (offer, f"{offer.partition('/')[0]}/*", "*/*", "*")
        return next((qualities[media_range] for media_range in ranges if media_range in qualities), 0.0)

    best = max(offers, key=quality)
    return best if quality(best) > 0 else None


def _parse(item: str) -> tuple[str, float]:
    """Split a range such as `image/*;q=0.8` into media type and quality; an invalid quality is 0."""
    media_range, *parameters = (part.strip() for part in item.split(";"))
    quality = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
    try:
        return media_range, float(quality)
    except ValueError:
        return media_range, 0.0
