"""Many clients with large requests at once: the HTTP API refuses what it has no memory for, and answers the others."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.keys.online import served_record
from contract.online.served import Served
from contract.settings import Settings
from tests.mill import variables
from tests.producer.web.test_online import REF, Worker
from tests.serving import Api
from tests.waiting import wait_until

CLIENTS = 60
MOST_MIB = 1400
"""The chart gives the server 2 GiB; it took 127 MiB idle and 950 at the peak."""


@pytest.fixture
def server(settings: Settings, store: ObjectStore) -> Iterator[tuple[Api, int]]:
    """The API as a process of its own, and its number."""
    command = [sys.executable, "-m", "producer", "web", "--port", "0", "--json"]
    env = {**os.environ, **variables(settings)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Api(json.loads(process.stdout.readline())["url"], store), process.pid
        finally:
            process.terminate()


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_sixty_clients_with_large_requests_do_not_fill_the_memory(
    server: tuple[Api, int], settings: Settings, figures: Callable[..., None]
) -> None:
    # Given a served model that answers nobody in time, so that every request is held,
    api, pid = server
    record = Served(name=REF.partition("@")[0], version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    api.store.put(served_record(record.name, 1), record.to_json())
    image = base64.b64encode(os.urandom(15 * 2**20)).decode()
    body = json.dumps({"images": [{"base64": image}], "deadline": 5}).encode()
    headers = {"Authorization": f"Bearer {api.token('infer')}", "Content-Type": "application/json"}
    idle, answers, start = peak_mib(pid), Counter[str](), threading.Barrier(CLIENTS)
    lock = threading.Lock()

    def client() -> None:
        start.wait()
        try:
            answer = httpx2.post(f"{api.url}/v1/models/{REF}/classify", content=body, headers=headers, timeout=120)
            said = f"{answer.status_code} {answer.json()['code']}"
            assert answer.status_code != 503 or int(answer.headers["Retry-After"]) >= 1
        except httpx2.HTTPError as error:
            said = type(error).__name__
        with lock:
            answers[said] += 1

    with closing(Worker(settings)) as worker:
        worker.silent = True
        # if sixty clients send 15 MiB each at once,
        clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        peak = peak_mib(pid)
        figures(clients=CLIENTS, answers=dict(answers), idle_mib=idle, peak_mib=peak)
        # I expect each to have an answer, most of them that they should try again, and the memory to stay bounded.
        assert set(answers) <= {"503 service_unavailable", "503 overloaded", "504 expired"}, answers
        assert answers["503 service_unavailable"] and peak < MOST_MIB
        # Once they are gone, there is room again.
        worker.silent = False

        def answered() -> bool:
            place, kind = f"{api.url}/v1/models/{REF}/classify", {"Content-Type": "image/jpeg"}
            return httpx2.post(place, content=b"an owl", headers=headers | kind, timeout=60).status_code == 200

        wait_until(answered, 30, "an answer")
