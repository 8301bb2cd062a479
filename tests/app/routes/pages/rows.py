"""Rows of inspections whose answers are as those of the service, for pages that show them."""

import json
from typing import Any

from tests.app.history.rows import add, row

__all__ = ["add", "answered"]


def answered(*, reject: float = 3.0, review: float | None = None, **columns: Any) -> dict[str, Any]:
    """A row with a whole answer; keyword arguments are columns."""
    made = row(**columns)
    made["answer"] = json.dumps(
        {
            "inspection_id": made["id"],
            "threshold": {
                "reject": reject,
                "review": review,
                "pixel": 2.0,
                "target_fpr": 0.05,
                "certified": True,
                "achievable_fpr": 0.04,
                "fpr_at_95_confidence": 0.117,
                "n_calibration": 24,
            },
            "warnings": columns.get("warnings", []),
            "regions": [{"contour": [[10, 10], [20, 10], [20, 30]], "bbox": [10, 10, 10, 20]}],
            "image": {"width": 64, "height": 48},
            "links": {"inspection": f"/v1/inspections/{made['id']}"},
            "timing_ms": {"total": 12.0},
        }
    )
    return made
