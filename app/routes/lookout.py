"""Amazon Lookout for Vision's address: its programs go on with another endpoint and a key in a header."""

import re
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from app import lookout, uploads
from app.admission import Reservation
from app.dependencies import Category, Version
from app.dialects import LOOKOUT
from app.inspection import Answer, Drawing
from app.openapi import documented
from app.openapi_bodies import RAW_EXTRA
from app.predictor import PROBLEMS, Asked, Translator

router = APIRouter(prefix="/2020-11-20", tags=["migration"])

# Lookout counted a project's models from 1; here the model that serves is the active one.
_ACTIVE: Final = re.compile(r"[1-9][0-9]{0,9}|latest|active")
# botocore makes one up for every call, and sends it with each attempt at the call.
_CALL_ID: Final = "amz-sdk-invocation-id"
_WANTED: Final[frozenset[Drawing]] = frozenset({"mask"})

_DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = documented(*PROBLEMS, dialect=LOOKOUT)


@router.post(
    "/projects/{category}/models/{version}/detect",
    response_model=lookout.Detected,
    responses=_DOCUMENTED,
    openapi_extra=RAW_EXTRA,
)
async def detect(category: Category, version: Version, predictor: Translator) -> Response:
    """Inspect an image as Lookout's DetectAnomalies did.

    The project is the category. `latest`, `active` and any number, by which Lookout named its models, mean
    the active version; another name means that version. The signature is not verified; the key comes as
    X-API-Key. An attempt that the client repeats is not inspected twice.
    """
    request, settings = predictor.request, predictor.settings

    async def understand(room: Reservation) -> Asked:
        upload = await uploads.read(request, room, settings.max_bytes, settings.upload_idle_seconds)
        return Asked(upload, _WANTED, partial(_respond, request.state.request_id))

    call_id = request.headers.get(_CALL_ID, "")
    if predictor.wishes.idempotency_key is None and re.fullmatch(r"[!-~]{1,200}", call_id):
        wishes = replace(predictor.wishes, idempotency_key=call_id if predictor.wishes.store else None)
        predictor = replace(predictor, wishes=wishes)
    named = None if _ACTIVE.fullmatch(version) else version
    return await predictor.translated(category, named, understand)


def _respond(request_id: str, answers: list[Answer]) -> Response:
    [answer] = answers
    inspection = answer.inspection
    headers = {
        "x-amzn-RequestId": request_id,
        "X-Inspection-ID": inspection.inspection_id,
        "X-Decision": inspection.decision,
        "X-Score": repr(inspection.score),
    }
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    body = lookout.detected(answer).model_dump_json()
    return Response(body, headers=headers, media_type="application/json")
