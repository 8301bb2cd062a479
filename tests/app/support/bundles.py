"""Bundles of the tiny model for tests of the service, also as archives."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.registry import packing
from flows.fastflow.bundle import bundle, models_folder


def copy_version(models: Path, version: str, category: str = "tiny") -> Path:
    """Publish a copy of the tiny model under another name."""
    copy = shutil.copytree(models_folder.resolve(models, "tiny"), models / category / version)
    document = json.loads((copy / bundle.MANIFEST).read_text())
    document |= {"category": category, "version": version}
    (copy / bundle.MANIFEST).write_text(json.dumps(document))
    return copy


def pack_version(folder: Path) -> bytes:
    """Pack a version like `flowgauge models pack`."""
    file = io.BytesIO()
    packing.pack(folder, file)
    return file.getvalue()


def make_archive(models: Path, version: str, category: str = "tiny") -> bytes:
    """Pack a copy of the tiny model under another name, without leaving the copy."""
    folder = copy_version(models, version, category)
    data = pack_version(folder)
    shutil.rmtree(folder)
    if category != "tiny":
        folder.parent.rmdir()
    return data


def upload_copy(client: TestClient, models: Path, version: str) -> None:
    """Upload a copy of the tiny model under another name."""
    answer = client.post(
        "/v1/models/tiny/versions",
        content=make_archive(models, version),
        headers={"Content-Type": "application/zip"},
    )
    assert answer.status_code == 201, answer.text


def repack(
    data: bytes,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    files: Mapping[str, bytes] | None = None,
) -> bytes:
    """Change the contents of an archive, with matching hashes in its manifest.

    Args:
        data: an archive.
        change: of the manifest.
        files: to put in, or in the place of others.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        contents = {name: source.read(name) for name in source.namelist()} | dict(files or {})
    document = json.loads(contents.pop(bundle.MANIFEST))
    document["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    change(document)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in {bundle.MANIFEST: json.dumps(document).encode(), **contents}.items():
            written.writestr(name, content)
    return target.getvalue()


def list_folder(models: Path) -> set[str]:
    """List a models folder, without the files of bundles and backbones."""
    found = set()
    for path in models.iterdir():
        found.add(path.name)
        with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile, or a file
            found |= {f"{path.name}/{p.name}" for p in path.iterdir() if p.name != ".lock"}
    return found
