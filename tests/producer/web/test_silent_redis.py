"""The HTTP API and the console while Redis hangs: it takes connections, and answers nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest

from contract.backend import redis_client
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.keys.online import served_record
from contract.online.served import Served
from contract.settings import Settings
from tests.serving import Api, codes, serving
from tests.waiting import wait_until

MANY = 100
SECONDS = 300.0
"""Ends a test that hangs."""
THREADS = 40
"""Threads of the server in which routes run."""


@contextmanager
def stopped(ledger: Ledger) -> Iterator[Callable[[], None]]:
    """Stop the process of Redis while the block runs, or until what is yielded is called."""
    pid = ledger.info()["process_id"]

    def go_on() -> None:
        os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


@contextmanager
def signed_in(api: Api) -> Iterator[httpx2.Client]:
    """A client for the HTTP API and the console."""
    text = api.token("admin", "jobs", "review")
    headers = {"Authorization": f"Bearer {text}", "Origin": api.url}
    limits = httpx2.Limits(max_connections=MANY)
    with httpx2.Client(base_url=api.url, headers=headers, timeout=SECONDS, limits=limits) as client:
        assert client.post("/console/sign-in", data={"token": text}).status_code == 303
        yield client


def test_everything_is_answered_with_what_the_bucket_knows(api: Api, ledger: Ledger, model: str) -> None:
    with signed_in(api) as client, ThreadPoolExecutor(MANY) as pool:
        body = {"command": "classify", "source": f"s3://{api.store.bucket}/photos/", "model": model}
        id = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
        known = ("/console/jobs", f"/console/jobs/{id}", "/v1/jobs", f"/v1/jobs/{id}")
        unknown = ("/console/workers", "/v1/workers")
        paths = [*known, *unknown]

        with stopped(ledger):
            # Given a Redis that is stopped, if many ask at once, I expect each to be answered:
            asked = [pool.submit(client.get, paths[n % len(paths)]) for n in range(MANY)]
            answers = [one.result() for one in asked]
            assert set(codes(answers)) == {200, 503}
            # what the bucket does not know as an error that passes,
            for path in unknown:
                answer = client.get(path)
                assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
                assert "The queue of this server does not answer" in answer.text
            assert answer.json()["code"] == "redis_unavailable"
            assert client.post("/v1/jobs", json=body).json()["code"] == "redis_unavailable"
            # and the rest as far as it is known, which pages say.
            for path in known:
                answer = client.get(path)
                assert answer.status_code == 200 and id in answer.text
                assert ("The queue of this server does not answer" in answer.text) == path.startswith("/console")
        # Once it goes on, I expect all to be as before, without anybody's doing.
        wait_until(lambda: client.get("/v1/workers").status_code == 200, 30, "Redis to be found")
        assert set(codes([client.get(path) for path in paths])) == {200}
        assert "The queue of this server" not in client.get("/console/jobs").text
        assert client.post("/v1/jobs", json=body).status_code == 202


def test_a_pause_fails_nobody_and_served_models_answer_meanwhile(
    settings: Settings, store: ObjectStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "INTERACTIVE_SECONDS", SECONDS)
    store.put(served_record("birds", 1), Served(name="birds", version=1, task="classify", created_at="x").to_json())
    with (
        serving(settings, store) as api,
        signed_in(api) as client,
        ThreadPoolExecutor(MANY) as pool,
        stopped(ledger) as go_on,
    ):
        # Given a Redis that pauses, for less than somebody waits, so that routes wait in all threads there are,
        asked = [pool.submit(client.get, "/v1/workers") for _ in range(MANY)]

        def busy() -> bool:
            return sum(thread.name == "AnyIO worker thread" for thread in threading.enumerate()) >= THREADS

        wait_until(busy, 60, "all threads to wait")
        # if a served model is asked, with a token that is not known here, I expect an answer by its own Redis,
        # which has heard of no worker,
        head = {"Authorization": f"Bearer {api.token('infer')}", "Content-Type": "image/jpeg"}
        answer = httpx2.post(f"{api.url}/v1/models/birds@1/classify", content=b"1", headers=head, timeout=SECONDS)
        assert answer.json()["code"] == "overloaded", answer.text
        assert not any(one.done() for one in asked)
        # and all others to be answered once Redis goes on.
        go_on()
        assert set(codes([one.result() for one in asked])) == {200}
