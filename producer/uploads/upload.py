"""Uploads a folder as it fills: one loop that looks through the folder, follows hints, and has files sent in parallel.

Looking through the folder is the truth and finds whatever appeared while nobody ran; hints only say where to look
earlier. A file is sent once its size and time have stood still for a while, so that half-written ones are left alone.
What was sent is told from the record on this machine, and without that from the bucket.
"""

from __future__ import annotations

import errno
import os
import queue
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.data.items import is_image_name, parse_s3
from contract.errors import ImagemillError, InvalidSettings, InvalidSource, ServiceUnavailable, StoreFull
from contract.records import Record
from producer.sources.folders import paths
from producer.uploads.hints import Hints
from producer.uploads.send import Sending, Sent, send, version_of
from producer.uploads.sent import SentFiles, Version

LOOK_SECONDS = 10.0
"""Between two looks through the folder, if hints tell nothing."""
_DUTY = 20
"""A look takes at most a twentieth of the time."""
_THREADS = 8
_WAIT_SECONDS = 0.5
_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 1.0, 30.0
"""Shortest and longest pause before a store is asked again that did not take a file."""
_CHECK_SECONDS = 60.0
_MAX_KEY = 1024
"""Bytes of a key, as in S3."""
_PASSING = (ServiceUnavailable, StoreFull, InvalidSettings)
"""What the store may answer differently later, whatever the file."""

_Inbox: TypeAlias = "queue.SimpleQueue[str | tuple[Sending, Future[Sent]]]"


class Uploaded(Record):
    """What an upload has done so far, as `imagemill watch upload --json` prints it."""

    address: str = Field(description="The `s3://` prefix below which the files are.")
    sent: int = Field(0, description="Files sent by this run.")
    bytes: int = Field(0, description="Bytes of them.")
    unchanged: int = Field(0, description="Files that were in the bucket already, with the same content.")
    waiting: int = Field(0, description="Files that were found and are not sent yet.")
    refused: int = Field(0, description="Files that cannot be sent as they are; a line told why.")


@dataclass(frozen=True, slots=True)
class _Pending:
    path: str
    version: Version
    since: float
    """Since when it stands still, by the monotonic clock."""
    compare: bool


