"""Inspection of uploaded images."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.dependencies import VERSION_IN_PATH, Category, PredictorDep
from app.inspection.params import PredictParamsInlineDep
from app.inspection.predict_request import PROBLEMS
from app.routes.openapi import documented
from app.routes.openapi_bodies import BATCH_EXTRA, PREDICT_ANSWER, PREDICT_EXTRA
from app.schemas import predict as schemas

router = APIRouter(prefix="/v1/models/{category}", tags=["predict"])

_PROBLEMS = documented(*PROBLEMS, "not-acceptable")
_PREDICT: Final[dict[str, Any]] = {
    "response_model": schemas.Inspection,
    "responses": {**PREDICT_ANSWER, **_PROBLEMS},
    "openapi_extra": PREDICT_EXTRA,
}


@router.post("/predict", **_PREDICT)
@router.post("/versions/{version}/predict", dependencies=[VERSION_IN_PATH], **_PREDICT)
async def predict(
    request: Request, category: Category, params: PredictParamsInlineDep, predictor: PredictorDep
) -> Response:
    """Inspect an image with the active version, or with the version in the path.

    `Accept` selects the answer: application/json (the default), image/png for the overlay, or
    application/x-npy for the float32 map of the whole upload. The map has the model's input size if `fit` is
    stretch, and the upload's aspect ratio otherwise.
    """
    return await predictor.predict(request, category, params)


@router.post(
    "/predict:batch", response_model=schemas.BatchAnswer, responses=_PROBLEMS, openapi_extra=BATCH_EXTRA
)
async def predict_batch(
    request: Request, category: Category, params: PredictParamsInlineDep, predictor: PredictorDep
) -> Response:
    """Inspect the images of a form, such as the views of one part.

    Each image has its own status: one that is damaged or late fails alone. Fields such as `part_id` apply to
    all images, and the `Idempotency-Key` to each together with its index.
    """
    return await predictor.predict_batch(request, category, params)
