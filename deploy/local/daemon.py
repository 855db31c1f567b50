"""Runs a stack in the foreground or in a session of its own, finds the one that runs, and stops it.

What a stack consists of is not known here.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract import errors
from contract.errors import ImagemillError, ServiceUnavailable
from contract.settings import load, stack_file
from contract.telemetry import logs
from deploy.local import orphans
from deploy.local.lock import holder
from deploy.local.private import open_private
from deploy.local.stack import HOME, START_SECONDS, Stack, make_folder
from deploy.local.stackfile import StackInfo
from deploy.local.supervisor import last_line, mark_of

log = logging.getLogger("imagemill.supervisor")

STOP_SECONDS = 45.0
"""More than all parts of a stack but its workers take together, before their supervisor is taken for stuck."""


def running(data: Path) -> StackInfo | None:
    """The stack that runs on this folder, perhaps still starting, or None."""
    pid = holder(data)
    if pid is None:
        return None
    try:
        info = StackInfo.model_validate_json(stack_file(data).read_text())
    except (OSError, ValueError):
        info = None
    # Between lock and file a stack has no more than its pid, and after a crash the file is another's.
    if info is None or info.pid != pid:
        return StackInfo(state="starting", data=data, pid=pid, workers=0, bucket="")
    return info


def wait_running(data: Path) -> StackInfo:
    """Wait for a stack that another command is starting; raises ServiceUnavailable where it ends."""
    deadline = time.monotonic() + START_SECONDS
    while (info := running(data)) is not None and time.monotonic() < deadline:
        if info.state == "running":
            return info
        time.sleep(0.1)
    raise ServiceUnavailable(f"The stack on {data} did not come up; see {data / 'logs'}.")


def run_foreground(stack: Stack, started: Callable[[StackInfo], None]) -> None:
    """Run the stack in this process until SIGINT, SIGTERM or SIGHUP; a second one is in a hurry.

    `started` is called once it is up. Raises what `Stack.start` raises.
    """
    with _signals_interrupt():
        try:
            started(stack.start())
            threading.Event().wait()
        except KeyboardInterrupt:
            log.warning("Stopping; running shards end or are handed back")
        finally:
            try:
                stack.stop()
            except KeyboardInterrupt:
                stack.stop(patience=0.0)


def run_detached(
    data: Path, workers: int, most: int | None = None, *, control: bool = True, metrics: bool = False
) -> StackInfo:
    """Start a stack in a session of its own and return when it is up.

    Raises what `Stack.start` raises in that process.
    """
    make_folder(data)
    count = [str(workers), str(workers if most is None else most)]
    command = [sys.executable, "-m", "deploy.local.daemon", str(data), *count, str(int(control)), str(int(metrics))]
    log = data / "logs" / "supervisor.log"
    with open(log, "ab", opener=open_private) as output:
        process = subprocess.Popen(
            command,
            cwd=HOME,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    try:
        # The first process leaves at once; the answer comes from its child, whose parent is init.
        with process:
            assert process.stdout is not None
            answer = process.stdout.readline()
    except KeyboardInterrupt:
        stop(data)
        raise
    if not answer:
        raise ServiceUnavailable(f"The supervisor ended early: {last_line(log)!r}, see {log}.")
    said = json.loads(answer)
    if "error" in said:
        raise getattr(errors, said["error"], ServiceUnavailable)(said["message"])
    return StackInfo.model_validate(said)


def stop(data: Path) -> bool:
    """Stop the stack on this folder, wherever it was started; False where none ran.

    Afterwards none of its processes is left. Raises ServiceUnavailable where one cannot be ended.
    """
    data = data.expanduser().resolve()
    pid = holder(data)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if not _until(lambda: holder(data) != pid, STOP_SECONDS + load(data=data).grace_seconds):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if not _until(lambda: holder(data) != pid, 5.0):
                raise ServiceUnavailable(f"The supervisor {pid} of {data} cannot be ended.")
        # It gave the folder up and is leaving; bounded, since its parent may not have asked for it yet.
        _until(lambda: not orphans.exists(pid), 5.0)
    left = orphans.end(mark_of(data / "logs"))
    stack_file(data).unlink(missing_ok=True)
    return pid is not None or bool(left)


def main(data: str, workers: str, most: str, control: str, metrics: str) -> None:
    """The detached supervisor: answers on stdout with one JSON line when it is up, or why it is not."""
    if os.fork():
        os._exit(0)

    def answer(said: str) -> None:
        with suppress(BrokenPipeError):
            print(said, flush=True)
        # Whoever asked reads until here, and no further.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

    try:
        logs.set_up(load(data=Path(data)).log, logging.INFO, "%(asctime)s %(message)s")
        shape = {"control": bool(int(control)), "metrics": bool(int(metrics))}
        stack = Stack(Path(data), int(workers), int(most), **shape)
        run_foreground(stack, lambda info: answer(info.model_dump_json()))
    except ImagemillError as error:
        logging.error("%s", error)
        answer(json.dumps({"error": type(error).__name__, "message": str(error)}))
        sys.exit(error.exit_code)


def _until(true: Callable[[], bool], seconds: float) -> bool:
    """Return whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what SIGINT does; a SIGHUP that `nohup` ignores stays ignored."""
    taken = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        taken.append(signal.SIGHUP)
    before = [(s, signal.signal(s, signal.default_int_handler)) for s in taken]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


if __name__ == "__main__":
    main(*sys.argv[1:])
