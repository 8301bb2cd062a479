"""A fitted flow as a folder: written completely or not at all, verified when read, without pickle.

RUN/recipe.json          how to build the flow, its data, its fit and the result
RUN/flow.safetensors     its weights
RUN/metrics.jsonl        every evaluation during the fit
RUN/samples.png          samples, if they can be drawn
RUN/interpolations.png   interpolations, if they can be drawn

The two images may take long and are written last: a run is complete without them.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from flows import Flow
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.files.plain_files import FileError, read_file
from training.density.fit import batch_rows
from training.density.flow_record import FlowRecord
from training.density.named_recipes import RecipeError, build, recipe_name
from training.versions import library_versions

RECIPE = "recipe.json"
WEIGHTS = "flow.safetensors"
METRICS = "metrics.jsonl"
SAMPLES = "samples.png"
INTERPOLATIONS = "interpolations.png"
_NAMES = frozenset({RECIPE, WEIGHTS, METRICS, SAMPLES, INTERPOLATIONS})
_MAX_RECIPE = 2**20
_BATCH = 256
_MAX_WEIGHTS = 4 * 2**30


class SavedFlowError(ValueError):
    """A saved flow is missing, damaged, or does not fit its recipe."""


@dataclass(frozen=True)
class SavedFlow:
    flow: Flow
    record: FlowRecord


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise SavedFlowError unless a run can be written to the folder.

    Only a run is replaced: a folder with a readable record and only the files of a run.
    """
    if not _is_there(folder):
        return
    try:
        read_record(folder)
    except SavedFlowError as error:
        raise SavedFlowError(
            f"{folder} is there already and holds no fitted flow that can be read; choose another --out"
        ) from error
    others = sorted(path.name for path in folder.iterdir() if path.name not in _NAMES or path.is_dir())
    if others:
        raise SavedFlowError(
            f"{folder} holds a fitted flow and {others[0]!r}, which is no part of it; choose another --out"
        )
    if not overwrite:
        raise SavedFlowError(
            f"{folder} holds a fitted flow; choose another --out, or replace it: --overwrite"
        )


@contextmanager
def new_run(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill, which gets its name at the end; an error leaves everything unchanged.

    Raises:
        SavedFlowError: the name is taken, at the start or at the end.
        OSError: nothing can be written there.
    """
    check_target(folder, overwrite=overwrite)
    with temporary_directory(folder.absolute().parent) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        check_target(folder, overwrite=overwrite)
        if _is_there(folder):
            folder.rename(old)
        new.rename(folder)


def save(folder: Path, flow: Flow, record: FlowRecord) -> None:
    """Write the weights and the recipe of a flow into a new run.

    Args:
        folder: folder from `new_run`.
        flow: a flow that `record` describes.
        record: the record; hash of the weights, time and versions are filled in.
    """
    # Contiguous clones: safetensors supports neither strides nor shared memory.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in flow.state_dict().items()}
    data = save_tensors(tensors)
    (folder / WEIGHTS).write_bytes(data)
    filled = record.model_copy(
        update={
            "weights_sha256": hashlib.sha256(data).hexdigest(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": library_versions(),
        }
    )
    (folder / RECIPE).write_text(filled.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load(folder: Path, device: torch.device | str = "cpu") -> SavedFlow:
    """Read a flow that `save` wrote; its densities are bit-identical to those of the saved flow.

    Raises:
        SavedFlowError: a file is missing, damaged or changed, the recipe is unknown, or the weights do not
            fit it.
    """
    record = read_record(folder)
    data = _read(folder / WEIGHTS, _MAX_WEIGHTS)
    if hashlib.sha256(data).hexdigest() != record.weights_sha256:
        raise SavedFlowError(f"{folder / WEIGHTS} is damaged: its sha256 is not the one in {RECIPE}")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise SavedFlowError(f"{folder / WEIGHTS} is damaged: {error}") from error
    try:
        # Building draws random weights; the caller's random state stays unchanged.
        with torch.random.fork_rng(devices=[]):
            # First without memory for the weights, to compare the recipe with the file.
            with torch.device("meta"):
                shapes = build(record.recipe, record.event_shape, record.levels, record.arguments)
            # The file's precision, whatever torch's default is.
            doubles = {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float64}
            precision = torch.float64 if doubles else torch.float32
            _require_match(folder, shapes.to(precision).state_dict(), tensors)
            flow = build(record.recipe, record.event_shape, record.levels, record.arguments).to(precision)
    except RecipeError as error:
        raise SavedFlowError(f"{folder / RECIPE}: {error}") from error
    flow.load_state_dict(tensors)
    return SavedFlow(flow.to(device).eval(), record)


@torch.no_grad()
def draw(flow: Flow, number: int, *, temperature: float = 1.0, seed: int = 0) -> Iterator[Tensor]:
    """Draw samples in batches (N, C, H, W) on the CPU, integers 0 ... levels - 1.

    Each batch is drawn on demand, so memory does not grow with the number.
    """
    device = next(flow.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    batch = min(_BATCH, batch_rows(math.prod(flow.base.event_shape)))
    for i in range(0, number, batch):
        yield flow.sample(min(batch, number - i), temperature=temperature, generator=generator).cpu()


def read_record(folder: Path) -> FlowRecord:
    """Read recipe.json.

    Raises:
        SavedFlowError: it is missing or damaged, or names an unknown recipe.
    """
    if not folder.is_dir():
        raise SavedFlowError(f"there is no folder {folder}; `flowgauge flows train` makes one")
    data = _read(folder / RECIPE, _MAX_RECIPE)
    try:
        record = FlowRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SavedFlowError(f"{folder / RECIPE} is damaged: {place}: {first['msg']}") from error
    try:
        recipe_name(record.recipe)
    except RecipeError as error:
        raise SavedFlowError(f"{folder / RECIPE}: {error}") from error
    return record


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_file(path, limit)
    except FileNotFoundError as error:
        raise SavedFlowError(
            f"{path} is missing; {path.parent} is no fitted flow, or not a whole one"
        ) from error
    except FileError as error:
        raise SavedFlowError(str(error)) from error


def _require_match(folder: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for key in sorted(expected.keys() | found.keys()):
        if key not in found or key not in expected:
            verb = "lacks" if key in expected else "holds an unknown"
            raise SavedFlowError(f"{folder / WEIGHTS} does not fit its recipe: it {verb} {key}")
        if expected[key].shape != found[key].shape or expected[key].dtype != found[key].dtype:
            raise SavedFlowError(
                f"{folder / WEIGHTS} does not fit its recipe: {key} should be {_kind(expected[key])}; "
                f"got {_kind(found[key])}"
            )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
