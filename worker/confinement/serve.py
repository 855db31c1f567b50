"""The child's side of a conversation: answers requests from shared memory, several at a time.

A request is answered with blobs, or with the class and the sentence of an error. Nothing else leaves the child.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from contract.data.children.messages import Closed, Head, Receiver, send, take_output
from worker.confinement import run
from worker.confinement.memory import Memory

Handler = Callable[[Head, list[bytes]], tuple[Head, Sequence[bytes | memoryview]]]


def serve(make: Callable[[Head], tuple[Head, Handler]]) -> None:
    """Answer requests until the parent is gone, then end the process.

    `make` is given the parent's greeting, and returns facts for the parent and the handler of requests. The pipes are
    on standard input and output, which become /dev/null and standard error: what a library prints harms nobody.
    """
    requests, answers = Receiver(os.dup(0)), take_output()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    lock = threading.Lock()

    def answer(header: Head) -> None:
        with lock:
            send(answers, header)

    try:
        greeting, _ = requests.receive()
        memory = Memory(greeting["memory"], greeting["slots"], greeting["size"])
        try:
            facts, handler = make(greeting)
        except BaseException as error:
            answer({"id": -1, **_told(error)})
            raise
        answer({"id": -1, "facts": facts, "enforced": run.ENFORCED})
        with ThreadPoolExecutor(greeting["threads"]) as pool:
            while True:
                pool.submit(_one, requests.receive()[0], memory, handler, answer)
    except Closed:
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _one(request: Head, memory: Memory, handler: Handler, answer: Callable[[Head], None]) -> None:
    number, slot = request["id"], request["slot"]
    try:
        header, blobs = handler(request, memory.get(slot, request["sizes"]))
        reply: Head = {"id": number, "header": header, "sizes": memory.put(slot, blobs)}
    except BaseException as error:
        reply = {"id": number, **_told(error)}
    try:
        answer(reply)
    except Closed:
        os._exit(0)


def _told(error: BaseException) -> Head:
    return {"error": type(error).__name__, "message": str(error)[:2000]}
