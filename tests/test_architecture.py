"""The arrows between the rooms, and what a room costs to enter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Which rooms a room may import besides itself.
ARROWS = {"flows": set(), "training": {"flows"}, "app": {"flows"}}
OURS = {*ARROWS, "flowgauge", "tests", "examples"}


def imports(file: Path, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, wherever in it."""
    package = file.parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def strangers(file: Path, source: str) -> list[str]:
    """Imports of a file, given relative to the root, that its room does not allow."""
    room = file.parts[0]
    return [
        f"{file}:{line} imports {name}"
        for line, name in imports(file, source)
        if (top := name.split(".")[0]) in OURS and top != room and top not in ARROWS[room]
    ]


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_along_the_arrows(room: str) -> None:
    files = [path.relative_to(ROOT) for path in sorted((ROOT / room).rglob("*.py"))]
    assert files
    assert [s for file in files for s in strangers(file, (ROOT / file).read_text())] == []


def loaded(imports: str, code: str) -> set[str]:
    """What code prints in a process that has imported modules."""
    command = [sys.executable, "-c", f"import sys, {imports}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_the_flows_need_torch_alone() -> None:
    """What `import flows` loads beyond what `import torch` loads is `flows` itself."""
    before = loaded("torch", "print(*sys.modules)")
    after = loaded("torch, flows", "print(*sys.modules)")
    # Else it might be that torch had loaded them already.
    tops = {name.partition(".")[0] for name in before}
    assert not tops & {"timm", "cv2", "PIL", "pydantic", "safetensors", "sklearn", "scipy", "fastapi"}
    new = {name.partition(".")[0] for name in after} - tops
    assert new - sys.stdlib_module_names == {"flows"}
    assert not [name for name in after if name.startswith("flows.fastflow")]


def test_serving_does_not_load_what_only_training_or_an_update_needs() -> None:
    """They take seconds of every start, and tenths of one."""
    names = loaded("app.main, app.server", "print(*(name.partition('.')[0] for name in sys.modules))")
    assert "torch" in names
    assert {"alembic", "sklearn", "scipy", "training"} & names == set()
