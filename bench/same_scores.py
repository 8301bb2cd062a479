"""Is a served score the evaluated one? The same test pictures by `evaluate`, by `predict` and over HTTP.

    python -m bench.same_scores --data datasets/elpv --category solar_cell

Needs a trained model in models/. Prints the largest relative difference between the three; 1e-5 is allowed.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from examples.children import FLOWGAUGE, run, serving_here
from flows.fastflow.models_folder import resolve

ALLOWED = 1e-5


def main() -> int:
    """Compare; the exit code is 1 if a score differs by more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--pictures", type=int, default=50)
    options = parser.parse_args()
    which = ("--category", options.category, "--models", str(options.models))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        run("evaluate", "--data", str(options.data), *which, "--out", str(out))
        version = resolve(options.models, options.category).name
        with (out / options.category / version / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        step = max(1, len(rows) // options.pictures)
        evaluated = {Path(r["path"]): float(r["score"]) for r in rows[::step][: options.pictures]}
        names = {f"{i}{path.suffix}": path for i, path in enumerate(evaluated)}
        folder = out / "pictures"
        folder.mkdir()
        for name, path in names.items():
            (folder / name).symlink_to(path.resolve())
        answer = subprocess.run(
            [*FLOWGAUGE, "predict", str(folder), *which, "--json"], check=True, stdout=subprocess.PIPE
        )
        lines = [json.loads(line) for line in answer.stdout.splitlines()]
    predicted = {names[line["file"]]: float(line["score"]) for line in lines}
    served = _served(options.models, options.category, list(evaluated))
    worst = max(
        abs(other[path] - score) / abs(score)
        for path, score in evaluated.items()
        for other in (predicted, served)
    )
    print(f"{len(evaluated)} pictures: largest relative difference {worst:.2e}, allowed {ALLOWED:.0e}")
    return int(worst > ALLOWED)


def _served(models: Path, category: str, paths: list[Path]) -> dict[Path, float]:
    with serving_here(models) as client:
        answers = {
            path: client.post(f"/v1/models/{category}/predict", content=path.read_bytes()) for path in paths
        }
    return {path: float(answer.raise_for_status().json()["score"]) for path, answer in answers.items()}


if __name__ == "__main__":
    sys.exit(main())
