"""The calls for inspections, models and jobs."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ..schemas.history import InspectionPage, KeptInspection, Part, Verdict
from ..schemas.jobs import Job, JobKind, JobPage, JobState
from ..schemas.models import Model, ModelList, ModelSummary
from ..schemas.predict import BatchAnswer, Decision, Inspection, Picture, WarningCode
from ..schemas.review import Review, ReviewList
from ..schemas.texts import text_fault
from .request import Call, Image, given, read_bytes, read_file, read_json, segment

_TEXTS = ("part_id", "product_id", "recipe_id", "station", "file_name")


class InspectOptions(TypedDict, total=False):
    """Options of an inspection.

    Keys:
        version: instead of the active one.
        part_id: of the part; kept with the inspection, as are product_id, recipe_id and station.
        product_id: of the kind of part.
        recipe_id: of the way the image was taken.
        file_name: of the image, kept with the inspection; by default that of the path.
        station: its own calibration and region of interest apply, if it has them.
        regions: include the regions above the pixel threshold; default True.
        store: keep the inspection in the history; default True.
        inline: images to include in the answer.
        deadline_ms: after which the server gives up.
        idempotency_key: identifies the inspection, so that a restarted program can send it again. By default
            each call gets a new one, which all its attempts share.
        request_id: for the server's log.
    """

    version: str | None
    part_id: str | None
    product_id: str | None
    recipe_id: str | None
    file_name: str | None
    station: str | None
    regions: bool
    store: bool
    inline: Sequence[Picture]
    deadline_ms: int | None
    idempotency_key: str | None
    request_id: str | None


def inspect(category: str, image: Image, **options: Unpack[InspectOptions]) -> Call[Inspection]:
    """Inspect an image. Repeated attempts are inspected and kept once.

    Args:
        image: bytes of a PNG, JPEG, BMP, TIFF or WEBP file, or its path.
        options: part_id, station, store and others, see `InspectOptions`.

    Raises:
        ValueError: the idempotency key or the request id cannot be sent in a header.
        OSError: the file cannot be read.
    """
    if not isinstance(image, bytes) and not text_fault(name := Path(image).name):
        options.setdefault("file_name", name)
    version = options.get("version")
    where = "predict" if version is None else f"versions/{segment(version)}/predict"
    headers = {"Content-Type": "application/octet-stream", **_headers(options)}
    arguments = {"params": _params(options), "headers": headers, "content": read_bytes(image)}
    return Call("POST", f"{_model(category)}/{where}", read_json(Inspection), arguments)


def inspect_all(
    category: str, images: Mapping[str, Image], **options: Unpack[InspectOptions]
) -> Call[BatchAnswer]:
    """Inspect several named images, such as the views of one part. Each may fail alone.

    The idempotency key applies to each image together with its index.

    Raises:
        ValueError: a version is named (only the active one inspects several images), there is no image, or
            as for `inspect`.
        OSError: as for `inspect`.
    """
    if options.get("version") is not None:
        raise ValueError("several images at a time are inspected by the active version; leave version out")
    if not images:
        raise ValueError("there is no image to inspect; give at least one, by its name")
    files = [("file", (name, read_bytes(image))) for name, image in images.items()]
    arguments = {"params": _params(options), "headers": _headers(options), "files": files}
    return Call("POST", f"{_model(category)}/predict:batch", read_json(BatchAnswer), arguments)


def models() -> Call[list[ModelSummary]]:
    """List the categories with their versions."""
    read = read_json(ModelList)
    return Call("GET", "/v1/models", lambda response: read(response).models)


def model(category: str) -> Call[Model]:
    """Describe a category's versions."""
    return Call("GET", _model(category), read_json(Model))


class InspectionQuery(TypedDict, total=False):
    """Filter of inspections in the history; a missing key selects all.

    Keys:
        category: of the model.
        decision: of the inspection.
        part_id: of the part.
        station: of the image.
        file_name: of the image's file.
        warning: a code among the warnings.
        min_margin: least score minus the threshold of REJECT; needs a category, as does max_margin.
        verdict: of the latest review.
        audit: whether it belongs to the audit sample.
        reviewed: whether it has a review.
        made_from: earliest time: a datetime, or a text such as "2026-11-30T06:00:00Z" or "2026-11-30", the
            beginning of that day. UTC if there is no zone.
        made_before: end of the time, excluded; in the same forms.
    """

    category: str | None
    decision: Decision | None
    part_id: str | None
    station: str | None
    file_name: str | None
    warning: WarningCode | None
    min_margin: float | None
    max_margin: float | None
    verdict: Verdict | None
    audit: bool | None
    reviewed: bool | None
    made_from: datetime | str | None
    made_before: datetime | str | None


def page(search: InspectionQuery, limit: int, cursor: str | None) -> Call[InspectionPage]:
    """Read a page of the history, newest first."""
    params: dict[str, Any] = {**search, "limit": limit, "cursor": cursor}
    for ours, theirs in (("made_from", "from"), ("made_before", "to")):
        moment = params.pop(ours, None)
        params[theirs] = moment.isoformat() if isinstance(moment, datetime) else moment
    return Call("GET", "/v1/inspections", read_json(InspectionPage), {"params": given(params)})


