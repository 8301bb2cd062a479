"""Inspecting an image: an upload in; a decision, the overlay that explains it, or the map out."""

import asyncio
import time
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app import accept, schemas, uploads
from app.admission import Reservation
from app.dependencies import AdmissionPart, Category, InferencePart, ResidencyPart, SettingsPart, Version
from app.inference import while_connected
from app.inspection import MEDIA_TYPES, Drawing, Inspected
from app.openapi import PREDICT_ANSWER, PREDICT_EXTRA, documented
from app.problems import Problem
from app.sending import Accounted
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}", tags=["predict"])


class Inspector:
    """The way of one predict request through the service; a dependency of the routes."""

    def __init__(
        self,
        request: Request,
        settings: SettingsPart,
        admission: AdmissionPart,
        inference: InferencePart,
        residency: ResidencyPart,
        inline: Annotated[
            list[schemas.Picture] | None,
            Query(description="Pictures to put into the JSON, as base64 of a PNG. May be repeated."),
        ] = None,
        timeout_ms: Annotated[
            int | None,
            Query(
                ge=1,
                le=600_000,
                description="Give up after so many milliseconds; what still waits is not computed.",
                examples=[500],
            ),
        ] = None,
    ) -> None:
        self._start = time.perf_counter()
        self._request = request
        self._settings = settings
        self._admission = admission
        self._inference = inference
        self._residency = residency
        self._timeout_ms = timeout_ms
        header = request.headers.get("accept")
        media_type = accept.negotiate(header, MEDIA_TYPES)
        if media_type is None:
            raise Problem(
                "not-acceptable",
                f"Accept was {(header or '')[:200]!r}; given are {', '.join(MEDIA_TYPES)}.",
            )
        self._media_type = media_type
        drawings: dict[str, set[Drawing]] = {"image/png": {"overlay"}, "application/x-npy": {"map"}}
        self._wanted = drawings.get(media_type, {*(inline or ())})

    async def answer(self, category: str, version: str | None) -> Response:
        """Inspect the request's image.

        Raises:
            Problem: any of those that the routes document.
            ClientDisconnect: nobody waits for an answer any more.
        """
        seconds = None if self._timeout_ms is None else self._timeout_ms / 1000
        try:
            async with asyncio.timeout(seconds) as limit:
                detector = await self._residency.get(category, version)
                with ExitStack() as stack:
                    room = stack.enter_context(self._admission.reserve())
                    limits = self._settings.max_bytes, self._settings.upload_idle_seconds
                    upload = await uploads.read(self._request, room, *limits)
                    room.wait_in_line()
                    work = self._inspect(detector, upload, room)
                    response = Accounted(await while_connected(self._request, work), room)
                    stack.pop_all()  # the response gives the room back, when it is sent
                    return response
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Problem(
                "deadline-exceeded",
                f"Not done within timeout_ms={self._timeout_ms}; what still waited is not computed.",
            ) from error

    async def _inspect(self, detector: Detector, upload: uploads.Upload, room: Reservation) -> Response:
        decoded = await self._inference.decode(upload.data)
        room.hold(decoded.value.pixels.nbytes)
        predicted = await self._inference.predict(detector, decoded.value.pixels)
        inspected = Inspected(detector, upload.texts, decoded, predicted)
        drawn = await self._inference.draw(inspected.draw, self._wanted)
        return inspected.answer(self._media_type, drawn, time.perf_counter() - self._start)


_DOCUMENTED = {
    **PREDICT_ANSWER,
    **documented(
        "invalid-request",
        "unknown-model",
        "not-acceptable",
        "too-large",
        "unsupported-media-type",
        "undecodable-image",
        "rejected-bundle",
        "internal",
        "queue-full",
        "model-loading",
        "deadline-exceeded",
    ),
}


@router.post(
    "/predict",
    response_model=schemas.Inspection,
    responses=_DOCUMENTED,
    openapi_extra=PREDICT_EXTRA,
)
async def predict(category: Category, inspector: Annotated[Inspector, Depends()]) -> Response:
    """Inspect an image with the category's active version.

    `Accept` chooses the answer: application/json (the default), image/png for the overlay itself,
    or application/x-npy for the float32 map at the model's input size, which is not the upload's.
    """
    return await inspector.answer(category, None)


@router.post(
    "/versions/{version}/predict",
    response_model=schemas.Inspection,
    responses=_DOCUMENTED,
    openapi_extra=PREDICT_EXTRA,
)
async def predict_with_version(
    category: Category, version: Version, inspector: Annotated[Inspector, Depends()]
) -> Response:
    """Inspect an image with a version named here, whichever is active; else as without one."""
    return await inspector.answer(category, version)
