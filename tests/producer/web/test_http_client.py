"""`HttpClient` does over HTTP what `Client` does, and has the same methods."""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import (
    InvalidInput,
    InvalidSource,
    Overloaded,
    ServiceUnavailable,
    TokenRefused,
    UnknownDataset,
    UnknownJob,
)
from contract.settings import Settings
from producer import Client, HttpClient
from producer.http_api import HttpApi
from tests.producer.web.console.rows import commit_rows
from tests.serving import Api
from tests.sites import send, site
from tests.waiting import wait_until
from tests.wires import tap

NEEDS_THE_BUCKET = {
    *("submit", "submit_watch", "acting_as"),
    *("add_upload_watch", "upload_to_watch"),
}
"""Methods of `Client` that write objects themselves, or take what only its own callers have."""


def methods(kind: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(one) for name, one in found if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    ours, theirs = methods(HttpClient), methods(Client)
    assert set(theirs) - set(ours) == NEEDS_THE_BUCKET
    assert set(ours) <= set(theirs)
    for name, signature in ours.items():
        assert list(signature.parameters) == list(theirs[name].parameters), name


def test_a_model_that_waits_for_a_place_is_given_up_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that has no place to try a model,
    file, now, asked = tmp_path / "a.safetensors", [0.0], list[tuple[float, float]]()
    file.write_bytes(b"weights")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def busy(*_: Any, json: dict[str, Any], timeout: float) -> Any:
        asked.append((json["timeout"], timeout))
        raise Overloaded("There is no place.", retry_after=30)

    upload = {"id": "0" * 16, "source": f"upload:{'0' * 16}", "files": [{"url": "http://store/"}]}
    monkeypatch.setattr("producer.http_client.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(HttpApi, "one", busy)
    for name, answer in (("json", upload), ("upload", None), ("send", None)):
        monkeypatch.setattr(HttpApi, name, lambda *_, answer=answer, **__: answer)
    # if I push one with a timeout, I expect each request to be given what is left of it.
    with HttpClient("http://127.0.0.1:1", "imk_x") as client, pytest.raises(Overloaded):
        client.push_model("birds", file, labels=["owl"], size=28, timeout=100)
    assert asked == [(100, 130), (70, 100), (40, 70), (10, 40)]


def test_a_notebook_labels_a_folder_with_a_token_alone(api: Api, model: str, tmp_path: Path) -> None:
    # Given a folder on this machine,
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name in ("a.jpg", "cats/b ü.png"):
        (folder / name).write_bytes(b"image")
    (folder / "notes.txt").write_bytes(b"no image")
    with HttpClient(api.url, api.token("jobs")) as client:
        # if I label it, I expect its images in the bucket, and the same call to be the same job.
        job = client.classify(folder, model=model, top_k=1, job="mine")
        assert job.id == "mine" and job.model == "shapes@1"
        uploaded = [entry.key for entry in api.store.list("uploads/")]
        assert sorted(key.split("/", 3)[3] for key in uploaded) == ["a.jpg", "cats/b ü.png"]
        assert client.classify(folder, model=model, top_k=1, job="mine").id == "mine"
        assert [one.id for one in client.jobs(limit=5)] == ["mine"]
        assert client.set_share("mine", weight=2.0).weight == 2
        client.cancel("mine")
        assert [status.state for status in client.follow("mine")] == ["canceled"]
        assert list(client.results("mine")) == list(client.errors("mine")) == []
        (removed,) = client.remove_jobs(["mine"])
        assert removed.job == "mine" and removed.objects > 0
        with pytest.raises(UnknownJob, match="mine"):
            client.status("mine")
        with pytest.raises(UnknownJob):
            list(client.results("mine"))


def test_rows_are_those_of_the_other_client_to_the_last_digit(api: Api, model: str, settings: Settings) -> None:
    with HttpClient(api.url, api.token("jobs")) as client, closing(Client(settings)) as other:
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job="mine", embed=True)
        for shard in range(3):
            rows = [
                {
                    "key": f"{shard}-{n}.jpg",
                    "label": "disc",
                    "score": 1 / 3,
                    "embedding": [0.1, n / 7],
                    "label_index": 0,
                }
                for n in range(500)
            ]
            bad = {"key": f"{shard}-bad.jpg", "status": "error", "error_code": "truncated", "embedding": None}
            commit_rows(api.store, "mine", [*rows, bad], shard)
        assert list(client.results("mine")) == list(other.results("mine"))
        assert list(client.errors("mine")) == list(other.errors("mine")) != []


def test_an_operator_cleans_up_and_rebuilds_with_an_admins_token(api: Api, model: str, settings: Settings) -> None:
    with HttpClient(api.url, api.token("jobs")) as client:
        for name in ("one", "two"):
            client.classify(f"s3://{api.store.bucket}/photos/", model=model, job=name)
        client.cancel("one")
        for attempt in (client.gc, client.rebuild):
            with pytest.raises(TokenRefused):
                list(attempt())
        with pytest.raises(TokenRefused):
            client.rebuild_index()
        with HttpClient(api.url, api.token("admin")) as root:
            # Given a wiped ledger and what a schedule that was removed has left,
            with closing(Ledger(settings)) as ledger:
                ledger.forget("one")
                ledger.forget("two")
            api.store.put("schedules/gone/ticks/2026-11-26T00-00-00Z.json", b"{}")
            # if an operator rebuilds, I expect both jobs as they stand in the bucket,
            assert sorted((one.id, one.state) for one in root.rebuild()) == [("one", "canceled"), ("two", "queued")]
            assert [one.id for one in root.rebuild(["two"])] == ["two"]
            with pytest.raises(UnknownJob):
                list(root.rebuild(["none"]))
            root.rebuild_index()
            assert [one.id for one in client.jobs()] == ["two", "one"]
            # and what nobody needs to be named, and then to be gone.
            assert [one for one in root.gc(dry_run=True) if one.what == "old ticks"] != []
            assert [one.job for one in root.gc() if one.what == "old ticks"] == ["gone"]
            assert [one for one in root.gc(dry_run=True) if one.what == "old ticks"] == []


def test_a_rebuild_reads_each_spec_once(
    api: Api, model: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpClient(api.url, api.token("admin")) as root:
        for name in ("one", "two"):
            root.classify(f"s3://{api.store.bucket}/photos/", model=model, job=name)
        read, get = Counter[str](), ObjectStore.get

        def counted(store: ObjectStore, key: str, **how: Any) -> bytes:
            read[key] += key.endswith("/spec.json")
            return get(store, key, **how)

        monkeypatch.setattr(ObjectStore, "get", counted)
        assert [one.id for one in root.rebuild(["one", "two"])] == ["one", "two"]
        assert +read == {"jobs/one/spec.json": 1, "jobs/two/spec.json": 1}
        with pytest.raises(UnknownJob):
            next(root.rebuild(["one", "none"]))


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", 1.0), ("-1", 1.0), ("", 1.0), ("1.5", 1.0)],
)
def test_whatever_asks_to_come_back_later_is_understood(asked: str, seconds: float) -> None:
    problem = json.dumps({"code": "overloaded", "detail": "Come back.", "status": "what?"}).encode()
    with site(lambda request: send(request, 503, problem, Retry_After=asked)) as port:
        with HttpClient(f"http://127.0.0.1:{port}", "imk_x") as client, pytest.raises(Overloaded) as told:
            client.status("a")
        assert told.value.retry_after == seconds


@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"", b'{"id": 1}'])
@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_that_is_not_the_apis_is_said_to_be_none(page: bytes, status: int) -> None:
    with (
        site(lambda request: send(request, status, page, Location="/login", Content_Type="text/html")) as port,
        HttpClient(f"http://127.0.0.1:{port}", "imk_x") as client,
    ):
        for ask in (lambda: client.status("a"), client.webhooks, client.fleet):
            with pytest.raises(ServiceUnavailable, match="does not answer as the HTTP API"):
                ask()


