"""Parameters of a predict request, and the request for each of its images."""

import hashlib
import inspect
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from app.auth.permissions import MayPredict
from app.errors.problems import Problem
from app.http.forms import TEXT_FIELDS
from app.inspection.explanation import Drawing
from app.schemas.predict import Picture
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN
from flows.fastflow.detector import Detector


def _text(description: str) -> Any:
    """Declare a text parameter in the query; a form field of the same name takes precedence."""
    return Query(max_length=MAX_TEXT, pattern=TEXT_PATTERN, description=description)


@dataclass
class PredictParams:
    """Parameters of a predict request, read by FastAPI.

    Attributes:
        start: arrival, by time.perf_counter().
        deadline: end of the time limit, by time.monotonic().
        budget_ms: time from arrival to deadline.
        texts: the given ones of `TEXT_FIELDS`.
        inline: drawings to include in the JSON.
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
    file_name: Annotated[
        str | None, _text("Name of the file, stored with the inspection; by default that in the form.")
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
                "Idempotency-Key needs store=true: an answer that is not stored cannot be repeated.",
            )
        self.budget_ms: int = self.timeout_ms or self.request.app.state.settings.deadline_ms
        self.start = time.perf_counter()
        self.deadline = time.monotonic() + self.budget_ms / 1000
        self.version: str | None = self.request.path_params.get("version")
        self.texts = {name: text for name in TEXT_FIELDS if (text := getattr(self, name))}


@dataclass
class ParamsWithInline(PredictParams):
    """Parameters of a predict request whose JSON answer may include drawings."""

    inline: Annotated[
        list[Picture] | None,
        Query(
            max_length=8, description="Images to include in the JSON, as base64 of a PNG. May be repeated."
        ),
    ] = None


class _InEventLoop:
    """A dependency that creates an object of a class in the event loop.

    FastAPI would create it in a thread, and requests that wait for a thread are not counted yet.
    """

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self.__signature__ = inspect.signature(cls)

    async def __call__(self, **values: Any) -> Any:
        return self._cls(**values)


PredictParamsDep = Annotated[PredictParams, Depends(_InEventLoop(PredictParams))]
PredictParamsInlineDep = Annotated[ParamsWithInline, Depends(_InEventLoop(ParamsWithInline))]


@dataclass(frozen=True)
class PredictRequest:
    """The request for one image of a form; `index` is its place in the form."""

    params: PredictParams
    detector: Detector
    texts: Mapping[str, str]
    drawings: Collection[Drawing]
    index: int

    @property
    def category(self) -> str:
        return self.detector.manifest.category

    @property
    def idempotency_key(self) -> str | None:
        """The image's idempotency key; the first image has that of the request."""
        key = self.params.idempotency_key
        return f"{key}#{self.index}" if key and self.index else key

    def digest(self, image_sha256: str) -> str:
        """Return the SHA-256 of everything in the request that determines the answer."""
        params = self.params
        texts = sorted((name, text) for name, text in self.texts.items() if name != "file_name")
        inputs = [self.category, params.version, params.regions, image_sha256, texts]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
