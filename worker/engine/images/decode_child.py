"""A decoder: a process that decodes what it is given, and can do nothing else.

    python -m worker.engine.images.decode_child MAX_PIXELS

It has no credentials in its environment, opens no file and no socket once it has begun, and ends when its parent does,
or when an image takes more CPU time than it may. It asks its parent for memory, which all decoders share.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, cast

import numpy as np
from PIL import AvifImagePlugin

from contract.data.children import limits
from contract.data.children.messages import Head, Messages
from contract.errors import ImageError
from worker.confinement import seccomp
from worker.engine.budget import Budget, use
from worker.engine.images import decode

_SLACK = 512 * 2**20
_BYTES_A_PIXEL = 16
_ANY = 2**62


class _Parent:
    """The budget of the parent, in place of this process's own."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self.granted = 0

    @property
    def pixels(self) -> _Parent:
        return self

    def ask(self, count: int) -> _Parent:
        if count > self.granted:
            self._messages.send({"take": count})
            self._messages.receive(0)
            self.granted = count
        return self

    def wait(self) -> bool:
        return True

    def release(self) -> None:
        """The parent does when it has the answer."""


def serve(messages: Messages) -> None:
    """Answer requests until the parent closes the pipe."""
    parent = _Parent(messages)
    use(cast(Budget, parent))
    while True:
        try:
            head, data = messages.receive(_ANY)
        except EOFError:
            return
        parent.granted = head["granted"]
        signal.setitimer(signal.ITIMER_PROF, head["seconds"])  # SIGPROF ends the process, whatever it is in
        try:
            answer, parts = _answer(head, data)
        except ImageError as error:
            answer, parts = {"error": error.code, "says": str(error)}, []
        signal.setitimer(signal.ITIMER_PROF, 0)
        messages.send(answer, parts)


def _answer(head: Head, data: bytearray) -> tuple[Head, list[memoryview]]:
    view, files, start = memoryview(data), [], 0
    for size in head["sizes"]:
        files.append(bytes(view[start : start + size]))
        start += size
    if head["op"] == "look":
        width, height, gray = decode.look(files[0])
        return {"width": width, "height": height, "gray": gray}, []
    how: dict[str, Any] = {name: head[name] for name in ("size", "crop", "interpolation", "max_pixels")}
    if head["uris"] is not None:
        frames = [decode.Frame(uri, file) for uri, file in zip(head["uris"], files, strict=True)]
        found = decode.decode_frames(frames, **how)
    elif head["frames"]:
        found = decode.decode_sequence(files[0], frames=head["frames"], **how)
    else:
        found = decode.decode(files[0], **how)
    pixels = np.ascontiguousarray(found.pixels)
    return {"width": found.width, "height": found.height, "shape": pixels.shape}, [memoryview(pixels.data).cast("B")]


def main() -> None:
    messages = Messages(0, os.dup(1))
    os.dup2(2, 1)  # libraries that print must not speak to the parent
    limits.die_with_parent()
    limits.no_core_dump()
    # More is a bomb that the header did not announce.
    limited = limits.limit_memory(_SLACK + _BYTES_A_PIXEL * int(sys.argv[1]))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    os.chdir("/")
    messages.send({"limited": limited, "confined": seccomp.confine()})
    serve(messages)


if __name__ == "__main__":
    main()
