"""Names in the documentation exist in the code: settings, commands, metrics, errors, roles, fields."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

import flowgauge
from app.auth.permissions import PERMISSIONS
from app.errors.problems import TYPES
from app.schemas.access import Permission, Role
from app.settings import unknown_variables
from flows.fastflow.manifest import Manifest
from tests.docs.console import flowgauge_commands, parse
from tests.support.metrics import METRIC, exposed_series

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
COMMAND = re.compile(r"(?:^|bin/|(?<!-g)[\s`(])flowgauge ([a-z]+\b[^`\n|;&#)]*)", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def rows(page: Path, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    section = page.read_text().split(f"\n{heading}\n", 1)[1]
    lines = section[section.index("\n|") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@cache
def load(command: str) -> Any:
    return flowgauge._load(command)


def commands(page: Path) -> Iterator[list[str]]:
    """Calls of `flowgauge` in code blocks and inline code, as words."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    blocks = re.findall(r"(?ms)^ *```.*?^ *```$", text)
    inline = re.findall(r"`[^`\n]+`", re.sub(r"(?ms)^ *```.*?^ *```$", "", text))
    for found in COMMAND.findall("\n".join([*blocks, *inline])):
        try:
            yield shlex.split(found)
        except ValueError:  # an apostrophe in the output of a command
            yield found.split()


def fault(words: list[str]) -> str | None:
    """Name the first word of a call that the command line does not know."""
    if words[0] not in flowgauge.COMMANDS:
        return words[0]
    command = load(words[0])
    for word in words[1:]:
        if isinstance(command, TyperGroup) and not word.startswith("-"):
            if word not in command.commands:
                return word
            command = command.commands[word]
        elif re.match(r"--?[a-z]", word):
            options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
            if word.partition("=")[0] not in {*options, "--help", "-h"}:
                return word
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_complete_and_valid(page: Path) -> None:
    for words in flowgauge_commands(page):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_mentioned_commands_and_options_exist(page: Path) -> None:
    """Prose may follow a command that is mentioned, so arguments are not checked here."""
    assert [" ".join(words) for words in commands(page) if fault(words) is not None] == []


def test_unknown_commands_and_options_are_found() -> None:
    assert fault(["models", "list", "--json"]) is None
    assert fault(["models", "lst"]) == "lst"
    assert fault(["train", "--dta", "x"]) == "--dta"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_variables_exist(page: Path) -> None:
    variables = re.findall(r"\bFLOWGAUGE_[A-Z_]+[A-Z]\b", page.read_text())
    assert unknown_variables(dict.fromkeys(variables, "")) == []


def test_metrics_exist(tmp_path: Path) -> None:
    named = {metric for page in PAGES for metric in METRIC.findall(page.read_text())} - {"flowgauge_client"}
    series = exposed_series(tmp_path)
    histograms = {one.removesuffix("_count") for one in series if one.endswith("_count")}
    assert len(named) > 10
    assert named - series - histograms == set()


def test_refusals_are_complete() -> None:
    documented: dict[str, str] = {}
    for status, types, _ in rows(DOCS / "how-to" / "troubleshoot.md", "## Refusals"):
        documented |= dict.fromkeys(quoted(types), status)
    assert documented.keys() == TYPES.keys()
    for one, kind in TYPES.items():
        assert str(kind.status) in documented[one].split(", "), one


def test_roles_have_the_documented_permissions() -> None:
    columns = (
        {Permission.PREDICT},
        {Permission.RESULT},
        {Permission.HISTORY},
        {Permission.REVIEW},
        {Permission.TEACH, Permission.TUNE},
        {Permission.ADMIN},
    )
    table = rows(DOCS / "how-to" / "secure.md", "## Roles")
    assert [quoted(row[0])[0] for row in table] == [role.value for role in Role]
    for role, *cells in table:
        granted = PERMISSIONS[Role(quoted(role)[0])]
        for cell, permissions in zip(cells, columns, strict=True):
            assert (cell == "yes") == (permissions <= granted), (role, permissions)


def test_manifest_fields_are_complete() -> None:
    table = rows(DOCS / "reference" / "bundle.md", "## Manifest")
    assert {field for row in table for field in quoted(row[0])} == set(Manifest.model_fields)


def test_architecture_names_every_package() -> None:
    page = DOCS / "explanation" / "architecture.md"
    for heading, whole in (
        ("## `app/`", "app"),
        ("## `flows/`", "flows/fastflow"),
        ("## `training/`", "training"),
    ):
        folder = ROOT / whole
        documented = {path.rstrip("/") for row in rows(page, heading) for path in quoted(row[0])}
        present = {
            one.name for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").exists()
        }
        assert documented == present - {"__init__.py"}, whole


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_of_the_source_exist(page: Path) -> None:
    """Words in capitals stand for names of the reader's choice."""
    named = re.findall(r"`((?:app|flows|training|tests|bench|deploy|examples)/[\w./-]+)`", page.read_text())
    assert [one for one in named if not re.search("[A-Z]{3}", one) and not (ROOT / one).exists()] == []
