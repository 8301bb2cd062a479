"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from flows.fastflow.manifest import Precision

Data = Annotated[Path, typer.Option(help="Folder of the categories; see docs/how-to/prepare-data.md.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Models = Annotated[Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Models folder.")]
PrecisionName = Annotated[
    str, typer.Option(help="float32, bfloat16 or openvino-bfloat16, if calibrated for it.")
]
ProgressFormat = Annotated[
    Literal["text", "json"], typer.Option(help="text for people, json for programs: an event a line.")
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a fitted flow.")]
Seed = Annotated[int, typer.Option(help="Random seed.", min=0, max=2**63 - 1)]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]


def parse_precision(name: str) -> "Precision":
    """Return the precision of a name.

    Raises:
        typer.BadParameter: there is no such precision.
    """
    from flows.fastflow.manifest import PRECISIONS

    precision = next((known for known in PRECISIONS if known == name), None)
    if precision is None:
        raise typer.BadParameter(f"{name!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    return precision
