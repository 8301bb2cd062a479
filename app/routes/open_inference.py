"""The Open Inference Protocol under /v2, for clients of KServe and Triton."""

import importlib.metadata
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.auth.permissions import AnyCaller, MayPredict, MaySeeModels
from app.dependencies import (
    VERSION_IN_PATH,
    Category,
    LoadedModelsDep,
    PredictorDep,
    SettingsDep,
    require_not_draining,
)
from app.errors.problems import Problem
from app.http import uploads
from app.http.forms import Upload, UploadedFile
from app.http.query_parameters import require_known_query
from app.inspection.params import PredictParamsDep
from app.inspection.predict_request import PROBLEMS, PredictBody, PredictHandler
from app.open_inference import request_body, response_body
from app.registry.catalogue import find_version_folder
from app.routes import health
from app.routes.openapi import documented
from app.routes.openapi_bodies import INFER_EXTRA
from app.scheduling.admission import Reservation
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import open_inference as schemas
from app.schemas.health import Health
from flows.fastflow.bundle import models_folder

router = APIRouter(prefix="/v2", tags=["open inference"], dependencies=[Depends(require_known_query)])

_documented = partial(documented, open_inference=True)
# Memory of parsed JSON as a multiple of its bytes.
_JSON_TIMES: Final = 20


@router.get("/health/live", responses=_documented("internal"))
async def live(_: Annotated[Health, Depends(health.live)]) -> dict[str, bool]:
    """Answer as /health/live."""
    return {"live": True}


@router.get("/health/ready", responses=_documented("internal", "model-loading", "draining"))
async def ready(_: Annotated[Health, Depends(health.ready)]) -> dict[str, bool]:
    """Answer as /health/ready."""
    return {"ready": True}


@router.get("", responses=_documented("internal"))
async def server_metadata(_: AnyCaller) -> schemas.ServerMetadata:
    """Return the server's name and version."""
    return schemas.ServerMetadata(version=importlib.metadata.version("flowgauge"))


_METADATA = _documented("unknown-model", "internal", "model-loading")


@router.get("/models/{category}", responses=_METADATA)
@router.get("/models/{category}/versions/{version}", responses=_METADATA, dependencies=[VERSION_IN_PATH])
def model_metadata(
    request: Request, category: Category, settings: SettingsDep, _: MaySeeModels
) -> schemas.ModelMetadata:
    """Return the inputs and outputs of a model."""
    version = request.path_params.get("version")
    find_version_folder(settings.models, category, version)
    versions = models_folder.versions(settings.models, category) if version is None else [version]
    inputs = [*request_body.INPUTS]
    outputs = [
        schemas.TensorMetadata(name=name, datatype=output.datatype, shape=output.shape)
        for name, output in response_body.OUTPUTS.items()
    ]
    return schemas.ModelMetadata(name=category, versions=versions, inputs=inputs, outputs=outputs)


_READY = _documented("unknown-model", "rejected-bundle", "internal", "model-loading")


@router.get("/models/{category}/ready", responses=_READY)
@router.get("/models/{category}/versions/{version}/ready", responses=_READY, dependencies=[VERSION_IN_PATH])
async def model_ready(
    request: Request, category: Category, loaded_models: LoadedModelsDep, _: MayPredict
) -> dict[str, str | bool]:
    """Answer 200 when the version is loaded; load it first if needed."""
    await cancel_on_disconnect(request, loaded_models.get(category, request.path_params.get("version")))
    return {"name": category, "ready": True}


_INFER: Final[dict[str, Any]] = {
    "response_model": schemas.InferenceResponse,
    "responses": _documented(*PROBLEMS),
    "openapi_extra": INFER_EXTRA,
}


@router.post("/models/{category}/infer", dependencies=[Depends(require_not_draining)], **_INFER)
@router.post(
    "/models/{category}/versions/{version}/infer",
    dependencies=[Depends(require_not_draining), VERSION_IN_PATH],
    **_INFER,
)
async def infer(
    request: Request, category: Category, params: PredictParamsDep, predictor: PredictorDep
) -> Response:
    """Inspect images with the active version, or with the version in the path.

    The input is `image`, BYTES [N], for files, or `pixels`, UINT8 [N, H, W, 3], for RGB that the history
    stores as PNG. If one image fails, the whole request fails; others may be stored already.
    """
    read = partial(_read, request, category, predictor)
    return await predictor.predict_all(request, category, params, read)


async def _read(request: Request, category: str, predictor: PredictHandler, room: Reservation) -> PredictBody:
    settings = predictor.settings
    if "content-encoding" in request.headers:
        raise Problem("unsupported-media-type", "The body is compressed; send it as it is.")
    limit = settings.max_request_bytes
    beyond = Problem("too-large", f"The request has more than {limit} bytes, the limit.")
    body = b"".join([chunk async for chunk in uploads.read_chunks(request, limit, settings, beyond, room)])
    length = request_body.json_length(request.headers.get(response_body.LENGTH), len(body))
    # Parsing copies the images: files as they are, pixels as PNGs of about the same size.
    room.hold(_JSON_TIMES * length + len(body) - length)
    parse = partial(request_body.parse, body, length, settings)
    found = await predictor.pipeline.run_in_thread(category, parse)
    upload = Upload([UploadedFile(None, image) for image in found.images], found.texts)
    drawings = {drawn for name in found.outputs if (drawn := response_body.OUTPUTS[name].drawn) is not None}
    respond = partial(response_body.respond, outputs=found.outputs, identifier=found.id)
    return PredictBody(upload, drawings, respond)
