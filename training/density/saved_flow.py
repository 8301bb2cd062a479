"""A fitted flow as a folder: there whole or not at all, checked when it is read, no pickle.

RUN/recipe.json          how to build the flow, what it was fitted to and how, what came of it
RUN/flow.safetensors     its weights
RUN/metrics.jsonl        every look at the fit
RUN/samples.png          samples, where they can be drawn
RUN/interpolations.png   interpolations, where they can be drawn

The two images may take long, and come when the rest is there: a run is whole without them.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from flows import Flow
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.files.plain_files import FileError, read_file
from training.density.fit import batch_rows
from training.density.image_data import ImageSplits
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
MAX_SIDE = 1024  # of images, in pixels
# Bounds of what is asked for at all. A flow within them may still be larger than all memory: `load` compares
# it with the file of its weights before it is built.
_Channels = Annotated[int, Field(ge=1, le=3)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
_Count = Annotated[int, Field(ge=1, le=65536)]
_Argument = _Count | Annotated[float, Field(ge=0, le=1e6)] | Annotated[list[_Count], Field(max_length=64)]


class SavedFlowError(ValueError):
    """A saved flow is not there, is damaged, or does not fit its own recipe."""


class DataSource(BaseModel):
    """What a flow was fitted to: its source, the parts' sizes, and a sha256 of all pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    train: int
    validation: int
    test: int
    fingerprint: str

    @classmethod
    def of(cls, images: ImageSplits, source: str) -> "DataSource":
        """What is recorded of images."""
        sha256 = hashlib.sha256(f"{images.levels} {images.shape}".encode())
        for part in (images.train, images.validation, images.test):
            sha256.update(part.to(torch.uint8).numpy().tobytes())
        return cls(
            source=source,
            train=len(images.train),
            validation=len(images.validation),
            test=len(images.test),
            fingerprint=sha256.hexdigest(),
        )


class FitRecord(BaseModel):
    """How the flow was fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str
    seconds: float


class FlowRecord(BaseModel):
    """The content of recipe.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    recipe: str
    arguments: dict[str, _Argument]
    event_shape: tuple[_Channels, _Side, _Side]
    levels: Annotated[int, Field(ge=2, le=256)]
    data: DataSource
    settings: FitRecord
    validation_bits_per_dim: float
    weights_sha256: str = ""
    created: str = ""
    libraries: dict[str, str] = {}


@dataclass(frozen=True)
class SavedFlow:
    """A flow that was read.

    Attributes:
        flow: in evaluation mode.
        record: of how it was made.
    """

    flow: Flow
    record: FlowRecord


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise SavedFlowError unless a run can be written to the folder.

    What is replaced is a run and nothing else: a folder with a record that can be read, and only files of
    the names that runs have.
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
    """A folder to fill, which takes its name when all is done; if anything fails all is as it was.

    Raises:
        SavedFlowError: the name is taken, at the beginning or in the end.
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
    """Write the weights and the recipe of a flow into a folder that is being filled.

    Args:
        folder: to fill, of `new_run`.
        flow: as `record` builds it.
        record: the hash of the weights, the time and the versions are filled in.
    """
    # Contiguous clones: safetensors knows neither strides nor tensors that share their memory.
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
    """Read a flow that `save` wrote; its densities are bit for bit those of the flow that was saved.

    Raises:
        SavedFlowError: a file is missing, damaged or changed, the recipe is unknown, or the weights do not
            fit it. The message names what.
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
        # Fresh weights are drawn and thrown away; the caller's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            # First without memory for the weights: what the recipe asks for must be what the file has.
            with torch.device("meta"):
                shapes = build(record.recipe, record.event_shape, record.levels, record.arguments)
            # Of the precision that the file has, whatever torch's default is.
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
    """Samples as images, in batches (N, C, H, W) on the CPU, integers 0 ... levels - 1.

    Each is drawn when it is asked for: where none is kept, many take no more memory than few.

    Args:
        flow: in evaluation mode.
        number: how many in all.
        temperature: see `Flow.sample`.
        seed: of the draw.
    """
    device = next(flow.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    batch = min(_BATCH, batch_rows(math.prod(flow.base.event_shape)))
    for i in range(0, number, batch):
        yield flow.sample(min(batch, number - i), temperature=temperature, generator=generator).cpu()


def read_record(folder: Path) -> FlowRecord:
    """The content of recipe.json.

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
            what = "lacks" if key in expected else "holds an unknown"
            raise SavedFlowError(f"{folder / WEIGHTS} does not fit its recipe: it {what} {key}")
        wanted, came = expected[key], found[key]
        if wanted.shape != came.shape or wanted.dtype != came.dtype:
            raise SavedFlowError(
                f"{folder / WEIGHTS} does not fit its recipe: {key} should be {_kind(wanted)}; "
                f"got {_kind(came)}"
            )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
