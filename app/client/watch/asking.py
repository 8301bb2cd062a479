"""Asks the server about an image, and tells whose fault it is when there is no answer.

What is no image's fault stops them all (`Wait`), what may be this one's own delays it alone (`Later`).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

from ...schemas.predict import Inspection
from ..calls import Wishes
from ..errors import (
    DeadlineExceededError,
    FlowGaugeError,
    IdempotencyKeyReusedError,
    InternalError,
    MethodNotAllowedError,
    NotAcceptableError,
    RefusedError,
    RejectedBundleError,
    UndecodableImageError,
    UnexpectedAnswerError,
    UnknownError,
    UnreachableError,
    UnsupportedMediaTypeError,
    UploadStalledError,
)
from ..sync import Client
from .folder import MOST_BYTES, UNDECODED_TIMES, Found, Stamp, printable
from .job import Job, Listener
from .outcome import Outcome, problem

# Attempts at an image before it is set aside, where it may be to blame; and before it counts as stuck.
MOST_ATTEMPTS: Final = 5
_TOO_LATE: Final = 408  # a proxy's word for a request that stalled on its way
_TOO_BUSY: Final = (429, 503)


class Wait(Exception):  # noqa: N818  (no error: nothing can go on at present)
    """Nothing can go on at present, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Later(Wait):
    """Nothing goes on with one image; the others do."""


@dataclass
class Attempts:
    """The attempts at an image that came to nothing.

    Attributes:
        stamp: of the image as it was.
        count: how many there were.
        again: when there is to be another, by the clock.
        refusals: those that may be the image's own fault.
        before: how many images had been inspected at the first refusal.
        needs_quiet: seconds without a change before there is to be another.
        said: the last reason that was said of it.
    """

    stamp: Stamp
    count: int = 0
    again: float = 0.0
    refusals: int = 0
    before: int = 0
    needs_quiet: float = 0.0
    said: str | None = None

    def refuse(self, inspected: int) -> bool:
        """Count a refusal that may be the image's own fault; whether to set it aside.

        Whoever refuses may as well refuse everything, so others must have come through since the first time.

        Args:
            inspected: how many images were, of all that there were.
        """
        if not self.refusals:
            self.before = inspected
        self.refusals += 1
        return self.refusals >= MOST_ATTEMPTS and inspected > self.before


