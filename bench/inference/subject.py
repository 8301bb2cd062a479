"""A contestant: FlowGauge or the bare backbone of one of its models. See `answering`.

    python -m bench.inference.subject flowgauge|backbone BUNDLE --engine NAME [--file PATH ...]

It can be asked for "batch", eight pictures of the model's input size that are decoded already; for "one" of
these; and for each file by its suffix, such as "jpg": read, decoded, brought to size and inspected by itself,
or as "jpg by 8" eight times and as a batch. Of the bare backbone there is no more between the two than
OpenCV's decoder and resizing.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flowgauge
from bench.inference.answering import Loaded, answer
from bench.inference.engines import split

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


def _load(options: argparse.Namespace) -> Loaded:
    import numpy as np
    import torch

    from bench.service.fleet import part
    from flows.fastflow.bundle import read_manifest

    torch.set_num_threads(options.threads)
    size = read_manifest(options.bundle).input_size
    pictures = np.stack([part(number, size[0]) for number in range(BATCH)])
    kind = _flowgauge if options.kind == "flowgauge" else _backbone
    of_pictures, of_files = kind(options, pictures)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "batch": (partial(of_pictures, pictures), BATCH),
        "one": (partial(of_pictures, pictures[:1]), 1),
    }
    for file in options.file:
        works[file.suffix[1:]] = (partial(of_files, [file]), 1)
        works[f"{file.suffix[1:]} by {BATCH}"] = (partial(of_files, [file] * BATCH), BATCH)
    return Loaded(works, {"versions": {name: version(name) for name in ("torch", "timm")}})


def _flowgauge(
    options: argparse.Namespace, pictures: Any
) -> tuple[Callable[..., object], Callable[..., object]]:
    from bench.inference.engines import load
    from flows.fastflow.images import read

    del pictures
    detector = load(options.bundle, options.engine, device=options.device)
    # As the service does.
    detector.scorer.warm_up()
    detector.scorer.specialise()
    return (
        lambda images: detector.predict(list(images)),
        lambda files: detector.predict([read(file) for file in files]),
    )


def _backbone(
    options: argparse.Namespace, pictures: Any
) -> tuple[Callable[..., object], Callable[..., object]]:
    import cv2
    import numpy as np

    from bench.inference.backbones import on_openvino, on_torch
    from bench.inference.models import bare_backbone

    extractor, (height, width) = bare_backbone(options.bundle)
    runtime, precision = split(options.engine)
    if runtime == "torch":
        run = on_torch(extractor, precision, options.device)
    else:
        run = on_openvino(extractor, precision, options.threads, (1, BATCH), pictures)

    def picture(file: Path) -> Any:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    return run, lambda files: run(np.stack([picture(file) for file in files]))


if __name__ == "__main__":
    main()
