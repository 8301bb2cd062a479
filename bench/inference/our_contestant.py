"""A contestant: FlowGauge, or the bare backbone of one of its models. See `answering`.

    python -m bench.inference.our_contestant flowgauge|backbone BUNDLE --engine NAME [--file PATH ...]

Its works are "batch", eight decoded images of the model's input size; "one" of these; and for each file its
suffix, such as "jpg": read, decoded, resized and inspected by itself, or "jpg by 8", eight times and as a
batch. The bare backbone has no more between the two than OpenCV's decoder and resizing.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flowgauge
from bench.answering import Works, answer

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
    # As the command does before it loads torch.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    answer(partial(_load, options))


def _load(options: argparse.Namespace) -> Works:
    import numpy as np
    import torch

    from flows.fastflow.bundle import read_manifest
    from tests.support.fleet import part

    torch.set_num_threads(options.threads)
    size = read_manifest(options.bundle).input_size
    images = np.stack([part(number, size[0]) for number in range(BATCH)])
    of_images, of_files = (_flowgauge if options.kind == "flowgauge" else _backbone)(options)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "batch": (partial(of_images, images), BATCH),
        "one": (partial(of_images, images[:1]), 1),
    }
    for file in options.file:
        works[file.suffix[1:]] = (partial(of_files, [file]), 1)
        works[f"{file.suffix[1:]} by {BATCH}"] = (partial(of_files, [file] * BATCH), BATCH)
    return works


def _flowgauge(options: argparse.Namespace) -> tuple[Callable[..., object], Callable[..., object]]:
    from bench.inference.engines import load
    from flows.fastflow.images import read

    detector = load(options.bundle, options.engine, options.device)
    return (
        lambda images: detector.predict(list(images)),
        lambda files: detector.predict([read(file) for file in files]),
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
