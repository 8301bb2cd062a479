"""A predict request from its admission to its response: deadline, upload, images, one answer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Request
from starlette.responses import Response

from app.errors import problem_responses
from app.errors.problems import Problem, ProblemName
from app.history.history import History
from app.http import accept, forms, uploads
from app.http.responses import AccountedResponse
from app.inspection.answer import MEDIA_TYPES, Answer, MediaType
from app.inspection.decision import worst_decision
from app.inspection.decoding import Drawing
from app.inspection.params import PredictParams, PredictRequest
from app.inspection.pipeline import InspectionPipeline
from app.registry.residency import Residency
from app.scheduling.admission import Admission, Reservation
from app.scheduling.batcher import Batcher
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import predict as schemas
from app.settings import Settings

T = TypeVar("T")

# What a predict request can end with in any protocol; those of keys come before any route.
PROBLEMS: Final[tuple[ProblemName, ...]] = (
    "invalid-request",
    "unknown-model",
    "unknown-inspection",
    "upload-stalled",
    "files-lost",
    "idempotency-key-reused",
    "too-large",
    "unsupported-media-type",
    "undecodable-image",
    "rejected-bundle",
    "internal",
    "queue-full",
    "model-loading",
    "history-unavailable",
    "draining",
    "deadline-exceeded",
)

_DRAWINGS: Final[dict[MediaType, Collection[Drawing]]] = {
    "image/png": frozenset({"overlay"}),
    "application/x-npy": frozenset({"map"}),
}
# An accepted request must be in time although batches are slower than their average at times.
_MARGIN: Final = 2.0
# The share of a request's time that is left for putting together the answers on several images.
_TO_ANSWER: Final = 0.05


class PredictBody(NamedTuple):
    """The body of a request: images and texts, drawings to make of each image, and how to respond.

    `respond` takes the answers on all images. With `each_alone` it takes the problem of an image that failed
    in the place of its answer; without, the first failure is that of the request.
    """

    upload: forms.Upload
    drawings: Collection[Drawing]
    respond: Callable[[list[Any]], Response]
    each_alone: bool = False


@dataclass(frozen=True)
class PredictHandler:
    """Answers predict requests.

    All methods raise the problems of `PROBLEMS`, and ClientDisconnect when the client has left.
    """

    settings: Settings
    admission: Admission
    batcher: Batcher
    residency: Residency
    inspector: InspectionPipeline
    history: History

    async def predict(self, request: Request, category: str, params: PredictParams) -> Response:
        """Inspect the image of a request."""
        media_type = _negotiate(request, MEDIA_TYPES)
        drawings = _DRAWINGS.get(media_type, params.inline or ())

        async def read(room: Reservation) -> PredictBody:
            upload = await uploads.read_upload(request, room, self.settings)
            return PredictBody(upload, drawings, lambda answers: answers[0].respond(media_type))

        return await self.predict_all(request, category, params, read)

    async def predict_batch(self, request: Request, category: str, params: PredictParams) -> Response:
        """Inspect the images of a form. Each fails alone, be it that the time did not suffice for it."""
        _negotiate(request, MEDIA_TYPES[:1])

        async def read(room: Reservation) -> PredictBody:
            upload = await uploads.read_upload(request, room, self.settings, self.settings.max_items)
            respond = partial(_respond_to_batch, request, params, upload.files)
            return PredictBody(upload, params.inline or (), respond, each_alone=True)

        return await self.predict_all(request, category, params, read)

    async def predict_all(
        self,
        request: Request,
        category: str,
        params: PredictParams,
        read: Callable[[Reservation], Awaitable[PredictBody]],
    ) -> Response:
        """Inspect the images of a request, which `read` reads. Sending the response gives its room back."""
        async with _deadline(params, params.deadline):
            with ExitStack() as stack:
                room = stack.enter_context(self.admission.reserve(category))
                self._require_time(category, params, 1)
                # Before its upload; a repeated request can be answered all the same. In the event loop: a
                # thread would take longer, and requests that wait for one are counted nowhere yet.
                if params.store and params.idempotency_key is None:
                    self.history.require_room(min(uploads.declared_size(request), self.settings.max_bytes))
                detector = await self.residency.get(category, params.version)
                body = await read(room)
                number = len(body.upload.files)
                self._require_time(category, params, number)  # meanwhile many may have come, all at once
                room.hold_images(number)
                texts = params.texts | {name: text for name, text in body.upload.texts.items() if text}
                inspect = self._inspect_alone if body.each_alone else self._inspect
                jobs = [
                    inspect(PredictRequest(params, detector, texts, body.drawings, i), file, room)
                    for i, file in enumerate(body.upload.files)
                ]
                results = await cancel_on_disconnect(request, _gather(jobs))
                if number == 1 and not body.drawings:
                    response = body.respond(results)
                else:
                    # Megabytes of base64 are no work for the event loop; as JSON they are longer, and twice.
                    room.add_answer(2 * sum(one.nbytes for one in results if isinstance(one, Answer)))
                    response = await self.inspector.run_in_thread(category, partial(body.respond, results))
                accounted = AccountedResponse(response, room)
                stack.pop_all()
        return accounted

    async def _inspect(self, image: PredictRequest, file: forms.UploadedFile, room: Reservation) -> Answer:
        if isinstance(file.data, Problem):
            raise file.data
        answer = await self.inspector.inspect(image, file.data, room)
        room.add_answer(answer.nbytes)  # until the response is made of all
        return answer

    async def _inspect_alone(
        self, image: PredictRequest, file: forms.UploadedFile, room: Reservation
    ) -> Answer | Problem:
        params = image.params
        try:
            async with _deadline(params, params.deadline - _TO_ANSWER * params.budget_ms / 1000):
                return await self._inspect(image, file, room)
        # Whatever it is: the others are inspected, perhaps kept already, and want their answers.
        except Exception as error:
            return problem_responses.to_problem(error)

    def _require_time(self, category: str, params: PredictParams, images: int) -> None:
        """Refuse at once what could not be answered in time: the client can go elsewhere with it."""
        held = self.admission.images_held
        seconds = _MARGIN * self.batcher.expected_seconds(category, images, held)
        late = seconds - (params.deadline - time.monotonic())
        if seconds > 0 and late > 0:  # where nothing waits, it is the deadline that has passed
            raise Problem(
                "queue-full",
                f"An answer would take about {seconds:.1f} s, longer than the {params.budget_ms} ms that "
                "the request has; try again later.",
                retry_after=math.ceil(late),
            )


def _respond_to_batch(
    request: Request, params: PredictParams, files: list[forms.UploadedFile], results: list[Answer | Problem]
) -> Response:
    items = []
    for index, (file, result) in enumerate(zip(files, results, strict=True)):
        status, inspection, problem = 200, None, None
        if isinstance(result, Answer):
            inspection = result.with_pictures()
        else:
            problem = problem_responses.problem_details(request, result.name, result.detail)
            status = problem.status
        items.append(
            schemas.BatchItem(
                index=index, filename=file.name, status=status, inspection=inspection, problem=problem
            )
        )
    if all(item.problem is not None and item.problem.type == "deadline-exceeded" for item in items):
        raise _deadline_exceeded(params)
    decisions = [item.inspection.decision for item in items if item.inspection is not None]
    is_known = len(decisions) == len(items) or "REJECT" in decisions
    answer = schemas.BatchAnswer(decision=worst_decision(decisions) if is_known else None, items=items)
    return Response(answer.model_dump_json(), media_type="application/json")


def _negotiate(request: Request, offers: tuple[MediaType, ...]) -> MediaType:
    header = ", ".join(request.headers.getlist("accept"))
    media_type = accept.negotiate(header, offers)
    if media_type is None:
        raise Problem("not-acceptable", f"Accept was {header[:200]!r}; given are {', '.join(offers)}.")
    return media_type


@asynccontextmanager
async def _deadline(params: PredictParams, until: float) -> AsyncIterator[None]:
    """Cancel what is done within at a time of time.monotonic(), and raise the problem deadline-exceeded."""
    try:
        async with asyncio.timeout(until - time.monotonic()) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise _deadline_exceeded(params) from error


def _deadline_exceeded(params: PredictParams) -> Problem:
    return Problem(
        "deadline-exceeded",
        f"Not done within {params.budget_ms} ms; what still waited is not computed.",
    )


async def _gather(jobs: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, or the first failure; then what has not begun is not computed."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
