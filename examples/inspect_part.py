"""Inspect all views of a part with the Python client.

    python examples/inspect_part.py bottle P-000123 top.png side.png

FLOWGAUGE_URL is the server's address, FLOWGAUGE_KEY the key. On a line PC that has the small package
flowgauge-client, import flowgauge_client instead of app.client.
"""

import os
import sys
from pathlib import Path

from app.client import (
    AddressError,
    BusyError,
    Client,
    FlowGaugeError,
    Inspection,
    RefusedError,
    UnreachableError,
)


def main(category: str, part_id: str, *views: str) -> int:
    """Inspect and print each view, and save the overlays of those that did not pass.

    Returns:
        Exit code: 0 if every view passed, 1 if one did not, 2 if there is no decision.
    """
    url = os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000")
    try:
        with Client(url, os.environ.get("FLOWGAUGE_KEY"), patience=10) as client:
            for view in views:
                answer = client.inspect(category, view, part_id=part_id)
                print(f"{view}: {answer.decision}, score {answer.score:.3f}, p-value {answer.p_value:.3f}")
                if answer.decision != "PASS":
                    print(f"  {len(answer.regions or [])} regions, {save_overlay(client, answer, view)}")
            part = client.part(part_id, expect=len(views))
    except RefusedError as error:  # the image is wrong; trying again does not help
        print(f"{error.type}: {error}", file=sys.stderr)
        return 2
    except (BusyError, UnreachableError) as error:
        print(f"try again: {error}", file=sys.stderr)
        return 2
    except (FlowGaugeError, AddressError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if part.decision is None:
        print(f"{part_id}: fewer than {len(views)} views are kept", file=sys.stderr)
        return 2
    print(f"{part_id}: {part.decision}")
    return 0 if part.decision == "PASS" else 1


def save_overlay(client: Client, inspection: Inspection, view: str) -> str:
    """Save the overlay beside the image, and describe the result. A failure does not change the decision."""
    overlay = Path(f"{view}.overlay.png")
    try:
        overlay.write_bytes(client.overlay(inspection.inspection_id))
    except (FlowGaugeError, OSError) as error:
        return f"no overlay: {error}"
    return f"see {overlay}"


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
