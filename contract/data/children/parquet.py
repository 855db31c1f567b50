"""Reads the rows of a Parquet file in a child process, since a damaged file can make Arrow end the process it is in.

The file is the child's standard input, and rows come back as JSON lines: `["columns", …]`, an object a row, and last
`["end"]`, or `["error", class, sentence]`. A worker confines the child (`worker.confinement.child.start`); it needs no
file but its input.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, BinaryIO, Protocol

from contract.data.text import MAX_FRAMES_LINE, bounded_lines, parse_json
from contract.errors import InvalidSource

MODULE = "contract.data.children.parquet"
_STALL_SECONDS = 300.0
"""The longest wait for the next rows; a thousand of them take milliseconds, and a busy machine starts slowly."""
_END_SECONDS = 10.0


class Running(Protocol):
    """As much of `subprocess.Popen` as reading takes."""

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


Start = Callable[[BinaryIO, Sequence[str]], Running]
"""Starts a child that runs `main` with a file as its standard input and columns as its arguments."""


def start(file: BinaryIO, columns: Sequence[str]) -> Running:
    """Start a child with the rights of this process."""
    return subprocess.Popen(
        [sys.executable, "-m", MODULE, *columns],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path), "PYTHONUTF8": "1"},
        start_new_session=True,  # a Ctrl-C ends this process, which ends the child
    )


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
    child = start(file, columns)
    assert child.stdout is not None
    try:
        for line in bounded_lines(_pieces(child.stdout.fileno(), name, stall_seconds), name, MAX_FRAMES_LINE):
            match _parsed(line):
                case dict(row):
                    yield row
                case ["columns", *found]:
                    check(found)
                case ["error", kind, message]:
                    raise OSError(message) if kind == "OSError" else ValueError(message)
                case ["end"]:
                    return
                case _:
                    break
        raise _died(name, _end(child))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _parsed(line: bytes) -> object:
    """Return what the child wrote; None if it was ended within the line."""
    try:
        return parse_json(line)
    except ValueError:
        return None


def _pieces(pipe: int, name: str, seconds: float) -> Iterator[bytes]:
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    while True:
        until = time.monotonic() + seconds
        if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
            raise InvalidSource(
                f"{name} is no readable Parquet file: reading it took {seconds:.0f} s without a row; write it again."
            )
        piece = os.read(pipe, 2**16)
        if not piece:
            return
        yield piece


def _end(child: Running) -> int:
    """Return the exit status of a child that has closed its pipe, or minus the signal that ended it."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(_END_SECONDS)
    child.kill()
    return child.wait()


def _died(name: str, code: int) -> InvalidSource:
    how = f"status {code}"
    if code < 0:
        with suppress(ValueError):
            how = signal.Signals(-code).name
    hint = "try again if the machine was short of memory, else write it again" if how == "SIGKILL" else "write it again"
    return InvalidSource(
        f"{name} is no readable Parquet file: reading it ended the process that tried ({how}); {hint}."
    )


# The child


def main(columns: Sequence[str]) -> None:
    """Write the rows of the Parquet file on standard input to standard output."""
    out = os.fdopen(os.dup(1), "wb", 2**16)
    os.dup2(2, 1)  # what a library prints is no row
    _no_core_dump()
    encode = json.JSONEncoder(ensure_ascii=False, default=lambda _: {}).encode  # `json.dumps` would make one a row

    def say(value: object) -> None:
        line = encode(value).encode() + b"\n"
        if len(line) > MAX_FRAMES_LINE:
            raise ValueError(f"a row has more than {MAX_FRAMES_LINE:,} bytes")
        out.write(line)

    try:
        from contract.data.parquet import open_rows

        with open(0, "rb", closefd=False) as file:
            file.seek(0)
            found, rows = open_rows(file, columns)
            say(["columns", *found])
            for row in rows:
                say(row)
        say(["end"])
    except BrokenPipeError:
        os._exit(1)
    except MemoryError:
        say(["error", "ValueError", "it takes more memory than a manifest may; write smaller row groups"])
    except Exception as error:
        say(["error", "OSError" if isinstance(error, OSError) else "ValueError", _sentence(error)])
    with suppress(BrokenPipeError):
        out.flush()
    os._exit(0)  # nothing of Arrow's is torn down


def _sentence(error: Exception) -> str:
    import pyarrow as pa

    foreseen = isinstance(error, pa.ArrowException | OSError | ValueError)
    return (str(error) if foreseen else f"{type(error).__name__}: {error}")[:2000]


def _no_core_dump() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
