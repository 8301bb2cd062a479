"""An epoch of training and its memory, side by side with anomalib's FastFlow.

    python -m bench.training_time [--rounds 3] [--epochs 4] [--batch 32] [--anomalib-python PATH]

The same on both sides: resnet18 with random weights, the maps at strides 4, 8 and 16, 8 steps with 3x3 and
1x1 kernels in turn, hidden ratio 1 without a limit, 256 px, as many pictures, batches and CPU threads.
anomalib trains in float32, ours in float32 and in bfloat16 (--precisions), which is slow where the processor
does not compute it. anomalib trains by its own Engine (Lightning) without validation or test, and loads
pictures in the process itself; ours is the whole `training.run.train`, with its forecast, checkpoints,
calibration and bundle. Each run is a process of its own; they take turns. The first epoch of each, which
warms up, is left out of the medians.

Our backbone runs once over the pictures, anomalib's in every epoch: so the caching pass is told apart, and
also spread over the epochs of a run of the default number of updates. Memory is the largest resident set of
the process, as the system counts it, mapped features included. On a busy machine compare CPU time with
--threads 1: threads that wait for each other while others run make wall time a lottery.

Without --anomalib-python, or the variable ANOMALIB_PYTHON, an environment with anomalib 2.7 is made in
.bench-venv.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from bench.anomalib_environment import anomalib_python
from bench.memory import peak_bytes

RESULTS = Path("bench-results")
THEIRS = Path(__file__).with_name("anomalib_fastflow.py")
SIZE = 256


@dataclass(frozen=True)
class Run:
    """What one training took.

    Attributes:
        epochs: seconds of each, what comes between them included.
        cpu: seconds of CPU time of each, over all threads: what a busy machine disturbs less. With more than
            one thread it counts how they wait for each other, too.
        caching: seconds of the backbone's pass over all pictures, before the first epoch.
        memory: largest resident set in bytes.
    """

    epochs: list[float]
    cpu: list[float]
    caching: float
    memory: int

    @property
    def epoch(self) -> float:
        """The median without the first, in seconds."""
        return statistics.median(self.epochs[1:])

    @property
    def epoch_cpu(self) -> float:
        """The same of CPU time."""
        return statistics.median(self.cpu[1:])


Contenders = dict[str, list[Run]]
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--anomalib-python", type=Path, help="an interpreter with anomalib 2.7")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of ours")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        print(json.dumps(ours(asked.child, asked.precisions[0], asked.epochs, asked.batch, asked.threads)))
        return
    if asked.epochs < 2:
        parser.error("--epochs must be 2 or more: the first is left out")
    python = anomalib_python(asked.anomalib_python)
    folder = RESULTS / "training_time"
    make_pictures(folder / "data" / "part" / "train" / "good", asked.pictures)
    # One more picture is held out here, so that both fit as many.
    good = folder / "data" / "part" / "train" / "good"
    settings = [f"--epochs={asked.epochs}", f"--batch={asked.batch}", f"--threads={asked.threads}"]
    child = [sys.executable, "-m", "bench.training_time", f"--child={folder}", *settings]
    commands = {f"flowgauge {name}": [*child, f"--precisions={name}"] for name in asked.precisions}
    commands["anomalib"] = [
        str(python),
        str(THEIRS),
        f"--good={good}",
        f"--pictures={asked.pictures}",
        *settings,
    ]
    found: Contenders = {name: [] for name in commands}
    for number in range(asked.rounds):
        for name, command in commands.items():
            run = measured(command, asked.threads)
            found[name].append(run)
            print(
                f"round {number + 1}: {name:18} {run.epoch:6.2f} s an epoch (CPU {run.epoch_cpu:.2f} s), "
                f"caching {run.caching:5.2f} s, {run.memory / 2**20:5.0f} MiB",
                flush=True,
            )
    report(found, asked.pictures, asked.batch, folder)


def measured(command: list[str], threads: int) -> Run:
    """Run a training in a process of its own; its last line is JSON with `epochs`, `cpu` and `caching`."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    memory = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None  # noqa: S101
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(process.stdout.read)
            # Looked at while it runs: what the system tells at its end counts the pages that it shared with
            # us before it became another program.
            while not reading.done():
                memory = max(memory, peak_bytes(process.pid))
                wait([reading], timeout=0.05)
            said = reading.result()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    times = json.loads(said.splitlines()[-1])
    return Run(times["epochs"], times["cpu"], times["caching"], memory)


