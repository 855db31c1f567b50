"""The child's side of a conversation: answers requests from shared memory, several at a time.

A request is answered with blobs, or with the class and the sentence of an error. Nothing else leaves the child.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from worker.confinement import run
from worker.confinement.memory import Closed, Header, Memory, Receiver, send

Handler = Callable[[Header, list[bytes]], tuple[Header, Sequence[bytes | memoryview]]]


def serve(make: Callable[[Header], tuple[Header, Handler]]) -> None:
    """Answer requests until the parent is gone, then end the process.

    `make` is given the parent's greeting, and returns facts for the parent and the handler of requests. The pipes are
    on standard input and output, which become /dev/null and standard error: what a library prints harms nobody.
    """
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def answer(header: Header) -> None:
        with lock:
            send(answers, header)

    try:
        headers = iter(Receiver(requests))
        greeting = next(headers)
        memory = Memory(greeting["memory"], greeting["slots"], greeting["size"])
        try:
            facts, handler = make(greeting)
        except BaseException as error:
            answer({"id": -1, **_told(error)})
            raise
        answer({"id": -1, "facts": facts, "enforced": run.ENFORCED})
        with ThreadPoolExecutor(greeting["threads"]) as pool:
            for request in headers:
                pool.submit(_one, request, memory, handler, answer)
    except Closed:
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _one(request: Header, memory: Memory, handler: Handler, answer: Callable[[Header], None]) -> None:
    number, slot = request["id"], request["slot"]
    try:
        header, blobs = handler(request, memory.get(slot, request["sizes"]))
        reply: Header = {"id": number, "header": header, "sizes": memory.put(slot, blobs)}
    except BaseException as error:
        reply = {"id": number, **_told(error)}
    try:
        answer(reply)
    except Closed:
        os._exit(0)


def _told(error: BaseException) -> Header:
    return {"error": type(error).__name__, "message": str(error)[:2000]}
