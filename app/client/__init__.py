"""Clients of a FlowGauge server, on httpx and pydantic alone: `Client`, and `AsyncClient` for asyncio.

A line PC gets them without torch as the package flowgauge-client (clients/), under the name flowgauge_client.
So whatever is imported here and below is imported by relative names.
"""

from ..schemas.events import InspectionEvent, ModelEvent, ReviewEvent, ThresholdsEvent
from ..schemas.history import InspectionSummary, KeptInspection, Part, Verdict
from ..schemas.models import Model, ModelSummary
from ..schemas.predict import BatchAnswer, BatchItem, Decision, Inspection, Picture, Region
from ..schemas.problem import ProblemDetails
from ..schemas.review import Review
from .asynchronous import AsyncClient
from .calls import InspectionFilter, InspectOptions
from .connection import AddressError
from .errors import (
    AccessError,
    BusyError,
    ConflictError,
    FlowGaugeError,
    NotFoundError,
    ProblemError,
    RefusedError,
    ServerError,
    UnexpectedAnswerError,
    UnreachableError,
    UntrustedError,
)
from .events import Event, EventFilter, Gap, Position
from .sync import Client

__all__ = [
    "AccessError",
    "AddressError",
    "AsyncClient",
    "BatchAnswer",
    "BatchItem",
    "BusyError",
    "Client",
    "ConflictError",
    "Decision",
    "Event",
    "EventFilter",
    "FlowGaugeError",
    "Gap",
    "InspectOptions",
    "Inspection",
    "InspectionEvent",
    "InspectionFilter",
    "InspectionSummary",
    "KeptInspection",
    "Model",
    "ModelEvent",
    "ModelSummary",
    "NotFoundError",
    "Part",
    "Picture",
    "Position",
    "ProblemDetails",
    "ProblemError",
    "RefusedError",
    "Region",
    "Review",
    "ReviewEvent",
    "ServerError",
    "ThresholdsEvent",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UntrustedError",
    "Verdict",
]
