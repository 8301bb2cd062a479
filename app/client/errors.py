"""Errors of the clients: one class for each reaction of a caller."""

import httpx
from pydantic import ValidationError

from ..schemas.problem import ProblemDetails


class FlowGaugeError(ValueError):
    """A request to a server failed."""


class UnreachableError(FlowGaugeError):
    """There was no complete answer: no network, no server, a timeout or a broken connection.

    Attributes:
        sent: True if the server may have received the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UntrustedError(UnreachableError):
    """The server's certificate cannot be verified. Nothing was sent, and a retry does not help."""


class UnexpectedAnswerError(FlowGaugeError):
    """The answer is not FlowGauge's, but that of a proxy or another server."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def server_is_away(self) -> bool:
        """True for statuses of a proxy whose server restarts or hangs (RFC 9110, 15.6.3 to 5)."""
        return self.status in (502, 503, 504)


class ProblemError(FlowGaugeError):
    """FlowGauge answered with an error; the message is its `detail`.

    Attributes:
        details: the whole answer.
        type: of the problem, for example "undecodable-image".
        status: HTTP status code.
        request_id: in the server's log.
        retry_after: seconds after which a retry can help; None if the server named none.
    """

    def __init__(self, details: ProblemDetails, retry_after: float | None = None) -> None:
        super().__init__(details.detail)
        self.details = details
        self.type = details.type
        self.status = details.status
        self.request_id = details.request_id
        self.retry_after = retry_after


class RefusedError(ProblemError):
    """The request is wrong."""


class AccessError(ProblemError):
    """The key is missing, unknown, or not allowed to do this."""


class NotFoundError(ProblemError):
    """The model, inspection or address does not exist, or its files are no longer kept."""


class ConflictError(ProblemError):
    """The request conflicts with the present state: a newer change, or a used idempotency key."""


class BusyError(ProblemError):
    """The server is busy. Nothing was done; the same request may succeed later."""


class ServerError(ProblemError):
    """The server failed, or missed the deadline."""


def to_error(response: httpx.Response) -> FlowGaugeError:
    """Return the error of an unsuccessful response whose body has been read."""
    try:
        details = ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return unexpected(response)
    after = response.headers.get("retry-after", "")  # never a date
    return to_problem(details, float(after) if after.isdecimal() else None)


def to_problem(details: ProblemDetails, retry_after: float | None = None) -> ProblemError:
    """Return the error of a problem; an unknown type is classified by its status."""
    kind: type[ProblemError]
    match details.status:
        case 401 | 403:
            kind = AccessError
        case 404 | 410:
            kind = NotFoundError
        case 409 | 412 | 428:
            kind = ConflictError
        case 408 | 429 | 503:
            kind = BusyError
        case status:
            kind = RefusedError if status < 500 else ServerError
    return kind(details, retry_after)


def unreachable(url: str, error: httpx.RequestError) -> UnreachableError:
    """Return the error of a request without an answer."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UntrustedError(
            f"the certificate of {url} cannot be verified ({error}); `ca` is for the PEM file of who signed "
            "it, and it must name that host",
            sent=False,
        )
    # Without a connection the server cannot have received it.
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return UnreachableError(f"no answer from {url} ({str(error) or type(error).__name__})", sent=not unsent)


def unexpected(response: httpx.Response) -> UnexpectedAnswerError:
    """Return the error of an answer that is not FlowGauge's."""
    request, status = response.request, response.status_code
    return UnexpectedAnswerError(
        f"{request.method} {request.url}: status {status}, and no answer of FlowGauge", status
    )


def require_media_type(response: httpx.Response, start: str) -> None:
    """Require that a response has the requested media type: the body may be a page of a proxy.

    Raises:
        UnexpectedAnswerError: its media type does not begin with `start`.
    """
    if not response.headers.get("content-type", "").lower().startswith(start):
        raise unexpected(response)
