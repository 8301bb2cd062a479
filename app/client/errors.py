"""What can go wrong when a server is asked.

FlowGaugeError
    UnreachableError            there was no answer, or none that can be unpacked
        UntrustedError          the server's certificate cannot be verified
    UnexpectedAnswerError       an answer, but none of FlowGauge
    UnsendableError             no request can be made of what was given, so nobody was asked
    ProblemError                FlowGauge said what is wrong: `type`, `detail`, `status`, `request_id`
        RefusedError            with what was sent: sent again, it would be refused again
            InvalidRequestError, NotAcceptableError, MethodNotAllowedError, TooLargeError,
            UnsupportedMediaTypeError, UndecodableImageError, RejectedBundleError
        AccessError             with the key
            UnauthenticatedError, ForbiddenError
        UnknownError            it is not there
            NotFoundError, UnknownModelError, UnknownInspectionError, FilesLostError
        StateError              somebody was faster, or it does not fit
            ConflictError, IdempotencyKeyReusedError, PreconditionFailedError, PreconditionRequiredError
        BusyError               not now; the same may work later, after `retry_after` seconds
            UploadStalledError, RateLimitedError, QueueFullError, ModelLoadingError, HistoryUnavailableError,
            DrainingError
        DeadlineExceededError   not done in the time that there was
        InternalError           a defect of the server
"""

import ssl
from collections.abc import Mapping
from typing import Final

import httpx
from pydantic import ValidationError

from ..schemas.problem import ProblemDetails


class FlowGaugeError(ValueError):
    """A server was asked, and did not give what was asked for."""


class UnreachableError(FlowGaugeError):
    """There was no answer: no network, no server, none in time, or none whose bytes can be unpacked.

    Attributes:
        sent: whether the server may have got the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UntrustedError(UnreachableError):
    """The server's certificate cannot be verified: nothing was sent, and asking again does not help."""


class UnexpectedAnswerError(FlowGaugeError):
    """The answer is none of FlowGauge: of a proxy, of another server.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def server_is_away(self) -> bool:
        """Whether proxies say so while the server behind them restarts or hangs (RFC 9110, 15.6.3 to 5)."""
        return self.status in (502, 503, 504)


class UnsendableError(FlowGaugeError):
    """No request can be made of what was given, such as an idempotency key with a line break."""


class ProblemError(FlowGaugeError):
    """What FlowGauge says is wrong; of a type that this client does not know, this class itself.

    Attributes:
        details: all that it said.
        retry_after: seconds after which trying again can help, where it said so.
    """

    def __init__(self, details: ProblemDetails, retry_after: float | None = None) -> None:
        super().__init__(details.detail)
        self.details = details
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """Which problem this is."""
        return self.details.type

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self.details.status

    @property
    def request_id(self) -> str:
        """Leads to the server's log."""
        return self.details.request_id


class RefusedError(ProblemError):
    """Something is wrong with what was sent."""


class InvalidRequestError(RefusedError):
    """A parameter, a field or the form of the body."""


class NotAcceptableError(RefusedError):
    """It was asked for in a form that there is not."""


class MethodNotAllowedError(RefusedError):
    """The address does not take this method."""


class TooLargeError(RefusedError):
    """More bytes, pixels or images than the server takes."""


class UnsupportedMediaTypeError(RefusedError):
    """The body is not an image of a supported format."""


class UndecodableImageError(RefusedError):
    """The image is damaged, or of a kind that cannot be inspected."""


class RejectedBundleError(RefusedError):
    """The model is damaged, or does not do here what it did where it was made."""


class AccessError(ProblemError):
    """The key does not open this."""


class UnauthenticatedError(AccessError):
    """No valid key."""


class ForbiddenError(AccessError):
    """A valid key, but not for this."""


class UnknownError(ProblemError):
    """What was asked for is not there."""


class NotFoundError(UnknownError):
    """There is no such address."""


class UnknownModelError(UnknownError):
    """There is no such category or version."""


class UnknownInspectionError(UnknownError):
    """There is no such inspection, or its files are kept no longer."""


class FilesLostError(UnknownError):
    """The server's disk has lost an inspection's picture or map; asking again does not help."""


class StateError(ProblemError):
    """It does not fit what is there by now."""


class ConflictError(StateError):
    """It does not fit the present state."""


