"""Reads lines and JSON that anybody may have written, with a bound on what one line takes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any

from contract.errors import InvalidSource

MAX_LINE = 2**20
"""The most bytes in a line of a manifest; a web address has a few hundred."""
MAX_FRAMES_LINE = 16 * 2**20
"""The most bytes in a line that may list the frames of a sequence: 100,000 addresses of 160 bytes."""


def parse_json(text: bytes | str) -> Any:
    """Return the value of a JSON text; raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Return a JSON object; raises ValueError for anything else."""
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def bounded_lines(pieces: Iterable[bytes], name: str, limit: int = MAX_LINE) -> Iterator[bytes]:
    """Yield the lines in `pieces` without their line feeds; raises InvalidSource for one of more than `limit` bytes.

    `name` stands for the file in the error.
    """
    rest: list[bytes] = []
    held = number = 0
    for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            number += 1
            line = b"".join((*rest, piece[start:end])) if rest else piece[start:end]
            if len(line) > limit:
                raise _too_long(name, number, limit)
            yield line
            rest.clear()
            start, held = end + 1, 0
        if start < len(piece):
            rest.append(piece[start:])
            held += len(piece) - start
            if held > limit:
                raise _too_long(name, number + 1, limit)
    if rest:
        yield b"".join(rest)


def rows_of_csv(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV file with a header, given its lines with their line feeds.

    Raises csv.Error for a row that is not CSV, or has more than `MAX_LINE` characters: in quotes it may go on over any
    number of lines.
    """
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for number, line in enumerate(lines):
            taken += len(line)
            if taken > MAX_LINE + 1:
                raise csv.Error(f"a row has more than {MAX_LINE:,} characters; a quote may be missing")
            # A byte order mark is none of the data.
            yield line if number else line.removeprefix("\ufeff")

    for row in csv.DictReader(counted()):
        taken = 0
        yield row


def _too_long(name: str, number: int, limit: int) -> InvalidSource:
    return InvalidSource(
        f"Line {number:,} of {name} has more than {limit:,} bytes; write one image a line, and correct that line."
    )
