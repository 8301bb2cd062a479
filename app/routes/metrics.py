"""What monitoring reads: Prometheus' text format, or OpenMetrics where that is asked for."""

from typing import Any, Final

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from app.access import MaySeeHistory
from app.dependencies import TelemetryPart
from app.openapi import documented
from app.problems import Problem

router = APIRouter(tags=["operation"])

_EXAMPLE: Final = 'flowgauge_decisions_total{category="bottle",decision="PASS"} 4711.0\n'
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Metrics in Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


# Plain, not async: readers may ask the database.
@router.get(
    "/metrics",
    response_class=Response,
    responses={**_ANSWER, **documented("unauthenticated", "forbidden", "rate-limited", "internal")},
)
def metrics(request: Request, telemetry: TelemetryPart, caller: MaySeeHistory) -> Response:
    """Give all metrics, of every category; so a key that is for some categories alone may not see them."""
    if caller.categories is not None:
        raise Problem("forbidden", "Metrics are of all categories; the key is for some of them.")
    try:
        encode, media_type = choose_encoder(", ".join(request.headers.getlist("accept")))
    except TypeError:  # of a version that is none
        encode, media_type = choose_encoder("")
    return Response(encode(telemetry.registry), headers={"Content-Type": media_type})
