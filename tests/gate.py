"""Photos on the web that wait behind a gate: a job of them stays in the middle of its work until the gate is opened.

No test that disturbs a job then rests on how fast this machine labels, or on when it stands still.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.sites import LOOPBACK, send, site

_LONGEST_SECONDS = 600.0


@dataclass
class Gate:
    """It is closed until `open`; workers need `tests.mill.OPEN`, and a `fetch_seconds` longer than it stays closed."""

    photos: Sequence[bytes]
    port: int = 0
    _open: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        """Answer what waits, and everything from now on."""
        self._open.set()

    def manifest(self, path: Path, count: int, free: int) -> Path:
        """Write a list of `count` photos, of which all but the first `free` are behind the gate; return its path."""
        places = (f"{'free' if number < free else 'held'}/{number:04d}.jpg" for number in range(count))
        lines = [json.dumps({"uri": f"http://{LOOPBACK}:{self.port}/{place}"}) for place in places]
        path.write_text("\n".join(lines) + "\n")
        return path

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        kind, number = request.path.removesuffix(".jpg").lstrip("/").split("/")
        if kind == "held":
            self._open.wait(_LONGEST_SECONDS)
        send(request, 200, self.photos[int(number) % len(self.photos)])


@contextmanager
def closed_gate(photos: Sequence[Path]) -> Iterator[Gate]:
    """Serve these photos until the block ends."""
    gate = Gate([path.read_bytes() for path in photos])
    with site(gate.answer) as gate.port:
        try:
            yield gate
        finally:
            gate.open()