class Uploader:
    """Uploads the images below `folder` to the prefix `address`; `run` does the work, on one thread and those it makes.

    `settle` and `look` are seconds. `say` is told, a line each, what a person should know; `progress` is told the
    counts when they change. `check` is called once a minute, and ends the upload by what it raises.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        address: str,
        record: SentFiles,
        *,
        settle: float,
        max_bytes: int,
        look: float = LOOK_SECONDS,
        say: Callable[[str], None] = lambda _: None,
        progress: Callable[[Uploaded], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._folder, self._record, self._address = store, folder, record, address
        self._bucket, self._prefix = parse_s3(address)
        self._settle, self._max_bytes, self._look_seconds = settle, max_bytes, look
        self._say, self._progress, self._check = say, progress, check
        self._top = os.path.join(os.fspath(folder), "")
        self._inbox: _Inbox = queue.SimpleQueue()
        self._pending: dict[str, _Pending] = {}
        """What was found and is not under way, by key, in the order in which it was seen to change last."""
        self._under_way: set[str] = set()
        self._problems: dict[str, str] = {}
        """Why files and folders cannot be read or sent, by path; each was told once."""
        self._unsent: dict[str, tuple[Version, str]] = {}
        """The problems of files that failed while they were being sent, by path, with the version that failed."""
        self._sent = self._bytes = self._unchanged = 0
        self._first, self._once = True, False
        self._fault, self._blocked_until, self._pause = "", 0.0, _PAUSE_SECONDS
        self._inode: tuple[int, int] | None = None
        self._no_hints = ""
        self._told: Uploaded | None = None

    def run(self, stop: threading.Event, *, once: bool = False) -> Uploaded:
        """Upload until `stop` is set, or with `once` until everything that is there was sent; say what was.

        Files under way are sent to their end. Raises what `check` raises; with `once` InvalidSource if the folder
        cannot be listed, and what the store raises, for which it waits otherwise.
        """
        self._once = once
        hints = Hints(self._folder, self._inbox.put)
        look_due = check_due = 0.0
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="send")
        try:
            while not stop.is_set():
                began = time.monotonic()
                if began >= max(check_due, self._blocked_until):
                    check_due = began + _CHECK_SECONDS
                    self._ask(self._check)
                if began >= look_due:
                    if not once:
                        self._follow(hints)
                    self._look()
                    took = time.monotonic() - began
                    look_due = time.monotonic() + max(self._look_seconds, _DUTY * took)
                self._start(pool)
                self._tell()
                if once and not (self._first or self._pending or self._under_way):
                    break
                self._take(max(0.0, min(look_due - time.monotonic(), _WAIT_SECONDS, self._settle)))
        finally:
            hints.close()
            pool.shutdown(wait=True, cancel_futures=True)
            self._take(0.0)
            self._tell()
        return self._so_far()

    def _so_far(self) -> Uploaded:
        return Uploaded(
            address=self._address,
            sent=self._sent,
            bytes=self._bytes,
            unchanged=self._unchanged,
            waiting=len(self._pending) + len(self._under_way),
            refused=len(self._problems),
        )

    def _tell(self) -> None:
        now = self._so_far()
        if now != self._told:
            self._told = now
            self._progress(now)

    # What is there

    def _follow(self, hints: Hints) -> None:
        """Have hints of the folder that is there now, which may be another one than before."""
        try:
            found = self._folder.stat()
        except OSError:
            return
        inode = (found.st_dev, found.st_ino)
        hints.follow(again=inode != self._inode)
        self._inode = inode
        if hints.reason and hints.reason != self._no_hints:
            self._no_hints = hints.reason
            self._say(
                f"The system does not tell what changes ({hints.reason}); the folder is looked through every "
                f"{self._look_seconds:g} s."
            )

    def _look(self) -> None:
        """Look at every file of the folder."""
        there: set[str] = set()
        problems: dict[str, str] = {}
        top = os.fspath(self._folder)
        try:
            for path in paths(self._folder, lambda folder, error: problems.update({folder: _reason(error)})):
                self._see(path, there, problems)
        except OSError as error:
            problems[top] = _reason(error)
        if top in problems:  # it may come back with all its files, as a network drive does
            if self._once:
                raise InvalidSource(f"The folder {top} cannot be listed: {problems[top]}.")
            self._note({**self._problems, top: problems[top]})
            return
        self._note(problems)
        self._pending = {key: found for key, found in self._pending.items() if key in there}
        self._unsent = {path: found for path, found in self._unsent.items() if path in problems}
        self._record.forget(there)
        self._first = False

    def _see(self, path: str, there: set[str], problems: dict[str, str]) -> None:
        """Look at one file, and have it wait to be sent if this version of it was not."""
        key = self._key(path)
        if key is None:
            return
        there.add(key)
        try:
            found = os.stat(path)
        except OSError as error:
            if os.path.islink(path):
                problems[path] = f"it is a link that leads nowhere ({_reason(error)})"
            elif error.errno != errno.ENOENT:
                problems[path] = _reason(error)
            else:
                self._pending.pop(key, None)
            return
        version = version_of(found)
        if (problem := self._problem(key, found)) is not None:
            problems[path] = problem
        elif self._record.version(key) == version:
            self._pending.pop(key, None)
        else:
            failed, reason = self._unsent.get(path, (None, ""))
            if failed == version:
                problems[path] = reason
            if failed != version or os.access(path, os.R_OK):
                self._wait(key, path, version)

    def _problem(self, key: str, found: os.stat_result) -> str | None:
        if not stat.S_ISREG(found.st_mode):
            return "it is no file, but a pipe, a socket or a device"
        if len(key.encode()) > _MAX_KEY:
            return f"its name makes a key of more than {_MAX_KEY:,} bytes"
        if found.st_size > self._max_bytes:
            return f"it has {found.st_size:,} bytes, and IMAGEMILL_MAX_IMAGE_BYTES allows {self._max_bytes:,}"
        return None

    def _wait(self, key: str, path: str, version: Version) -> None:
        """Have a version of a file wait until it has stood still."""
        known = self._pending.get(key)
        if known is None or known.version != version:
            self._pending.pop(key, None)  # so that it goes to the end
            compare = self._first or (known is not None and known.compare)
            self._pending[key] = _Pending(path, version, time.monotonic(), compare)

    def _hinted(self, path: str) -> None:
        """Look where something has changed: at a file, or through a folder, which may have come with its files."""
        if not path.startswith(self._top) or _hidden(path.removeprefix(self._top)):
            return
        problems = dict(self._problems)
        problems.pop(path, None)
        found = [path]
        if os.path.isdir(path):
            try:
                found = list(paths(Path(path), lambda folder, error: problems.update({folder: _reason(error)})))
            except OSError:
                return  # gone again
        for one in found:
            self._see(one, set(), problems)
        self._note(problems)

    def _key(self, path: str) -> str | None:
        """Return the key of a path, None if it is not to be sent: no image by its name, or hidden."""
        name = path.removeprefix(self._top)
        if not is_image_name(name) or _hidden(name):
            return None
        # Bytes that are no UTF-8 are percent-encoded: replaced, two names could become one key.
        return self._prefix + "".join(
            f"%{ord(char) - 0xDC00:02X}" if "\udc80" <= char <= "\udcff" else char for char in name
        )

    def _note(self, problems: dict[str, str]) -> None:
        """Say which files cannot be sent, each once."""
        for path, reason in problems.items():
            if self._problems.get(path) != reason:
                self._say(f"{path} is not sent: {reason}.")
        self._problems = problems

    # Sending

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Have sent what has stood still, the oldest first, as much as there are threads for."""
        now = time.monotonic()
        if now < self._blocked_until:
            return
        due: list[str] = []
        for key, found in self._pending.items():
            if len(self._under_way) + len(due) >= 2 * _THREADS or now - found.since < self._settle:
                break
            if key not in self._under_way:
                due.append(key)
        for key in due:
            found = self._pending.pop(key)
            if not found.version.size:
                self._unsent[found.path] = found.version, "it is empty so far"
                self._note({**self._problems, found.path: "it is empty so far"})
                continue
            sending = Sending(key, found.path, found.version, self._record.md5(key), found.compare)
            self._under_way.add(key)
            pool.submit(send, self._store, self._bucket, sending).add_done_callback(partial(self._done, sending))

    def _done(self, sending: Sending, future: Future[Sent]) -> None:
        self._inbox.put((sending, future))

    def _take(self, seconds: float) -> None:
        """Wait for hints and for files that are sent, and take in all there are."""
        hints: dict[str, None] = {}
        ended = False
        with suppress(queue.Empty):
            found = self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
            while True:
                if isinstance(found, str):
                    hints[found] = None
                else:
                    self._ended(*found)
                    ended = True
                found = self._inbox.get_nowait()
        for path in hints:
            self._hinted(path)
        if ended:
            self._record.commit()

    def _ended(self, sending: Sending, future: Future[Sent]) -> None:
        """Remember what was sent; what was not waits for its next turn, or is told."""
        self._under_way.discard(sending.key)
        if future.cancelled():
            self._again(sending)
            return
        try:
            done = future.result()
        except _PASSING as error:
            self._again(sending)
            self._block(error)
            return
        except ImagemillError as error:
            done = Sent("refused", reason=str(error).rstrip("."))
        if done.outcome in ("sent", "there"):
            self._go_on()
            self._record.add(sending.key, sending.version, done.md5)
            if (later := self._pending.get(sending.key)) is not None and later.version == sending.version:
                del self._pending[sending.key]
            self._unsent.pop(sending.path, None)
            self._problems.pop(sending.path, None)
            if done.outcome == "sent":
                self._sent, self._bytes = self._sent + 1, self._bytes + sending.version.size
            else:
                self._unchanged += 1
        elif done.outcome == "refused":
            self._unsent[sending.path] = sending.version, done.reason
            self._note({**self._problems, sending.path: done.reason})
        elif done.outcome == "gone":
            self._say(f"{sending.path} was deleted before it was sent.")
        else:
            self._see(sending.path, set(), dict(self._problems))

    def _again(self, sending: Sending) -> None:
        """Send it once more, unless it has changed meanwhile; its object may be there."""
        self._pending.setdefault(sending.key, _Pending(sending.path, sending.version, 0.0, compare=True))

    def _ask(self, call: Callable[[], None]) -> None:
        try:
            call()
        except _PASSING as error:
            self._block(error)

    def _block(self, error: ImagemillError) -> None:
        """Send nothing for a while: longer each time, up to half a minute."""
        if self._once:
            raise error
        now = time.monotonic()
        if now < self._blocked_until:
            return  # another file that met the same fault
        if not self._fault:
            self._say(f"Waiting: {error}")
        self._fault = str(error)
        self._blocked_until = now + self._pause
        self._pause = min(2 * self._pause, _MOST_PAUSE_SECONDS)

    def _go_on(self) -> None:
        if self._fault:
            self._say("The store takes files again.")
        self._fault, self._blocked_until, self._pause = "", 0.0, _PAUSE_SECONDS


def _hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, as what rsync and FTP servers have not finished."""
    return any(part.startswith(".") for part in name.split(os.sep))


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
