"""python -m bench.training_time: an epoch of training and its memory, beside anomalib's FastFlow.

Both sides have resnet18 with random weights, the maps at strides 4, 8 and 16, 8 steps with 3x3 and 1x1
kernels in turn, hidden ratio 1 without a limit, 256 px, and as many images, batches and CPU threads.
anomalib trains in float32 by its own Engine, without validation; ours is the whole `training.run.train`.
Each run is a process of its own; they take turns. The first epoch of each, which warms up, does not count.

Our backbone runs once over the images, anomalib's in every epoch: the caching pass is reported apart, and
spread over the epochs of a run of default length. On a busy machine compare CPU time with --threads 1.

Without --anomalib-python, or the variable ANOMALIB_PYTHON, an environment with anomalib is made in .bench-
venv.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from bench.anomalib_environment import anomalib_python
from bench.memory import peak_bytes
from bench.report import RESULTS, Ratio, Report, Table, ratio
from bench.turns import in_turns

_THEIRS = Path(__file__).with_name("anomalib_training.py")
_SIZE = 256
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Run:
    """Cost of one training.

    Attributes:
        epochs: seconds of each epoch.
        cpu: CPU seconds of each epoch, over all threads.
        caching: seconds of the backbone's pass over all images, before the first epoch.
        memory: largest resident set in bytes.
    """

    epochs: list[float]
    cpu: list[float]
    caching: float
    memory: int

    @property
    def epoch(self) -> float:
        """Median seconds of an epoch, without the first."""
        return statistics.median(self.epochs[1:])

    @property
    def epoch_cpu(self) -> float:
        """Median CPU seconds of an epoch, without the first."""
        return statistics.median(self.cpu[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--anomalib-python", type=Path, help="an interpreter with anomalib 2.7")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of ours")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(asdict(train_ours(options.child, options))))
        return 0
    if options.epochs < 2:
        parser.error("--epochs must be 2 or more: the first does not count")
    python = anomalib_python(options.anomalib_python)
    folder = RESULTS / "training_time"
    good = folder / "data" / "part" / "train" / "good"
    make_images(good, options.images)
    settings = [f"--epochs={options.epochs}", f"--batch={options.batch}", f"--threads={options.threads}"]
    child = [sys.executable, "-m", "bench.training_time", f"--child={folder}", *settings]
    commands = {f"flowgauge {name}": [*child, f"--precisions={name}"] for name in options.precisions}
    theirs = [str(python), str(_THEIRS), f"--good={good}", f"--images={options.images}", *settings]
    commands["anomalib"] = theirs
    ways = {name: partial(measured, command, options.threads) for name, command in commands.items()}
    return report(in_turns(ways, options.rounds), options.images, options.batch).write(folder)


def measured(command: Sequence[str], threads: int) -> Run:
    """Run a training in a process of its own, whose last line is a `Run` in JSON."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
    run = Run(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{command[-1]}: {run.epoch:.2f} s an epoch", file=sys.stderr, flush=True)
    return run


def train_ours(folder: Path, options: argparse.Namespace) -> Run:
    """Train as `flowgauge train` does, with nothing cached."""
    import flowgauge

    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    import shutil

    from safetensors.torch import save_file

    from bench.random_weights import random_weights
    from training.config import RunConfig
    from training.run import train

    weights, runs = folder / "resnet18.safetensors", folder / "runs"
    save_file(random_weights("resnet18"), weights)
    shutil.rmtree(runs, ignore_errors=True)
    images = len(list((folder / "data" / "part" / "train" / "good").iterdir()))
    fit = {"epochs": options.epochs, "batch_size": options.batch, "threads": options.threads}
    config = RunConfig.model_validate(
        {
            "input_size": [_SIZE, _SIZE],
            "device": "cpu",
            "backbone": {"name": "resnet18", "out_indices": [1, 2, 3], "weights": weights},
            "flow": {"steps": 8, "kernels": "3-1", "hidden_ratio": 1.0, "hidden_limit": None},
            "fit": {**fit, "precision": options.precisions[0]},
            "calibration": {"fraction": 1 / images},  # one image, which `make_images` adds
        }
    )
    watch = Stopwatch()
    data, models = folder / "data", folder / "models"
    train(config, data, "part", models=models, runs=runs, resume=False, progress=watch)
    return watch.run()


class Stopwatch:
    """Progress of a run that notes how long its stages take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[float, float]] = []

    def run(self) -> Run:
        """Cost of the training so far, in this process."""
        wall, cpu = ([b - a for a, b in pairwise(marks)] for marks in zip(*self.marks, strict=True))
        return Run(wall, cpu, self.seconds["features"], peak_bytes(os.getpid()))

    def say(self, line: str) -> None:
        """Note the end of an epoch."""
        print(line, file=sys.stderr)
        if line.startswith("epoch "):
            self.marks.append((time.monotonic(), time.process_time()))

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Time a stage."""
        del total
        start = time.monotonic()
        if title == "fit":
            self.marks = [(start, time.process_time())]
        yield lambda _: None
        self.seconds[title] = time.monotonic() - start


def make_images(folder: Path, count: int) -> None:
    """Write `count` + 1 noisy discs of the models' input size, unless they are there."""
    import cv2
    import numpy as np

    if folder.exists() and len(list(folder.iterdir())) == count + 1:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    y, x = np.mgrid[:_SIZE, :_SIZE]
    for number in range(count + 1):
        rng = np.random.default_rng(number)
        disc = np.hypot(x - _SIZE / 2, y - _SIZE / 2) < rng.uniform(0.3, 0.4) * _SIZE
        grey = 60 + 80 * disc[..., None] + rng.normal(0, 6, (_SIZE, _SIZE, 3))
        cv2.imwrite(str(folder / f"{number:03}.png"), grey.clip(0, 255).astype(np.uint8))


def report(runs: Mapping[str, Sequence[Run]], images: int, batch: int) -> Report:
    """Medians over the rounds, and anomalib over each of ours."""
    from training.config import FitConfig

    def median(values: Iterator[float]) -> str:
        return f"{statistics.median(values):.2f}"

    rows = [
        [
            name,
            median(run.epoch for run in of_one),
            median(run.epoch_cpu for run in of_one),
            median(run.caching for run in of_one),
            median(run.memory / 2**20 for run in of_one),
        ]
        for name, of_one in runs.items()
    ]
    *ours, theirs = runs
    length = FitConfig(batch_size=batch).epochs_for(images)
    header = ["", "s an epoch", "CPU s an epoch", "s of caching", "peak MiB"]
    return Report(
        "training_time",
        {"images": images, "batch": batch, "rounds": len(runs[theirs])},
        [Table("Medians of the rounds", header, rows)],
        [one for name in ours for one in _ratios(name, runs[name], runs[theirs], length)],
        figures={name: [asdict(run) for run in of_one] for name, of_one in runs.items()},
    )


def _ratios(name: str, ours: Sequence[Run], theirs: Sequence[Run], length: int) -> list[Ratio]:
    costs: dict[str, Callable[[Run], float]] = {
        "an epoch": lambda run: run.epoch,
        "CPU time of an epoch": lambda run: run.epoch_cpu,
        f"{length} epochs with the caching pass": lambda run: run.epoch * length + run.caching,
        "memory": lambda run: run.memory,
    }
    return [
        ratio(f"anomalib over {name}, {what}", [cost(run) for run in theirs], [cost(run) for run in ours])
        for what, cost in costs.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
