"""The command line: its commands, each imported when it is called.

So `flowgauge --help` needs neither torch nor cv2 nor fastapi. Errors that a user can correct become one line
and an exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import ctypes
import errno
import importlib
import io
import json
import os
import sys
from importlib.metadata import version
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup


class LazyCommand(NamedTuple):
    """A command that is imported when it is called.

    Attributes:
        target: module:attribute, a function with typer's annotations or a typer.Typer.
        help: its line in `flowgauge --help`.
        interrupted: printed after Ctrl-C: what is kept, and how to go on.
    """

    target: str
    help: str
    interrupted: str


_NOTHING_LEFT = "nothing half-written is left; run the command again"

# In the order of a user's work.
COMMANDS = {
    "data": LazyCommand(
        "training.commands.data:app",
        "Check the images of a category, or get real ones to try FlowGauge.",
        _NOTHING_LEFT,
    ),
    "train": LazyCommand(
        "training.commands.train:train",
        "Learn a category from images of good parts, calibrate it and publish it.",
        "checkpoints are kept; the same command with --resume continues",
    ),
    "evaluate": LazyCommand(
        "training.commands.evaluate:evaluate",
        "Measure published models on test images that training never reads.",
        _NOTHING_LEFT,
    ),
    "compare": LazyCommand(
        "training.commands.compare:compare",
        "Compare a version with the active one on the same test images.",
        _NOTHING_LEFT,
    ),
    "calibrate": LazyCommand(
        "app.commands.calibrate:calibrate",
        "Recalibrate a model with good images of the line, without training.",
        "thresholds are as they were",
    ),
    "learn": LazyCommand(
        "app.commands.learn:learn",
        "Publish a version that has learned from reviewed defects, without training.",
        _NOTHING_LEFT,
    ),
    "flows": LazyCommand(
        "training.commands.flows:app",
        "Fit normalizing flows to images, sample from them, score with them.",
        "nothing half-written is left; files that were reported stay",
    ),
    "serve": LazyCommand(
        "app.commands.serve:serve",
        "Serve the published models over HTTP.",
        "the server has stopped; models are untouched",
    ),
    "cluster": LazyCommand(
        "app.commands.cluster:app",
        "Serve by replicas on a Ray cluster.",
        "the replicas have stopped; models are untouched",
    ),
    "models": LazyCommand(
        "app.commands.models:app",
        "List, verify, pack, export, activate and delete the versions of a models folder.",
        _NOTHING_LEFT,
    ),
    "products": LazyCommand(
        "app.commands.products:app",
        "List, create, fill, export and delete the products of a server.",
        "images already sent or written stay; run the command again",
    ),
    "jobs": LazyCommand(
        "app.commands.jobs:app",
        "Start, follow, list and cancel jobs of a server, such as trainings.",
        "the job goes on in the server",
    ),
    "keys": LazyCommand(
        "app.commands.keys:app",
        "Create, list and revoke API keys.",
        _NOTHING_LEFT,
    ),
    "webhooks": LazyCommand(
        "app.commands.webhooks:app",
        "List webhooks and their failed deliveries.",
        _NOTHING_LEFT,
    ),
    "backup": LazyCommand(
        "app.commands.backup:app",
        "Create, verify and restore snapshots of a service.",
        _NOTHING_LEFT,
    ),
    "predict": LazyCommand(
        "app.commands.predict:predict",
        "Inspect an image or a folder, here or on a server.",
        "answers already printed or written stay",
    ),
    "watch": LazyCommand(
        "app.client.watch.command:watch",
        "Inspect the images that a camera writes into a folder, each once.",
        "images that are not inspected yet wait for the next start",
    ),
    "doctor": LazyCommand(
        "app.commands.doctor:doctor",
        "Check the installation, the models or a server.",
        "nothing was changed",
    ),
    "backbones": LazyCommand(
        "app.commands.backbones:app",
        "List backbone presets, or fetch their weights.",
        _NOTHING_LEFT,
    ),
}


class LazyGroup(TyperGroup):
    """A group of placeholders with a name and a line of help; a call imports the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Notice `--progress json`: then an error is an event, too, see `flows.fastflow.progress`."""
        wanted = "--progress=json" in args or ("--progress", "json") in pairwise(args)
        ctx.meta["flowgauge.events"] = wanted
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command and import it."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        if name is None or placeholder is None:
            return name, placeholder, rest
        return name, _load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn errors that a user can correct into a line and an exit code."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            kept = COMMANDS[ctx.invoked_subcommand].interrupted if ctx.invoked_subcommand else ""
            typer.echo(f"\ninterrupted: {kept or _NOTHING_LEFT}", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            reason = _describe_error(error)
            if ctx.meta["flowgauge.events"]:
                wrong_usage = error.format_message() if hasattr(error, "format_message") else None
                message = reason or wrong_usage or f"{type(error).__name__}: {error}"
                typer.echo(json.dumps({"event": "error", "message": message}))
            if reason is None or os.environ.get("FLOWGAUGE_DEBUG") == "1":
                raise
            typer.echo(f"error: {reason}", err=True)
            raise typer.Exit(1) from error


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        single.command(name)(target)
        target = single
    return typer.main.get_command(target)


def _describe_error(error: Exception) -> str | None:
    """Describe an error that a user can correct; None for a defect, whose traceback is needed."""
    from app.errors.problems import Problem

    ours = type(error).__module__.partition(".")[0] in {"flows", "training", "app"}
    if isinstance(error, ValueError | Problem) and ours:
        return str(error)
    # A closed pipe (`flowgauge ... | head`) is no error; typer ends silently.
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        if error.errno == errno.ENOSPC and not error.filename:
            return (
                f"{error.strerror}: the disk of --models, --runs, --out or TMPDIR is full. What was written "
                "stays whole; with room again, `flowgauge train --resume` goes on."
            )
        return f"{error.strerror}: {error.filename}" if error.filename else str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # of Python, of torch
        return "there is not enough memory: stop other programs, or train with a smaller preset"
    return None


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="FLOWGAUGE_DEBUG=1 shows the traceback behind an error.",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"flowgauge {version('flowgauge')}")
        raise typer.Exit


@app.callback()
def _flowgauge(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Visual inspection for production lines: learns good parts, scores every image.

    A first model, on real solar cells:

    - flowgauge data elpv
    - flowgauge train --data datasets/elpv --category solar_cell
    - flowgauge evaluate --data datasets/elpv --category solar_cell
    - flowgauge serve
    """


