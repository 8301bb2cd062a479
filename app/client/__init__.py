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
from .calls import Search, Wishes
from .connection import AddressError
from .errors import (
    AccessError,
    BusyError,
    ConflictError,
    DeadlineExceededError,
    DrainingError,
    FlowGaugeError,
    ForbiddenError,
    HistoryUnavailableError,
    IdempotencyKeyReusedError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelLoadingError,
    NotAcceptableError,
    NotFoundError,
    PreconditionFailedError,
    PreconditionRequiredError,
    ProblemError,
    QueueFullError,
    RateLimitedError,
    RefusedError,
    RejectedBundleError,
    StateError,
    TooLargeError,
    UnauthenticatedError,
    UndecodableImageError,
    UnexpectedAnswerError,
    UnknownError,
    UnknownInspectionError,
    UnknownModelError,
    UnreachableError,
    UnsupportedMediaTypeError,
    UploadStalledError,
)
from .events import Event, Gap, Listening
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
    "DeadlineExceededError",
    "Decision",
    "DrainingError",
    "Event",
    "FlowGaugeError",
    "ForbiddenError",
    "Gap",
    "HistoryUnavailableError",
    "IdempotencyKeyReusedError",
    "Inspection",
    "InspectionEvent",
    "InspectionSummary",
    "InternalError",
    "InvalidRequestError",
    "KeptInspection",
    "Listening",
    "MethodNotAllowedError",
    "Model",
    "ModelEvent",
    "ModelLoadingError",
    "ModelSummary",
    "NotAcceptableError",
    "NotFoundError",
    "Part",
    "Picture",
    "PreconditionFailedError",
    "PreconditionRequiredError",
    "ProblemDetails",
    "ProblemError",
    "QueueFullError",
    "RateLimitedError",
    "RefusedError",
    "Region",
    "RejectedBundleError",
    "Review",
    "ReviewEvent",
    "Search",
    "StateError",
    "ThresholdsEvent",
    "TooLargeError",
    "UnauthenticatedError",
    "UndecodableImageError",
    "UnexpectedAnswerError",
    "UnknownError",
    "UnknownInspectionError",
    "UnknownModelError",
    "UnreachableError",
    "UnsupportedMediaTypeError",
    "UploadStalledError",
    "Verdict",
    "Wishes",
]
