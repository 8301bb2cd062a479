"""A fitted flow as a folder: there whole or not at all, checked when it is read, no pickle.

RUN/recipe.json          how to build the flow, what it was fitted to and how, what came of it
RUN/flow.safetensors     its weights
RUN/metrics.jsonl        every look at the fit
RUN/*.png                samples and interpolations
"""

import hashlib
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
from flows.fastflow.plain_files import FileError, read_file, remove_directory, temporary_directory
from training.density.named import RecipeError, build, recipe_name
from training.density.pictures import Pictures
from training.versions import library_versions

RECIPE = "recipe.json"
WEIGHTS = "flow.safetensors"
METRICS = "metrics.jsonl"
_MAX_RECIPE = 2**20
_BATCH = 256
_MAX_WEIGHTS = 4 * 2**30

# Bounds, so that a damaged file is refused before it asks for all of the memory.
_Count = Annotated[int, Field(ge=1, le=65536)]
_Argument = _Count | Annotated[float, Field(ge=0, le=1e6)] | Annotated[list[_Count], Field(max_length=64)]


class SavedFlowError(ValueError):
    """A saved flow is not there, is damaged, or does not fit its own recipe."""


class Data(BaseModel):
    """What a flow was fitted to: its source, the parts' sizes, and a sha256 of all pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    train: int
    validation: int
    test: int
    fingerprint: str

    @classmethod
    def of(cls, pictures: Pictures, source: str) -> "Data":
        """What is recorded of pictures."""
        sha256 = hashlib.sha256(f"{pictures.levels} {pictures.shape}".encode())
        for part in (pictures.train, pictures.validation, pictures.test):
            sha256.update(part.to(torch.uint8).numpy().tobytes())
        return cls(
            source=source,
            train=len(pictures.train),
            validation=len(pictures.validation),
            test=len(pictures.test),
            fingerprint=sha256.hexdigest(),
        )


class Fitted(BaseModel):
    """How the flow was fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str
    seconds: float


class Record(BaseModel):
    """The content of recipe.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    recipe: str
    arguments: dict[str, _Argument]
    event_shape: tuple[_Count, _Count, _Count]
    levels: Annotated[int, Field(ge=2, le=256)]
    data: Data
    settings: Fitted
    validation_bits_per_dim: float
    weights_sha256: str = ""
    created: str = ""
    libraries: dict[str, str] = {}


@dataclass(frozen=True)
class Saved:
    """A flow that was read.

    Attributes:
        flow: in evaluation mode.
        record: of how it was made.
    """

    flow: Flow
    record: Record


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise SavedFlowError unless a run can be written to the folder."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not (folder / RECIPE).is_file():
        raise SavedFlowError(f"{folder} is there already and holds no fitted flow; choose another --out")
    if not overwrite:
        raise SavedFlowError(
            f"{folder} holds a fitted flow; choose another --out, or replace it: --overwrite"
        )


@contextmanager
def new_run(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which takes its name when all is done; if anything fails nothing is left.

    Raises:
        SavedFlowError: the name is taken.
        OSError: nothing can be written there.
    """
    check_target(folder, overwrite=overwrite)
    with temporary_directory(folder.absolute().parent) as temporary:
        whole = temporary / folder.name
        whole.mkdir()
        yield whole
        check_target(folder, overwrite=overwrite)
        if folder.exists():
            remove_directory(folder)
        whole.replace(folder)


def save(folder: Path, flow: Flow, record: Record) -> None:
    """Write the weights and the recipe of a flow into a folder that is being filled.

    Args:
        folder: of `new_run`.
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


def load(folder: Path, device: torch.device | str = "cpu") -> Saved:
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
            flow = build(record.recipe, record.event_shape, record.levels, record.arguments)
    except RecipeError as error:
        raise SavedFlowError(f"{folder / RECIPE}: {error}") from error
    _expect_fit(folder, flow.state_dict(), tensors)
    flow.load_state_dict(tensors)
    return Saved(flow.to(device).eval(), record)


@torch.no_grad()
def draw(flow: Flow, number: int, *, temperature: float = 1.0, seed: int = 0) -> Tensor:
    """Samples as pictures, (number, C, H, W), integers 0 ... levels - 1.

    Args:
        flow: in evaluation mode.
        number: how many; drawn in batches, so that many take no more memory than few.
        temperature: see `Flow.sample`.
        seed: of the draw.
    """
    device = next(flow.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    batches = [
        flow.sample(min(_BATCH, number - i), temperature=temperature, generator=generator).cpu()
        for i in range(0, number, _BATCH)
    ]
    return torch.cat(batches)


def read_record(folder: Path) -> Record:
    """The content of recipe.json.

    Raises:
        SavedFlowError: it is missing or damaged, or names an unknown recipe.
    """
    if not folder.is_dir():
        raise SavedFlowError(f"there is no folder {folder}; `flowgauge flows train` makes one")
    data = _read(folder / RECIPE, _MAX_RECIPE)
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SavedFlowError(f"{folder / RECIPE} is damaged: {place}: {first['msg']}") from error
    try:
        recipe_name(record.recipe)
    except RecipeError as error:
        raise SavedFlowError(f"{folder / RECIPE}: {error}") from error
    return record


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_file(path, limit)
    except FileNotFoundError as error:
        raise SavedFlowError(
            f"{path} is missing; {path.parent} is no fitted flow, or not a whole one"
        ) from error
    except FileError as error:
        raise SavedFlowError(str(error)) from error


def _expect_fit(folder: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
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
