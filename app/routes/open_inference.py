"""The Open Inference Protocol under /v2: clients of KServe and Triton work unchanged."""

import asyncio
import importlib.metadata
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import uploads
from app.access import AnyCaller, MayPredict, MaySeeModels
from app.catalogue import resolve
from app.dependencies import (
    VERSION_IN_PATH,
    BatcherPart,
    Category,
    DrainingPart,
    PredictorPart,
    ResidencyPart,
    SettingsPart,
    require_not_draining,
)
from app.forms import File, Upload
from app.inspection.answer import Answer
from app.inspection.params import PredictParams
from app.inspection.predictor import PROBLEMS, Body, Predictor
from app.known_query import require_known_query
from app.open_inference import incoming, outgoing
from app.openapi import documented
from app.openapi_bodies import INFER_EXTRA
from app.problems import Problem
from app.scheduling.admission import Reservation
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import open_inference as schemas
from flows.fastflow import heatmap, models_folder

router = APIRouter(prefix="/v2", tags=["open inference"], dependencies=[Depends(require_known_query)])

_documented = partial(documented, open_inference=True)
# The JSON, as objects of Python.
_JSON_TIMES: Final = 20


@router.get("/health/live", responses=_documented("internal"))
async def live(batcher: BatcherPart) -> dict[str, bool]:
    """Answer 200 as long as the process can answer, unless its device is lost: then it must be restarted."""
    if batcher.lost is not None:
        raise Problem("internal", batcher.lost)
    return {"live": True}


@router.get("/health/ready", responses=_documented("internal", "model-loading", "draining"))
async def ready(residency: ResidencyPart, batcher: BatcherPart, draining: DrainingPart) -> dict[str, bool]:
    """Answer 200 when every active model is loaded, as /health/ready."""
    draining.require_not_begun()
    residency.expect_ready()
    batcher.require_alive()
    return {"ready": True}


@router.get("", responses=_documented("internal"))
async def server_metadata(_: AnyCaller) -> schemas.ServerMetadata:
    """Tell what the server is."""
    version = importlib.metadata.version("flowgauge")
    return schemas.ServerMetadata(name="flowgauge", version=version, extensions=["binary_tensor_data"])


_METADATA = _documented("unknown-model", "internal", "model-loading")


@router.get("/models/{category}", responses=_METADATA)
@router.get("/models/{category}/versions/{version}", responses=_METADATA, dependencies=[VERSION_IN_PATH])
def model_metadata(
    request: Request, category: Category, settings: SettingsPart, _: MaySeeModels
) -> schemas.ModelMetadata:
    """Tell what a model, or a version of it, takes and gives."""
    version = request.path_params.get("version")
    resolve(settings.models, category, version)
    versions = models_folder.versions(settings.models, category) if version is None else [version]
    outputs = [
        schemas.TensorMetadata(name=name, datatype=output.datatype, shape=list(output.shape))
        for name, output in outgoing.OUTPUTS.items()
    ]
    inputs = [
        schemas.TensorMetadata(name=incoming.IMAGE, datatype="BYTES", shape=[-1]),
        schemas.TensorMetadata(name=incoming.PIXELS, datatype="UINT8", shape=[-1, -1, -1, 3]),
    ]
    return schemas.ModelMetadata(
        name=category, versions=versions, platform="flowgauge", inputs=inputs, outputs=outputs
    )


_READY = _documented("unknown-model", "rejected-bundle", "internal", "model-loading")


@router.get("/models/{category}/ready", responses=_READY)
@router.get("/models/{category}/versions/{version}/ready", responses=_READY, dependencies=[VERSION_IN_PATH])
async def model_ready(
    request: Request, category: Category, residency: ResidencyPart, settings: SettingsPart, _: MayPredict
) -> dict[str, str | bool]:
    """Answer 200 when the active version, or the one named, is loaded; if it is not, it is loaded first.

    One that is not loaded within FLOWGAUGE_DEADLINE_MS is 503, and loaded all the same.
    """
    load = residency.get(category, request.path_params.get("version"))
    try:
        async with asyncio.timeout(settings.deadline_ms / 1000) as limit:
            await cancel_on_disconnect(request, load)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Problem("model-loading", "It is still being loaded.") from error
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
    request: Request,
    category: Category,
    params: Annotated[PredictParams, Depends()],
    predictor: PredictorPart,
) -> Response:
    """Inspect pictures with the active version, or with the one named.

    The input is `image`, BYTES [N]: files; or `pixels`, UINT8 [N, H, W, 3]: RGB, kept in the history as PNG.
    A picture that cannot be inspected is the answer to all; others may have been kept by then.
    """
    read = partial(_read, request, category, predictor)
    return await predictor.predict_all(request, category, params, read)


async def _read(request: Request, category: str, predictor: Predictor, room: Reservation) -> Body:
    """Read the body and take it apart."""
    settings = predictor.settings
    if "content-encoding" in request.headers:
        raise Problem("unsupported-media-type", "The body is compressed; send it as it is.")
    limit = max(settings.max_bytes, settings.queue_bytes // 2)
    beyond = Problem("too-large", f"The request has more than {limit} bytes, the limit.")
    chunks = []
    async for chunk in uploads.chunks(request, limit, settings.upload_idle_seconds, beyond):
        room.hold(len(chunk))
        chunks.append(chunk)
    body = b"".join(chunks)
    chunks.clear()  # or all of it would be held twice, and counted once
    length = incoming.json_length(request.headers.get(outgoing.LENGTH), len(body))
    # Taken apart, they are there twice; of pixels the second time is their PNG, which is hardly longer.
    room.hold(_JSON_TIMES * length + len(body) - length)

    def take_apart() -> tuple[incoming.Incoming, list[File]]:
        found = incoming.parse(body, length, settings)
        files = [image if isinstance(image, bytes) else heatmap.encode_png(image) for image in found.images]
        return found, [File(None, file) for file in files]

    found, files = await predictor.inspector.run_in_thread(category, take_apart)

    def respond(answers: list[Answer]) -> Response:
        answer, json_length = outgoing.encode(answers, found.outputs, found.id)
        if json_length is None:
            return Response(answer, media_type="application/json")
        headers = {outgoing.LENGTH: str(json_length)}
        return Response(answer, headers=headers, media_type="application/octet-stream")

    return Body(Upload(files, found.texts), outgoing.drawings(list(found.outputs)), respond)
