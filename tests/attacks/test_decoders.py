"""A decoder that was taken over: it has no credentials, opens nothing, and what it answers is not trusted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from contract.data.children.process import Process, start
from contract.errors import DecodeFailed
from contract.models.registry import Preprocess
from worker.confinement.memory import Memory
from worker.engine.images import decoders
from worker.engine.images.chunk import PLACE, PLACE_BYTES, ROOM, SLOTS
from worker.engine.images.decode import Decoded
from worker.engine.images.decoder import Decoder

ROOT = Path(__file__).parents[2]
HOW = Preprocess(size=8, crop=1.0, interpolation="bicubic", mean=127.0, std=128.0)

ATTACKS = {
    "opens a file": "open('/etc/hostname').read()",
    "reads its parent's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "writes a file": "open('/tmp/imagemill-attack', 'w')",
    "opens a socket": "socket.socket()",
    "connects by a pair": "socket.socketpair()",
    "runs a program": "os.execv('/bin/true', ['true'])",
    "starts a process": "os.fork()",
    "ends its parent": "os.kill(os.getppid(), 0)",
    "traces its parent": "assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0, 'refused'",
    "lists a folder": "os.listdir('/')",
    "makes a thread": "threading.Thread(target=print).start()",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_confined_process_cannot(attack: str) -> None:
    # Given a process that was confined as a decoder is, and that is somebody else's now,
    program = f"""
import ctypes, os, socket, sys, threading
from worker.confinement.confine import Limits, confine, only_pipes
if "seccomp" not in only_pipes(confine(Limits())):
    os._exit(42)
try:
    {attack}
except (OSError, RuntimeError, AssertionError) as error:
    os._exit(7)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode == 42:
        pytest.skip("this machine has no filter of system calls")
    # I expect the attempt to fail.
    assert done.returncode == 7


def test_it_has_nothing_of_the_workers_environment(monkeypatch: pytest.MonkeyPatch, confined: None) -> None:
    monkeypatch.setenv("IMAGEMILL_S3_SECRET_KEY", "secret-of-the-worker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-worker")
    child = decoders._take()
    try:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        files = [os.readlink(path) for path in Path(f"/proc/{child.pid}/fd").iterdir()]
    finally:
        child.end()
    assert b"secret" not in environment and b"IMAGEMILL" not in environment
    shared = [file for file in files if file.startswith("/memfd:imagemill")]
    assert len(shared) <= 1  # where it writes its pixels
    assert all(file.startswith(("pipe:", "/dev/null")) for file in files if file not in shared), files


@pytest.fixture
def confined() -> Iterator[None]:
    decoders.configure(children=True, seconds=10, max_pixels=10**6)
    yield
    decoders.configure(children=False, seconds=10, max_pixels=10**6)


def image() -> bytes:
    file = io.BytesIO()
    Image.new("L", (10, 10), 7).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        '{"found": []}',
        '{"found": "xx"}',
        '{"found": [7, 7]}',
        '{"found": [{}, {}]}',
        '{"found": [{"width": 1, "height": 1}] * 3}',
        '{"found": [{"width": -1, "height": 1}]}',
        '{"found": [{"width": 10**9, "height": 10**9}]}',
        '{"found": [{"width": float("inf"), "height": 1}]}',
        '{"found": [{"width": [], "height": 1}]}',
    ],
)
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory to share with a decoder")
def test_what_it_answers_for_several_images_is_checked(answer: str, confined: None) -> None:
    # Given a decoder that was taken over, and lies about which image it is at,
    program = f"""
from contract.data.children.messages import Receiver, send
Receiver(0).receive(1000)
send(1, {answer})
"""
    liar = object.__new__(Decoder)
    liar._seconds, liar._patience = 10, 30.0
    liar.memory = Memory.create(SLOTS, ROOM)
    liar.memory.put(PLACE, [b"\xff" * PLACE_BYTES])
    Process.__init__(liar, start(["-c", program]))
    decoders._idle.put(liar)
    # if it is asked, I expect others to decode all images.
    found = dict(decoders.open_each([image(), image()], HOW, max_pixels=10**6, frames=0))
    assert sorted(found) == [0, 1]
    assert all(isinstance(one, Decoded) and (one.pixels == 7).all() for one in found.values())
    assert not liar.alive and liar.memory is None


@pytest.mark.parametrize(
    "answer",
    [
        {"width": 1, "height": 1, "shape": [9, 9, 3]},
        {"width": 1, "height": 1, "shape": [8, 8, 4]},
        {"error": "no_such_code", "says": "…"},
        {"error": ["decode_failed"], "says": 7},
    ],
)
def test_what_it_answers_is_checked(answer: dict[str, object], confined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Child:
        alive = True

        def ask(self, *_: object) -> tuple[dict[str, object], bytes]:
            return answer, bytes(8 * 8 * 4 if answer.get("shape") == [8, 8, 4] else 9 * 9 * 3)

        def end(self) -> int:
            return 0

    decoders._idle.put(Child())  # type: ignore[arg-type]
    with pytest.raises(DecodeFailed):
        decoders.open_item(b"x", HOW, max_pixels=10**6, frames=0)
