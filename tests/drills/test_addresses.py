"""Drill: a manifest of addresses that lead inside, in every way known, makes a whole worker connect to none."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.attacks.vectors import vectors
from tests.mill import Mill
from tests.sites import LOOPBACK, Canary, send, site


def test_vectors_inside_make_no_connection(tmp_path: Path, long: bool, figures: Callable[..., None]) -> None:
    photo = next((Path(__file__).parents[2] / "deploy" / "photos").glob("*.jpg")).read_bytes()
    targets: list[str] = []
    seen: set[str] = set()
    lock = threading.Lock()

    def answer(request: BaseHTTPRequestHandler) -> None:
        """A host that the operator trusts, one of whose pages redirects."""
        with lock:
            seen.add(request.path)
        name, _, number = request.path.strip("/").partition("/")
        if name == "to" and number.isdigit():
            send(request, 302, Location=targets[int(number)].encode().decode("latin-1").replace("\t", "%09"))
        else:
            send(request, 200 if name == "good" else 404, photo if name == "good" else b"")

    # Given a service inside, an attacker with a name server, and a host that the operator opened by its name,
    with (
        Canary().listening(LOOPBACK, "::1") as canary,
        site(answer) as port,
        Mill(
            tmp_path,
            workers=1,
            app="tests.drills.rebinding",
            fetch_allow="public.test",
            fetch_ports="1-65535",
            fetch_seconds=5,
        ).running() as mill,
    ):
        direct = [
            *vectors(canary.port),
            f"http://inside.test:{canary.port}/",
            f"http://metadata.test:{canary.port}/",
            f"http://mixed.test:{canary.port}/",
            *(f"http://{n}.rebind.test:{canary.port}/" for n in range(4)),
            f"s3://{mill.settings.bucket}-other/secret.jpg",
        ]
        targets += direct[:-1]
        urls = [*direct, *(f"http://public.test:{port}/to/{n}" for n in range(len(targets)))]
        good = [f"http://public.test:{port}/good/{n}" for n in range(200 if long else 20)]
        mill.client.backend.store.put("attack.jsonl", b"\n".join(json.dumps({"uri": u}).encode() for u in urls + good))
        # if the manifest is labelled, I expect a row for each, an error for all but the good ones,
        job = mill.client.classify(
            f"s3://{mill.settings.bucket}/attack.jsonl", model="efficientnet-lite0", max_errors="100%"
        ).id
        status = mill.finished(job, 240)
        codes = Counter(row["error_code"] or "ok" for row in mill.client.results(job))
        figures(vectors=len(urls), connections=canary.connections, rows=status.done, **codes)
        assert status.total == status.done == len(urls) + len(good)
        assert status.ok == len(good) == codes["ok"]
        assert codes["address_refused"] >= len(direct)
        # and no connection, though every redirect was followed as far as its Location.
        assert len(urls) >= 50
        assert {f"/to/{n}" for n in range(len(targets))} <= seen
        assert canary.connections == 0
