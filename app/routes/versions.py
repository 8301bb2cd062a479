"""Changes of a category's versions: upload, activation, rollback, deletion."""

from typing import Final

from fastapi import APIRouter, Request, Response

from app.auth.audit import audited
from app.auth.permissions import needs
from app.dependencies import Category, SettingsDep, StoreDep, Version
from app.errors.problems import Problem
from app.http import uploads
from app.routes.openapi import LOCATION, documented
from app.routes.openapi_bodies import BUNDLE_EXTRA, BUNDLE_TYPES
from app.routes.parameters import OptionalReason
from app.schemas import models as schemas
from app.schemas.access import Permission

router = APIRouter(prefix="/v1/models/{category}", tags=["models"], dependencies=[needs(Permission.ADMIN)])

_ACTIVATING: Final = documented(
    "unknown-model", "conflict", "rejected-bundle", "internal", "model-loading", "history-unavailable"
)


@router.post(
    "/versions",
    status_code=201,
    openapi_extra=BUNDLE_EXTRA,
    responses={
        201: {"description": "The version is stored.", "headers": LOCATION},
        **documented(
            *("invalid-request", "conflict", "too-large", "unsupported-media-type", "rejected-bundle"),
            *("internal", "queue-full", "history-unavailable"),
        ),
    },
)
async def upload_version(
    category: Category, request: Request, response: Response, settings: SettingsDep, store: StoreDep
) -> schemas.UploadedVersion:
    """Upload a version, which is verified first: hashes, shapes and golden images.

    It does not serve until it is activated. The first version of a new category creates the category.
    """
    async with audited(request, "model.upload", category) as detail:
        header = request.headers.get("content-type", "")
        if header.partition(";")[0].strip().lower() not in BUNDLE_TYPES:
            raise Problem(
                "unsupported-media-type",
                f"The content type is {header[:100]!r}: send the archive as {BUNDLE_TYPES[0]}.",
            )
        limit = settings.max_bundle_bytes
        beyond = Problem("too-large", f"The archive has more than {limit} bytes, the limit.")
        chunks = uploads.read_chunks(request, limit, settings, beyond)
        uploaded = await store.upload(category, chunks)
        detail.update(version=uploaded.version, sha256=uploaded.sha256)
    response.headers["Location"] = f"/v1/models/{category}/versions/{uploaded.version}"
    return schemas.UploadedVersion(category=category, version=uploaded.version)


@router.post("/versions/{version}:activate", responses=_ACTIVATING)
async def activate_version(
    category: Category, version: Version, request: Request, store: StoreDep, reason: OptionalReason = None
) -> schemas.Activation:
    """Activate a version after it is loaded and verified.

    After the answer, new requests use the version; requests under way finish with the previous one. If the
    version is refused, the previous one stays active.
    """
    async with audited(request, "model.activate", f"{category}/{version}", {"reason": reason}) as detail:
        activated = await store.activate(category, version)
        detail |= {"previous": activated.previous, "sha256": activated.sha256}
    return schemas.Activation(category=category, active=activated.version, previous=activated.previous)


@router.post(":rollback", responses=_ACTIVATING)
async def roll_back(
    category: Category, request: Request, store: StoreDep, reason: OptionalReason = None
) -> schemas.Activation:
    """Activate the previous version. A second call undoes the first."""
    async with audited(request, "model.rollback", category, {"reason": reason}) as detail:
        activated = await store.rollback(category)
        detail |= {"active": activated.version, "previous": activated.previous, "sha256": activated.sha256}
    return schemas.Activation(category=category, active=activated.version, previous=activated.previous)


@router.delete(
    "/versions/{version}",
    status_code=204,
    responses=documented("unknown-model", "conflict", "internal", "model-loading", "history-unavailable"),
)
async def delete_version(category: Category, version: Version, request: Request, store: StoreDep) -> None:
    """Delete a version that is not active. Inspections under way with it are completed."""
    async with audited(request, "model.delete", f"{category}/{version}"):
        await store.delete(category, version)
