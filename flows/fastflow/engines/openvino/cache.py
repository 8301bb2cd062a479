"""Converted backbones on disk, with their checksums, so that the next start need not convert them again.

Converting takes seconds, most of which timm takes to import. Compiling what was converted takes a fraction of
one, so compiled graphs are not kept.
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

# Of one backbone: the graph, its weights, and the sha256 of both, which is written last.
_SUFFIXES: Final = (".xml", ".bin", ".sha256")


def cached_path(folder: Path, backbone: Backbone, size: tuple[int, int]) -> Path:
    """The file of a converted backbone's graph, named by what it was made of and what converted it.

    Args:
        folder: of all converted backbones.
        backbone: what is recorded of it.
        size: (height, width) of the images.
    """
    # What is imported may be older than what is installed by now.
    timm = sys.modules["timm"].__version__ if "timm" in sys.modules else version("timm")
    made_of, made_by = _digest(backbone, size), _digest(ov.__version__, timm, torch.__version__)
    return folder / f"{backbone.name}-{made_of}-{made_by}.xml"


def read_graph(core: Any, path: Path) -> Any | None:
    """The graph that `write_graph` wrote; None if it is missing or damaged."""
    try:
        xml, weights, sha256 = (path.with_suffix(suffix).read_bytes() for suffix in _SUFFIXES)
    except OSError:
        return None
    if hashlib.sha256(xml + weights).hexdigest().encode() != sha256:
        logger.warning("%s is damaged: the backbone is converted again", path)
        return None
    return core.read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))


def write_graph(model: Any, path: Path) -> None:
    """Write a graph, in the place of what other versions of the libraries wrote of the same backbone.

    What cannot be written, on a full disk for instance, is logged and costs the next start some seconds.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)  # what killed conversions left
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
        logger.warning("%s cannot be kept (%s): the next start converts it again", path, error)


def _files_of_all_versions(path: Path) -> Iterator[Path]:
    backbone, _ = path.stem.rsplit("-", 1)
    return (file for suffix in _SUFFIXES for file in path.parent.glob(f"{backbone}-*{suffix}"))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
