"""Reads the rows of a Parquet file in a child process, since a damaged file can make Arrow end the process it is in.

The file is the child's standard input, and its messages are `{"columns": […]}`, then `{"rows": n}` with a JSON list of
rows behind it, and last `{"end": true}`, or `{"error": class, "says": sentence}`. A worker confines the child
(`worker.confinement.child.start`); it needs no file but its input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, BinaryIO

from contract.data.children import process
from contract.data.children.limits import die_with_parent, no_core_dump
from contract.data.children.messages import Closed, Head, send, take_output
from contract.data.children.process import Process, Running, ending
from contract.data.text import MAX_FRAMES_LINE, parse_json
from contract.errors import InvalidSource

MODULE = "contract.data.children.parquet"
_STALL_SECONDS = 300.0
"""The longest wait for the next rows; a thousand of them take milliseconds, and a busy machine starts slowly."""
_END_SECONDS = 10.0
_BATCH = 2**16
"""Bytes of rows from which on they are sent."""

Start = Callable[[BinaryIO, Sequence[str]], Running]
"""Starts a child that runs `main` with a file as its standard input and columns as its arguments."""


def start(file: BinaryIO, columns: Sequence[str]) -> Running:
    """Start a child with the rights of this process."""
    return process.start(["-m", MODULE, *columns], stdin=file)


def rows_apart(
    file: BinaryIO,
    columns: Sequence[str],
    name: str,
    *,
    start: Start = start,
    check: Callable[[Collection[object]], None] = lambda _: None,
    stall_seconds: float = _STALL_SECONDS,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file that is open and has a descriptor, with those of `columns` that it has.

    `name` stands for the file in errors, and `check` is given the columns found before the first row. A value that is
    no JSON becomes an empty object. Raises OSError or ValueError if the file cannot be read, and InvalidSource if
    reading it ends the child, or takes `stall_seconds` without a row.
    """
    file.flush()
    child = Process(start(file, columns))
    try:
        while True:
            head, data = child.receive(MAX_FRAMES_LINE + _BATCH, seconds=stall_seconds)
            match head:
                case {"rows": _}:
                    yield from _parsed(data)
                case {"columns": list(found)}:
                    check(found)
                case {"error": kind, "says": message}:
                    raise OSError(message) if kind == "OSError" else ValueError(message)
                case {"end": _}:
                    return
                case _:
                    raise Closed("a message that is none")
    except TimeoutError:
        raise InvalidSource(
            f"{name} is no readable Parquet file: reading it took {stall_seconds:.0f} s without a row; write it again."
        ) from None
    except Closed:
        raise _died(name, ending(child.end(_END_SECONDS))) from None
    finally:
        child.end(0)


def _parsed(data: bytearray) -> list[dict[str, Any]]:
    try:
        rows = parse_json(bytes(data))
    except ValueError as error:
        raise Closed("rows that are no JSON") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Closed("rows that are none")
    return rows


def _died(name: str, how: str) -> InvalidSource:
    hint = "try again if the machine was short of memory, else write it again" if how == "SIGKILL" else "write it again"
    return InvalidSource(
        f"{name} is no readable Parquet file: reading it ended the process that tried ({how}); {hint}."
    )


# The child


def main(columns: Sequence[str]) -> None:
    """Write the rows of the Parquet file on standard input to standard output."""
    answers = take_output()
    die_with_parent()
    no_core_dump()
    try:
        send(answers, _read(columns, answers))
    except Closed:
        os._exit(1)
    os._exit(0)  # nothing of Arrow's is torn down


def _read(columns: Sequence[str], answers: int) -> Head:
    """Send the rows, those before an error too, and return the last message."""
    try:
        _send_rows(columns, answers)
    except Closed:
        raise
    except MemoryError:
        return {"error": "ValueError", "says": "it takes more memory than a manifest may; write smaller row groups"}
    except Exception as error:
        return {"error": "OSError" if isinstance(error, OSError) else "ValueError", "says": _sentence(error)}
    return {"end": True}


def _send_rows(columns: Sequence[str], answers: int) -> None:
    from contract.data.parquet import open_rows

    encode = json.JSONEncoder(ensure_ascii=False, default=lambda _: {}).encode  # `json.dumps` would make one a row
    batch: list[bytes] = []
    held = 0

    def flush() -> None:
        nonlocal held
        if batch:
            send(answers, {"rows": len(batch)}, [b"[", b",".join(batch), b"]"])
        batch.clear()
        held = 0

    with open(0, "rb", closefd=False) as file:
        file.seek(0)
        found, rows = open_rows(file, columns)
        send(answers, {"columns": found})
        try:
            for row in rows:
                line = encode(row).encode()
                if len(line) > MAX_FRAMES_LINE:
                    raise ValueError(f"a row has more than {MAX_FRAMES_LINE:,} bytes")
                if held + len(line) > _BATCH:
                    flush()
                batch.append(line)
                held += len(line) + 1
        finally:
            flush()


def _sentence(error: Exception) -> str:
    import pyarrow as pa

    foreseen = isinstance(error, pa.ArrowException | OSError | ValueError)
    return (str(error) if foreseen else f"{type(error).__name__}: {error}")[:2000]


if __name__ == "__main__":
    main(sys.argv[1:])
