"""A predict request's way through the service: room and time for it, its upload, its images, one answer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Query, Request
from starlette.responses import Response

from app import accept, forms, problem_answers, uploads
from app.admission import Admission, Reservation
from app.batcher import Batcher
from app.history.history import History
from app.inspection import MEDIA_TYPES, Answer, Drawing, MediaType
from app.inspector import Inspector, Order
from app.problems import Problem, ProblemName
from app.residency import Residency
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import predict as schemas
from app.sending import Accounted
from app.settings import Settings
from app.verdict import worst
from app.wishes import Wishes

T = TypeVar("T")

# What an image's way can end with, whatever protocol asks; those of keys come before any route.
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

_DRAWINGS: Final[Mapping[MediaType, frozenset[Drawing]]] = {
    "image/png": frozenset({"overlay"}),
    "application/x-npy": frozenset({"map"}),
}
# The pace is that of the median batch. What is accepted must be in time when batches are slower, as they are
# while every refusal takes some of the processor.
_TAIL: Final = 2.0
# The share of a request's time that is left for putting together what several images were answered.
_TO_ANSWER: Final = 0.05


@dataclass(frozen=True)
class Asked:
    """What a request of another protocol asks for.

    Attributes:
        upload: the images, and the texts that hold for all.
        wanted: what is drawn of each.
        respond: makes the response of the answers; work for a thread.
    """

    upload: forms.Upload
    wanted: frozenset[Drawing]
    respond: Callable[[list[Answer]], Response]


@dataclass(frozen=True)
class _Predictor:
    """Takes the images of one request through the service."""

    request: Request
    settings: Settings
    admission: Admission
    batcher: Batcher
    residency: Residency
    inspector: Inspector
    history: History
    wishes: Wishes
    inline: frozenset[schemas.Picture]

    async def one(self, category: str, version: str | None) -> Response:
        """Inspect the request's image.

        Raises:
            Problem: any of those that the routes document.
            ClientDisconnect: nobody waits for an answer any more.
        """
        media_type = self._negotiate(MEDIA_TYPES)
        wanted = _DRAWINGS.get(media_type, self.inline)

        async def work(room: Reservation) -> Response:
            detector = await self.residency.get(category, version)
            limits = self.settings.max_bytes, self.settings.upload_idle_seconds
            upload = await uploads.read(self.request, room, *limits)
            self._expect_time(category, 1)  # many may have come meanwhile, all at once
            room.wait_in_line()
            order = self.wishes.order(detector, upload.texts, wanted)
            answer = await cancel_on_disconnect(self.request, self._inspect(order, upload.files[0], room))
            room.add_answer(_drawn_bytes(answer))
            if self.inline:  # megabytes of base64 are no work for the event loop
                room.add_answer(2 * _drawn_bytes(answer))  # and in the JSON they are longer, and there twice
                respond = partial(answer.respond, media_type, self.inline)
                return await self.inspector.off_loop(category, respond)
            return answer.respond(media_type, self.inline)

        return await self._in_time(category, work)

    async def translated(
        self, category: str, version: str | None, understand: Callable[[Reservation], Awaitable[Asked]]
    ) -> Response:
        """Inspect what a request of another protocol asks for; one image that fails is the whole answer.

        Args:
            category: which model.
            version: of it; None for the active one.
            understand: reads the request, holding in the reservation what it keeps.

        Raises:
            Problem: any of those that the routes document.
            ClientDisconnect: nobody waits for an answer any more.
        """

        async def work(room: Reservation) -> Response:
            detector = await self.residency.get(category, version)
            asked = await understand(room)
            files = asked.upload.files
            self._expect_time(category, len(files))
            for _ in files:
                room.wait_in_line()
            orders = [
                self.wishes.order(detector, asked.upload.texts, asked.wanted, None if len(files) == 1 else i)
                for i in range(len(files))
            ]

            async def inspect(order: Order, file: forms.File) -> Answer:
                answer = await self._inspect(order, file, room)
                room.add_answer(_drawn_bytes(answer))  # until the response is made of all
                return answer

            jobs = list(map(inspect, orders, files))
            answers = await cancel_on_disconnect(self.request, _gather(jobs))
            # The response beside them; as JSON it may be a third more.
            room.add_answer(sum(map(_drawn_bytes, answers)))
            return await self.inspector.off_loop(category, partial(asked.respond, answers))

        return await self._in_time(category, work)

    async def several(self, category: str) -> Response:
        """Inspect the request's images; each fails alone, be it that the time did not suffice for it.

        Raises:
            Problem: any of those that the route documents.
            ClientDisconnect: nobody waits for an answer any more.
        """
        self._negotiate(MEDIA_TYPES[:1])
        until = self.wishes.deadline - _TO_ANSWER * self.wishes.milliseconds / 1000

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
            self._expect_time(category, len(upload.files))  # before, it might have been one
            for _ in upload.files:
                room.wait_in_line()
            items = []
            for index, file in enumerate(upload.files):
                order = self.wishes.order(detector, upload.texts, self.inline, index)
                items.append(self._item(index, file, order, room, until))
            done = await cancel_on_disconnect(self.request, _gather(items))
            if all(item.problem is not None and item.problem.type == "deadline-exceeded" for item in done):
                raise self._too_late()
            decisions = [item.inspection.decision for item in done if item.inspection is not None]
            known = len(decisions) == len(done) or "REJECT" in decisions
            answer = schemas.BatchAnswer(decision=worst(decisions) if known else None, items=done)
            body = await self.inspector.off_loop(category, answer.model_dump_json)
            return Response(body, media_type=MEDIA_TYPES[0])

        return await self._in_time(category, work)

    async def _item(
        self, index: int, file: forms.File, order: Order, room: Reservation, until: float
    ) -> schemas.BatchItem:
        status, inspection, problem = 200, None, None
        try:
            async with self._until(until):
                answer = await self._inspect(order, file, room)
                draw = partial(answer.with_pictures, self.inline)
                inspection = await self.inspector.off_loop(order.category, draw)
                # Until the last of them is done, and it is counted as a part of the answer.
                room.add_answer(sum(map(len, (inspection.inline or {}).values())))
        # Whatever it is: the others are inspected, perhaps kept already, and want their answers.
        except Exception as error:
            found = problem_answers.of(error)
            status, problem = found.status, problem_answers.details(self.request, found.name, found.detail)
        return schemas.BatchItem(
            index=index, filename=file.name, status=status, inspection=inspection, problem=problem
        )

    async def _inspect(self, order: Order, file: forms.File, room: Reservation) -> Answer:
        if isinstance(file.data, Problem):
            raise file.data
        return await self.inspector.inspect(order, file.data, room)

    def _negotiate(self, offers: tuple[MediaType, ...]) -> MediaType:
        header = ", ".join(self.request.headers.getlist("accept"))
        media_type = accept.negotiate(header, offers)
        if media_type is None:
            raise Problem("not-acceptable", f"Accept was {header[:200]!r}; given are {', '.join(offers)}.")
        return media_type

    async def _in_time(self, category: str, work: Callable[[Reservation], Awaitable[Response]]) -> Response:
        """Do the work with room for it, within the deadline; sending the response gives the room back."""
        async with self._until(self.wishes.deadline):
            with ExitStack() as stack:
                room = stack.enter_context(self.admission.reserve(category))
                self._expect_time(category, 1)
                self._expect_history()
                response = Accounted(await work(room), room)
                stack.pop_all()
        return response

    @asynccontextmanager
    async def _until(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._too_late() from error

    def _too_late(self) -> Problem:
        return Problem(
            "deadline-exceeded",
            f"Not done within {self.wishes.milliseconds} ms; what still waited is not computed.",
        )

    def _expect_time(self, category: str, images: int) -> None:
        """Refuse at once what could not be answered in time: the client can go elsewhere with it."""
        # What is held may be in the batcher's line already: counted twice, it stands for the decoding,
        # drawing and sending, which the batcher does not know.
        seconds = _TAIL * self.batcher.expected_wait(images, category, self.admission.images_held)
        late = seconds - (self.wishes.deadline - time.monotonic())
        if seconds > 0 and late > 0:  # where nothing waits, it is the deadline that has passed
            raise Problem(
                "queue-full",
                f"An answer would take about {seconds:.1f} s, longer than the {self.wishes.milliseconds} ms "
                "that the request has; try again later.",
                retry_after=math.ceil(late),
            )

    def _expect_history(self) -> None:
        """Refuse before its upload what could not be kept; but what was kept before can be answered again.

        In the event loop: a thread would take longer, and requests that wait for one are counted nowhere yet.
        """
        if self.wishes.store and self.wishes.idempotency_key is None:
            size = min(uploads.declared_size(self.request), self.settings.max_bytes)
            self.history.expect_room(size)


def _drawn_bytes(answer: Answer) -> int:
    return sum(map(len, answer.files.values()))


def _put_together(request: Request, wishes: Wishes, inline: frozenset[schemas.Picture]) -> _Predictor:
    # Taken by hand: as seven dependencies they would be a tenth of the event loop's work on a request.
    parts = request.app.state
    return _Predictor(
        request=request,
        settings=parts.settings,
        admission=parts.admission,
        batcher=parts.batcher,
        residency=parts.residency,
        inspector=parts.inspector,
        history=parts.history,
        wishes=wishes,
        inline=inline,
    )


async def _predictor(
    request: Request,
    wishes: Wishes,
    inline: Annotated[
        list[schemas.Picture] | None,
        # Each is wanted or not; of thousands not even the refusal could be paid.
        Query(
            max_length=8, description="Pictures to put into the JSON, as base64 of a PNG. May be repeated."
        ),
    ] = None,
) -> _Predictor:
    return _put_together(request, wishes, frozenset(inline or ()))


async def _translator(request: Request, wishes: Wishes) -> _Predictor:
    return _put_together(request, wishes, frozenset())


Predictor = Annotated[_Predictor, Depends(_predictor)]
# For other protocols: their answers have no place for pictures that were not asked for in their own way.
Translator = Annotated[_Predictor, Depends(_translator)]


async def _gather(jobs: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers, or the first failure; then what has not begun is not computed."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
