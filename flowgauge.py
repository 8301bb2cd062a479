"""Command line: mounts the sub-commands and imports each one on its first use.

`flowgauge --help` answers at once: what lies behind a sub-command (torch, cv2, fastapi) is imported
when that sub-command is asked for, and not before. The failures a user can do something about end
here, each as one line and an exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
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


class Mount(NamedTuple):
    """A sub-command that is not imported yet."""

    target: str  # module:attribute, a function with typer's annotations or a typer.Typer
    help: str  # its line in `flowgauge --help`
    interrupted: str  # said after Ctrl-C: what is kept and how to go on


_NOTHING_LEFT = "nothing half-written is left; run the command again"

# In the order in which a user meets them.
COMMANDS = {
    "data": Mount(
        "training.commands.data:app",
        "Check the images of a category, or get real ones to try FlowGauge.",
        _NOTHING_LEFT,
    ),
    "train": Mount(
        "training.commands.train:train",
        "Learn a category from images of good parts, calibrate it and publish it.",
        "checkpoints are kept; the same command with --resume continues",
    ),
    "evaluate": Mount(
        "training.commands.evaluate:evaluate",
        "Measure published models on test images that training never reads.",
        _NOTHING_LEFT,
    ),
    "compare": Mount(
        "training.commands.compare:compare",
        "Compare a version with the active one on the same test images.",
        _NOTHING_LEFT,
    ),
    "calibrate": Mount(
        "app.commands.calibrate:calibrate",
        "Recalibrate a model with good images of the line, without training.",
        "thresholds are as they were",
    ),
    "learn": Mount(
        "app.commands.learn:learn",
        "Publish a version that has learned from reviewed defects, without training.",
        _NOTHING_LEFT,
    ),
    "flows": Mount(
        "training.commands.flows:app",
        "Fit normalizing flows to images, sample from them, score with them.",
        "nothing half-written is left; what was said to be kept or drawn stays",
    ),
    "serve": Mount(
        "app.commands.serve:serve",
        "Serve the published models over HTTP.",
        "the server has stopped; models are untouched",
    ),
    "models": Mount(
        "app.commands.models:app",
        "List, verify, pack, export, activate and delete the versions of a models folder.",
        _NOTHING_LEFT,
    ),
    "products": Mount(
        "app.commands.products:app",
        "List, create, fill, export and delete the products of a server.",
        "images already sent or written stay; run the command again",
    ),
    "jobs": Mount(
        "app.commands.jobs:app",
        "Start, follow, list and cancel jobs of a server, such as trainings.",
        "the job goes on in the server",
    ),
    "keys": Mount(
        "app.commands.keys:app",
        "Create, list and revoke API keys.",
        _NOTHING_LEFT,
    ),
    "webhooks": Mount(
        "app.commands.webhooks:app",
        "List webhooks and their failed deliveries.",
        _NOTHING_LEFT,
    ),
    "backup": Mount(
        "app.commands.backup:app",
        "Create, verify and restore snapshots of a service.",
        _NOTHING_LEFT,
    ),
    "predict": Mount(
        "app.commands.predict:predict",
        "Inspect an image or a folder, here or on a server.",
        "answers already printed or written stay",
    ),
    "watch": Mount(
        "app.client.watch.command:watch",
        "Inspect the images that a camera writes into a folder, each once.",
        "images that are not inspected yet wait for the next start",
    ),
    "doctor": Mount(
        "app.commands.doctor:doctor",
        "Check the installation, the models or a server.",
        "nothing was changed",
    ),
    "backbones": Mount(
        "app.commands.backbones:app",
        "List backbone presets, or fetch their weights.",
        _NOTHING_LEFT,
    ),
}


class FrontDoor(TyperGroup):
    """A group whose commands are stand-ins with a name and a line of help until one is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Notice `--progress json`: then an error is an event, too, see `flows.fastflow.progress`."""
        wanted = "--progress=json" in args or ("--progress", "json") in pairwise(args)
        ctx.meta["flowgauge.events"] = wanted
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command as usual, then put the real one in the place of its stand-in."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name is None or stand_in is None:
            return name, stand_in, rest
        return name, _load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn the failures a user can act on into a line and an exit code."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            kept = COMMANDS[ctx.invoked_subcommand].interrupted if ctx.invoked_subcommand else ""
            typer.echo(f"\ninterrupted: {kept or _NOTHING_LEFT}", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            reason = _reason(error)
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


def _reason(error: Exception) -> str | None:
    """What to tell the user, or None for a defect of ours, which deserves its traceback."""
    from app.errors.problems import Problem

    ours = type(error).__module__.partition(".")[0] in {"flows", "training", "app"}
    if isinstance(error, ValueError | Problem) and ours:
        return str(error)
    # A closed pipe (`flowgauge ... | head`) is no failure; typer ends quietly on it.
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        if error.errno == errno.ENOSPC and not error.filename:
            return (
                f"{error.strerror}: the disk of --models, --runs, --out or TMPDIR is full. What was written "
                "stays whole; with room again, `flowgauge train --resume` goes on."
            )
        return f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return None


app = typer.Typer(
    cls=FrontDoor,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="FLOWGAUGE_DEBUG=1 shows the traceback behind an error.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"flowgauge {version('flowgauge')}")
        raise typer.Exit


@app.callback()
def _front_door(
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


def _stand_in() -> None:
    """Never runs: `FrontDoor.resolve_command` puts the real command in its place."""


for _name, _mount in COMMANDS.items():
    app.command(_name, help=_mount.help)(_stand_in)


def keep_freed_memory() -> None:
    """Make glibc keep and reuse large blocks instead of returning each to the kernel.

    Every activation of a network is megabytes large. By default glibc maps such a block afresh and
    unmaps it when freed, so that each forward pass pays for a hundred thousand page faults: more
    than half its time on a CPU. To be called before torch allocates; FLOWGAUGE_MALLOC=default
    leaves glibc alone.
    """
    if sys.platform != "linux" or os.environ.get("FLOWGAUGE_MALLOC") == "default":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):  # other C libraries of Linux have no such settings
        m_trim_threshold, m_mmap_max = -1, -4  # <malloc.h>
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def spin_briefly() -> None:
    """Let OpenMP's threads spin only briefly while they wait for each other, then sleep.

    Where something else runs too, the thread that is waited for cannot run because of the one that
    spins. A training step on two cores: 97 ms alone by default, 184 ms if threads sleep at once,
    109 ms so; with two trainings side by side 441 ms so, and 1750 ms with ten times the spinning. To
    be called before torch is loaded; GNU's OpenMP reads it then. What is set already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def write_any_name() -> None:
    """Let any file's name be printed, also with letters that the terminal's or a pipe's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Entry point of the `flowgauge` command."""
    write_any_name()
    keep_freed_memory()
    spin_briefly()
    app()


if __name__ == "__main__":
    main()
