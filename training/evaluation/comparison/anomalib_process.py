"""PaDiM and PatchCore from anomalib in a separate process: fit, score, write arrays.

Runs in an interpreter with anomalib, whose dependencies may differ from FlowGauge's, so this module imports
nothing of FlowGauge. Reads a folder with

    job.json            backbone, out_indices, mean, std, coreset, threads, seed, models
    backbone.safetensors
    fit.npy  calibration.npy  test.npy        (N, H, W, 3) uint8 RGB at the model's input size

and writes per model MODEL-calibration.npy and MODEL-test.npy, (N,) scores, MODEL-maps.npy, (N, H, W) of
test.npy, and MODEL.json with its times. Lines on standard output report the progress.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

_BATCH = 8
_PADIM_CHANNELS = 100  # drawn at random from the concatenated ones; the paper's number for its small backbone


def main(folder: Path) -> None:
    """Fit and score the models that the job names."""
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    parts = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("fit", "calibration", "test")}
    for name in job["models"]:
        torch.manual_seed(job["seed"])
        print(f"{name}: fit", flush=True)
        start = time.perf_counter()
        model = _fitted(name, job, folder, parts["fit"])
        fit_seconds = time.perf_counter() - start
        print(f"{name}: score", flush=True)
        calibration = [score for score, _, _ in _scored(model, job, parts["calibration"])]
        test = parts["test"]
        scores, seconds = [], []
        # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
        with (folder / f"{name}-maps.npy").open("wb") as maps:
            header = {"descr": "<f4", "fortran_order": False, "shape": test.shape[:3]}
            np.lib.format.write_array_header_1_0(maps, header)
            for score, score_map, taken in _scored(model, job, test):
                maps.write(score_map.astype("<f4").tobytes())
                scores.append(score)
                seconds.append(taken)
        np.save(folder / f"{name}-calibration.npy", np.array(calibration, dtype=np.float64))
        np.save(folder / f"{name}-test.npy", np.array(scores, dtype=np.float64))
        times = {"fit_seconds": fit_seconds, "milliseconds": 1000 * float(np.median(seconds))}
        (folder / f"{name}.json").write_text(json.dumps(times))


def _fitted(name: str, job: dict[str, Any], folder: Path, images: NDArray[np.uint8]) -> Any:
    """Build and fit a model."""
    layers = list(job["out_indices"])
    if name == "PaDiM":
        from anomalib.models.image.padim.torch_model import PadimModel

        channels = min(_PADIM_CHANNELS, sum(job["channels"]))
        model: Any = PadimModel(job["backbone"], layers, pre_trained=False, n_features=channels)
    else:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        model = PatchcoreModel(layers, job["backbone"], pre_trained=False)
    backbone = model.feature_extractor.feature_extractor
    backbone.load_state_dict(load_file(folder / "backbone.safetensors"))
    model.train()
    model.feature_extractor.eval()
    for start in range(0, len(images), _BATCH):
        model(_normalised(job, images[start : start + _BATCH]))
    if name == "PaDiM":
        model.fit()
    else:
        model.subsample_embedding(job["coreset"])
    return model.eval()


def _scored(
    model: Any, job: dict[str, Any], images: NDArray[np.uint8]
) -> Iterator[tuple[float, NDArray[np.float32], float]]:
    """Yield score, map and seconds per image, one at a time as parts come on a line."""
    for image in images:
        start = time.perf_counter()
        with torch.inference_mode():
            answer = model(_normalised(job, image[None]))
        score_map = answer.anomaly_map[0].squeeze().numpy()
        yield float(answer.pred_score.flatten()[0]), score_map, time.perf_counter() - start


def _normalised(job: dict[str, Any], images: NDArray[np.uint8]) -> torch.Tensor:
    """Normalise (N, H, W, 3) uint8 to (N, 3, H, W) float32 by the backbone's mean and deviation."""
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(job[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (x - mean) / std


if __name__ == "__main__":
    main(Path(sys.argv[1]))
