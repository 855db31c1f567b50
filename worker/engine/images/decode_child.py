"""A decoder: a process that decodes what it is given, and can do nothing else.

    python -m worker.confinement.run … worker.engine.images.decode_child

It opens no file, no socket and no thread once it has begun, and ends when an image takes more CPU time than it may. It
asks its parent for memory, which all decoders share.
"""

from __future__ import annotations

import os
import signal
from typing import Any, cast

import numpy as np
from PIL import AvifImagePlugin

from contract.data.children.messages import Closed, Head, Receiver, send, take_output
from contract.errors import ImageError
from worker.confinement import run
from worker.confinement.confine import only_pipes
from worker.engine.budget import Budget, use
from worker.engine.images import decode

_ANY = 2**62


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


def serve(requests: Receiver, answers: int) -> None:
    """Answer requests until the parent closes the pipe."""
    parent = _Parent(requests, answers)
    use(cast(Budget, parent))
    while True:
        try:
            head, data = requests.receive(_ANY)
        except Closed:
            return
        parent.granted = head["granted"]
        signal.setitimer(signal.ITIMER_PROF, head["seconds"])  # SIGPROF ends the process, whatever it is in
        try:
            answer, parts = _answer(head, data)
        except ImageError as error:
            answer, parts = {"error": error.code, "says": str(error)}, []
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(answers, answer, parts)


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
    answers = take_output()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    os.chdir("/")
    send(answers, {"enforced": only_pipes(run.ENFORCED)})
    serve(Receiver(0), answers)


if __name__ == "__main__":
    main()
