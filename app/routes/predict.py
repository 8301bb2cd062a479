"""Inspecting images: an upload in; a decision, the overlay that explains it, or the map out."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import accept, forms, uploads
from app.admission import Admission, Reservation
from app.batcher import Batcher
from app.dependencies import (
    AdmissionPart,
    BatcherPart,
    Category,
    InspectorPart,
    ResidencyPart,
    SettingsPart,
    Version,
)
from app.inference import while_connected
from app.inspection import MEDIA_TYPES, Answer, Drawing, MediaType
from app.inspector import Inspector, Order
from app.openapi import BATCH_EXTRA, PREDICT_ANSWER, PREDICT_EXTRA, documented
from app.problems import Problem, details
from app.residency import Residency
from app.schemas import predict as schemas
from app.sending import Accounted
from app.settings import Settings
from app.verdict import worst
from app.wishes import Wishes

router = APIRouter(prefix="/v1/models/{category}", tags=["predict"])

_DRAWINGS: Final[Mapping[MediaType, frozenset[Drawing]]] = {
    "image/png": frozenset({"overlay"}),
    "application/x-npy": frozenset({"map"}),
}


@dataclass(frozen=True)
class _Predictor:
    """Takes the images of one request through the service."""

    request: Request
    settings: Settings
    admission: Admission
    batcher: Batcher
    residency: Residency
    inspector: Inspector
    wishes: Wishes

    async def one(self, category: str, version: str | None) -> Response:
        """Inspect the request's image.

        Raises:
            Problem: any of those that the routes document.
            ClientDisconnect: nobody waits for an answer any more.
        """
        media_type = self._negotiate(MEDIA_TYPES)
        wanted = _DRAWINGS.get(media_type, self.wishes.inline)

        async def work(room: Reservation) -> Response:
            detector = await self.residency.get(category, version)
            limits = self.settings.max_bytes, self.settings.upload_idle_seconds
            upload = await uploads.read(self.request, room, *limits)
            room.wait_in_line()
            order = self.wishes.order(detector, upload.texts, wanted)
            answer = await while_connected(self.request, self._inspect(order, upload.files[0], room))
            return answer.respond(media_type, self.wishes.inline)

        return await self._in_time(work)

    async def several(self, category: str) -> Response:
        """Inspect the request's images; each fails alone.

        Raises:
            Problem: any of those that the route documents.
            ClientDisconnect: nobody waits for an answer any more.
        """
        self._negotiate(MEDIA_TYPES[:1])

        async def work(room: Reservation) -> Response:
            detector = await self.residency.get(category)
            settings = self.settings
            upload = await uploads.read_many(
                self.request,
                room,
                settings.max_bytes,
                settings.max_items,
                max(settings.max_bytes, settings.queue_bytes // 2),
                settings.upload_idle_seconds,
            )
            for _ in upload.files:
                room.wait_in_line()
            items = []
            for index, file in enumerate(upload.files):
                order = self.wishes.order(detector, upload.texts, self.wishes.inline, index)
                items.append(self._item(index, file, order, room))
            done = await while_connected(self.request, _gather(items))
            decisions = [item.inspection.decision for item in done if item.inspection is not None]
            known = len(decisions) == len(done) or "REJECT" in decisions
            answer = schemas.BatchAnswer(decision=worst(decisions) if known else None, items=done)
            return Response(answer.model_dump_json(), media_type=MEDIA_TYPES[0])

        return await self._in_time(work)

    async def _item(self, index: int, file: forms.File, order: Order, room: Reservation) -> schemas.BatchItem:
        try:
            answer = await self._inspect(order, file, room)
        except Problem as problem:
            return schemas.BatchItem(
                index=index,
                filename=file.name,
                status=problem.status,
                inspection=None,
                problem=details(self.request, problem.name, problem.detail),
            )
        inspection = answer.with_pictures(self.wishes.inline)
        return schemas.BatchItem(
            index=index, filename=file.name, status=200, inspection=inspection, problem=None
        )

    async def _inspect(self, order: Order, file: forms.File, room: Reservation) -> Answer:
        if isinstance(file.data, Problem):
            raise file.data
        return await self.inspector.inspect(order, file.data, room)

    def _negotiate(self, offers: tuple[MediaType, ...]) -> MediaType:
        header = self.request.headers.get("accept")
        media_type = accept.negotiate(header, offers)
        if media_type is None:
            raise Problem(
                "not-acceptable", f"Accept was {(header or '')[:200]!r}; given are {', '.join(offers)}."
            )
        return media_type

    async def _in_time(self, work: Callable[[Reservation], Awaitable[Response]]) -> Response:
        """Do the work with room for it, within the deadline; sending the response gives the room back."""
        wishes = self.wishes
        try:
            async with asyncio.timeout(wishes.deadline - time.monotonic()) as limit:
                with ExitStack() as stack:
                    room = stack.enter_context(self.admission.reserve())
                    self._expect_time()
                    response = Accounted(await work(room), room)
                    stack.pop_all()
                    return response
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Problem(
                "deadline-exceeded",
                f"Not done within {wishes.milliseconds} ms; what still waited is not computed.",
            ) from error

    def _expect_time(self) -> None:
        """Refuse at once what could not be answered in time: the client can go elsewhere with it."""
        seconds = self.batcher.expected_wait(self.admission.images + 1)
        late = seconds - (self.wishes.deadline - time.monotonic())
        if late > 0:
            raise Problem(
                "queue-full",
                f"An answer would take about {seconds:.1f} s, longer than the {self.wishes.milliseconds} ms "
                "that the request has; try again later.",
                retry_after=math.ceil(late),
            )


async def _predictor(
    request: Request,
    settings: SettingsPart,
    admission: AdmissionPart,
    batcher: BatcherPart,
    residency: ResidencyPart,
    inspector: InspectorPart,
    wishes: Wishes,
) -> _Predictor:
    return _Predictor(request, settings, admission, batcher, residency, inspector, wishes)


Predictor = Annotated[_Predictor, Depends(_predictor)]


async def _gather(items: list[Coroutine[Any, Any, schemas.BatchItem]]) -> list[schemas.BatchItem]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in items]
    return [task.result() for task in tasks]


_PROBLEMS = documented(
    "invalid-request",
    "unauthenticated",
    "forbidden",
    "unknown-model",
    "unknown-inspection",
    "not-acceptable",
    "idempotency-key-reused",
    "too-large",
    "unsupported-media-type",
    "undecodable-image",
    "rejected-bundle",
    "rate-limited",
    "internal",
    "queue-full",
    "model-loading",
    "history-unavailable",
    "draining",
    "deadline-exceeded",
)
_DOCUMENTED = {**PREDICT_ANSWER, **_PROBLEMS}


@router.post(
    "/predict",
    response_model=schemas.Inspection,
    responses=_DOCUMENTED,
    openapi_extra=PREDICT_EXTRA,
)
async def predict(category: Category, predictor: Predictor) -> Response:
    """Inspect an image with the category's active version.

    `Accept` chooses the answer: application/json (the default), image/png for the overlay itself,
    or application/x-npy for the float32 map at the model's input size, which is not the upload's.
    """
    return await predictor.one(category, None)


@router.post(
    "/versions/{version}/predict",
    response_model=schemas.Inspection,
    responses=_DOCUMENTED,
    openapi_extra=PREDICT_EXTRA,
)
async def predict_with_version(category: Category, version: Version, predictor: Predictor) -> Response:
    """Inspect an image with a version named here, whichever is active; else as without one."""
    return await predictor.one(category, version)


@router.post(
    "/predict:batch",
    response_model=schemas.BatchAnswer,
    responses=_PROBLEMS,
    openapi_extra=BATCH_EXTRA,
)
async def predict_batch(category: Category, predictor: Predictor) -> Response:
    """Inspect several images of a form, such as the views of one part.

    Every image has a status of its own: a damaged one fails alone. Fields such as `part_id` hold for all of
    them, and an `Idempotency-Key` for each with its index.
    """
    return await predictor.several(category)
