"""Layers of the packages, and the modules that an import loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The rooms that a room may import besides itself.
ROOMS = {"flows": set(), "training": {"flows"}, "app": {"flows"}}
OURS = {*ROOMS, "flowgauge", "tests", "examples", "bench", "docs"}
# Packages and modules, the lowest first: each imports only those before it.
LAYERS = {
    whole: names.split()
    for whole, names in {
        "flows.fastflow": "config progress ray_connection manifest files imaging calibration bundle "
        "backbones model scoring engines inference detector export learning",
        "training": "versions config terminal data features fit run run_all cluster evaluation density "
        "commands",
        "app": "storage settings schemas database errors telemetry scheduling http events auth registry "
        "history inspection recalibration learning products jobs open_inference backup web middleware "
        "dependencies routes routing main server startup cluster client commands",
    }.items()
}
# What runs on a line PC without torch, and the little of `app` that it may import.
CLIENT = {"app.client", "app.schemas", "app.http.loopback"}


def imports(file: Path, source: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every module that a file imports, wherever in it."""
    package = file.parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def wrong_rooms(file: Path, source: str) -> list[str]:
    """List a file's imports of rooms that its own may not import; the file is relative to the root."""
    room = file.parts[0]
    return [
        f"{file}:{line} imports {name}"
        for line, name in imports(file, source)
        if (top := name.split(".")[0]) in OURS and top != room and top not in ROOMS[room]
    ]


def part_of(name: str, whole: str) -> str | None:
    """Return the package or module directly in `whole` that a dotted name lies in, if any."""
    return name.removeprefix(f"{whole}.").split(".")[0] if name.startswith(f"{whole}.") else None


def upward(file: Path, source: str, whole: str) -> list[str]:
    """List a file's imports that lead to a layer above its own."""
    layers = LAYERS[whole]
    own = part_of(".".join(file.with_suffix("").parts), whole)
    if own is None or own == "__init__":
        return []
    return [
        f"{file}:{line} imports {name}"
        for line, name in imports(file, source)
        if (part := part_of(name, whole)) in layers and layers.index(part) > layers.index(own)
    ]


def files_of(package: str) -> list[Path]:
    return [path.relative_to(ROOT) for path in sorted(ROOT.joinpath(*package.split(".")).rglob("*.py"))]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_lower_rooms(room: str) -> None:
    files = files_of(room)
    assert files
    assert [wrong for file in files for wrong in wrong_rooms(file, (ROOT / file).read_text())] == []


@pytest.mark.parametrize("whole", LAYERS)
def test_packages_import_only_lower_layers(whole: str) -> None:
    files = files_of(whole)
    parts = {part_of(".".join(file.with_suffix("").parts), whole) for file in files}
    assert parts - {"__init__"} == set(LAYERS[whole])
    assert [wrong for file in files for wrong in upward(file, (ROOT / file).read_text(), whole)] == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("app/http/uploads.py", "from app.routes.predict import router"),
        ("app/schemas/tuning.py", "from app.registry.category_settings import Region"),
        ("flows/fastflow/config.py", "import flows.fastflow.imaging.geometry"),
        ("flows/fastflow/manifest.py", "from flows.fastflow import detector"),
        ("training/data/images.py", "def f():\n    from training.features import cache"),
        ("app/http/uploads.py", "from ..inspection import predictor"),
    ],
)
def test_an_upward_import_is_found(file: str, line: str) -> None:
    [whole] = [whole for whole in LAYERS if file.startswith(whole.replace(".", "/") + "/")]
    assert upward(Path(file), line, whole)


def test_an_import_of_training_by_the_service_is_found() -> None:
    assert wrong_rooms(Path("app/main.py"), "from training.run import train")


def test_the_client_imports_little_of_the_service() -> None:
    names = {
        name
        for file in files_of("app.client")
        for _, name in imports(file, (ROOT / file).read_text())
        if name.startswith("app.")
    }
    # A package on the way to an allowed module is imported with it.
    allowed = {
        name
        for name in names
        for one in CLIENT
        if f"{name}.".startswith(f"{one}.") or one.startswith(f"{name}.")
    }
    assert allowed
    assert names - allowed == set()


def modules_loaded(imports: str, code: str) -> set[str]:
    """Return what code prints in a process that has imported modules."""
    command = [sys.executable, "-c", f"import sys, {imports}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_flows_import_torch_alone() -> None:
    """The names of `flows` need only `flows` and the standard library beyond what `import torch` loads."""
    before = modules_loaded("torch", "print(*sys.modules)")
    after = modules_loaded("torch, flows.library", "print(*sys.modules)")
    # Else it might be that torch had loaded them already.
    tops = {name.partition(".")[0] for name in before}
    assert not tops & {"timm", "cv2", "PIL", "pydantic", "safetensors", "sklearn", "scipy", "fastapi"}
    new = {name.partition(".")[0] for name in after} - tops
    assert new - sys.stdlib_module_names == {"flows"}
    assert not [name for name in after if name.startswith("flows.fastflow")]


def test_serving_loads_no_training_or_migrations() -> None:
    """Training takes seconds of every start, migrations and the client of S3 tenths of a second."""
    names = modules_loaded("app.main, app.server", "print(*(name.partition('.')[0] for name in sys.modules))")
    assert "torch" in names
    assert {"alembic", "s3fs", "sklearn", "scipy", "training"} & names == set()
