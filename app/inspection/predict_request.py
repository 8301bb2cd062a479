"""Predict requests from admission to response: deadline, upload, images, answer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
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
from app.inspection.explanation import Drawing
from app.inspection.image_pipeline import InspectionPipeline
from app.inspection.params import PredictParams, PredictRequest
from app.registry.loaded_models import LoadedModels
from app.scheduling.admission import Admission, Reservation
from app.scheduling.batcher import Batcher
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import predict as schemas
from app.settings import Settings
from flows.fastflow.detector import Detector

T = TypeVar("T")

# Problems of a predict request in any protocol; problems of keys are raised before the route.
PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *("invalid-request", "unknown-model", "unknown-inspection", "upload-stalled", "files-lost"),
    *("idempotency-key-reused", "too-large", "unsupported-media-type", "undecodable-image"),
    *("rejected-bundle", "internal", "queue-full", "model-loading", "history-unavailable", "draining"),
    "deadline-exceeded",
)

_DRAWINGS: Final[dict[MediaType, Collection[Drawing]]] = {
    "image/png": frozenset({"overlay"}),
    "application/x-npy": frozenset({"map"}),
}
# Safety factor of the estimated time: some batches are slower than the average.
_MARGIN: Final = 2.0
# Share of a request's time limit that is reserved for the response to several images.
_RESPONSE_SHARE: Final = 0.05


class PredictBody(NamedTuple):
    """The body of a request: images and texts, drawings per image, and the response function.

    `respond` gets the answers to all images. If the images are `independent`, it gets a problem in place of
    the answer to a failed image. Otherwise the first failure fails the request.
    """

    upload: forms.Upload
    drawings: Collection[Drawing]
    respond: Callable[[list[Any]], Response]
    independent: bool = False


@dataclass(frozen=True)
class PredictHandler:
    """Answers predict requests.

    All methods raise the problems of `PROBLEMS`, and ClientDisconnect if the client disconnects.
    """

    settings: Settings
    admission: Admission
    batcher: Batcher
    loaded_models: LoadedModels
    pipeline: InspectionPipeline
    history: History

    async def predict(self, request: Request, category: str, params: PredictParams) -> Response:
        """Inspect the image of a request."""
        media_type = _negotiate(request, MEDIA_TYPES)
        drawings = _DRAWINGS.get(media_type, params.inline or ())

        async def read(reservation: Reservation) -> PredictBody:
            upload = await uploads.read_upload(request, reservation, self.settings)
            return PredictBody(upload, drawings, lambda answers: answers[0].respond(media_type))

        return await self.predict_all(request, category, params, read)

    async def predict_batch(self, request: Request, category: str, params: PredictParams) -> Response:
        """Inspect the images of a form; each image fails alone, also at the deadline."""
        _negotiate(request, MEDIA_TYPES[:1])

        async def read(reservation: Reservation) -> PredictBody:
            upload = await uploads.read_upload(request, reservation, self.settings, self.settings.max_items)
            respond = partial(_respond_to_batch, request, params, upload.files)
            return PredictBody(upload, params.inline or (), respond, independent=True)

        return await self.predict_all(request, category, params, read)

    async def predict_all(
        self,
        request: Request,
        category: str,
        params: PredictParams,
        read: Callable[[Reservation], Awaitable[PredictBody]],
    ) -> Response:
        """Inspect all images of a request; sending the response releases its reservation."""
        async with _deadline(params, params.deadline):
            with ExitStack() as stack:
                reservation = stack.enter_context(self.admission.reserve(category))
                self._require_capacity(request, category, params)
                detector = await self.loaded_models.get(category, params.version)
                body = await read(reservation)
                results = await self._inspect_all(request, params, detector, body, reservation)
                response = await self._respond(category, body, results, reservation)
                accounted = AccountedResponse(response, reservation)
                stack.pop_all()
        return accounted

    def _require_capacity(self, request: Request, category: str, params: PredictParams) -> None:
        """Refuse a request before its upload if time or the history's room is short.

        This runs in the event loop, because requests that wait for a thread are not counted yet. A request
        with an idempotency key may be a repetition, which needs no room.
        """
        self._require_time(category, params, 1)
        if params.store and params.idempotency_key is None:
            self.history.require_room(min(uploads.declared_size(request), self.settings.max_bytes))

    async def _inspect_all(
        self,
        request: Request,
        params: PredictParams,
        detector: Detector,
        body: PredictBody,
        reservation: Reservation,
    ) -> Sequence[Answer | Problem]:
        number = len(body.upload.files)
        self._require_time(detector.manifest.category, params, number)
        reservation.hold_images(number)
        texts = params.texts | {name: text for name, text in body.upload.texts.items() if text}
        inspect = self._inspect_independently if body.independent else self._inspect
        jobs = []
        for i, file in enumerate(body.upload.files):
            own = {"file_name": file.base_name} if file.base_name else {}
            image = PredictRequest(params, detector, own | texts, body.drawings, i)
            jobs.append(inspect(image, file, reservation))
        return await cancel_on_disconnect(request, _gather(jobs))

    async def _respond(
        self, category: str, body: PredictBody, results: Sequence[Answer | Problem], reservation: Reservation
    ) -> Response:
        if len(results) == 1 and not body.drawings:
            return body.respond([*results])
        # Encoding megabytes as base64 would block the event loop. Count it twice: text and JSON.
        reservation.add_answer(2 * sum(result.nbytes for result in results if isinstance(result, Answer)))
        return await self.pipeline.run_in_thread(category, partial(body.respond, [*results]))

    async def _inspect(
        self, image: PredictRequest, file: forms.UploadedFile, reservation: Reservation
    ) -> Answer:
        if isinstance(file.data, Problem):
            raise file.data
        answer = await self.pipeline.inspect(image, file.data, reservation)
        reservation.add_answer(answer.nbytes)  # until the response exists
        return answer

    async def _inspect_independently(
        self, image: PredictRequest, file: forms.UploadedFile, reservation: Reservation
    ) -> Answer | Problem:
        params = image.params
        try:
            async with _deadline(params, params.deadline - _RESPONSE_SHARE * params.budget_ms / 1000):
                return await self._inspect(image, file, reservation)
        # After any error the other images are inspected, perhaps stored already, and need their answers.
        except Exception as error:
            return problem_responses.to_problem(error)

    def _require_time(self, category: str, params: PredictParams, images: int) -> None:
        """Refuse a request that cannot be answered in time, so that the client can try elsewhere."""
        held = self.admission.images_held
        seconds = _MARGIN * self.batcher.expected_seconds(category, images, held)
        late = seconds - (params.deadline - time.monotonic())
        if seconds > 0 and late > 0:  # without a queue, the deadline itself decides
            raise Problem(
                "queue-full",
                f"An answer would take about {seconds:.1f} s, longer than the time limit of "
                f"{params.budget_ms} ms; try again later.",
                retry_after=math.ceil(late),
            )


def _respond_to_batch(
    request: Request, params: PredictParams, files: list[forms.UploadedFile], results: list[Answer | Problem]
) -> Response:
    items = []
    for index, (file, result) in enumerate(zip(files, results, strict=True)):
        status, inspection, problem = 200, None, None
        if isinstance(result, Answer):
            inspection = result.with_drawings()
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
        raise Problem("not-acceptable", f"Accept was {header[:200]!r}; supported are {', '.join(offers)}.")
    return media_type


@asynccontextmanager
async def _deadline(params: PredictParams, until: float) -> AsyncIterator[None]:
    """Cancel the block at a time of time.monotonic(), and raise the problem deadline-exceeded."""
    try:
        async with asyncio.timeout(until - time.monotonic()) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise _deadline_exceeded(params) from error


def _deadline_exceeded(params: PredictParams) -> Problem:
    return Problem(
        "deadline-exceeded", f"Not done within {params.budget_ms} ms; waiting images are not computed."
    )


async def _gather(jobs: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results, or raise the first failure and cancel the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
