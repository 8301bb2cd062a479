"""The audit sample: a random share of the inspections, drawn for review."""

import hashlib


def is_drawn(inspection_id: str, share: float) -> bool:
    """Draw a share of the inspections by their ids.

    The server makes the ids from random bits, and a digest of them is uniform. So a draw depends on no score,
    no decision and no client, and anybody can repeat it. A larger share includes a smaller one.
    """
    digest = hashlib.sha256(inspection_id.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
