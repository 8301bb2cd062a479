"""The parameters of a predict request, and the request for one of its images."""

import hashlib
import inspect
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from app.auth.access import MayPredict
from app.errors.problems import Problem
from app.http import forms
from app.inspection.decoding import Drawing
from app.schemas.predict import Picture
from flows.fastflow.detector import Detector


def _text(description: str) -> Any:
    """Return a text parameter, for raw bodies; a form's field of the same name comes first."""
    return Query(max_length=forms.MAX_TEXT, pattern=forms.TEXT_PATTERN, description=description)


@dataclass
class PredictParams:
    """What a predict request says beside its images, as FastAPI reads it.

    Attributes:
        start: time.perf_counter() of its arrival.
        deadline: time.monotonic() until which somebody waits for the answer.
        budget_ms: from arrival to deadline.
        texts: part_id, product_id, recipe_id and station, those that were given.
        inline: pictures to put into the JSON.
    """

    request: Request
    caller: MayPredict
    regions: Annotated[bool, Query(description="Include the regions above the pixel threshold.")] = True
    store: Annotated[bool, Query(description="Store the inspection in the history.")] = True
    timeout_ms: Annotated[
        int | None,
        Query(
            ge=1,
            le=600_000,
            description="Time limit in ms, upload included; by default FLOWGAUGE_DEADLINE_MS.",
        ),
    ] = None
    part_id: Annotated[str | None, _text("Part that the image shows, see /v1/parts.")] = None
    product_id: Annotated[str | None, _text("Product, stored with the inspection.")] = None
    recipe_id: Annotated[str | None, _text("Recipe, stored with the inspection.")] = None
    station: Annotated[
        str | None, _text("Station, which selects its calibration and region of interest.")
    ] = None
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="Unique name of this request. A repetition with the same image, fields and `regions` "
            "gets the first answer again and is not counted twice.",
        ),
    ] = None
    inline: list[Picture] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if len(self.request.headers.getlist("idempotency-key")) > 1:
            raise Problem(
                "invalid-request", "header parameter idempotency-key: must come once, with one value"
            )
        if self.idempotency_key is not None and not self.store:
            raise Problem(
                "invalid-request",
                "Idempotency-Key needs store=true: what is not kept cannot be answered again.",
            )
        self.budget_ms: int = self.timeout_ms or self.request.app.state.settings.deadline_ms
        self.start = time.perf_counter()
        self.deadline = time.monotonic() + self.budget_ms / 1000
        self.version: str | None = self.request.path_params.get("version")
        self.texts = {name: text for name in forms.TEXT_FIELDS if (text := getattr(self, name))}


@dataclass
class ParamsWithInline(PredictParams):
    """The same for an answer in JSON that may hold pictures."""

    inline: Annotated[
        list[Picture] | None,
        Query(
            max_length=8, description="Images to include in the JSON, as base64 of a PNG. May be repeated."
        ),
    ] = None


class _InEventLoop:
    """A dependency that makes an object of a class in the event loop.

    FastAPI hands a class by itself to a thread, for which requests wait that are counted nowhere yet.
    """

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self.__signature__ = inspect.signature(kind)

    async def __call__(self, **values: Any) -> Any:
        return self._kind(**values)


Params = Annotated[PredictParams, Depends(_InEventLoop(PredictParams))]
ParamsInline = Annotated[ParamsWithInline, Depends(_InEventLoop(ParamsWithInline))]


@dataclass(frozen=True)
class PredictRequest:
    """The request for one image, that with an index; texts of a form go before those of the query."""

    params: PredictParams
    detector: Detector
    texts: Mapping[str, str]
    drawings: Collection[Drawing]
    index: int

    @property
    def category(self) -> str:
        """The model's."""
        return self.detector.manifest.category

    @property
    def idempotency_key(self) -> str | None:
        """The key of this image: that of the request for the first one."""
        key = self.params.idempotency_key
        return f"{key}#{self.index}" if key and self.index else key

    def digest(self, image_sha256: str) -> str:
        """sha256 of all that decides the answer, but for what is set on the server, as the active version."""
        params = self.params
        what = [self.category, params.version, params.regions, image_sha256, sorted(self.texts.items())]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()
