"""What a predict request says beside its images: its query, its headers, who sent it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from app import forms
from app.access import MayPredict
from app.inspection import Drawing
from app.inspector import Order
from app.problems import Problem
from flows.fastflow.detector import Detector

_Text = Query(
    max_length=forms.MAX_TEXT,
    pattern=forms.TEXT_PATTERN,
    description="For a raw body, which has no fields; a form's field goes before it.",
)


@dataclass(frozen=True)
class _Wishes:
    """A request's wishes; times are those of its arrival."""

    start: float  # time.perf_counter()
    deadline: float  # time.monotonic()
    milliseconds: int
    regions: bool
    store: bool
    texts: Mapping[str, str]
    key_id: str | None
    request_id: str
    idempotency_key: str | None
    version: str | None  # that the path names

    def order(
        self,
        detector: Detector,
        texts: Mapping[str, str],
        wanted: frozenset[Drawing],
        number: int | None = None,
    ) -> Order:
        """What is wanted of an image: of the only one, or of the one with a number.

        Args:
            detector: the model.
            texts: the form's fields.
            wanted: pictures to draw.
            number: the image's place in a request of several.
        """
        key = self.idempotency_key
        return Order(
            detector=detector,
            version=self.version,
            texts={**self.texts, **{name: text for name, text in texts.items() if text}},
            wanted=wanted,
            regions=self.regions,
            store=self.store,
            key_id=self.key_id,
            request_id=self.request_id,
            idempotency_key=key if key is None or number is None else f"{key}#{number}",
            start=self.start,
            deadline=self.deadline,
        )


async def _wishes(
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
) -> _Wishes:
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise Problem("invalid-request", "header parameter idempotency-key: must come once, with one value")
    if idempotency_key is not None and not store:
        raise Problem(
            "invalid-request", "Idempotency-Key needs store=true: what is not kept cannot be answered again."
        )
    given = {"part_id": part_id, "product_id": product_id, "recipe_id": recipe_id, "station": station}
    milliseconds: int = timeout_ms or request.app.state.settings.deadline_ms
    return _Wishes(
        start=time.perf_counter(),
        deadline=time.monotonic() + milliseconds / 1000,
        milliseconds=milliseconds,
        regions=regions,
        store=store,
        texts={name: text for name, text in given.items() if text},
        key_id=caller.key_id,
        request_id=request.state.request_id,
        idempotency_key=idempotency_key,
        version=request.path_params.get("version"),
    )


Wishes = Annotated[_Wishes, Depends(_wishes)]
