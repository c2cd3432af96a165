"""Logs: one line an event, key=value or JSON, ids and durations only, never content."""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """``time level logger message key=value …``; fields come through ``extra=``."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        parts = [self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), record.levelname.lower(), record.name]
        parts.append(json.dumps(record.getMessage()) if " " in record.getMessage() else record.getMessage())
        parts += [f"{key}={_plain(value)}" for key, value in fields.items()]
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(f"error={record.exc_info[0].__name__}")  # its text may quote content
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """The same fields as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        document = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info and record.exc_info[0] is not None:
            document["error"] = record.exc_info[0].__name__
        return json.dumps(document, default=str)


def set_up(*, style: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logs to ``stream`` (standard error) in ``style`` (text or json) from ``level`` up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiohttp.access", "asyncio", "bleak", "dbus_fast"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text
