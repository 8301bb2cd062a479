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


def test_the_flows_need_torch_alone() -> None:
    """What `import flows` loads beyond what `import torch` loads is `flows` itself."""
    code = (
        "import sys, torch\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "import flows\n"
        "print(*before)\n"
        "print(*({name.partition('.')[0] for name in sys.modules} - before))\n"
        "print(*(name for name in sys.modules if name.startswith('flows.fastflow')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    before, added, detector = (line.split() for line in done.stdout.splitlines())
    # Else it might be that torch had loaded them already.
    detectors = {"timm", "cv2", "PIL", "pydantic", "safetensors", "sklearn", "scipy", "fastapi"}
    assert detectors & set(before) == set()
    new = {name for name in added if name not in sys.stdlib_module_names}
    assert new == {"flows"}
    assert detector == []


def test_serving_does_not_load_what_only_training_or_an_update_needs() -> None:
    """They take seconds of every start, and tenths of one."""
    code = "import sys, app.main, app.server; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert {"alembic", "sklearn", "scipy", "training"} & loaded == set()