def inspection(inspection_id: str) -> Call[KeptInspection]:
    """Read an inspection: its answer, and its present state in the history."""
    return Call("GET", _inspection(inspection_id), read_json(KeptInspection))


def part(part_id: str, *, expect: int | None = None) -> Call[Part]:
    """Read the decision on a part: the worst of its images.

    Args:
        expect: least number of images. The decision is None while fewer are kept and none is a REJECT. An
            image that could not be inspected is not kept.
    """
    return Call(
        "GET", f"/v1/parts/{segment(part_id)}", read_json(Part), {"params": given({"expect": expect})}
    )


def overlay(inspection_id: str) -> Call[bytes]:
    """Read a PNG of the uploaded image with its heatmap over it."""
    return read_file(f"{_inspection(inspection_id)}/overlay.png", "image/")


def heatmap(inspection_id: str) -> Call[bytes]:
    """Read a PNG of the map in colours, at the size of the uploaded image."""
    return read_file(f"{_inspection(inspection_id)}/heatmap.png", "image/")


def source(inspection_id: str) -> Call[bytes]:
    """Read the uploaded image, byte for byte."""
    return read_file(f"{_inspection(inspection_id)}/source", "image/")


def score_map(inspection_id: str) -> Call[bytes]:
    """Read the anomaly map as a .npy file: float16, (height, width)."""
    return read_file(f"{_inspection(inspection_id)}/map.npy", "application/x-npy")


def reviews(inspection_id: str) -> Call[list[Review]]:
    """List the reviews of an inspection, oldest first."""
    read = read_json(ReviewList)
    return Call("GET", f"{_inspection(inspection_id)}/reviews", lambda response: read(response).reviews)


def review(
    inspection_id: str,
    verdict: Verdict,
    *,
    expected_revision: int,
    reviewer: str | None = None,
    note: str | None = None,
    kind: str | None = None,
) -> Call[Review]:
    """Review a part as good or defective. If the answer is lost, read `reviews`: no retry.

    Args:
        kind: of the defect, one of the product's.

    Raises:
        ConflictError: there are more reviews than `expected_revision`; read them first.
    """
    body = {
        "verdict": verdict,
        "expected_revision": expected_revision,
        "reviewer": reviewer,
        "note": note,
        "kind": kind,
    }
    path = f"{_inspection(inspection_id)}/reviews"
    # Not repeatable: after a lost answer it would conflict with itself.
    return Call("POST", path, read_json(Review), {"json": body}, repeatable=False)


def start_job(kind: JobKind, product: str, **settings: Any) -> Call[Job]:
    """Queue a job, or return the equal one that waits, or that runs with the same images.

    Args:
        kind: starter, train, evaluate, calibrate, learn, compare or check.
        product: the job reads its images.
        settings: of the kind, such as epochs=20; None for the default.

    Raises:
        ConflictError: a job of the kind with other settings waits, or nothing can be learned.
    """
    body = {"kind": kind, "product": product, "settings": given(settings)}
    return Call("POST", "/v1/jobs", read_json(Job), {"json": body})


def jobs(product: str | None = None, *, state: Sequence[JobState] = (), limit: int = 50) -> Call[list[Job]]:
    """List the latest jobs, of a product and in some states, or all; newest first."""
    read = read_json(JobPage)
    params = given({"product": product, "limit": limit}) | {"state": list(state)}
    return Call("GET", "/v1/jobs", lambda response: read(response).jobs, {"params": params})


def job(job_id: str) -> Call[Job]:
    """Read a job with its progress and the last lines of its log."""
    return Call("GET", f"/v1/jobs/{segment(job_id)}", read_json(Job))


def job_report(job_id: str) -> Call[bytes]:
    """Read the report of an evaluation, a page of HTML."""
    return read_file(f"/v1/jobs/{segment(job_id)}/report", "text/html")


def cancel_job(job_id: str) -> Call[Job]:
    """Cancel a job that waits or runs.

    Raises:
        ConflictError: it has ended.
    """
    return Call("POST", f"/v1/jobs/{segment(job_id)}:cancel", read_json(Job), repeatable=False)


def _model(category: str) -> str:
    return f"/v1/models/{segment(category)}"


def _inspection(identifier: str) -> str:
    return f"/v1/inspections/{segment(identifier)}"


def _params(options: InspectOptions) -> dict[str, Any]:
    texts = {name: options.get(name) for name in _TEXTS}
    values = {
        **texts,
        "inline": list(options.get("inline", ())) or None,
        "timeout_ms": options.get("deadline_ms"),
        "regions": None if options.get("regions", True) else "false",
        "store": None if options.get("store", True) else "false",
    }
    return given(values)


def _headers(options: InspectOptions) -> dict[str, str]:
    key = options.get("idempotency_key")
    if key is None and options.get("store", True):
        key = uuid.uuid4().hex
    request_id = options.get("request_id")
    for name, value in (("idempotency_key", key), ("request_id", request_id)):
        if value is not None and not (value.isascii() and value.isprintable() and value == value.strip()):
            raise ValueError(f"{name} {value!r}: use printable ASCII, without a space at either end")
    return given({"Idempotency-Key": key, "X-Request-ID": request_id})
