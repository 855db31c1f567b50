"""Receivers that are down, lie, drip and are well, a controller that is killed, and a Redis that is wiped.

The short form is down for seconds, the long one for ten minutes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from contract.jobs import lifecycle
from contract.jobs.specs import Classify, Source
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.outbox import Outbox
from tests.hooks import Receiver, well
from tests.mill import Mill
from tests.sites import drip, send
from tests.waiting import wait_until

DOWN_SECONDS = 600.0


def end(mill: Mill, job: str, hook: Endpoint) -> str:
    """A job that ends at once: nobody need run it."""
    store = mill.client.backend.store
    spec = Classify(
        id=job,
        source=Source(kind="prefix", uri=f"s3://{store.bucket}/photos/", label="photos"),
        model="m@1",
        weights_sha256="0" * 64,
        output=f"s3://{store.bucket}/jobs/{job}/out/",
        webhook=hook.id,
    )
    lifecycle.submit(mill.client.backend, spec, "ann")
    lifecycle.cancel(mill.client.backend, job)
    return job


class Liar:
    """Says 200 to each message and closes before the end of its answer, and is well the second time."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        id = request.headers["webhook-id"]
        self._told[id] += 1
        if self._told[id] == 1:
            request.send_response(200)
            request.send_header("Content-Length", "100")
            request.end_headers()
            request.close_connection = True
        else:
            send(request, 200)


@pytest.mark.timeout(1800)
def test_every_end_is_told_whatever_receivers_and_controllers_do(
    tmp_path: Path, long: bool, figures: Callable[..., None]
) -> None:
    gone = threading.Event()
    mill = Mill(tmp_path, workers=0)
    with ExitStack() as stack:
        stack.enter_context(mill.running())
        store = mill.client.backend.store
        endpoints, outbox, policy = Endpoints(store), Outbox(store), AddressPolicy("127.0.0.1", "1-65535")

        # Given receivers that are well, lie, and drip, one that a controller dies of, and one that nobody hears,
        quick, liar, deaf = Receiver(), Receiver(Liar()), Receiver()
        slow = Receiver(lambda request: drip(request, gone))
        killer = Receiver()
        hooks = {}
        for name, receiver in (("quick", quick), ("liar", liar), ("slow", slow), ("killer", killer)):
            stack.enter_context(receiver.listening())
            hooks[name] = endpoints.register(receiver.url(), "ann", policy)
        with deaf.listening():
            hooks["deaf"] = endpoints.register(deaf.url(), "ann", policy)

        def kill(request: BaseHTTPRequestHandler) -> None:
            """Take the message, and have the controller die before it can write that it was taken."""
            killer.behave = well
            mill.kill("controller")
            send(request, 204)

        killer.behave = kill
        down_at = time.monotonic()
        jobs = {name: [end(mill, f"{name}-{n}", hook) for n in range(3)] for name, hook in hooks.items()}

        # if the controller is killed after a message and before its record, and Redis is wiped,
        wait_until(lambda: killer.behave is well, 60, "the controller to be killed")
        mill.client.backend.ledger.redis.flushall()
        mill.supervisor.start("controller")

        # I expect the others undelayed,
        wait_until(lambda: delivered(outbox, hooks["quick"]) == 3, 60, "the quick one")
        jobs["quick"].append(end(mill, "quick-3", hooks["quick"]))
        began = time.monotonic()
        wait_until(lambda: delivered(outbox, hooks["quick"]) == 4, 60, "one more")
        undelayed = time.monotonic() - began
        # what the controller died of at least once, with one id for each end,
        wait_until(lambda: delivered(outbox, hooks["killer"]) == 3, 60, "what a controller died of")
        assert len(set(killer.ids)) == 3
        assert len(killer.ids) >= 4
        # what was lied about again,
        wait_until(lambda: delivered(outbox, hooks["liar"]) == 3, 60, "the liar")
        assert all(count >= 2 for count in Counter(liar.ids).values())

        # and once the deaf one hears and something happens, all that it missed.
        if long:
            time.sleep(max(0.0, DOWN_SECONDS - (time.monotonic() - down_at)))
        tried = [told.attempts for told in outbox.messages(hooks["deaf"].id, limit=9)]
        with deaf.listening():
            up_at = time.monotonic()
            jobs["deaf"].append(end(mill, "deaf-3", hooks["deaf"]))
            wait_until(lambda: delivered(outbox, hooks["deaf"]) == 4, 60, "the deaf one")
            caught_up = time.monotonic() - up_at
        gone.set()
        (secret,) = endpoints.secrets(hooks["deaf"].id)
        assert {post.verified(secret)["data"]["job"] for post in deaf.posts} == set(jobs["deaf"])

        for name, receiver in (("quick", quick), ("liar", liar), ("killer", killer), ("deaf", deaf)):
            assert {post.json["data"]["job"] for post in receiver.posts} == set(jobs[name])
            assert len(set(receiver.ids)) == len(jobs[name]), name
        assert Counter(deaf.ids).most_common(1)[0][1] == 1
        assert outbox.count_waiting(hooks["slow"].id) == 3
    figures(
        ends=sum(map(len, jobs.values())),
        twice=len(killer.ids) - len(set(killer.ids)),
        undelayed_seconds=f"{undelayed:.1f}",
        down_seconds=f"{up_at - down_at:.0f}",
        attempts_while_down=tried,
        caught_up_seconds=f"{caught_up:.1f}",
    )


def delivered(outbox: Outbox, hook: Endpoint) -> int:
    """How many messages to a webhook were delivered."""
    return sum(told.state == "delivered" for told in outbox.messages(hook.id, limit=99))
