"""The parameters of a predict request, and the request for one of its images."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from app import forms
from app.access import MayPredict
from app.inspection.drawings import Drawing
from app.problems import Problem
from app.schemas import predict as schemas
from flows.fastflow.detector import Detector

_Text = Query(
    max_length=forms.MAX_TEXT,
    pattern=forms.TEXT_PATTERN,
    description="For a raw body, which has no fields; a form's field goes before it.",
)


@dataclass(frozen=True)
class PredictParams:
    """What a predict request says beside its images.

    Attributes:
        start: time.perf_counter() of its arrival.
        deadline: time.monotonic() until which somebody waits for the answer.
        timeout_ms: from arrival to deadline.
        texts: part_id, product_id, recipe_id and station, those that were given.
        key_id: the caller's API key.
        version: that the path names; None for the active one.
        inline: pictures to put into the JSON.
    """

    start: float
    deadline: float
    timeout_ms: int
    regions: bool
    store: bool
    texts: Mapping[str, str]
    key_id: str | None
    request_id: str
    idempotency_key: str | None
    version: str | None = None
    inline: frozenset[schemas.Picture] = frozenset()


@dataclass(frozen=True)
class PredictRequest:
    """The request for one image, the only one or the one with an index; fields are the form's texts."""

    params: PredictParams
    detector: Detector
    fields: Mapping[str, str]
    drawings: frozenset[Drawing]
    index: int | None = None

    @property
    def category(self) -> str:
        """The model's."""
        return self.detector.manifest.category

    @property
    def texts(self) -> dict[str, str]:
        """The texts that were given; those of the form go before those of the query."""
        return {**self.params.texts, **{name: text for name, text in self.fields.items() if text}}

    @property
    def idempotency_key(self) -> str | None:
        """The key of this image."""
        key = self.params.idempotency_key
        return key if key is None or self.index is None else f"{key}#{self.index}"

    def digest(self, image_sha256: str) -> str:
        """sha256 of all that decides the answer, but for what is set on the server.

        The active version is not in it: a repeated request gets the first answer, whatever was activated in
        between.
        """
        params = self.params
        what = [self.category, params.version, params.regions, image_sha256, sorted(self.texts.items())]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


async def _params(
    request: Request,
    caller: MayPredict,
    regions: Annotated[
        bool, Query(description="Whether the answer has the regions above the pixel threshold.")
    ] = True,
    store: Annotated[bool, Query(description="Whether the history keeps the inspection.")] = True,
    timeout_ms: Annotated[
        int | None,
        Query(
            ge=1,
            le=600_000,
            description="Give up after so many milliseconds, the upload included; what still waits is not "
            "computed.",
            examples=[500],
        ),
    ] = None,
    part_id: Annotated[str | None, _Text] = None,
    product_id: Annotated[str | None, _Text] = None,
    recipe_id: Annotated[str | None, _Text] = None,
    station: Annotated[str | None, _Text] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="A name for this very request. Sent again with the same image, fields and `regions`, "
            "it gets the first answer again, and nothing is counted twice.",
            examples=["P-000123-top"],
        ),
    ] = None,
) -> PredictParams:
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise Problem("invalid-request", "header parameter idempotency-key: must come once, with one value")
    if idempotency_key is not None and not store:
        raise Problem(
            "invalid-request", "Idempotency-Key needs store=true: what is not kept cannot be answered again."
        )
    given = {"part_id": part_id, "product_id": product_id, "recipe_id": recipe_id, "station": station}
    milliseconds: int = timeout_ms or request.app.state.settings.deadline_ms
    return PredictParams(
        start=time.perf_counter(),
        deadline=time.monotonic() + milliseconds / 1000,
        timeout_ms=milliseconds,
        regions=regions,
        store=store,
        texts={name: text for name, text in given.items() if text},
        key_id=caller.key_id,
        request_id=request.state.request_id,
        idempotency_key=idempotency_key,
        version=request.path_params.get("version"),
    )


# For other protocols, which ask for drawings in their own way.
Params = Annotated[PredictParams, Depends(_params)]


async def _params_with_inline(
    params: Params,
    inline: Annotated[
        list[schemas.Picture] | None,
        Query(
            max_length=8, description="Pictures to put into the JSON, as base64 of a PNG. May be repeated."
        ),
    ] = None,
) -> PredictParams:
    return replace(params, inline=frozenset(inline or ()))


ParamsWithInline = Annotated[PredictParams, Depends(_params_with_inline)]
