"""`flowgauge flows`: normalizing flows without the detector."""

import typer

from training.commands.flows.gallery import gallery
from training.commands.flows.sample import sample
from training.commands.flows.score import score
from training.commands.flows.train import train

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def flows() -> None:
    """Fit normalizing flows to images, sample from them, score with them, and draw densities."""


# In the order in which a user meets them.
for _command in (gallery, train, sample, score):
    app.command()(_command)
