"""What can go wrong when a server is asked: a class for each thing that a caller can do about it."""

import httpx
from pydantic import ValidationError

from ..schemas.problem import ProblemDetails


class FlowGaugeError(ValueError):
    """A server was asked, and did not give what was asked for."""


class UnreachableError(FlowGaugeError):
    """There was no answer: no network, no server, none in time, or one that broke off.

    Attributes:
        sent: whether the server may have got the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UntrustedError(UnreachableError):
    """The server's certificate cannot be verified: nothing was sent, and asking again does not help."""


class UnexpectedAnswerError(FlowGaugeError):
    """The answer is none of FlowGauge, but of a proxy or another server.

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


class ProblemError(FlowGaugeError):
    """An error that FlowGauge answered with; the message is its `detail`.

    Attributes:
        details: all that it said.
        type: which problem, as "undecodable-image".
        status: HTTP status code.
        request_id: leads to the server's log.
        retry_after: seconds after which trying again can help, where it said so.
    """

    def __init__(self, details: ProblemDetails, retry_after: float | None = None) -> None:
        super().__init__(details.detail)
        self.details = details
        self.type = details.type
        self.status = details.status
        self.request_id = details.request_id
        self.retry_after = retry_after


class RefusedError(ProblemError):
    """Something is wrong with what was sent."""


class AccessError(ProblemError):
    """The key is missing, unknown, or not for this."""


class NotFoundError(ProblemError):
    """There is no such model, inspection or address, or its files are not kept any more."""


class ConflictError(ProblemError):
    """It does not fit the present state: somebody was faster, or the idempotency key was used before."""


class BusyError(ProblemError):
    """Not now; nothing was done, and the same request may be answered later."""


class ServerError(ProblemError):
    """The server failed, or was not done in the time that it had."""


def to_error(response: httpx.Response) -> FlowGaugeError:
    """Make the error that a response without success stands for. Its body has been read."""
    try:
        details = ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return unexpected(response)
    after = response.headers.get("retry-after", "")  # never a date
    return to_problem(details, float(after) if after.isdecimal() else None)


def to_problem(details: ProblemDetails, retry_after: float | None = None) -> ProblemError:
    """Make the error of a problem, also of one that only a later server knows."""
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
    """Make the error for a request that got no answer."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UntrustedError(
            f"the certificate of {url} cannot be verified ({error}); `ca` is for the PEM file of who signed "
            "it, and it must name that host",
            sent=False,
        )
    # Without a connection there is nobody who could have got it.
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return UnreachableError(f"no answer from {url} ({str(error) or type(error).__name__})", sent=not unsent)


def unexpected(response: httpx.Response) -> UnexpectedAnswerError:
    """Make the error for an answer that is none of FlowGauge."""
    request, status = response.request, response.status_code
    return UnexpectedAnswerError(
        f"{request.method} {request.url}: status {status}, and no answer of FlowGauge", status
    )


def require_media_type(response: httpx.Response, start: str) -> None:
    """Require that a response has a body of the kind that was asked for, not the page of a proxy.

    Raises:
        UnexpectedAnswerError: its media type begins otherwise.
    """
    if not response.headers.get("content-type", "").lower().startswith(start):
        raise unexpected(response)