def test_rows_that_are_no_json_are_not_the_apis() -> None:
    with (
        site(lambda request: send(request, 200, b"<html>Sign in</html>")) as port,
        HttpClient(f"http://127.0.0.1:{port}", "imk_x") as client,
        pytest.raises(ServiceUnavailable, match="does not answer as the HTTP API"),
    ):
        list(client.reviewed("a"))


def test_a_fleet_is_read_with_an_admins_token(api: Api, model: str) -> None:
    with HttpClient(api.url, api.token("jobs")) as client:
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job="mine")
        with pytest.raises(TokenRefused):
            client.fleet()
    with HttpClient(api.url, api.token("admin")) as client:
        fleet = client.fleet()
        (job,) = fleet.jobs
        assert (job.id, job.model, job.shards.done) == ("mine", "shapes@1", 0)
        assert fleet.queue(job.queue).slots == 0 and fleet.rates.of("classify", job.model, "cpu").images_per_second


def test_what_is_refused_is_raised_as_the_other_client_raises_it(api: Api, model: str, tmp_path: Path) -> None:
    with HttpClient(api.url, api.token("review")) as client, pytest.raises(TokenRefused):
        client.classify(f"s3://{api.store.bucket}/photos/", model=model)
    with HttpClient(api.url, api.token("jobs")) as client:
        with pytest.raises(InvalidSource):
            client.classify(tmp_path / "none", model=model)
        with pytest.raises(InvalidInput, match="top_k"):
            client.classify(f"s3://{api.store.bucket}/photos/", model=model, top_k=0)
    with HttpClient("http://127.0.0.1:9", "imk_x", timeout=2) as client, pytest.raises(ServiceUnavailable):
        client.models()


