"""Log formats for people and for programs, with the id of the request in each line."""

import json
import logging
import textwrap
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

# Id of the current request, in its task and in threads started by `asyncio.to_thread`.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class TextFormatter(logging.Formatter):
    """Lines for people: time (ISO 8601, UTC), level, logger, message, and the request's id."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Append the request id to the message, before a traceback."""
        request_id = REQUEST_ID.get()
        line = _indented(super().formatMessage(record)).lstrip()
        return f"{line} id={request_id}" if request_id else line

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Indent a traceback: it may quote a client's text, which must not look like a log line."""
        return _indented(super().formatException(ei))


def _indented(text: str) -> str:
    # Printable text has no line separator of any kind.
    return f"    {text}" if text.isprintable() else textwrap.indent(text, "    ")


class JsonFormatter(logging.Formatter):
    """Lines for programs: one JSON object each.

    The keys are `time` (ISO 8601, UTC), `level`, `logger` and `message`; `request_id` and `exception` if
    there is one; and those of `extra={"fields": {...}}`.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment.replace("+00:00", "Z"), "level": record.levelname}
        line |= {"logger": record.name, "message": record.getMessage()}
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(log_format: Literal["text", "json"]) -> None:
    """Log to stderr: our loggers from INFO on, libraries from WARNING on."""
    logging.captureWarnings(True)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # logging.config would close all existing handlers. The one of absl, which OpenVINO brings, then closes
    # standard error.
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("flowgauge", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
