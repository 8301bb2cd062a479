"""Contestant: FlowGauge, or the bare backbone of one of its models.

    python -m bench.inference.flowgauge_contestant flowgauge|backbone BUNDLE --engine NAME [--file PATH ...]

Serves timing requests (`bench.task_server`). Its tasks are "batch" (eight decoded images of the model's input
size), "one" (one of them), and two for each file, by its suffix: "jpg" reads, decodes, resizes and inspects
it alone, "jpg by 8" does so eight times in one batch. The bare backbone decodes and resizes with OpenCV.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flowgauge
from bench.task_server import Tasks, serve_tasks

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["flowgauge", "backbone"])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", type=Path, action="append", default=[])
    options = parser.parse_args()
    # The same settings as those of the command, before torch is loaded.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    serve_tasks(partial(_load, options))


def _load(options: argparse.Namespace) -> Tasks:
    import numpy as np
    import torch

    from flows.fastflow.bundle.bundle import read_manifest
    from tests.support.fleet import part

    torch.set_num_threads(options.threads)
    size = read_manifest(options.bundle).input_size
    images = np.stack([part(number, size[0]) for number in range(BATCH)])
    inspect_images, inspect_files = (_flowgauge if options.kind == "flowgauge" else _backbone)(options)
    tasks: dict[str, tuple[Callable[[], object], int]] = {
        "batch": (partial(inspect_images, images), BATCH),
        "one": (partial(inspect_images, images[:1]), 1),
    }
    for file in options.file:
        tasks[file.suffix[1:]] = (partial(inspect_files, [file]), 1)
        tasks[f"{file.suffix[1:]} by {BATCH}"] = (partial(inspect_files, [file] * BATCH), BATCH)
    return tasks


def _flowgauge(options: argparse.Namespace) -> tuple[Callable[..., object], Callable[..., object]]:
    from bench.inference.engines import load
    from flows.fastflow.imaging.decoder import read_image

    detector = load(options.bundle, options.engine, options.device)
    return (
        lambda images: detector.predict(list(images)),
        lambda files: detector.predict([read_image(file) for file in files]),
    )


def _backbone(options: argparse.Namespace) -> tuple[Callable[..., object], Callable[..., object]]:
    import cv2
    import numpy as np

    from bench.inference.backbones import on_openvino, on_torch
    from bench.inference.engines import split
    from bench.inference.models import bare_backbone

    extractor, (height, width) = bare_backbone(options.bundle)
    runtime, precision = split(options.engine)
    if runtime == "torch":
        run = on_torch(extractor, precision, options.device)
    else:
        run = on_openvino(extractor, precision, options.threads, (1, BATCH), (height, width))

    def image(file: Path) -> Any:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        decoded: Any = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        return cv2.resize(decoded, (width, height), interpolation=cv2.INTER_AREA)

    return run, lambda files: run(np.stack([image(file) for file in files]))


if __name__ == "__main__":
    main()
