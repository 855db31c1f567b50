"""The parent's side: starts a confined child, sends it requests, and ends it when it takes too long.

It knows nothing of what the child computes.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import BinaryIO

from contract.data.children import process
from contract.data.children.messages import Closed, Head
from contract.data.children.process import Process, ending
from worker.confinement import layers
from worker.confinement.confine import LAYERS, Limits
from worker.confinement.memory import Memory
from worker.confinement.run import command

Answer = tuple[Head, list[bytes]]

_KEPT = ("LD_LIBRARY_PATH", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
"""Where libraries are, and which GPUs are this worker's: a child would take the first of the machine otherwise."""
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "USER": "imagemill",  # torch asks for it, and the list of users is closed to it
    "OMP_WAIT_POLICY": "PASSIVE",
}
_LAST_WORDS = 4096
"""Bytes that are kept of what a child wrote to its standard error."""


class ChildDied(Exception):
    """The child ended before it answered: by a crash, by the system (`killed`), or by its deadline (`late`)."""

    def __init__(self, message: str, *, late: bool = False, killed: bool = False) -> None:
        super().__init__(message)
        self.late, self.killed = late, killed


class ChildError(Exception):
    """The child answered with an error; `kind` is the name of its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def start(
    limits: Limits,
    module: str,
    *arguments: str,
    stdin: BinaryIO | int = subprocess.PIPE,
    stderr: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a confined child that runs `module` as a program, and ends with this process; its output is a pipe."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return process.start(
        command(limits, module, *arguments),
        stdin=stdin,
        stderr=stderr,
        pass_fds=pass_fds,
        env={**_ENVIRONMENT, **kept, **(env or {})},
    )


def run(limits: Limits, module: str, *arguments: str, data: bytes, seconds: float) -> tuple[int, bytes, bytes]:
    """Run `module` on `data` in a confined child; return its status, output and errors.

    Raises subprocess.TimeoutExpired if it takes longer than so many seconds, and ends it.
    """
    with start(limits, module, *arguments, stderr=subprocess.PIPE) as child:
        try:
            said, errors = child.communicate(data, seconds)
        finally:
            child.kill()
        return child.returncode, said, errors


class Child:
    """One confined child process that runs `module`, whose main calls `serve`. It is thread-safe.

    `slots` requests can be under way at a time, each with blobs of `size` bytes at most, one way and the other;
    `threads` of them run at once. `start_seconds` limits how long the child takes until its first answer.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        *,
        greeting: Head | None = None,
        slots: int = 1,
        size: int,
        threads: int = 1,
        start_seconds: float = 300.0,
        env: dict[str, str] | None = None,
    ) -> None:
        self._memory = Memory.create(slots, size)
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._slots.put(slot)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Future[Answer], int, float]] = {}
        self._count = 0
        self._dead: ChildDied | None = None
        self._said = b""
        handle = self._memory.handle
        started = start(limits, module, stderr=subprocess.PIPE, pass_fds=(handle,), env=env)
        assert started.stderr is not None
        self._process, self._stderr = Process(started), started.stderr
        self._ears = threading.Thread(target=self._hear, args=(self._stderr.fileno(),), daemon=True)
        self._ears.start()
        ready: Future[Answer] = Future()
        self._waiting[-1] = ready, -1, time.monotonic() + start_seconds
        self._reader = threading.Thread(target=self._read, name="imagemill-child", daemon=True)
        self._reader.start()
        with suppress(Closed, TimeoutError):  # the reader says what happened
            hello = {"memory": handle, "slots": slots, "size": self._memory.size, "threads": threads}
            self._process.send({**(greeting or {}), **hello}, seconds=start_seconds)
        try:
            found = ready.result()[0]
        except BaseException:
            self.close()
            raise
        self.facts: Head = found["facts"]
        self.enforced: tuple[str, ...] = tuple(found["enforced"])
        layers.note(module, LAYERS, self.enforced)

    @property
    def pid(self) -> int:
        return self._process.pid

    def submit(self, header: Head, blobs: Sequence[bytes | memoryview], *, seconds: float) -> Future[Answer]:
        """Send a request, waiting for a free slot, and return a future of the child's header and blobs.

        The future fails with ChildDied if the child does not answer within `seconds` or ends, and with ChildError if it
        answers with an error. Raises ValueError if the blobs do not fit into a slot.
        """
        slot = self._slots.get()
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()
        try:
            sizes = self._memory.put(slot, blobs)
        except BaseException:
            self._slots.put(slot)
            raise
        with self._lock:
            if self._dead is not None:
                self._slots.put(slot)
                future.set_exception(self._dead)
                return future
            self._count += 1
            number = self._count
            self._waiting[number] = future, slot, time.monotonic() + seconds
            with suppress(Closed, TimeoutError):  # the reader says what happened
                self._process.send({**header, "id": number, "slot": slot, "sizes": sizes}, seconds=seconds)
        return future

    def call(self, header: Head, blobs: Sequence[bytes | memoryview], *, seconds: float) -> Answer:
        """Send a request and wait for its answer; raises what the future of `submit` raises."""
        return self.submit(header, blobs, seconds=seconds).result()

    @property
    def alive(self) -> bool:
        return self._dead is None

    def close(self) -> None:
        """End the child at once, and free its memory; requests under way fail with ChildDied."""
        with suppress(OSError):
            self._process.running.kill()
        self._reader.join()
        self._process.end()
        self._ears.join(5.0)
        with suppress(OSError):
            self._stderr.close()
        with suppress(OSError, ValueError):
            self._memory.close()

    def _hear(self, pipe: int) -> None:
        """Keep the last words of the child; read on, so that it never blocks."""
        with suppress(OSError):
            while data := os.read(pipe, 65536):
                self._said = (self._said + data)[-_LAST_WORDS:]

    def _read(self) -> None:
        """Hand answers to those who wait, until the child ends or is late."""
        late = False
        while True:
            with self._lock:
                deadlines = [at for _, _, at in self._waiting.values()]
            # A request that comes meanwhile is seen within a second; deadlines are seconds too.
            wait = min([1.0, *(at - time.monotonic() for at in deadlines)])
            if wait <= 0:
                late = True
                break
            try:
                self._take(self._process.receive(seconds=wait)[0])
            except TimeoutError:
                continue
            except (Closed, LookupError, TypeError, ValueError):
                break
        self._end(late)

    def _take(self, reply: Head) -> None:
        with self._lock:
            future, slot, _ = self._waiting.pop(reply["id"])
        try:
            if "error" in reply:
                future.set_exception(ChildError(str(reply["error"]), str(reply["message"])))
            elif slot < 0:
                future.set_result((reply, []))
            else:
                future.set_result((dict(reply["header"]), self._memory.get(slot, reply["sizes"])))
        except (Closed, LookupError, TypeError, ValueError):
            future.set_exception(ChildDied("it answered what is no answer"))
            raise
        finally:
            if slot >= 0:
                self._slots.put(slot)

    def _end(self, late: bool) -> None:
        code = self._process.ended(0.0 if late else 1.0)  # pipes close a moment before the process has ended
        killed = code == -signal.SIGKILL and not self._process.stopped
        self._ears.join(1.0)
        said = self._said.decode(errors="replace").strip().rpartition("\n")[2][:200]
        why = "it did not answer in time" if late else f"it ended with {ending(code)}"
        with self._lock:
            self._dead = ChildDied(f"{why} ({said})" if said and not late else why, late=late, killed=killed)
            waiting, self._waiting = list(self._waiting.values()), {}
        for future, slot, _ in waiting:
            future.set_exception(self._dead)
            if slot >= 0:
                self._slots.put(slot)