def test_following_goes_on_when_its_connection_ends(api: Api, model: str) -> None:
    # Given somebody who follows a job over a connection that can be cut,
    with (
        tap(httpx2.URL(api.url).port or 80) as wire,
        HttpClient(f"http://127.0.0.1:{wire.port}", api.token("jobs")) as client,
    ):
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job="mine")
        seen: list[str] = []

        def follow() -> None:
            seen.extend(status.state for status in client.follow("mine"))

        follower = threading.Thread(target=follow)
        follower.start()
        wait_until(lambda: seen, 10, "the first state")
        # if it is cut twice, and the job ends meanwhile,
        wire.cut()
        asked = wire.connections
        wait_until(lambda: wire.connections > asked, 10, "another connection")
        wire.cut()
        with HttpClient(api.url, api.token("jobs")) as other:
            other.cancel("mine")
        # I expect to see the end, once.
        follower.join(60)
        assert seen[-1] == "canceled" and seen.count("canceled") == 1


def test_an_api_that_goes_away_in_a_stream_is_said_to_be_away(api: Api, model: str) -> None:
    with tap(httpx2.URL(api.url).port or 80) as wire:
        client = HttpClient(f"http://127.0.0.1:{wire.port}", api.token("jobs"), timeout=5)
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job="mine")
    # Given that nobody listens there any more, I expect each stream to say so.
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        list(client.results("mine"))
    client._patience = 0.0
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        list(client.follow("mine"))
    client.close()


def test_a_file_that_cannot_be_read_is_named(api: Api, model: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    os.symlink("nowhere", tmp_path / "b.jpg")
    with HttpClient(api.url, api.token("jobs")) as client, pytest.raises(InvalidSource, match=r"b\.jpg cannot be read"):
        client.classify(tmp_path, model=model)


def test_schedules_watches_and_models_are_there_too(api: Api, model: str) -> None:
    source = f"s3://{api.store.bucket}/photos/"
    with HttpClient(api.url, api.token("jobs")) as client:
        client.add_schedule("nightly", "classify", {"source": source, "model": model}, cron="0 2 * * *")
        assert client.pause_schedule("nightly").paused and not client.unpause_schedule("nightly").paused
        assert [one.name for one in client.schedules()] == ["nightly"]
        job = client.run_schedule("nightly")
        wait_until(lambda: client.schedule_history("nightly"), 10, "the run")
        client.cancel(job.id)
        assert client.own_schedule("nightly").owner == "ann"
        client.remove_schedule("nightly")
        assert client.add_watch("camera", source, model=model, every="1s").owner == "ann"
        assert client.pause_watch("camera").state == "paused"
        assert client.own_watch("camera").owner == "ann"
        client.remove_watch("camera")
        assert client.model("shapes").ref == "shapes@1" == client.set_alias("shapes", "live").ref
        assert client.aliases("shapes") == {"live": 1}
        client.remove_alias("shapes@live")
        assert client.datasets() == []
        with pytest.raises(UnknownDataset, match="faces"):
            client.own_dataset("faces")
