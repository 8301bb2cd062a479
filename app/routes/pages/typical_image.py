"""A typical good image of a version, to compare with an inspected one."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.auth.permissions import MaySeeResult
from app.dependencies import Category, PipelineDep, StoreDep, Version
from app.errors.problems import Problem
from app.history.drawing import encode_jpeg, shrink
from app.http import immutable
from app.registry.catalogue import find_version_folder
from app.registry.model_store import ModelStore
from flows.fastflow.bundle import bundle
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS

router = APIRouter()

SCREEN_SIDE: Final = 1280  # most pixels of an image's longer side


def typical_address(models: Path, category: str, version: str) -> str | None:
    """Return the address of a version's typical image; None if the version was deleted."""
    if not (models / category / version / bundle.MANIFEST).is_file():
        return None
    return f"/models/{category}/versions/{version}/typical.jpg"


@router.get("/models/{category}/versions/{version}/typical.jpg", response_class=Response)
async def get_typical_image(
    category: Category,
    version: Version,
    request: Request,
    _: MaySeeResult,
    store: StoreDep,
    pipeline: PipelineDep,
) -> Response:
    """Return the golden image with the middle score as a JPEG at screen size."""
    tag = f"{version}.typical"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    content = await pipeline.run_in_thread(category, lambda: _draw(store, category, version))
    return Response(content, headers=immutable.headers(tag), media_type="image/jpeg")


def _draw(store: ModelStore, category: str, version: str) -> bytes:
    folder = find_version_folder(store.models, category, version)
    store.fetch(folder)
    try:
        manifest = bundle.read_manifest(folder)
        ranked = sorted(manifest.golden, key=lambda golden: golden.score)
        data = bundle.read_verified(folder, manifest, ranked[len(ranked) // 2].file, FILE_LIMITS.max_bytes)
        image = decode_image(data, FILE_LIMITS, manifest.sample_bits)
    except (bundle.BundleError, ImageError) as error:
        raise Problem("rejected-bundle", "The version's golden image is missing or was changed.") from error
    return encode_jpeg(shrink(image, SCREEN_SIDE))
