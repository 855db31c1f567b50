"""Writes logs as text or as JSON (`IMAGEMILL_LOG`), and knows what a thread works on, which each line of JSON says.

A line of JSON is one object, whatever it tells of: control characters are escaped, and long texts are cut, since
container runtimes split lines at 16 KiB.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from contract.printable import log_printably, printable, printable_json

Format = Literal["text", "json"]

_LONGEST = 6_000
"""Bytes of a text in JSON."""

_known: ContextVar[Mapping[str, str | int]] = ContextVar("known", default={})  # noqa: B039  # never changed
_of_process: dict[str, str | int] = {}


@contextmanager
def scope(**fields: str | int) -> Iterator[None]:
    """Have each line of the block, in this thread, say `fields`; forget afterwards what `tell` added in it."""
    before = _known.set({**_known.get(), **fields})
    try:
        yield
    finally:
        _known.reset(before)


def tell(**fields: str | int) -> None:
    """Have each further line of the `scope` that this thread is in say `fields`."""
    _known.set({**_known.get(), **fields})


def tell_always(**fields: str | int) -> None:
    """Have each further line of this process say `fields`."""
    _of_process.update(fields)


def set_up(form: Format, level: int, text: str) -> None:
    """Log to stderr, in a process that no Celery sets up; `text` is the format of a line of text."""
    log_printably()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(text))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    The fields are `time` (UTC), `level`, `logger` and `message`; `worker`, `job`, `shard`, `attempt`, `request` (the id
    that a client of the HTTP API was told) and `trace` where they are known; and `exception`, the traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **_of_process,
            **_known.get(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        shown = {name: _text(value) if isinstance(value, str) else value for name, value in line.items()}
        return printable_json(json.dumps(shown))


def _message(record: logging.LogRecord) -> str:
    """Return the message; a record whose arguments do not fit is logged all the same."""
    try:
        return record.getMessage()
    except Exception as error:  # an argument's `__str__` may raise anything
        return f"{record.msg} ({type(error).__name__}: its arguments do not fit)"


def _text(text: str) -> str:
    """Return a text without control characters other than line ends and tabs, its middle left out if it is too long."""
    text = printable(text, keep="\n\t")
    while len(json.dumps(text)) > _LONGEST:
        half = min(len(text), _LONGEST) * 3 // 8
        text = f"{text[:half]} … {text[-half:]}"
    return text
