"""Cache of converted backbones on disk, with their checksums.

A conversion takes seconds, mostly for the import of timm. Compiling a converted graph takes a fraction of a
second, so compiled graphs are not kept.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
import torch

from flows.fastflow.files.atomic_files import remove_abandoned, temporary_directory
from flows.fastflow.manifest import Backbone

logger = logging.getLogger("flowgauge.openvino")

# Files of a backbone: the graph, its weights, and the sha256 of both, which is written last.
_SUFFIXES: Final = (".xml", ".bin", ".sha256")


def cached_path(folder: Path, backbone: Backbone, size: tuple[int, int]) -> Path:
    """Return the path of a converted graph, from its inputs and the converting versions.

    Args:
        backbone: the backbone's record.
        size: (height, width) of the images.
    """
    # The imported version may be older than the one installed meanwhile.
    timm = sys.modules["timm"].__version__ if "timm" in sys.modules else version("timm")
    made_of, made_by = _digest(backbone, size), _digest(ov.__version__, timm, torch.__version__)
    return folder / f"{backbone.name}-{made_of}-{made_by}.xml"


def read_graph(core: Any, path: Path) -> Any | None:
    """Read a graph that `write_graph` wrote; None if it is missing or damaged."""
    try:
        xml, weights, sha256 = (path.with_suffix(suffix).read_bytes() for suffix in _SUFFIXES)
    except OSError:
        return None
    if hashlib.sha256(xml + weights).hexdigest().encode() != sha256:
        logger.warning("%s is damaged; converting the backbone again", path)
        return None
    return core.read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))


def write_graph(model: Any, path: Path) -> None:
    """Write a graph and delete those of the same backbone from other versions of the libraries.

    A failed write, on a full disk for instance, is logged and costs the next start some seconds.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)  # from killed conversions
        with temporary_directory(path.parent) as temporary:
            made = temporary / path.name
            ov.save_model(model, made, compress_to_fp16=False)
            xml, weights = (made.with_suffix(suffix).read_bytes() for suffix in _SUFFIXES[:2])
            made.with_suffix(".sha256").write_text(hashlib.sha256(xml + weights).hexdigest())
            for file in _files_of_all_versions(path):
                file.unlink(missing_ok=True)
            for suffix in _SUFFIXES:
                made.with_suffix(suffix).replace(path.with_suffix(suffix))
    except (OSError, RuntimeError) as error:
        logger.warning("%s cannot be written (%s); the next start converts it again", path, error)


def _files_of_all_versions(path: Path) -> Iterator[Path]:
    backbone, _ = path.stem.rsplit("-", 1)
    return (file for suffix in _SUFFIXES for file in path.parent.glob(f"{backbone}-*{suffix}"))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
