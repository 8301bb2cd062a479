"""Commands and outputs of the pages, to run and to compare.

A page shows a command as `$ command` in a ```console block, and its output below it. "..." alone on a line
stands for lines that are left out, and within a line for a part of it.
"""

import os
import re
import shlex
import subprocess
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

import flowgauge

ROOT = Path(__file__).parents[2]
# Numbers differ with the images and the machine.
_VARIABLE = (
    (r"\d{8}T\d{6}-[0-9a-f]{6}", "VERSION"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d+(?:[.,]\d+)*(?:e[+-]\d+)?", "N"),
    (r"N(?: N)+", "N"),
    (r"[ \t]+", " "),
    (r"([━─])+", r"\1"),
)


@dataclass(frozen=True)
class Step:
    """A command of a page, and the output that the page shows."""

    command: str
    output: str


def console_steps(page: Path) -> list[Step]:
    """Read the ```console blocks of a page."""
    steps = []
    for block in re.findall(r"(?ms)^```console\n(.*?)^```$", page.read_text()):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, output = _split(part)
            steps.append(Step(command, output))
    return steps


def _split(part: str) -> tuple[str, str]:
    lines = part.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
    return "\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :]).strip()


def find_step(steps: list[Step], text: str) -> Step:
    """The only step whose command contains a text."""
    [step] = [step for step in steps if text in step.command]
    return step


def assert_output(step: Step, printed: str) -> None:
    """Compare what a command printed with the page, apart from numbers."""
    lines = _normalised(step.output).splitlines()
    pattern = "".join("(?:.*\n)*" if line == "..." else _pattern(line) for line in lines)
    told = f"$ {step.command}\nthe page shows\n{step.output}\nbut got\n{printed}"
    assert re.fullmatch(pattern, _normalised(printed) + "\n"), told


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("..."))) + "\n"


def _normalised(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    text = "\n".join(lines)
    for pattern, name in _VARIABLE:
        text = re.sub(pattern, name, text)
    return text


def run_command(command: str, cwd: Path, **variables: str) -> str:
    """Run a command as a user's shell would; returns what it printed.

    `flowgauge` alone runs in this process: to import torch anew for each command takes seconds.
    """
    environment = {"NO_PROXY": "*", "COLUMNS": "120", **variables}
    if re.match(r"flowgauge [^|;&>]*$", command):
        with chdir(cwd):
            arguments = shlex.split(command)[1:]
            result = CliRunner().invoke(flowgauge.app, arguments, env=environment)
        printed, code = result.output, result.exit_code
    else:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        printed, code = done.stdout, done.returncode
    assert code == 0, f"{command}\n{printed}"
    return printed


def flowgauge_commands(page: Path) -> list[list[str]]:
    """Every `flowgauge ...` command in the code blocks of a page."""
    text = page.read_text()
    blocks = re.findall(r"(?ms)^```(?:console|sh|bash)?\n(.*?)^```$", text)
    blocks += ["\n".join(re.findall(r"(?m)^ {4}(.*)$", re.sub(r"(?ms)^```.*?^```$", "", text)))]
    commands = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\||;", line.removeprefix("$ ")):
            words = shlex.split(part, comments=True) if "flowgauge " in part else []
            while words and ("=" in words[0] or words[0] in {"&", "nohup"}):
                words = words[1:]
            if words and words[0] == "flowgauge":
                commands.append([word for word in words[1:] if word != "&"])
    return commands


def parse(words: list[str]) -> None:
    """Fail if `flowgauge` does not know a command or an option."""
    command: Any = typer.main.get_command(flowgauge.app)
    context = command.make_context("flowgauge", [], resilient_parsing=True)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, f"no command {name}"
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    context.resilient_parsing = False  # it forgives unknown options
    _, unknown, _ = command.make_parser(context).parse_args(args=list(words))
    assert unknown == [], unknown
