"""A decoder: a process that decodes what it is given, and can do nothing else.

    python -m worker.confinement.run … worker.engine.images.decode_child [DESCRIPTOR]

It opens no file, no socket and no thread once it has begun, and ends when an image takes more CPU time than it may. It
asks its parent for memory, which all decoders share. The descriptor is that of the memory in which several files come
at once (`worker.engine.images.chunk`); the other requests come through the pipe, bytes and all.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin

from contract.data.children.messages import Closed, Head, Receiver, send, take_output
from contract.errors import ImageError
from worker.confinement import run
from worker.confinement.confine import only_pipes
from worker.confinement.memory import Memory
from worker.engine.budget import Budget, use
from worker.engine.images import decode
from worker.engine.images.chunk import FILES, PIXELS, PLACE, PLACE_BYTES, ROOM, SLOTS
from worker.engine.memory import bound_heaps

_ANY = 2**62
_DESCRIPTORS = 256
"""More than it was given."""
_LONG = 1.0
"""Seconds after which it answers with what it has, so that the parent sees it move and patience is for one image."""


class _Parent:
    """The budget of the parent, in place of this process's own."""

    def __init__(self, requests: Receiver, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self.granted = 0

    @property
    def pixels(self) -> _Parent:
        return self

    def ask(self, count: int) -> _Parent:
        if count > self.granted:
            send(self._answers, {"take": count})
            self._requests.receive()
            self.granted = count
        return self

    def wait(self) -> bool:
        return True

    def release(self) -> None:
        """The parent does when it has the answer."""


def serve(requests: Receiver, answers: int, memory: Memory | None) -> None:
    """Answer requests until the parent closes the pipe."""
    parent = _Parent(requests, answers)
    use(cast(Budget, parent))
    while True:
        try:
            head, data = requests.receive(_ANY)
        except Closed:
            return
        parent.granted = head["granted"]
        parts: list[memoryview] = []
        if head["op"] == "each":
            assert memory is not None, "the parent of a decoder without memory does not ask so"
            answer: Head = {"found": _each(head, memory, parent)}
        else:
            _allow(head["seconds"])
            try:
                answer, parts = _answer(head, data)
            except ImageError as error:
                answer = _told(error)
        _allow(0)
        send(answers, answer, parts)


def _allow(seconds: float) -> None:
    """End this process by SIGPROF, whatever it is in, when it has computed for so many seconds more; 0 is for ever."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _told(error: ImageError) -> Head:
    return {"error": error.code, "says": str(error)}


def _each(head: Head, memory: Memory, parent: _Parent) -> list[Head]:
    """Decode the files of a request, and return what became of the first of them.

    The others are asked for again: an image that takes more memory than comes with a request is the last of it.
    """
    found: list[Head] = []
    pixels: list[memoryview] = []
    held = 0
    began = time.monotonic()
    for place, file in enumerate(memory.get(FILES, head["sizes"])):
        memory.put(PLACE, [place.to_bytes(PLACE_BYTES, "little")])
        _allow(head["seconds"])
        try:
            one = decode.decode(file, **_how(head), regions=head["regions"])
        except ImageError as error:
            found.append(_told(error))
        else:
            if held + one.pixels.nbytes > ROOM:
                break
            held += one.pixels.nbytes
            about: Head = {"width": one.width, "height": one.height}
            if one.region is not None:
                about |= {"open": one.region.extent, "orientation": one.region.orientation}
            found.append(about)
            pixels.append(_bytes(one.pixels))
        if parent.granted > head["granted"] or time.monotonic() - began > _LONG:
            break
    memory.put(PIXELS, pixels)
    return found


def _how(head: Head) -> dict[str, Any]:
    return {name: head[name] for name in ("size", "crop", "interpolation", "max_pixels")}


def _bytes(pixels: NDArray[np.uint8]) -> memoryview:
    return memoryview(np.ascontiguousarray(pixels).data).cast("B")


def _answer(head: Head, data: bytearray) -> tuple[Head, list[memoryview]]:
    view, files, start = memoryview(data), [], 0
    for size in head["sizes"]:
        files.append(bytes(view[start : start + size]))
        start += size
    if head["op"] == "look":
        width, height, gray = decode.look(files[0])
        return {"width": width, "height": height, "gray": gray}, []
    how = _how(head)
    if head["uris"] is not None:
        frames = [decode.Frame(uri, file) for uri, file in zip(head["uris"], files, strict=True)]
        found = decode.decode_frames(frames, **how)
    elif head["frames"]:
        found = decode.decode_sequence(files[0], frames=head["frames"], **how)
    else:
        found = decode.decode(files[0], **how)
    return {"width": found.width, "height": found.height, "shape": found.pixels.shape}, [_bytes(found.pixels)]


def main() -> None:
    answers = take_output()
    memory = Memory(int(sys.argv[1]), SLOTS, ROOM) if len(sys.argv) > 1 else None
    # The map of the memory is enough, and outlives its descriptors.
    os.closerange(3, answers)
    os.closerange(answers + 1, _DESCRIPTORS)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    bound_heaps()
    gc.freeze()
    os.chdir("/")
    send(answers, {"enforced": only_pipes(run.ENFORCED)})
    serve(Receiver(0), answers, memory)


if __name__ == "__main__":
    main()