class IdempotencyKeyReusedError(StateError):
    """The idempotency key came with another image or other fields before."""


class PreconditionFailedError(StateError):
    """It was changed meanwhile."""


class PreconditionRequiredError(StateError):
    """The change did not say what it is based on."""


class BusyError(ProblemError):
    """Not now; nothing was done, and the same request may be answered later."""


class UploadStalledError(BusyError):
    """The body did not reach the server in time."""


class RateLimitedError(BusyError):
    """Too many requests with this key, or from this address."""


class QueueFullError(BusyError):
    """Too much waits already."""


class ModelLoadingError(BusyError):
    """The model is not ready yet."""


class HistoryUnavailableError(BusyError):
    """The history takes no more at present."""


class DrainingError(BusyError):
    """The server is stopping."""


class DeadlineExceededError(ProblemError):
    """There was no answer in the time that the request, or the server, allows."""


class InternalError(ProblemError):
    """A defect of the server; its log has more under the request id."""


BY_TYPE: Final[Mapping[str, type[ProblemError]]] = {
    "invalid-request": InvalidRequestError,
    "unauthenticated": UnauthenticatedError,
    "forbidden": ForbiddenError,
    "not-found": NotFoundError,
    "unknown-model": UnknownModelError,
    "unknown-inspection": UnknownInspectionError,
    "files-lost": FilesLostError,
    "method-not-allowed": MethodNotAllowedError,
    "not-acceptable": NotAcceptableError,
    "conflict": ConflictError,
    "idempotency-key-reused": IdempotencyKeyReusedError,
    "precondition-failed": PreconditionFailedError,
    "precondition-required": PreconditionRequiredError,
    "too-large": TooLargeError,
    "unsupported-media-type": UnsupportedMediaTypeError,
    "undecodable-image": UndecodableImageError,
    "rejected-bundle": RejectedBundleError,
    "upload-stalled": UploadStalledError,
    "rate-limited": RateLimitedError,
    "internal": InternalError,
    "queue-full": QueueFullError,
    "model-loading": ModelLoadingError,
    "history-unavailable": HistoryUnavailableError,
    "draining": DrainingError,
    "deadline-exceeded": DeadlineExceededError,
}


def no_answer(url: str, error: httpx.RequestError) -> UnreachableError | UnsendableError:
    """The error for a request that got no answer, or one whose compressed body cannot be unpacked."""
    if isinstance(error, httpx.LocalProtocolError):  # on our side
        return UnsendableError(f"no request can be made of what was given ({error})")
    if (why := _unverified(error)) is not None:
        return UntrustedError(
            f"the certificate of {url} cannot be verified: {why}; `ca` is for the PEM file of who signed it, "
            "and it must name that host",
            sent=False,
        )
    # Without a connection there is nobody who could have got it.
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    reason = str(error) or type(error).__name__
    return UnreachableError(f"no answer from {url} ({reason})", sent=not unsent)


def _unverified(error: BaseException) -> str | None:
    """Why a certificate was not accepted, if that is what an error comes of."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def wrong_answer(response: httpx.Response) -> UnexpectedAnswerError:
    """The error for an answer that is none of FlowGauge."""
    request = response.request
    return UnexpectedAnswerError(
        f"{request.method} {request.url}: status {response.status_code}, and no answer of FlowGauge",
        response.status_code,
    )


def expect(response: httpx.Response, kind: str) -> None:
    """Check that a response with success has a body of the kind that was asked for.

    Args:
        response: its body need not have been read.
        kind: how its media type begins.

    Raises:
        UnexpectedAnswerError: it has another, as the page of a proxy does.
    """
    if not response.headers.get("content-type", "").lower().startswith(kind):
        raise wrong_answer(response)


def of_response(response: httpx.Response) -> FlowGaugeError:
    """The error that a response without success stands for; its body has been read."""
    try:
        details = ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return wrong_answer(response)
    return of_details(details, _seconds(response.headers.get("retry-after")))


def of_details(details: ProblemDetails, retry_after: float | None = None) -> ProblemError:
    """The error of a problem's type."""
    return BY_TYPE.get(details.type, ProblemError)(details, retry_after)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; a date, which FlowGauge never sends, is passed over."""
    return float(header) if header is not None and header.isdecimal() and len(header) < 10 else None
