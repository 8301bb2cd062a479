"""Contestant: anomalib's FastFlow or PatchCore in one of its inferencers.

    ANOMALIB_PYTHON -m bench.inference.anomalib_contestant fastflow|patchcore --engine NAME --weights FILE
        --work FOLDER [--file PATH ...]

Serves timing requests (`bench.task_server`) in anomalib's interpreter and imports nothing of FlowGauge. The
backbone is resnet18 with the weights of the file; all other weights are random. FastFlow has anomalib's
defaults: 8 steps, 3x3 and 1x1 kernels in turn, hidden ratio 1. PatchCore has a bank of random patches.
Exports for OpenVINO are kept in the work folder: with a fixed size for batches, and with any size for files,
because the inferencer does not resize. PatchCore's export takes one image, so batches go one by one.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from bench.task_server import Tasks, serve_tasks

BATCH = 8
SIZE = 256
_LAYERS = ("layer2", "layer3")
_BANK = 20_480  # a tenth of the patches of 200 images
_CHANNELS = 128 + 256  # of those layers together
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", choices=["fastflow", "patchcore"])
    parser.add_argument("--engine", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", type=Path, action="append", default=[])
    options = parser.parse_args()
    options.weights, options.file = options.weights.absolute(), [file.absolute() for file in options.file]
    # OpenVINO writes its cache into the working directory.
    options.work.mkdir(parents=True, exist_ok=True)
    os.chdir(options.work)
    # anomalib's export is pickled; this process wrote it itself.
    os.environ["TRUST_REMOTE_CODE"] = "1"
    serve_tasks(partial(_load, options))


def _load(options: argparse.Namespace) -> Tasks:
    import numpy as np
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    runtime, _, precision = options.engine.partition("-")
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    if runtime == "torch":
        of_batch = of_file = _on_torch(options)
    else:
        predict = _on_openvino(options, precision, (SIZE, SIZE))
        of_file = _on_openvino(options, precision, None)
        one_by_one = options.model == "patchcore"
        of_batch = (lambda images: [predict(one) for one in images]) if one_by_one else predict
    tasks: dict[str, Any] = {
        "batch": (partial(of_batch, images), BATCH),
        "one": (partial(of_batch, images[:1]), 1),
    }
    for file in options.file:
        tasks[file.suffix[1:]] = (partial(of_file, file), 1)
    return tasks


def _on_torch(options: argparse.Namespace) -> Any:
    import torch
    from anomalib.deploy import TorchInferencer

    name = f"{options.model}-{_BANK}"
    path = Path(name) / "weights" / "torch" / "model.pt"
    if not path.exists():
        _model(options).to_torch(name)
    inferencer = TorchInferencer(path, device=options.device)

    # The inferencer keeps gradients otherwise.
    @torch.inference_mode()
    def run(images: Any) -> object:
        if not isinstance(images, Path):
            images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        prediction = inferencer.predict(images)
        return prediction.pred_score.cpu(), prediction.anomaly_map.cpu()

    return run


def _on_openvino(options: argparse.Namespace, precision: str, size: tuple[int, int] | None) -> Any:
    from anomalib.deploy import OpenVINOInferencer

    name = f"{options.model}-{_BANK}-{'any-size' if size is None else size[0]}"
    path = Path(name) / "weights" / "openvino" / "model.xml"
    if not path.exists():
        # anomalib's default exports differ: they fix PatchCore's batch at two.
        axes = {0: "batch"} if options.model == "fastflow" else {}
        axes |= {2: "height", 3: "width"} if size is None else {}
        dynamic = {"dynamic_axes": {"input": axes} if axes else {}}
        _model(options).to_openvino(name, input_size=size, onnx_kwargs=dynamic)
    hints = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": options.threads}
    return OpenVINOInferencer(path, device="CPU", config=hints).predict


def _model(options: argparse.Namespace) -> Any:
    import torch
    from safetensors.torch import load_file

    if options.model == "fastflow":
        from anomalib.models import Fastflow

        model: Any = Fastflow(backbone="resnet18", pre_trained=False, flow_steps=8)
        backbone = model.model.feature_extractor
    else:
        from anomalib.models import Patchcore

        model = Patchcore(backbone="resnet18", layers=_LAYERS, pre_trained=False)
        model.model.memory_bank = torch.randn(_BANK, _CHANNELS)
        backbone = model.model.feature_extractor.feature_extractor
    missing = backbone.load_state_dict(load_file(options.weights), strict=False).missing_keys
    if missing:
        raise SystemExit(f"{options.weights} lacks {missing[:3]}")
    return model.eval()


if __name__ == "__main__":
    main()
