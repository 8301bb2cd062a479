"""Bundles for tests of the service: the tiny model's, as an archive, honest or not."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.registry import packing
from flows.fastflow.bundle import bundle, models_folder


def again(models: Path, version: str, category: str = "tiny") -> Path:
    """Publish the tiny model once more in its own folder, under another name."""
    copy = shutil.copytree(models_folder.resolve(models, "tiny"), models / category / version)
    document = json.loads((copy / bundle.MANIFEST).read_text())
    document |= {"category": category, "version": version}
    (copy / bundle.MANIFEST).write_text(json.dumps(document))
    return copy


def packed(folder: Path) -> bytes:
    """The archive that `flowgauge models pack` makes of a version."""
    file = io.BytesIO()
    packing.pack(folder, file)
    return file.getvalue()


def archive(models: Path, version: str, category: str = "tiny") -> bytes:
    """An archive of the tiny model under another name, which is not left in the models folder."""
    folder = again(models, version, category)
    data = packed(folder)
    shutil.rmtree(folder)
    if category != "tiny":
        folder.parent.rmdir()
    return data


def repacked(
    data: bytes,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    files: Mapping[str, bytes] | None = None,
) -> bytes:
    """The same archive with other contents under a manifest that vouches for them.

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


def left_in(models: Path) -> set[str]:
    """All that lies in a models folder, but the insides of bundles and of the backbones."""
    found = set()
    for path in models.iterdir():
        found.add(path.name)
        with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile, or a file
            found |= {f"{path.name}/{p.name}" for p in path.iterdir() if p.name != ".lock"}
    return found
