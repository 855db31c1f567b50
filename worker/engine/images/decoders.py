"""Decodes images in processes that hold no credentials and end with an image that takes too long, or in this one.

It knows neither formats nor models: `worker.engine.images.decode` does the work, there as here.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.data.children.messages import Closed, Head
from contract.data.children.process import Process, ending
from contract.errors import IMAGE_ERRORS, DecodeFailed, DecodeTimeout, EmptyFile, ImageError
from contract.models.registry import Preprocess
from worker.confinement import layers
from worker.confinement.child import start
from worker.confinement.confine import Limits
from worker.engine.budget import budget
from worker.engine.images import decode
from worker.engine.images.decode import Decoded, Frame, Interpolation
from worker.engine.motion import behind

log = logging.getLogger(__name__)

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
_PIXELS_AT_MOST = 2**33
"""Bytes of an answer; no sequence that may be decoded has more."""

_BROKEN = (Closed, TimeoutError, ValueError, TypeError, KeyError)
"""What talking to a process raises that ended, stopped, or writes nonsense."""


class _Gone(Exception):
    """The process ended in the middle of a request; `status` is what it exited with, negative for a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass
class _How:
    """How this process decodes."""

    children: bool = False
    seconds: float = 10.0
    max_pixels: int = 100_000_000


class _Child(Process):
    """One decoding process; used by one thread at a time."""

    def __init__(self, how: _How) -> None:
        limits = Limits(memory=_MEMORY + _BYTES_A_PIXEL * how.max_pixels)
        super().__init__(start(limits, "worker.engine.images.decode_child", env=_ENVIRONMENT))
        self._seconds = how.seconds
        self._patience = max(_WALL * how.seconds, _WALL_SECONDS)
        try:
            enforced = [str(layer) for layer in self.receive(seconds=self._patience)[0]["enforced"]]
        except _BROKEN as error:
            raise OSError(f"A decoder does not start ({ending(self.end())}).") from error
        layers.note("decoders", ("rlimits", "seccomp"), enforced)

    def ask(self, head: Head, files: Sequence[bytes]) -> tuple[Head, bytearray]:
        """Return the answer to a request; raises _Gone if the process ended, or was stopped for too long."""
        about = {"seconds": self._seconds, "granted": _GRANTED, "sizes": [len(file) for file in files]}
        request: tuple[Head, Sequence[bytes]] = {**head, **about}, files
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
            raise _Gone(self.end()) from error
        finally:
            held.release()


_how = _How()
_idle: queue.LifoQueue[_Child] = queue.LifoQueue()


def configure(*, children: bool, seconds: float, max_pixels: int) -> None:
    """Say how this process decodes from now on: in children or itself, and how much CPU time an image may take."""
    global _how
    _how = _How(children, seconds, max_pixels)
    close()


def close() -> None:
    """End the children that are idle."""
    while True:
        try:
            _idle.get_nowait().end()
        except queue.Empty:
            return


def open_item(item: bytes | tuple[Frame, ...], how: Preprocess, *, max_pixels: int, frames: int) -> Decoded:
    """Decode an image or a sequence as `decode.open_item` does; raises DecodeTimeout if it takes too long."""
    if not _how.children:
        return decode.open_item(item, how, max_pixels=max_pixels, frames=frames)
    head = {"op": "open", "size": how.size, "crop": how.crop, "interpolation": how.interpolation, "frames": frames}
    uris = [frame.uri for frame in item] if isinstance(item, tuple) else None
    files = [frame.data for frame in item] if isinstance(item, tuple) else [item]
    return _decoded({**head, "max_pixels": max_pixels, "uris": uris}, files)


def decode_image(data: bytes, size: int, *, crop: float, interpolation: Interpolation, max_pixels: int) -> Decoded:
    """Decode an image as `decode.decode` does; raises DecodeTimeout if it takes too long."""
    if not _how.children:
        return decode.decode(data, size, crop=crop, interpolation=interpolation, max_pixels=max_pixels)
    head = {"op": "open", "size": size, "crop": crop, "interpolation": interpolation, "frames": 0, "uris": None}
    return _decoded({**head, "max_pixels": max_pixels}, [data])


def look(data: bytes) -> tuple[int, int, bool]:
    """Return width, height and whether the image is gray, as `decode.look` does."""
    if not _how.children:
        return decode.look(data)
    answer, _ = _ask({"op": "look"}, [data])
    return int(answer["width"]), int(answer["height"]), bool(answer["gray"])


def _decoded(head: Head, files: Sequence[bytes]) -> Decoded:
    answer, data = _ask(head, files)
    pixels = np.frombuffer(data, np.uint8).reshape(answer["shape"])
    wanted = (head["size"], head["size"], 3)
    if pixels.shape[-3:] != wanted:
        raise DecodeFailed("The decoder answered with other pixels than it was asked for; save the image anew.")
    return Decoded(pixels, int(answer["width"]), int(answer["height"]))


def _ask(head: Head, files: Sequence[bytes]) -> tuple[Head, bytearray]:
    """Return the answer of a child; an image that ends two of them, each fresh or idle before, is at fault."""
    if not any(files):
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    status = 0
    for _ in range(2):
        child = _take()
        try:
            answer, data = child.ask(head, files)
        except _Gone as gone:
            status = gone.status
            if status == -signal.SIGPROF:
                raise DecodeTimeout(
                    f"Decoding took more than {_how.seconds:g} s of CPU time; save the image anew, or raise "
                    "IMAGEMILL_DECODE_SECONDS."
                ) from None
            log.warning("A decoder ended (%s)", ending(status))
            continue
        _idle.put(child)
        if "error" in answer:
            raise _error(answer)
        return answer, data
    if status == -signal.SIGKILL:  # by the system, or because it had been stopped
        raise OSError("The decoders of this machine are killed; see whether its memory is full.")
    raise DecodeFailed(f"The decoder ended twice on this image ({ending(status)}); save it anew in an image editor.")


def _take() -> _Child:
    while True:
        try:
            child = _idle.get_nowait()
        except queue.Empty:
            return _Child(_how)
        if child.alive:
            return child
        child.end()


def _error(answer: Head) -> ImageError:
    return IMAGE_ERRORS.get(str(answer["error"]), DecodeFailed)(str(answer["says"]))
