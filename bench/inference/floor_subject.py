"""A contestant: `bench.floor`, the least that an inspection by the default model can cost. See `answering`.

    python -m bench.inference.floor_subject --file PATH ...

It can be asked for each file by its suffix, such as "jpg", and for eight times the file in a batch, "jpg by
8".
"""

import argparse
from functools import partial
from pathlib import Path

import flowgauge
from bench.inference.answering import Loaded, answer

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", type=Path, action="append", required=True)
    options = parser.parse_args()
    # As the server does, so that the floor has no other memory and threads.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    answer(partial(_load, options))


def _load(options: argparse.Namespace) -> Loaded:
    from bench.floor import Floor

    floor = Floor(options.side, options.threads)
    works = {}
    for file in options.file:
        data, name = file.read_bytes(), file.suffix[1:]
        works[name] = (partial(floor.run, [data]), 1)
        works[f"{name} by {BATCH}"] = (partial(floor.run, [data] * BATCH), BATCH)
    return Loaded(works, {"precision": floor.precision})


if __name__ == "__main__":
    main()
