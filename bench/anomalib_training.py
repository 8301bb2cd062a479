"""Train anomalib's FastFlow with its own Engine, for `bench.training_time`.

Runs in anomalib's interpreter and prints a line of JSON: seconds and CPU seconds of each epoch, and the
largest resident set.
"""

import argparse
import json
import re
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Fastflow
from lightning.pytorch.callbacks import Callback


class EpochTimes(Callback):  # type: ignore[misc, unused-ignore]
    """Times at which the first epoch begins and at which every epoch ends."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Record the start of the first epoch."""
        if not self.marks:
            self._mark()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._mark()

    def _mark(self) -> None:
        self.marks.append((time.monotonic(), time.process_time()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--good", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "data" / "good"
        good.mkdir(parents=True)
        for file in sorted(options.good.iterdir())[: options.images]:
            (good / file.name).symlink_to(file.resolve())
        data = Folder(
            name="part",
            root=good.parent,
            normal_dir="good",
            train_batch_size=options.batch,
            num_workers=0,
            test_split_mode="none",
            val_split_mode="none",
        )
        model = Fastflow(
            backbone="resnet18", pre_trained=False, flow_steps=8, conv3x3_only=False, hidden_ratio=1.0
        )
        engine = Engine(
            max_epochs=options.epochs,
            accelerator="cpu",
            devices=1,
            precision=32,
            logger=False,
            callbacks=[times],
            default_root_dir=Path(folder) / "results",
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        engine.fit(model, datamodule=data)
    wall, cpu = ([b - a for a, b in pairwise(marks)] for marks in zip(*times.marks, strict=True))
    memory = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = 1024 * int(memory[1]) if memory else 0
    print(json.dumps({"epochs": wall, "cpu": cpu, "caching": 0.0, "memory": peak}))


if __name__ == "__main__":
    main()
