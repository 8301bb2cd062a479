"""The log: a line for each event, for people or for programs, with the id of the request it belongs to."""

import json
import logging
import textwrap
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

# The request that is being answered, in its task and in the threads that work for it by `asyncio.to_thread`.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class TextFormatter(logging.Formatter):
    """Lines for people: time (ISO 8601, UTC), level, logger, message, and the request's id."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Put the request's id behind the message, before a traceback."""
        request_id = REQUEST_ID.get()
        line = _indented(super().formatMessage(record)).lstrip()
        return f"{line} id={request_id}" if request_id else line

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """A traceback, which may quote what somebody sent, in lines that no line of the log looks like."""
        return _indented(super().formatException(ei))


def _indented(text: str) -> str:
    # Where all can be printed there is no second line, of whatever separator.
    return f"    {text}" if text.isprintable() else textwrap.indent(text, "    ")


class JsonFormatter(logging.Formatter):
    """Lines for programs: one JSON object each.

    It has `time` (ISO 8601, UTC), `level`, `logger`, `message`; `request_id` where there is one; `exception`
    with a traceback; and whatever was logged with `extra={"fields": {...}}`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Make the line of a record."""
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
    """Send the log of this process to stderr: ours from INFO on, that of libraries from WARNING on."""
    logging.captureWarnings(True)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # Not by logging.config, which closes all handlers that there are: that of absl, which OpenVINO brings,
    # closes what it writes to, standard error.
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("flowgauge", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
