"""Decodes JPEG files on a GPU, in one confined process that has it, for all threads of this one.

What that process refuses, cannot do or fails at is left to others: it makes no verdict about an image.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from contract.data.children.messages import Head
from worker.confinement.child import Child, ChildDied, ChildError
from worker.confinement.confine import Limits
from worker.engine.budget import budget
from worker.engine.cores import cores
from worker.engine.images.decode import Decoded
from worker.engine.images.decoder import extent_of, square_of
from worker.engine.motion import behind, moved

log = logging.getLogger(__name__)

_MODULE = "worker.engine.images.nvimgcodec_child"
_ROOM = 16 * 2**20
"""Bytes of the files of a request, and of their pixels: 40 photos of 500 × 375 that are not resized yet."""
_TOGETHER = 32
_TAKEN = 80 * 2**20
"""Bytes of a request in the child: files, images in full, and what becomes of them."""
_SECONDS = 60.0
"""How long a request may take. Most of it is the wait for others; 32 photos take milliseconds."""
_FAILURES_AT_MOST = 3
"""Requests in a row that may end the child, or fail in it, before Pillow decodes all."""
_JPEG = b"\xff\xd8\xff"


class DeviceDecoder:
    """nvImageCodec in a process of its own, started at the first file. Any number of threads may use it.

    `device` is the number of a GPU; None is the CPU, for tests. Where it cannot be started, or fails too often, the log
    says so once, and it decodes nothing from then on.
    """

    def __init__(self, device: int | None, *, readable: Sequence[str] = (), module: str = _MODULE) -> None:
        self._device, self._module = device, module
        self._limits = Limits(readable=tuple(readable), devices=device is not None)
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._failures = 0
        self.version = ""
        """The version of nvImageCodec; empty until it runs."""

    @property
    def given_up(self) -> bool:
        """Whether it decodes nothing any more."""
        return self._failures >= _FAILURES_AT_MOST

    def each(self, files: Sequence[tuple[int, bytes]], head: Head) -> Iterator[tuple[int, Decoded]]:
        """Decode some of these files; yield the place of each and its square, or its region with `regions`.

        `head` has `size`, `crop`, `interpolation`, `max_pixels` and `regions`.
        """
        left = [(place, file) for place, file in files if file[:3] == _JPEG and len(file) <= _ROOM]
        del files  # or what was yielded would not come free
        while left and (child := self._running()) is not None:
            some = _fitting(left)
            try:
                found = _ask(child, head, [file for _, file in some])
            except (ChildDied, ChildError, LookupError, TypeError, ValueError, OverflowError) as error:
                self._failed(child, error)
                left = left[len(some) :]
                continue
            self._failures = 0
            left = left[len(found) :]
            yield from ((place, one) for (place, _), one in zip(some, found, strict=False) if one is not None)

    def close(self) -> None:
        """End the child; the next file starts another."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _running(self) -> Child | None:
        with self._lock:
            if self._child is None and not self.given_up:
                try:
                    self._child = self._start()
                    self.version = str(self._child.facts["version"])
                    log.info("JPEG files are decoded by nvImageCodec %s", self.version)
                except (ChildDied, ChildError, OSError) as error:
                    self._failures = _FAILURES_AT_MOST
                    log.warning("Images are decoded by Pillow, not by nvImageCodec: %s", error)
            return self._child

    def _start(self) -> Child:
        threads = cores() + 1
        return Child(
            self._module,
            self._limits,
            greeting={"device": self._device, "room": _ROOM, "cores": cores()},
            slots=threads,
            size=_ROOM,
            threads=threads,
            start_seconds=_SECONDS,
        )

    def _failed(self, child: Child, error: Exception) -> None:
        """Replace a child that ended or failed: an error of CUDA stays with its process."""
        with self._lock:
            if self._child is child:
                self._child = None
                self._failures += 1
                last = self.given_up
                log.warning(
                    "nvImageCodec failed (%s); Pillow decodes %s", error, "all images now" if last else "the images"
                )
        child.close()


def _fitting(files: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """Return the first files that fit into a request, at least one."""
    held = 0
    for n, (_, file) in enumerate(files[:_TOGETHER]):
        held += len(file)
        if held > _ROOM:
            return files[:n]
    return files[:_TOGETHER]


def _ask(child: Child, head: Head, files: Sequence[bytes]) -> list[Decoded | None]:
    """Return what became of the first of some files, at least of one; raises ValueError or the like for nonsense."""
    pool = budget().pixels
    held = pool.ask(_TAKEN)
    try:
        held.wait()
        with behind(time.monotonic), pool.bounded():  # `seconds` ends it
            answer, blobs = child.call(head, files, seconds=_SECONDS)
    finally:
        held.release()
    moved()
    found = answer["found"]
    if not 0 < len(found) <= len(files):
        raise ValueError("an answer for other files")
    parts = iter(blobs)
    return [None if one is None else _decoded(one, next(parts, b""), head) for one in found]


def _decoded(one: Head, blob: bytes, head: Head) -> Decoded:
    square = square_of(one, head)
    shape = (head["size"], head["size"], 3) if square is None else (*square.shape, 3)
    if len(blob) != math.prod(shape):
        raise ValueError("pixels of another size")
    pixels = np.frombuffer(blob, np.uint8).reshape(shape)
    region = None if square is None else square.region(pixels, int(one["orientation"]))
    return Decoded(pixels, *extent_of(one, head["max_pixels"]), region)
