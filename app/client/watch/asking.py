"""Asks the server about a picture, and tells whose fault it is when there is no answer.

What is no picture's fault stops them all (`Wait`), what may be this one's own delays it alone (`Later`).
"""

import hashlib
import json
import re

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
from .folder import UNDECODED_TIMES, Found, printable
from .job import Job, Listener
from .outcome import Outcome, foreign, unspeakable
from .trouble import Trouble, is_a_refusal, is_too_late, may_be_its_own


class Wait(Exception):  # noqa: N818  (no error: nothing can go on at present)
    """Nothing can go on at present, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Later(Wait):
    """Nothing goes on with one picture; the others do."""


class Asking:
    """Has pictures inspected.

    Args:
        client: of the server.
        job: what to do.
        listener: is told when a picture is inspected without the part that it was to have.
    """

    def __init__(self, client: Client, job: Job, listener: Listener) -> None:
        self._client = client
        self._job = job
        self._listener = listener
        self._has_warned = False

    def outcome(
        self, found: Found, data: bytes, sha256: str, identity: str, trouble: Trouble, inspected: int
    ) -> Outcome | None:
        """Have a picture inspected; None where it may not be whole yet.

        Args:
            found: the picture.
            data: its bytes.
            sha256: of these.
            identity: of its folder.
            trouble: what stood in its way; what does now is counted there.
            inspected: how many pictures were, of all that there were.

        Raises:
            Later: this one is to be tried later.
            Wait: no picture can be inspected at present.
        """
        wishes = self._wishes(found.name, sha256, identity)
        part_id = wishes["part_id"] or ""
        if part_id != printable(part_id):
            return Outcome(found, sha256, None, unspeakable(part_id))
        try:
            inspection = self._client.inspect(self._job.category, data, **wishes)
        except (UndecodableImageError, UnsupportedMediaTypeError) as error:
            # The same bytes would be refused again, and once it is written to it is another one. The last
            # attempt is for what was written unseen, where times are coarse.
            trouble.needs_quiet = UNDECODED_TIMES * self._job.settle
            if found.quiet < trouble.needs_quiet:
                return None
            return Outcome(found, sha256, None, error.details)
        except (RejectedBundleError, NotAcceptableError, MethodNotAllowedError) as error:
            raise Wait(str(error)) from error  # the model's fault, or a server's of another version
        except (RefusedError, IdempotencyKeyReusedError) as error:
            return Outcome(found, sha256, None, error.details)
        except InternalError as error:
            if trouble.refuse(inspected):
                return Outcome(found, sha256, None, error.details)
            raise Later(f"{found.name}: {error} (request {error.request_id})") from error
        except UnexpectedAnswerError as error:
            return self._refused_on_the_way(found, trouble, sha256, inspected, error)
        except (DeadlineExceededError, UploadStalledError) as error:
            trouble.delay()
            raise Later(f"{found.name}: {error}") from error
        except UnreachableError as error:
            self._expect_server(error)
            trouble.delay()
            raise Later(f"{found.name}: {error}") from error
        except FlowGaugeError as error:  # no picture's fault
            raise Wait(str(error)) from error
        if not part_id:
            self._warn(found.name)
        return self._with_overlay(found, trouble, sha256, inspection)

    def _warn(self, name: str) -> None:
        """Say that a picture has no part where it was to have one; once, as it may be so of all of them."""
        if self._job.part is None or self._has_warned:
            return
        self._has_warned = True
        told = f"{name}: --part finds no id in it; it is inspected without a part, as are others like it"
        self._listener.warns(printable(told))

    def _with_overlay(self, found: Found, trouble: Trouble, sha256: str, inspection: Inspection) -> Outcome:
        """What was said of a picture, with its overlay where one is wanted and can be had."""
        overlay = None
        if self._job.overlay:
            try:
                overlay = self._client.overlay(inspection.inspection_id)
            except UnknownError:  # retention was faster, or the server's disk has lost what it is drawn from
                pass
            except (InternalError, DeadlineExceededError) as error:
                if not trouble.fail():  # else it goes on without
                    raise Later(f"{found.name}: {error} (request {error.request_id})") from error
            except UnexpectedAnswerError as error:
                # The inspection was answered just now, so the server is there.
                if not is_a_refusal(error):
                    raise Wait(str(error)) from error
                if not trouble.fail():
                    raise Later(f"{found.name}: {error}") from error
            except UnreachableError as error:
                self._expect_server(error)
                if not trouble.fail():
                    raise Later(f"{found.name}: {error}") from error
            except FlowGaugeError as error:
                raise Wait(str(error)) from error
        return Outcome(found, sha256, inspection, None, overlay)

    def _refused_on_the_way(
        self, found: Found, trouble: Trouble, sha256: str, inspected: int, error: UnexpectedAnswerError
    ) -> Outcome:
        """Deal with a picture for which something before the server has answered, as that it is too large."""
        if is_too_late(error):
            trouble.delay()
            raise Later(f"{found.name}: {error}") from error
        if not is_a_refusal(error) and not may_be_its_own(error):
            raise Wait(str(error)) from error
        self._expect_server(error)
        if not is_a_refusal(error):
            trouble.delay()
            raise Later(f"{found.name}: {error}") from error
        if trouble.refuse(inspected):
            return Outcome(found, sha256, None, foreign(error))
        raise Later(f"{found.name}: {error}") from error

    def _expect_server(self, error: FlowGaugeError) -> None:
        """Expect that the server is there, so that what went wrong may be for this picture's own sake.

        Raises:
            Wait: it is away, or something answers in its place.
        """
        try:
            self._client.model(self._job.category)
        except FlowGaugeError:
            raise Wait(str(error)) from error

    def _wishes(self, name: str, sha256: str, identity: str) -> Wishes:
        job = self._job
        part_id = None if job.part is None else _part_id(job.part, name)
        # All that the server compares before it answers with what it has.
        what = [identity, job.category, job.station, part_id, name, sha256]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        return {"station": job.station, "part_id": part_id, "idempotency_key": f"watch-{key}"}


def _part_id(expression: re.Pattern[str], name: str) -> str | None:
    """The part's id in a picture's name, without its folders: dates and the like are often numbers, too."""
    match = expression.search(name.rpartition("/")[2]) or expression.search(name)
    return None if match is None else match[1]