class Asking:
    """Has images inspected.

    Args:
        client: of the server.
        job: what to do.
        listener: is told when an image is inspected without the part that it was to have.
    """

    def __init__(self, client: Client, job: Job, listener: Listener) -> None:
        self._client = client
        self._job = job
        self._listener = listener
        self._has_warned = False

    def outcome(self, found: Found, identity: str, attempts: Attempts, inspected: int) -> Outcome | None:
        """Have an image inspected; None where it may not be whole yet.

        Args:
            found: the image.
            identity: of its folder.
            attempts: at this image; refusals are counted there.
            inspected: how many images were, of all that there were.

        Raises:
            Later: this one is to be tried later.
            Wait: no image can be inspected at present.
            OSError: it cannot be read.
        """
        if found.is_oversized:
            detail = f"The file has {found.stamp.size} bytes, and none of more than {MOST_BYTES} is read."
            return Outcome(found, None, None, problem("Too large to be read", 413, detail))
        data = found.read()
        if data is None:
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        part_id = None if self._job.part is None else _part_id(self._job.part, found.name)
        if part_id is not None and part_id != printable(part_id):
            detail = f"The part's id in the name is {printable(part_id)}, which is not UTF-8."
            return Outcome(found, sha256, None, problem("The part's id is not UTF-8", 400, detail))
        wishes = self._wishes(found.name, part_id, sha256, identity)
        result = self._inspect(found, data, sha256, wishes, attempts, inspected)
        if not isinstance(result, Inspection):
            return result
        if not part_id:
            self._warn(found.name)
        return Outcome(found, sha256, result, None, self._overlay(found, attempts, result))

    def _inspect(
        self,
        found: Found,
        data: bytes,
        sha256: str,
        wishes: Wishes,
        attempts: Attempts,
        inspected: int,
    ) -> Inspection | Outcome | None:
        """Ask the server; else how the image is set aside, or None where it may not be whole yet."""
        try:
            return self._client.inspect(self._job.category, data, **wishes)
        except (UndecodableImageError, UnsupportedMediaTypeError) as error:
            # The same bytes would be refused again, and once it is written to it is another one.
            attempts.needs_quiet = UNDECODED_TIMES * self._job.settle
            if found.quiet < attempts.needs_quiet:
                return None
            return Outcome(found, sha256, None, error.details)
        except (RejectedBundleError, NotAcceptableError, MethodNotAllowedError) as error:
            raise Wait(str(error)) from error  # the model's fault, or a server's of another version
        except (RefusedError, IdempotencyKeyReusedError) as error:
            return Outcome(found, sha256, None, error.details)
        except InternalError as error:
            if attempts.refuse(inspected):
                return Outcome(found, sha256, None, error.details)
            raise Later(f"{found.name}: {error} (request {error.request_id})") from error
        except UnexpectedAnswerError as error:
            return self._refused_on_the_way(found, sha256, attempts, inspected, error)
        except (DeadlineExceededError, UploadStalledError) as error:
            raise Later(f"{found.name}: {error}") from error
        except UnreachableError as error:
            self._require_server(error)
            raise Later(f"{found.name}: {error}") from error
        except FlowGaugeError as error:  # no image's fault
            raise Wait(str(error)) from error

    def _refused_on_the_way(
        self, found: Found, sha256: str, attempts: Attempts, inspected: int, error: UnexpectedAnswerError
    ) -> Outcome:
        """Deal with an image for which something before the server has answered, as that it is too large."""
        if error.status in _TOO_BUSY or error.status < 400:
            raise Wait(str(error)) from error
        self._require_server(error)
        if error.status < 500 and error.status != _TOO_LATE and attempts.refuse(inspected):
            title = f"Status {error.status}, from something between here and the server"
            return Outcome(found, sha256, None, problem(title, error.status, str(error)))
        raise Later(f"{found.name}: {error}") from error

    def _overlay(self, found: Found, attempts: Attempts, inspection: Inspection) -> bytes | None:
        """The overlay, where one is wanted and can be had; after several attempts it goes on without."""
        if not self._job.overlay:
            return None
        try:
            return self._client.overlay(inspection.inspection_id)
        except UnknownError:  # retention was faster, or the server's disk has lost what it is drawn from
            return None
        except FlowGaugeError as error:
            self._require_server(error)
            if attempts.count + 1 < MOST_ATTEMPTS:
                raise Later(f"{found.name}: {error}") from error
            return None

    def _require_server(self, error: FlowGaugeError) -> None:
        """Require that the server is there, so that what went wrong may be for this image's own sake.

        Raises:
            Wait: it is away, or something answers in its place.
        """
        try:
            self._client.model(self._job.category)
        except FlowGaugeError:
            raise Wait(str(error)) from error

    def _warn(self, name: str) -> None:
        """Say that an image has no part where it was to have one; once, as it may be so of all of them."""
        if self._job.part is None or self._has_warned:
            return
        self._has_warned = True
        told = f"{name}: --part finds no id in it; it is inspected without a part, as are others like it"
        self._listener.warns(printable(told))

    def _wishes(self, name: str, part_id: str | None, sha256: str, identity: str) -> Wishes:
        # All that the server compares before it answers with what it has.
        what = [identity, self._job.category, self._job.station, part_id, name, sha256]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        return {"station": self._job.station, "part_id": part_id, "idempotency_key": f"watch-{key}"}


def _part_id(expression: re.Pattern[str], name: str) -> str | None:
    """The part's id in an image's name, without its folders: dates and the like are often numbers, too."""
    match = expression.search(name.rpartition("/")[2]) or expression.search(name)
    return None if match is None else match[1]