def _placeholder() -> None:
    """Do nothing; `LazyGroup.resolve_command` replaces it by the command."""


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help)(_placeholder)


def keep_freed_memory() -> None:
    """Let glibc keep and reuse large blocks of memory instead of returning them to the kernel.

    A network's activations take megabytes each. By default glibc maps and unmaps memory for each of them:
    the page faults take more than half the time of a forward pass on a CPU. Call it before torch allocates.
    FLOWGAUGE_MALLOC=default changes nothing.
    """
    if sys.platform != "linux" or os.environ.get("FLOWGAUGE_MALLOC") == "default":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):  # other C libraries of Linux have no such settings
        m_trim_threshold, m_mmap_max = -1, -4  # <malloc.h>
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def spin_briefly() -> None:
    """Let OpenMP's threads wait for each other by spinning briefly, then by sleeping.

    A thread that spins takes the core that another thread or process needs. Measured: a training step on two
    cores takes 97 ms by default, 184 ms if threads sleep at once and 109 ms with this setting. With two
    trainings side by side it takes 441 ms, and 1750 ms with ten times the spinning. Call it before torch is
    loaded, which loads GNU's OpenMP. Variables that are set stay as they are.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def escape_unencodable_output() -> None:
    """Print characters that the terminal's or the pipe's encoding lacks as escapes, such as file names."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Entry point of the `flowgauge` command."""
    escape_unencodable_output()
    keep_freed_memory()
    spin_briefly()
    app()


if __name__ == "__main__":
    main()
