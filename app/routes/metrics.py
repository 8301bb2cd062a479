"""Metrics in Prometheus' text format."""

from typing import Any, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory
from app.dependencies import TelemetryDep
from app.errors.problems import Problem
from app.routes.openapi import documented

router = APIRouter(tags=["operation"])

_EXAMPLE: Final = 'flowgauge_decisions_total{category="bottle",decision="PASS"} 4711.0\n'
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Metrics in Prometheus' text format.", "content": _TEXT},
    **documented("unauthenticated", "forbidden", "rate-limited", "internal"),
}


# Plain, not async: collectors may query the database.
@router.get("/metrics", response_class=Response, responses=_RESPONSES)
def metrics(telemetry: TelemetryDep, caller: MaySeeHistory) -> Response:
    """Return the metrics in Prometheus format. Keys for single categories may not read them."""
    if caller.categories is not None:
        raise Problem(
            "forbidden",
            "Metrics cover all categories, but the key is limited to some. Use a key for all categories.",
        )
    return Response(generate_latest(telemetry.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
