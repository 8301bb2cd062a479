"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.fastflow.manifest import Precision

Data = Annotated[Path, typer.Option(help="Folder of the categories; see docs/how-to/prepare-data.md.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Models = Annotated[Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Models folder.")]
PrecisionName = Annotated[
    Precision, typer.Option(help="float32, bfloat16 or openvino-bfloat16, if calibrated for it.")
]
ProgressFormat = Annotated[Literal["text", "json"], typer.Option(help="json: an event a line, for programs.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a fitted flow.")]
Seed = Annotated[int, typer.Option(help="Random seed.", min=0, max=2**63 - 1)]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
