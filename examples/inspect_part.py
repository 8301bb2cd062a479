"""Inspect the views of a part with the Python client, and see where it differs.

    python examples/inspect_part.py bottle P-000123 top.png side.png

FLOWGAUGE_URL and FLOWGAUGE_KEY say where the server is and who asks. On a line PC with the package
flowgauge-client, flowgauge_client takes the place of app.client.
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
    """Inspect, print what was found, and keep the overlay of what is not good.

    Returns:
        Exit code: 0 where every view passed, 1 where one did not, 2 where that is not known.
    """
    url = os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000")
    try:
        with Client(url, os.environ.get("FLOWGAUGE_KEY"), patience=10) as client:
            for view in views:
                found = client.inspect(category, view, part_id=part_id)
                print(f"{view}: {found.decision}, score {found.score:.3f}, p-value {found.p_value:.3f}")
                if found.decision != "PASS":
                    print(f"  {len(found.regions or [])} regions, {kept_overlay(client, found, view)}")
            part = client.part(part_id, expect=len(views))
    except RefusedError as error:  # this picture will never do
        print(f"{error.type}: {error}", file=sys.stderr)
        return 2
    except (BusyError, UnreachableError) as error:  # later it may
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


def kept_overlay(client: Client, found: Inspection, view: str) -> str:
    """Keep the overlay beside the picture, and say where; without one the decision stands all the same."""
    overlay = Path(f"{view}.overlay.png")
    try:
        overlay.write_bytes(client.overlay(found.inspection_id))
    except (FlowGaugeError, OSError) as error:
        return f"no overlay: {error}"
    return f"see {overlay}"


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
