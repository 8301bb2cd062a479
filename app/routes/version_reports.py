"""The report that travels with a version: how it was trained, as files of its bundle."""

import asyncio
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.responses import Response

from app import immutable
from app.access import MaySeeModels
from app.catalogue import resolve
from app.dependencies import Category, SettingsPart, Version
from app.openapi import documented
from app.problems import Problem
from flows.fastflow import bundle
from flows.fastflow.manifest import Manifest

router = APIRouter(prefix="/v1/models/{category}/versions/{version}/report", tags=["models"])

FOLDER: Final = "report/"
MOST_BYTES: Final = 16 * 2**20
# Whoever uploads a bundle writes what is in it. A page of it may draw itself and nothing else: no script, no
# form, no request, and an origin of its own, so that nothing of this service is within its reach.
_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_TEXT: Final = "text/plain; charset=utf-8"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    **dict.fromkeys((".txt", ".csv", ".json", ".jsonl", ".yaml"), _TEXT),
}
_OTHER: Final = "application/octet-stream"
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file. A page is shut off from all else (Content-Security-Policy: sandbox).",
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/html", "text/plain", _OTHER)},
        "headers": dict(immutable.HEADERS),
    },
    304: dict(immutable.NOT_MODIFIED),
}


@router.get(
    "/{name}",
    response_class=Response,
    responses={
        **_FILE,
        **documented("unknown-model", "not-found", "rejected-bundle", "internal", "model-loading"),
    },
)
async def get_report_file(
    category: Category,
    version: Version,
    request: Request,
    settings: SettingsPart,
    _: MaySeeModels,
    name: str = PathParameter(
        description="A file of the version's `report`.", max_length=255, examples=["config.yaml"]
    ),
) -> Response:
    """Give a file of the report that travels with a version: its settings, its metrics, its data check.

    What it holds is checked against the manifest, and it is text or a page without scripts to a browser.
    """
    tag, data = await asyncio.to_thread(_read, settings.models, category, version, name)
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    kind = _MEDIA_TYPES.get(Path(name).suffix, _OTHER)
    headers = {**immutable.headers(tag), "Content-Security-Policy": _POLICY}
    if kind == _OTHER:
        headers["Content-Disposition"] = "attachment"
    return Response(data, headers=headers, media_type=kind)


def files(manifest: Manifest) -> list[str]:
    """The names of a version's report's files, sorted."""
    names = (name.removeprefix(FOLDER) for name in manifest.files if name.startswith(FOLDER))
    return sorted(name for name in names if "/" not in name)


def _read(models: Path, category: str, version: str, name: str) -> tuple[str, bytes]:
    """The sha256 and the bytes of a file of a report."""
    folder = resolve(models, category, version)
    try:
        manifest = bundle.read_manifest(folder)
        if name not in files(manifest):
            raise Problem("not-found", f"The report of {version!r} has no file {name[:64]!r}.")
        data = bundle.read_verified(folder, manifest, FOLDER + name, MOST_BYTES)
    except bundle.BundleError as error:
        raise Problem(
            "rejected-bundle",
            f"{name[:64]!r} of version {version!r} was changed, or is larger than {MOST_BYTES} bytes.",
        ) from error
    return manifest.files[FOLDER + name], data
