"""The client costs what httpx and pydantic cost."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "cv2", "numpy", "fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic_settings"}


@pytest.mark.parametrize("module", ["app.client", "app.client.watch.command"])
def test_nothing_heavy_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"httpx", "pydantic"} <= loaded
    assert loaded & HEAVY == set()
