"""Jobs over HTTP, as a client without keys of Redis and the bucket sees them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from contract.backend.ledger import Ledger
from contract.backend.named_records import NamedRecords
from contract.backend.objects import ObjectStore
from contract.datasets.records import DatasetRecord
from contract.datasets.versions import Datasets
from contract.errors import InvalidSettings, StoreUnavailable
from contract.jobs.options import COMMANDS
from contract.jobs.schedules import Schedules
from contract.settings import Settings
from contract.watches.record import Watches
from contract.web.tokens import Tokens
from producer.web import access
from producer.web.app import make_app
from producer.web.following import Follower
from producer.web.owned import Owned
from producer.web.v1 import events, jobs
from producer.web.v1.events import event_id
from tests.producer.web.console.rows import commit_rows
from tests.serving import Api, codes, serving
from tests.waiting import wait_until


def body(store: ObjectStore, model: str, **more: Any) -> dict[str, Any]:
    return {"command": "classify", "source": f"s3://{store.bucket}/photos/", "model": model, **more}


def all_jobs(client: httpx2.Client, limit: int) -> Iterator[dict[str, Any]]:
    """The jobs of all pages."""
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/v1/jobs", params={"limit": limit, "cursor": cursor}).json()
        yield from page["jobs"]
        cursor = page["cursor"]


def test_a_job_is_submitted_shown_listed_canceled_and_deleted(api: Api, model: str) -> None:
    with api.client("jobs") as client:
        # Given a job that I submitted,
        answer = client.post("/v1/jobs", json=body(api.store, model, top_k=2, priority="high"))
        assert answer.status_code == 202
        job = answer.json()
        assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
        assert (job["owner"], job["priority"], job["model"]) == ("ann", "high", "shapes@1")
        # I expect to find it, to change its share, to cancel it,
        place = answer.headers["Location"]
        assert client.get(place).json()["id"] == job["id"]
        assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]
        assert client.patch(place, json={"weight": 3}).json()["weight"] == 3
        assert client.delete(place).status_code == 409, "it has not ended"
        assert client.post(f"{place}/cancel").json()["state"] == "canceled"
        # and, once it has ended, to resume it, when it is listed once,
        assert client.post(f"{place}/resume").json()["state"] in ("queued", "planning")
        assert [one["id"] for one in all_jobs(client, limit=1)] == [job["id"]]
        # and to delete it.
        assert client.post(f"{place}/cancel").status_code == 200
        assert client.get(f"{place}/results").text == ""
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == 404


def test_the_same_key_is_the_same_job_whoever_is_faster(api: Api, model: str) -> None:
    headers = {"Idempotency-Key": "nightly-1"}
    with api.client("jobs") as client, api.client("jobs", owner="bob") as other:
        # Given one request sent eight times at once, I expect one job.
        def send(_: int) -> httpx2.Response:
            return client.post("/v1/jobs", json=body(api.store, model), headers=headers)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, range(8)))
        assert set(codes(answers)) == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        # Another request with the key is refused; the key of another owner is another key.
        again = client.post("/v1/jobs", json=body(api.store, model, top_k=1), headers=headers)
        assert (again.status_code, again.json()["code"]) == (422, "key_reused")
        theirs = other.post("/v1/jobs", json=body(api.store, model), headers=headers)
        assert theirs.status_code == 202 and theirs.json()["id"] != answers[0].json()["id"]
        assert client.post("/v1/jobs", json=body(api.store, model, job="x"), headers=headers).status_code == 422


def test_of_two_requests_with_one_key_at_once_one_comes_first(api: Api, model: str) -> None:
    with api.client("jobs") as client, ThreadPoolExecutor(8) as pool:
        # Given eight requests with one key at once, each for something else, I expect one job and seven refusals.
        def send(n: int) -> httpx2.Response:
            sent = body(api.store, model, top_k=n + 1)
            return client.post("/v1/jobs", json=sent, headers={"Idempotency-Key": "nightly-1"})

        answers = list(pool.map(send, range(8)))
        assert sorted(codes(answers)) == [202] + [422] * 7
        assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"key_reused"}
        assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_requests_that_wait_for_a_key_keep_nobody_else_waiting(
    api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more requests with one key than the server has threads, while another one is about to submit their job,
    monkeypatch.setattr(jobs, "_KEY_SECONDS", 90.0)
    free, looking, lock, of_key = threading.Event(), list[Owned](), Ledger.lock, jobs._of_key

    @contextmanager
    def taken(ledger: Ledger, *name: Any) -> Iterator[Any]:
        if name[0] == "key" and not free.is_set():
            yield None
            return
        with lock(ledger, *name) as got:
            yield got

    def looked(owned: Owned, *what: str) -> Any:
        looking.append(owned)
        return of_key(owned, *what)

    monkeypatch.setattr(Ledger, "lock", taken)
    monkeypatch.setattr(jobs, "_of_key", looked)
    sent, headers = body(api.store, model), {"Idempotency-Key": "nightly-1"}
    with api.client("jobs") as client, ThreadPoolExecutor(44) as pool:
        answers = [pool.submit(client.post, "/v1/jobs", json=sent, headers=headers, timeout=120) for _ in range(44)]
        try:
            wait_until(lambda: len({id(owned) for owned in looking}) >= 40, 60, "40 requests that wait")
            # if somebody asks for something else, I expect an answer, and one job for the others once they may.
            assert client.get("/v1/jobs").json()["jobs"] == []
        finally:
            free.set()
        assert set(codes([answer.result(120) for answer in answers])) == {202}
        assert len({answer.result().json()["id"] for answer in answers}) == 1


def test_a_key_finishes_what_a_request_that_failed_has_begun(
    api: Api, model: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, put = {"Idempotency-Key": "nightly-1"}, ObjectStore.put

    def broken(store: ObjectStore, key: str, *how: Any, **more: Any) -> Any:
        if key.startswith("active/"):
            raise StoreUnavailable("The store went away.")
        return put(store, key, *how, **more)

    with api.client("jobs") as client:
        # Given a request of which the spec was written and nothing else,
        with monkeypatch.context() as patched:
            patched.setattr(ObjectStore, "put", broken)
            assert client.post("/v1/jobs", json=body(api.store, model), headers=headers).status_code == 503
        assert list(ledger.active()) == []
        # if it is sent again, I expect the job to be begun; if that was refused, the key to be free.
        again = client.post("/v1/jobs", json=body(api.store, model), headers=headers)
        assert again.status_code == 202 and list(ledger.active()) == [again.json()["id"]]
        assert [entry.key for entry in api.store.list("active/")] == [f"active/{again.json()['id']}"]
        other = {"Idempotency-Key": "nightly-2"}
        assert client.post("/v1/jobs", json=body(api.store, "none"), headers=other).status_code == 404
        assert client.post("/v1/jobs", json=body(api.store, model), headers=other).status_code == 202


def test_a_name_that_another_owner_has_is_refused_without_a_word_about_its_job(api: Api, model: str) -> None:
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob:
        assert ann.post("/v1/jobs", json=body(api.store, model, job="mine", embed=True)).status_code == 202
        answer = bob.post("/v1/jobs", json=body(api.store, model, job="mine"))
        assert answer.status_code == 409 and "embed" not in answer.text and "ann " not in answer.text
        # The same owner again, with other options, is told what differs.
        assert "embed" in ann.post("/v1/jobs", json=body(api.store, model, job="mine")).text


def test_another_owners_job_is_as_if_it_were_not_there(api: Api, model: str) -> None:
    with (
        api.client("jobs") as ann,
        api.client("jobs", owner="bob") as bob,
        api.client("admin", owner="root") as root,
    ):
        id = ann.post("/v1/jobs", json=body(api.store, model)).json()["id"]
        unknown = bob.get("/v1/jobs/no-such-job")
        for method, path in (
            *(("GET", part) for part in ("", "/results", "/events", "/report", "/history")),
            *(("POST", part) for part in ("/cancel", "/resume", "/retry")),
            ("DELETE", ""),
        ):
            answer = bob.request(method, f"/v1/jobs/{id}{path}")
            assert answer.status_code == 404, (method, path, answer.text)
            assert answer.json()["detail"].replace(id, "no-such-job") == unknown.json()["detail"]
        assert bob.patch(f"/v1/jobs/{id}", json={"weight": 2}).status_code == 404
        assert bob.get("/v1/jobs").json()["jobs"] == []
        # Nor is it a source, by name or by address.
        for source in (f"job:{id}", f"s3://{api.store.bucket}/jobs/{id}/"):
            made = {"command": "train", "family": "cnn", "name": "theirs", "source": source}
            assert bob.post("/v1/jobs", json=made).status_code in (404, 422), source
        assert bob.post("/v1/jobs", json={"command": "verify", "made": id}).status_code == 404
        # An admin sees and steers it.
        assert root.get(f"/v1/jobs/{id}").json()["owner"] == "ann"
        assert root.post(f"/v1/jobs/{id}/cancel").status_code == 200


def test_a_page_ends_where_the_next_begins(api: Api, model: str) -> None:
    with api.client("jobs") as client, api.client("jobs", owner="bob") as bob:
        # Given jobs that run, jobs that have ended, and those of another owner between them,
        made = []
        for n in range(7):
            made.append(client.post("/v1/jobs", json=body(api.store, model)).json()["id"])
            id = bob.post("/v1/jobs", json=body(api.store, model)).json()["id"]
            if n % 2:
                bob.post(f"/v1/jobs/{id}/cancel")
        for id in made[:4]:
            client.post(f"/v1/jobs/{id}/cancel")
        # if I turn pages of two, I expect each of mine once: what runs first, newest first.
        found, cursor = [], ""
        while True:
            page = client.get("/v1/jobs", params={"limit": 2, "cursor": cursor}).json()
            found += [job["id"] for job in page["jobs"]]
            if not page["cursor"]:
                break
            cursor = page["cursor"]
        assert found == [*made[:3:-1], *made[3::-1]]
        # A page also begins behind a job, if that has ended and is the client's.
        page = client.get("/v1/jobs", params={"limit": 2, "before": made[3]}).json()
        assert [job["id"] for job in page["jobs"]] == made[2:0:-1]
        assert client.get("/v1/jobs", params={"before": made[6]}).status_code == 404
        assert bob.get("/v1/jobs", params={"before": made[3]}).status_code == 404
        assert client.get("/v1/jobs", params={"before": made[3], "cursor": page["cursor"]}).status_code == 422
        for wrong in ("x", "!!", "b3BlbiAx\n", "b3BlbiAx", "ZW5kZWQgLi4vLi4v"):
            assert client.get("/v1/jobs", params={"cursor": wrong}).status_code == 422, wrong


def test_a_job_is_on_one_page_whatever_ends_comes_and_goes_meanwhile(api: Api, model: str) -> None:
    with api.client("jobs") as client:

        def submitted() -> str:
            return str(client.post("/v1/jobs", json=body(api.store, model)).json()["id"])

        # Given five jobs that run and two that have ended,
        made = [submitted() for _ in range(7)]
        for id in made[:2]:
            client.post(f"/v1/jobs/{id}/cancel")
        # if between any two pages one that was shown ends and another one is deleted, one that was not shown ends, and
        # one comes,
        found, cursor = list[str](), ""
        while True:
            page = client.get("/v1/jobs", params={"limit": 2, "cursor": cursor}).json()
            found += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
            if not cursor:
                break
            for id in found[-2:]:
                client.post(f"/v1/jobs/{id}/cancel")
            client.delete(f"/v1/jobs/{found[-2]}")
            if left := [id for id in made[2:] if id not in found]:
                client.post(f"/v1/jobs/{left[-1]}/cancel")
            submitted()
        # I expect each that was there before the first page once, and no other.
        assert sorted(found) == sorted(made)


def test_jobs_are_deleted_together_or_not_at_all(api: Api, model: str) -> None:
    with api.client("jobs") as client, api.client("jobs", owner="bob") as bob, api.client("review") as review:
        ended, runs = (client.post("/v1/jobs", json=body(api.store, model)).json()["id"] for _ in range(2))
        client.post(f"/v1/jobs/{ended}/cancel")
        theirs = bob.post("/v1/jobs", json=body(api.store, model)).json()["id"]
        bob.post(f"/v1/jobs/{theirs}/cancel")
        for jobs, status in (([ended, runs], 409), ([ended, theirs], 404), ([ended, "none"], 404), ([], 422)):
            assert client.post("/v1/jobs/remove", json={"jobs": jobs}).status_code == status, jobs
        assert review.post("/v1/jobs/remove", json={"jobs": [ended]}).status_code == 403
        assert client.get(f"/v1/jobs/{ended}").json()["state"] == "canceled"
        (removed,) = client.post("/v1/jobs/remove", json={"jobs": [ended]}).json()
        assert removed["job"] == ended and removed["objects"] > 0 and removed["bytes"] > 0
        assert client.get(f"/v1/jobs/{ended}").status_code == 404


def test_a_method_that_is_not_answered_is_refused_with_those_that_are(api: Api) -> None:
    with api.client("jobs") as client:
        for place, expected in (
            *(("/v1/jobs", "GET, HEAD, POST"), ("/v1/jobs/x", "DELETE, GET, HEAD, PATCH"), ("/v1/token", "GET, HEAD")),
            ("/v1/jobs/remove", "DELETE, GET, HEAD, PATCH, POST"),
        ):
            answer = client.put(place)
            assert (answer.status_code, answer.headers["Allow"]) == (405, expected), place
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "method_not_allowed"


def test_head_is_get_without_its_body_at_every_kind_of_address(api: Api, model: str) -> None:
    with api.client("admin") as client:
        place = client.post("/v1/jobs", json=body(api.store, model)).headers["Location"]
        commit_rows(api.store, place.rpartition("/")[2], [{"key": f"{n}.jpg", "label": "disc"} for n in range(3)], 0)
        for path in ("/livez", "/readyz", "/openapi.json", "/v2", "/v1/token", "/v1/jobs", place, "/v1/jobs/none"):
            # Given what is answered whole, or refused, I expect the same status and headers, and nothing behind them,
            head, get = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            for name in ("Content-Type", "Content-Length", "Cache-Control"):
                assert head.headers.get(name) == get.headers.get(name), (path, name)
        # and of a stream its head alone, also where it would go on until the job ends.
        for path, kind in ((f"{place}/results", "application/x-ndjson"), (f"{place}/events", "text/event-stream")):
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"") and head.headers["Content-Type"].startswith(kind)
        # What answers no GET answers no HEAD.
        refused = client.head(f"{place}/cancel")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
        assert client.get(place).json()["state"] in ("queued", "planning")
    assert (httpx2.head(f"{api.url}/v1/jobs").status_code, httpx2.head(f"{api.url}/console").status_code) == (401, 303)
    assert httpx2.head(f"{api.url}/console/sign-in").content == b""


SOURCES = [
    *("/etc", "./photos", "photos", "~/x", "../x", "file:///etc/passwd", "FILE:/etc", "\\\\host\\share", "."),
    *("http://169.254.169.254/latest/", "https://example.com/a.jpg", "upload:../../x", "job:../x", "dataset:../x"),
    *("s3://", "s3:///etc", "s3://other-bucket/x/", "s3://{bucket}/jobs/", "s3://{bucket}/", "s3://{bucket}/jo"),
    *("s3://{bucket}/tokens/", "s3://{bucket}/models/", "s3://{bucket}/photos/../jobs/", "s3://{bucket}//jobs/"),
    *("s3://{bucket}/%6aobs/", "s3://{bucket}/uploads/", "s3://{bucket}/x\r\ny", "s3://{bucket}/a\x00b", ""),
]


def test_no_request_makes_the_server_read_its_disk_or_what_is_not_the_clients(
    api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that would look at its disk, if it looked anywhere,
    from producer.sources import images, labelled

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the server looked at its own disk")

    for module, name in ((images, "_folder"), (images, "_manifest"), (images, "_tars"), (labelled, "_check_classes")):
        monkeypatch.setattr(module, name, touched)
    fine = f"s3://{api.store.bucket}/photos/"
    with api.client("jobs") as client:
        for named in (source.replace("{bucket}", api.store.bucket) for source in SOURCES):
            # if a client names any of these in any command, a schedule or a watch, I expect a refusal.
            for made in (
                body(api.store, model, source=named),
                {"command": "train", "family": "cnn", "name": "x", "source": named},
                {"command": "train", "family": "cnn", "name": "x", "source": [fine, named]},
                {"command": "evaluate", "model": model, "source": named},
                {"command": "generate", "model": model, "reconstruct": named},
                {"command": "generate", "model": model, "interpolate": [named, named], "classes": ["disc"]},
                {"command": "synthesize", "model": model, "gate": model, "per_class": 1, "away_from": named},
                {"command": "synthesize", "model": model, "gate": model, "balance": named},
            ):
                answer = client.post("/v1/jobs", json=made)
                assert answer.status_code in (404, 422), (made, answer.text)
            schedule = {"name": "x", "cron": "0 2 * * *", "job": body(api.store, model, source=named)}
            assert client.post("/v1/schedules", json=schedule).status_code in (404, 422), named
            watch = {"name": "w", "source": named, "model": model}
            assert client.post("/v1/watches", json=watch).status_code == 422, named
    assert list(api.store.list("jobs/")) == []


def test_a_watch_starts_no_schedule_of_others_and_moves_nothing_to_closed_buckets(api: Api, model: str) -> None:
    with api.client("jobs", owner="ann") as ann, api.client("jobs", owner="eve") as eve:
        schedule = {"name": "nightly", "cron": "0 2 * * *", "job": body(api.store, model)}
        assert ann.post("/v1/schedules", json=schedule).status_code == 201
        watch = {"name": "w", "source": f"s3://{api.store.bucket}/photos/", "model": model}
        # If eve's watch names ann's schedule, I expect the answer for one that does not exist, and nobody's names;
        theirs, none = (eve.post("/v1/watches", json={**watch, "then": then}) for then in ("nightly", "nightl"))
        assert theirs.status_code == none.status_code == 404
        assert theirs.json()["detail"].replace("nightly", "nightl") == none.json()["detail"]
        # and no archive in a bucket that the API does not open.
        archive = {**watch, "overwrites": "again", "archive": "s3://elsewhere/x/"}
        assert eve.post("/v1/watches", json=archive).status_code == 422
        assert eve.get("/v1/watches/w").status_code == 404
        assert ann.post("/v1/watches", json={**watch, "then": "nightly"}).status_code == 201


def test_results_go_to_no_bucket_that_is_not_opened(api: Api, model: str) -> None:
    with api.client("jobs") as client:
        for to in (
            "s3://other-bucket/x/",
            f"s3://{api.store.bucket}/jobs/x/",
            "/tmp/x",
            f"s3://{api.store.bucket}/tokens/",
        ):
            assert client.post("/v1/jobs", json=body(api.store, model, to=to)).status_code == 422, to


def test_every_option_of_every_command_is_a_field_of_its_body(api: Api) -> None:
    schemas = httpx2.get(f"{api.url}/openapi.json", timeout=60).json()["components"]["schemas"]
    for name, model in COMMANDS.items():
        fields = set(schemas[f"{name.capitalize()}Job"]["properties"])
        assert fields == {*model.model_fields, "command", "job"}


def test_what_is_wrong_is_said_field_by_field(api: Api, model: str) -> None:
    with api.client("jobs") as client:
        problem = client.post("/v1/jobs", json=body(api.store, model, top_k=0, weigth=1)).json()
        assert {fault["pointer"] for fault in problem["errors"]} == {"/top_k", "/weigth"}
        for text in ("", "{", "[" * 100_000, '{"command": "classify", "weight": NaN}', "nul", '"x"', "[]", "1e999"):
            answer = client.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422), (text[:20], answer.text)
        # What curl sends unless told otherwise is a form.
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            problem = client.post("/v1/jobs", content="{}", headers={"Content-Type": kind}).json()
            assert (problem["code"], problem["status"]) == ("unsupported_media_type", 415)
            assert "Content-Type: application/json" in problem["detail"]
        for wrong in ({"command": "rm"}, {}):
            (fault,) = client.post("/v1/jobs", json=wrong).json()["errors"]
            assert fault["pointer"] == "/command" and "classify, train" in fault["detail"]
        (fault,) = client.post("/v1/schedules", json={"name": "a", "cron": "@daily", "job": {}}).json()["errors"]
        assert fault["pointer"] == "/job/command"
        assert "\\ud800" not in client.post("/v1/jobs", content='{"command": "\\ud800"}').text


def test_a_scope_opens_what_it_says_and_no_more(api: Api, model: str) -> None:
    with api.client("review") as review, api.client("infer") as infer, api.client("jobs") as jobs:
        id = jobs.post("/v1/jobs", json=body(api.store, model)).json()["id"]
        assert review.get(f"/v1/jobs/{id}").status_code == 200
        for method, path in (("POST", "/v1/jobs"), ("POST", f"/v1/jobs/{id}/cancel"), ("POST", "/v1/uploads")):
            sent = body(api.store, model) if path == "/v1/jobs" else {"files": ["a.jpg"]}
            assert review.request(method, path, json=sent).status_code == 403, path
            assert infer.request(method, path, json=sent).status_code == 403, path
        assert infer.get("/v1/jobs").status_code == 403
        for path in ("/v1/workers", "/v1/fleet"):
            assert jobs.get(path).status_code == 403, path
        assert jobs.post("/v1/workers/drain", json={"all_of": "default"}).status_code == 403


def test_a_request_waits_for_the_end_if_it_prefers_to(api: Api, model: str) -> None:
    with api.client("jobs") as client, ThreadPoolExecutor(1) as pool:
        # Given a job that nobody runs, I expect the wait to end with it as it is,
        answer = client.post("/v1/jobs", json=body(api.store, model), headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
        # and a wait that goes on when it ends, to say so.
        place = answer.headers["Location"]
        for prefer in ("respond-async", "waiting=3", "handling=wait-less"):
            assert "Preference-Applied" not in client.get(place, headers={"Prefer": prefer}).headers, prefer
        waiting = pool.submit(client.get, place, headers={"Prefer": "respond-async, wait=60"})
        client.post(f"{place}/cancel")
        assert waiting.result(60).json()["state"] == "canceled"
        # A minute is the most, and what a wait without a number is.
        for prefer in ("wait", "wait=999", "wait; x=1, respond-async"):
            assert client.get(place, headers={"Prefer": prefer}).headers["Preference-Applied"] == "wait=60", prefer


def test_events_tell_each_state_once_and_go_on_after_the_last_that_was_seen(api: Api, model: str) -> None:
    with api.client("jobs") as client:
        place = client.post("/v1/jobs", json=body(api.store, model)).headers["Location"]
        # Given a client that has heard of the job before it is canceled,
        with client.stream("GET", f"{place}/events") as answer, api.client("jobs") as other:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            pieces = answer.iter_text()
            text = ""
            while "\n\n" not in text.partition("data: ")[2]:
                text += next(pieces)
            assert other.post(f"{place}/cancel").status_code == 200
            text += "".join(pieces)
        # I expect the states with their ids, and the end last.
        told = [dict(line.split(": ", 1) for line in one.split("\n")) for one in text.split("\n\n") if "data" in one]
        states = [json.loads(event["data"])["state"] for event in told]
        assert states[-1] == "canceled"
        assert [event["event"] for event in told] == ["status"] * (len(told) - 1) + ["end"]
        assert len({event["id"] for event in told}) == len(told)
        # Who has seen the end gets nothing; who has not, the end alone.
        again = client.get(f"{place}/events", headers={"Last-Event-ID": told[-1]["id"]})
        assert again.status_code == 204
        late = client.get(f"{place}/events", headers={"Last-Event-ID": told[0]["id"]}).text
        assert late.count("data: ") == 1 and "event: end" in late


def test_a_client_goes_on_behind_what_it_saw_when_the_server_is_another(
    api: Api, model: str, settings: Settings, store: ObjectStore
) -> None:
    with api.client("jobs") as client:
        place = client.post("/v1/jobs", json=body(api.store, model)).headers["Location"]
        with client.stream("GET", f"{place}/events") as answer:
            last = next(line for line in answer.iter_lines() if line.startswith("id: ")).removeprefix("id: ")
        client.post(f"{place}/cancel")
        # Given another process, as after a restart, I expect it to know what the client saw, and to tell the end once.
        with serving(settings, store) as restarted, httpx2.Client(base_url=restarted.url, timeout=30) as later:
            headers = {"Authorization": client.headers["Authorization"], "Last-Event-ID": last}
            text = later.get(f"{place}/events", headers=headers).text
            assert text.count("data: ") == 1 and "event: end" in text
            end = text.partition("id: ")[2].partition("\n")[0]
            assert later.get(f"{place}/events", headers={**headers, "Last-Event-ID": end}).status_code == 204


def test_a_stream_ends_with_its_token(api: Api, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stream whose token is revoked, and a stream of another token,
    monkeypatch.setattr(access, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(events, "_SILENT_SECONDS", 0.1)
    text = api.token("jobs")
    headers = {"Authorization": f"Bearer {text}"}
    with httpx2.Client(base_url=api.url, headers=headers, timeout=60) as client, api.client("jobs") as other:
        place = client.post("/v1/jobs", json=body(api.store, model)).headers["Location"]
        with client.stream("GET", f"{place}/events") as open, other.stream("GET", f"{place}/events") as kept:
            lines, more = open.iter_lines(), kept.iter_lines()
            assert any(line.startswith("data: ") for line in lines)
            assert any(line.startswith("data: ") for line in more)
            Tokens(api.store).revoke(text)
            # I expect the one to end with the reason, before anything else is told, and the other to go on.
            assert [line for line in lines if line.startswith("event: ")] == ["event: error"]
            with api.client("jobs") as third:
                assert third.post(f"{place}/cancel").status_code == 200
            assert "event: end" in list(more)


def test_a_request_that_waits_ends_once_its_token_is_revoked(
    api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "_CHECK_SECONDS", 0.1)
    text = api.token("jobs")
    headers = {"Authorization": f"Bearer {text}", "Prefer": "wait=20"}
    with (
        httpx2.Client(base_url=api.url, headers=headers, timeout=60) as client,
        api.client("jobs") as other,
        ThreadPoolExecutor(2) as pool,
    ):
        # Given two requests that wait for a job, and the token of one, which is revoked,
        waits = pool.submit(client.post, "/v1/jobs", json=body(api.store, model, job="slow"))
        wait_until(lambda: other.get("/v1/jobs/slow").status_code == 200, 30, "the job")
        kept = pool.submit(other.get, "/v1/jobs/slow", headers={"Prefer": "wait=60"}, timeout=90)
        Tokens(api.store).revoke(text)
        # I expect that one to be refused, and the other to be told how the job ends.
        answer = waits.result(60)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_refused")
        assert other.post("/v1/jobs/slow/cancel").status_code == 200
        assert kept.result(90).json()["state"] == "canceled"


async def _follow_with_many(follower: Follower, status: Any, count: int) -> list[Any]:
    import asyncio

    async def one() -> Any:
        return await follower.end(status, 30)

    return await asyncio.gather(*(one() for _ in range(count)))


def test_however_many_listen_a_job_is_looked_at_once_each_time() -> None:
    import asyncio

    from contract.jobs.status import Status

    # Given a job that ends at the fifth look,
    status = Status(id="a-job", kind="classify", state="running")
    looks = iter([status, status, status, status, status.model_copy(update={"state": "succeeded"})])
    follower = Follower(lambda _: next(looks), seconds=0.01)
    # if a hundred clients wait for it, I expect five looks, and the end for each.
    found = asyncio.run(_follow_with_many(follower, status, 100))
    assert [one.state for one in found] == ["succeeded"] * 100 and follower.looks == 5
    assert event_id(found[0]) != event_id(status)


def test_a_look_that_fails_for_an_unforeseen_reason_ends_no_stream() -> None:
    import asyncio

    from contract.jobs.status import Status

    status = Status(id="a-job", kind="classify", state="running")
    looks: Iterator[Status | Exception] = iter(
        [RuntimeError("of a kind that nobody foresaw"), status.model_copy(update={"state": "succeeded"})]
    )

    def look(_: str) -> Status:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    found = asyncio.run(_follow_with_many(Follower(look, seconds=0.01), status, 3))
    assert [one.state for one in found] == ["succeeded"] * 3


def test_uploads_belong_to_who_made_them(api: Api, model: str) -> None:
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob:
        # Given an upload of two files of a class,
        upload = ann.post("/v1/uploads", json={"files": ["cats/1.jpg", "a b ü?.jpg"]}).json()
        for file in upload["files"]:
            assert httpx2.put(file["url"], content=b"x").status_code == 200
        assert len(list(api.store.list("uploads/"))) == 2
        # I expect a job of it for me alone,
        answer = ann.post("/v1/jobs", json=body(api.store, model, source=upload["source"]))
        assert answer.status_code == 202, answer.text
        assert bob.post("/v1/jobs", json=body(api.store, model, source=upload["source"])).status_code == 404
        address = answer.json()["source"]
        assert bob.post("/v1/jobs", json=body(api.store, model, source=address)).status_code == 422
        # and that I alone can delete it.
        assert bob.delete(f"/v1/uploads/{upload['id']}").status_code == 404
        assert ann.delete(f"/v1/uploads/{upload['id']}").status_code == 204
        assert list(api.store.list("uploads/")) == []
        for name in ("../x", "/x", "a//b", "a\r\nb", "a\\b", "", ".", "a/./b", "x" * 900):
            assert ann.post("/v1/uploads", json={"files": [name]}).status_code == 422, name


def test_links_for_uploads_have_the_address_that_clients_know(settings: Settings, store: ObjectStore) -> None:
    # Given a server that reaches the store under another name than its clients
    port = settings.s3_endpoint.rpartition(":")[2]
    with serving(settings, store, web_s3_endpoint=f"localhost:{port}") as api, api.client("jobs") as ann:
        # if I ask for a link, I expect it to have theirs, and the store to take the file.
        [file] = ann.post("/v1/uploads", json={"files": ["1.jpg"]}).json()["files"]
        assert file["url"].startswith(f"http://localhost:{port}/")
        assert httpx2.put(file["url"], content=b"x").status_code == 200
        assert [entry.key.rpartition("/")[2] for entry in store.list("uploads/")] == ["1.jpg"]


def test_a_wrong_address_for_links_is_named(settings: Settings) -> None:
    with pytest.raises(InvalidSettings, match="IMAGEMILL_WEB_S3_ENDPOINT"):
        make_app(settings.model_copy(update={"web_s3_endpoint": "ftp://x/y"}))


def test_schedules_and_watches_belong_to_who_added_them(api: Api, model: str) -> None:
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob:
        schedule = {"name": "nightly", "cron": "0 2 * * *", "job": body(api.store, model)}
        assert ann.post("/v1/schedules", json=schedule).status_code == 201
        assert ann.post("/v1/schedules", json=schedule).status_code == 422, "the name is taken"
        watch = {"name": "camera", "source": f"s3://{api.store.bucket}/photos/", "model": model, "every": "1s"}
        assert ann.post("/v1/watches", json=watch).status_code == 201
        for kind, name in (("schedules", "nightly"), ("watches", "camera")):
            place = f"/v1/{kind}/{name}"
            assert [one["name"] for one in ann.get(f"/v1/{kind}").json()] == [name]
            assert bob.get(f"/v1/{kind}").json() == []
            assert bob.get(place).status_code == bob.post(f"{place}/pause").status_code == 404
            assert bob.delete(place).status_code == 404
            assert ann.post(f"{place}/pause").json()["owner"] == "ann"
            assert ann.post(f"{place}/unpause").status_code == 200
        balanced = {"command": "synthesize", "model": model, "gate": model, "balance": "watch:camera"}
        assert "no watch 'camera'" in bob.post("/v1/jobs", json=balanced).json()["detail"]
        assert "does classify" in ann.post("/v1/jobs", json=balanced).json()["detail"], "it is hers"
        assert ann.post("/v1/schedules/nightly/run").status_code == 202
        assert len(ann.get("/v1/schedules/nightly/history").json()) == 1
        assert ann.get("/v1/watches/camera/results", params={"since": "15m"}).text == ""
        assert ann.get("/v1/watches/camera/results", params={"since": "9999999999d"}).status_code == 422
        assert ann.delete("/v1/schedules/nightly").status_code == ann.delete("/v1/watches/camera").status_code == 204


def test_a_record_is_taken_over_from_nobody_and_by_an_admin_from_anybody(api: Api, model: str) -> None:
    with (
        api.client("jobs") as ann,
        api.client("jobs", owner="bob") as bob,
        api.client("admin", owner="root") as root,
    ):
        # Given a schedule, a watch and a dataset of ann,
        schedule = {"name": "camera", "cron": "0 2 * * *", "job": body(api.store, model)}
        assert ann.post("/v1/schedules", json=schedule).status_code == 201
        watch = {"name": "camera", "source": f"s3://{api.store.bucket}/photos/", "model": model}
        assert ann.post("/v1/watches", json=watch).status_code == 201
        datasets = Datasets(api.store)
        datasets.add(DatasetRecord(name="camera", owner="ann", created_at="2026-11-26T08:30:12.345Z"))
        kinds: list[NamedRecords[Any]] = [Schedules(api.store), Watches(api.store), datasets]
        for records in kinds:
            place = f"/v1/{records.prefix}camera"
            # I expect bob to find as little to take over as under a name that nobody uses,
            answer, unknown = bob.post(f"{place}/own"), bob.post(f"/v1/{records.prefix}no-such/own")
            assert answer.status_code == unknown.status_code == 404
            assert answer.json()["detail"].replace("camera", "no-such") == unknown.json()["detail"]
            assert bob.post(f"{place}%2f..%2f/own").status_code == 404
            # an administrator to take it over, so that it is gone for ann,
            assert root.post(f"{place}/own").json()["owner"] == "root"
            assert ann.get(place).status_code == ann.post(f"{place}/own").status_code == 404
            # and whoever comes first to take over what nobody owns.
            records.change(records.get("camera"), owner="")
            assert bob.get(place).status_code == 404
            assert bob.post(f"{place}/own").json()["owner"] == "bob" == bob.get(place).json()["owner"]
            assert ann.post(f"{place}/own").status_code == 404
            assert records.get("camera").owner == "bob"


def test_models_are_for_all_and_change_for_their_owner(api: Api, model: str) -> None:
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob:
        assert [one["name"] for one in bob.get("/v1/models").json()] == ["shapes"]
        assert ann.put("/v1/models/shapes/aliases/live", json={"version": 1}).status_code == 200
        assert ann.get("/v1/models/shapes@live").json()["version"] == 1
        assert ann.get("/v1/models/shapes/aliases").json() == {"live": 1}
        assert ann.delete("/v1/models/shapes/aliases/live").status_code == 204
        assert ann.get("/v1/models/nothing").status_code == 404
        assert ann.post("/v1/models/shapes/own").status_code == 403
        for ref in ("..", "%2e%2e", "shapes@..", "a%2f..%2fb", "shapes@1%0d%0a"):
            assert ann.get(f"/v1/models/{ref}").status_code in (404, 422), ref


def test_a_server_that_loses_its_servers_says_so(api: Api, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from contract.backend.ledger import Ledger
    from contract.errors import RedisUnavailable

    def away(*_: object, **__: object) -> None:
        raise RedisUnavailable("Redis at 10.0.0.1:6379 does not answer; start it.")

    with api.client("jobs") as client:
        place = client.post("/v1/jobs", json=body(api.store, model)).headers["Location"]
        monkeypatch.setattr(Ledger, "status", away)
        monkeypatch.setattr(Ledger, "create", away)
        monkeypatch.setattr(Ledger, "exists", away)
        monkeypatch.setattr(Ledger, "info", away)
        # I expect to read what the bucket knows, and to be told when to submit again, without addresses.
        assert client.get(place).status_code == 200
        answer = client.post("/v1/jobs", json=body(api.store, model))
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.json()["code"] == "redis_unavailable" and "10.0.0.1" not in answer.text
        wait_until(lambda: httpx2.get(f"{api.url}/readyz").status_code == 503, 30, "the probe to notice")
        assert "10.0.0.1" not in httpx2.get(f"{api.url}/readyz").text
        assert httpx2.get(f"{api.url}/livez").status_code == 200
