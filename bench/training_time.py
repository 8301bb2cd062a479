"""Time and memory of a training epoch, beside anomalib's FastFlow.

    python -m bench.training_time --threads 1 --anomalib-python PYTHON

Both sides have resnet18 with random weights, the maps at strides 4, 8 and 16, 8 steps with 3x3 and 1x1
kernels in turn, hidden ratio 1 without a limit, 256 px, and as many images, batches and CPU threads.
anomalib trains in float32 with its own Engine, without validation; ours is the whole `training.run.train`.
Each training is a process; they take turns. The first epoch warms up and does not count.

Our backbone runs once over the images, anomalib's in every epoch. The caching pass is reported apart, and
spread over the epochs of a run of default length. On a busy machine compare CPU time with --threads 1.

--anomalib-python defaults to ANOMALIB_PYTHON, then to `.bench-venv`, which `make bench` creates. The report
goes to bench-results/training_time.
"""

import argparse
import json
import os
import shutil
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
from bench.interleaving import interleave
from bench.memory import peak_bytes
from bench.report import RESULTS, Report, Table, ratio

_THEIRS = Path(__file__).with_name("anomalib_training.py")
_SIZE = 256
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one training.

    Attributes:
        epochs: seconds of each epoch.
        cpu: CPU seconds of each epoch.
        caching: seconds of the pass that caches features.
        memory: peak in bytes.
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
    parser = argparse.ArgumentParser(
        prog="python -m bench.training_time",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--anomalib-python", type=Path, help="interpreter with anomalib 2.7")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of our trainings"
    )
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
    trainings = {name: partial(run_training, command, options.threads) for name, command in commands.items()}
    return report(interleave(trainings, options.rounds), options.images, options.batch).write(folder)


def run_training(command: Sequence[str], threads: int) -> TrainingCost:
    """Run a training in a child process, which prints its `TrainingCost` in JSON."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
    run = TrainingCost(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{command[-1]}: {run.epoch:.2f} s an epoch", file=sys.stderr, flush=True)
    return run


def train_ours(folder: Path, options: argparse.Namespace) -> TrainingCost:
    """Train as `flowgauge train` does, with an empty feature cache."""
    import flowgauge

    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    from safetensors.torch import save_file

    from tests.support.random_weights import random_weights
    from training.config.run_config import RunConfig
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
    return watch.cost()


class Stopwatch:
    """Progress of a run that records the durations of its stages and epochs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[float, float]] = []

    def cost(self) -> TrainingCost:
        """Return the cost of the training, which ran in this process."""
        wall, cpu = ([b - a for a, b in pairwise(marks)] for marks in zip(*self.marks, strict=True))
        return TrainingCost(wall, cpu, self.seconds["features"], peak_bytes(os.getpid()))

    def say(self, line: str) -> None:
        """Record the end of an epoch."""
        print(line, file=sys.stderr)
        if line.startswith("epoch "):
            self.marks.append((time.monotonic(), time.process_time()))

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[float], None]]:
        """Record the duration of a stage."""
        del total
        start = time.monotonic()
        if title == "fit":
            self.marks = [(start, time.process_time())]
        yield lambda _: None
        self.seconds[title] = time.monotonic() - start


def make_images(folder: Path, count: int) -> None:
    """Write `count` + 1 synthetic parts of the model's input size; one of them calibrates."""
    from tests.support.fleet import jpeg, part

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(count + 1):
        (folder / f"{number:03}.jpg").write_bytes(jpeg(part(number, _SIZE)))


def report(runs: Mapping[str, Sequence[TrainingCost]], images: int, batch: int) -> Report:
    """Report medians over the rounds, and the ratio of anomalib to each of ours."""
    from training.config.run_config import FitConfig

    length = FitConfig(batch_size=batch).epochs_for(images)
    costs: dict[str, Callable[[TrainingCost], float]] = {
        "s an epoch": lambda run: run.epoch,
        "CPU s an epoch": lambda run: run.epoch_cpu,
        f"s of {length} epochs and caching": lambda run: run.epoch * length + run.caching,
        "peak MiB": lambda run: run.memory / 2**20,
    }
    rows = [
        [name, *(f"{statistics.median(map(cost, of_one)):.2f}" for cost in costs.values())]
        for name, of_one in runs.items()
    ]
    *ours, theirs = runs
    return Report(
        "training_time",
        {"images": images, "batch": batch, "rounds": len(runs[theirs])},
        [Table("Medians of the rounds", ["", *costs], rows)],
        [
            ratio(f"anomalib over {name}, {what}", [*map(cost, runs[theirs])], [*map(cost, runs[name])])
            for name in ours
            for what, cost in costs.items()
        ],
        figures={name: [asdict(run) for run in of_one] for name, of_one in runs.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