def ours(folder: Path, precision: str, epochs: int, batch: int, threads: int) -> dict[str, object]:
    """Train as `flowgauge train` does, with nothing cached; seconds of the epochs and of the features."""
    import flowgauge

    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    import shutil

    from safetensors.torch import save_file

    from bench.chance import weights_of_chance
    from training.config import RunConfig
    from training.run import train

    weights = folder / "resnet18.safetensors"
    save_file(weights_of_chance("resnet18"), weights)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    pictures = len(list((folder / "data" / "part" / "train" / "good").iterdir()))
    config = RunConfig.model_validate(
        {
            "input_size": [SIZE, SIZE],
            "device": "cpu",
            "backbone": {"name": "resnet18", "out_indices": [1, 2, 3], "weights": weights},
            "flow": {"steps": 8, "kernels": "3-1", "hidden_ratio": 1.0, "hidden_limit": None},
            "fit": {"epochs": epochs, "batch_size": batch, "precision": precision, "threads": threads},
            "calibration": {"fraction": 1 / pictures},
        }
    )
    watch = Stopwatch()
    train(
        config,
        folder / "data",
        "part",
        models=folder / "models",
        runs=folder / "runs",
        resume=False,
        progress=watch,
    )
    wall, cpu = ([later - earlier for earlier, later in pairwise(marks)] for marks in watch.epochs())
    return {"epochs": wall, "cpu": cpu, "caching": watch.seconds["features"]}


class Stopwatch:
    """A run's progress that keeps how long its stages take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[float, float]] = []

    def epochs(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """When the fit began and every epoch ended, by the clock and in CPU time."""
        wall, cpu = zip(*self.marks, strict=True)
        return wall, cpu

    def say(self, line: str) -> None:
        """Print a line where it does not disturb."""
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


def make_pictures(folder: Path, count: int) -> None:
    """Write `count` + 1 noisy discs, of the models' input size, where they are not there yet."""
    import cv2
    import numpy as np

    if folder.exists() and len(list(folder.iterdir())) == count + 1:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    y, x = np.mgrid[:SIZE, :SIZE]
    for number in range(count + 1):
        rng = np.random.default_rng(number)
        disc = np.hypot(x - SIZE / 2, y - SIZE / 2) < rng.uniform(0.3, 0.4) * SIZE
        grey = 60 + 80 * disc[..., None] + rng.normal(0, 6, (SIZE, SIZE, 3))
        cv2.imwrite(str(folder / f"{number:03}.png"), grey.clip(0, 255).astype(np.uint8))


def report(found: Contenders, pictures: int, batch: int, folder: Path) -> None:
    """Print medians and write all that was measured."""
    from training.config import FitConfig

    (folder / "results.json").write_text(
        json.dumps({name: [asdict(run) for run in runs] for name, runs in found.items()}, indent=1) + "\n"
    )
    *mine, other = found
    print(f"\n{pictures} pictures, median of {len(found[other])} rounds")
    for name, runs in found.items():
        print(
            f"{name:18} {statistics.median(run.epoch for run in runs):6.2f} s an epoch (CPU "
            f"{statistics.median(run.epoch_cpu for run in runs):.2f} s), caching "
            f"{statistics.median(run.caching for run in runs):5.2f} s, memory "
            f"{statistics.median(run.memory for run in runs) / 2**20:5.0f} MiB"
        )
    length = FitConfig(batch_size=batch).epochs_for(pictures)
    for name in mine:
        pairs = list(zip(found[name], found[other], strict=True))
        ratios = {
            "an epoch": [them.epoch / us.epoch for us, them in pairs],
            "in CPU time": [them.epoch_cpu / us.epoch_cpu for us, them in pairs],
            f"with the caching pass, {length} epochs": [
                (them.epoch * length) / (us.epoch * length + us.caching) for us, them in pairs
            ],
            "memory": [them.memory / us.memory for us, them in pairs],
        }
        said = ", ".join(f"{what} {statistics.median(of):.2f}" for what, of in ratios.items())
        print(f"{other} over {name}: {said}")


if __name__ == "__main__":
    main()
