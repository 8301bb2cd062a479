import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from app.telemetry.logs import REQUEST_ID, JsonFormatter, TextFormatter


def line(formatter: logging.Formatter, *args: object, **extra: Any) -> str:
    """Return the formatted line of a message."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("flowgauge.test")
    logger.addHandler(handler)
    logger.error(*args, **extra)
    return stream.getvalue()


def failure() -> dict[str, Any]:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        return {"exc_info": sys.exc_info()}


def test_text_has_the_request_id_before_a_traceback() -> None:
    token = REQUEST_ID.set("abc")
    try:
        said = line(TextFormatter(), "failed", **failure()).splitlines()
    finally:
        REQUEST_ID.reset(token)
    assert said[0].endswith("flowgauge.test: failed id=abc")
    assert said[-1] == "    RuntimeError: broken"


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028"])
def test_no_text_can_forge_a_log_line(end: str) -> None:
    """Messages and tracebacks can quote foreign files."""
    forged = f"x{end}2026-11-25T00:00:00.000Z INFO flowgauge.audit: key.create"
    try:
        raise ValueError(forged)
    except ValueError:
        said = line(TextFormatter(), forged, exc_info=True)
    begins = [one for one in said.splitlines() if not one.startswith("    ")]
    assert len(begins) == 1


def test_json_is_one_object_on_one_line() -> None:
    said = line(JsonFormatter(), "two\nlines of %s", "ü", extra={"fields": {"status": 200, "route": None}})
    assert said.count("\n") == 1
    entry = json.loads(said)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "ERROR",
        "logger": "flowgauge.test",
        "message": "two\nlines of ü",
        "status": 200,
        "route": None,
    }


def test_json_has_the_request_id_and_the_traceback() -> None:
    token = REQUEST_ID.set("abc")
    try:
        said = line(JsonFormatter(), "failed", **failure())
    finally:
        REQUEST_ID.reset(token)
    entry = json.loads(said)
    assert said.count("\n") == 1
    assert entry["request_id"] == "abc"
    assert entry["exception"].endswith("RuntimeError: broken")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_whole_process_logs_to_stderr(log_format: str) -> None:
    code = (
        f"import logging, warnings; from app.telemetry import logs; logs.configure({log_format!r});"
        "logging.getLogger('flowgauge.x').info('ours');"
        "logging.getLogger('uvicorn.error').info('the server');"
        "logging.getLogger('other').info('unheard'); logging.getLogger('other').warning('heard');"
        "warnings.warn('deprecated')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    for said in ("ours", "the server", "heard", "deprecated"):
        assert done.stderr.count(said) >= 1
    assert "unheard" not in done.stderr
    if log_format == "json":
        loggers = [json.loads(entry)["logger"] for entry in done.stderr.splitlines()]
        assert loggers == ["flowgauge.x", "uvicorn.error", "other", "py.warnings"]
