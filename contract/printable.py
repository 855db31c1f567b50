"""Makes text that came from outside safe to show: no control character reaches a terminal, a log line or a formula.

Keys, labels and error messages may hold anything: an escape sequence that types commands, a line feed that forges a log
line, an override that shows a text backwards, a formula that a spreadsheet runs.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import traceback
from collections.abc import Iterable
from typing import Any

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1, escape sequences among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates of direction
    "\u2028\u2029\ufeff"  # line and paragraph separators, byte order mark
    "\ud800-\udfff"  # halves of surrogate pairs, which no encoding writes
    "\U000e0000-\U000e007f]"  # tags, which are invisible
)
_FORMULA = re.compile(r"['=+\-@\t\r\n＝＋－＠]")


def printable(text: str, keep: str = "") -> str:
    """Return `text` with each control character, except those in `keep`, written as in Python: `\\x1b`."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def printable_json(text: str) -> str:
    """Return the same JSON with each control character as an escape: it reads as the same values."""

    def escape(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))

    return _CONTROL.sub(escape, text)


def csv_line(cells: Iterable[Any]) -> str:
    """Return a line of a CSV file, with its line feed, in which no spreadsheet finds a formula.

    Text that begins with `=`, `+`, `-`, `@`, a tab, a line end or an apostrophe gets an apostrophe in front. To undo
    it, remove one leading apostrophe. Numbers are left alone.
    """
    out = io.StringIO(newline="")
    # With this line end a carriage return in a cell is quoted too.
    csv.writer(out, lineterminator="\r\n").writerow(map(_no_formula, cells))
    return out.getvalue().removesuffix("\r\n") + "\n"


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


class PrintableRecord(logging.LogRecord):
    """A log record whose message is one line without control characters, whatever its arguments hold."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.exc_info and self.exc_info[0] is not None:
            # Formatters use this text where it is there.
            self.exc_text = printable("".join(traceback.format_exception(*self.exc_info)).rstrip(), keep="\n\t")

    def getMessage(self) -> str:  # noqa: N802, the name is logging's
        return printable(super().getMessage())


def log_printably() -> None:
    """Have every log record of this process be a `PrintableRecord`."""
    logging.setLogRecordFactory(PrintableRecord)
