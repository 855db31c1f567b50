"""Workers and tokens in the console, for operators."""

from __future__ import annotations

import re

from contract.web.tokens import Tokens
from tests.producer.web.console.conftest import Browse
from tests.serving import Api

HOSTILE = "<img src=x onerror=alert(1)>"


def test_tokens_are_listed_for_operators_without_what_lets_anybody_in(api: Api, browse: Browse) -> None:
    api.token("infer", owner="<b>eve</b>", rate=2.5, lives=60)
    client = browse("admin", owner="root")
    page = client.get("/console/tokens").text
    assert "&lt;b&gt;eve" in page and ">2.5</td>" in page and "this one" in page and "when revoked" in page
    assert not re.search(r"imk_[0-9a-f]{12}_", page)
    for token in Tokens(api.store).all():
        assert token.sha256 not in page and token.id in page
    assert browse("jobs").get("/console/tokens").status_code == 403


def test_workers_are_for_operators(browse: Browse) -> None:
    client = browse("admin")
    assert "Queues" in client.get("/console/workers").text and "Queues" in client.get("/console/workers/part").text
    assert "/console/workers" in client.get("/console/jobs").text
    unknown = client.post("/console/workers/drain", data={"worker": "nobody"})
    assert unknown.status_code == 422 and "worker" in unknown.text
    other = browse("jobs")
    assert other.get("/console/workers").status_code == 403
    assert "/console/workers" not in other.get("/console/jobs").text


def test_tokens_of_one_owner_are_told_apart_by_who_holds_them(api: Api, browse: Browse) -> None:
    api.token("review", person="<b>bob</b>")
    assert "held by &lt;b&gt;bob" in browse("admin").get("/console/tokens").text
