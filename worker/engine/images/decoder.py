"""A decoding process as its parent sees it: asks it for one image or for several, and tells how it ended.

What it answers is not trusted: it may have been taken over by an image.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence

import numpy as np

from contract.data.children.messages import Closed, Head
from contract.data.children.process import Process, ending
from contract.errors import IMAGE_ERRORS, DecodeFailed, ImageError
from worker.confinement import layers
from worker.confinement.child import start
from worker.confinement.confine import Limits
from worker.confinement.memory import Memory
from worker.engine.budget import budget
from worker.engine.images.chunk import FILES, PIXELS, PLACE, PLACE_BYTES, ROOM, SLOTS, fitting
from worker.engine.images.decode import Decoded
from worker.engine.images.regions import ORIENTATIONS, Square
from worker.engine.motion import behind

_MODULE = "worker.engine.images.decode_child"
_WALL, _WALL_SECONDS = 20, 60.0
"""How many times longer than its CPU time an image may take, and how long at least, before its decoder is taken for
stopped."""
_ENVIRONMENT = {
    # One thread: the filter of system calls covers no other.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PILLOW_BLOCKS_MAX": "4",
}
_MEMORY, _BYTES_A_PIXEL = 640 * 2**20, 16
"""Bytes that a decoder may have, 100 MiB of them for the interpreter and libraries, and for each pixel of the largest
image; more is a bomb that the header did not announce."""
_GRANTED = 8 * 2**20
"""Bytes of pixels that come with a request; a photo of two megapixels needs no more, and need not ask."""
_REGIONS = 8
"""Images of a request that are not resized, each of which takes a MiB on the average of camera photos, and 1.5 at most;
those that do not fit are decoded again."""
_PIXELS_AT_MOST = 2**33
"""Bytes of an answer; no sequence that may be decoded has more."""

_BROKEN = (Closed, TimeoutError, ValueError, TypeError, KeyError, OverflowError)
"""What talking to a process raises that ended, stopped, or writes nonsense."""


class Gone(Exception):
    """The process ended in the middle of a request; `status` is what it exited with, negative for a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(ending(status))
        self.status = status


class Decoder(Process):
    """One decoding process; used by one thread at a time."""

    memory: Memory | None = None
    """Holds several files at once, and their pixels; None where the system has no such memory, and when it is over."""
    at = 0
    """Which file of the request it was at when it ended, as it says itself."""

    def __init__(self, *, seconds: float, max_pixels: int) -> None:
        limits = Limits(memory=_MEMORY + _BYTES_A_PIXEL * max_pixels)
        if hasattr(os, "memfd_create"):
            self.memory = Memory.create(SLOTS, ROOM)
        handles = () if self.memory is None else (self.memory.handle,)
        try:
            super().__init__(start(limits, _MODULE, *map(str, handles), pass_fds=handles, env=_ENVIRONMENT))
        except BaseException:
            self._forget()
            raise
        self._seconds = seconds
        self._patience = max(_WALL * seconds, _WALL_SECONDS)
        try:
            enforced = [str(layer) for layer in self.receive(seconds=self._patience)[0]["enforced"]]
        except _BROKEN as error:
            raise OSError(f"A decoder does not start ({ending(self.end())}).") from error
        layers.note("decoders", ("rlimits", "seccomp"), enforced)

    def ask(self, head: Head, files: Sequence[bytes]) -> tuple[Head, bytearray]:
        """Return the answer to a request; raises Gone if the process ended, or was stopped for too long."""
        about = {"seconds": self._seconds, "granted": _GRANTED, "sizes": [len(file) for file in files]}
        request: tuple[Head, Sequence[bytes]] = {**about, **head}, files
        pool, left = budget().pixels, self._patience
        held = pool.ask(_GRANTED)
        try:
            while True:
                held.wait()
                began = time.monotonic()
                with behind(time.monotonic), pool.bounded():  # `patience` ends it
                    self.send(*request, seconds=left)
                    answer, data = self.receive(_PIXELS_AT_MOST, seconds=left)
                if "take" not in answer:
                    return answer, data
                left -= time.monotonic() - began
                if left < 0:
                    raise TimeoutError("a decoder that asks for memory again and again")
                request = {}, ()
                held.release()  # nobody asks for pixels who holds some
                held = pool.ask(int(answer["take"]))
        except _BROKEN as error:
            raise Gone(self.end()) from error
        finally:
            held.release()

    def ask_each(self, head: Head, files: Sequence[bytes]) -> list[Decoded | ImageError]:
        """Return what became of the first of some files, at least of one; raises what `ask` raises."""
        memory = self.memory
        assert memory is not None
        files = files[: fitting([len(file) for file in files], head["size"])]
        if head["regions"]:
            files = files[:_REGIONS]
        memory.put(PLACE, [bytes(PLACE_BYTES)])
        answer, _ = self.ask({**head, "op": "each", "sizes": memory.put(FILES, files)}, ())
        try:
            return _each_decoded(answer["found"], memory, head, len(files))
        except _BROKEN as error:
            raise Gone(self.end()) from error

    def end(self, seconds: float = 1.0) -> int:
        status = super().end(seconds)
        if self.memory is not None:
            self.at = int.from_bytes(self.memory.get(PLACE, [PLACE_BYTES])[0], "little")
        self._forget()
        return status

    def _forget(self) -> None:
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.close()


def _each_decoded(found: list[Head], memory: Memory, head: Head, most: int) -> list[Decoded | ImageError]:
    """Return what a child answers to `ask_each`; raises one of _BROKEN if that is nonsense."""
    if not 0 < len(found) <= most:
        raise Closed("an answer for other files")
    size = head["size"]
    squares = [square_of(one, head) for one in found]
    shapes = [(size, size, 3) if square is None else (*square.shape, 3) for square in squares]
    blobs = iter(memory.get(PIXELS, [math.prod(s) for s, one in zip(shapes, found, strict=True) if "error" not in one]))

    def decoded(one: Head, square: Square | None, shape: tuple[int, ...]) -> Decoded:
        array = np.frombuffer(next(blobs), np.uint8).reshape(shape)
        region = None if square is None else square.region(array, int(one["orientation"]))
        return Decoded(array, *extent_of(one, head["max_pixels"]), region)

    return [
        error_of(one) if "error" in one else decoded(one, square, shape)
        for one, square, shape in zip(found, squares, shapes, strict=True)
    ]


def square_of(one: Head, head: Head) -> Square | None:
    """Return what is to be resized of an image that a decoder left as it was; raises ValueError for nonsense."""
    if "open" not in one or not head["regions"]:
        return None
    width, height = (int(side) for side in one["open"])
    if int(one["orientation"]) not in ORIENTATIONS or not 0 < width * height <= head["max_pixels"] or width < 1:
        raise ValueError("a region that no image has")
    square = Square.of(width, height, head["size"], head["crop"], head["interpolation"])
    if not square.small:
        raise ValueError("a region that is resized where it is decoded")
    return square


def extent_of(answer: Head, max_pixels: int) -> tuple[int, int]:
    """Return width and height; raises ValueError for those that no image has that may be decoded."""
    width, height = int(answer["width"]), int(answer["height"])
    if width < 1 or height < 1 or width * height > max_pixels:
        raise ValueError("a size that no image has")
    return width, height


def error_of(answer: Head) -> ImageError:
    """Return the error that a decoder tells of an image; one that it invents is DecodeFailed."""
    return IMAGE_ERRORS.get(str(answer["error"]), DecodeFailed)(str(answer["says"]))
