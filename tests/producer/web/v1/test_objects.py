"""Objects over HTTP: who may read which, and that `HttpClient` makes of them what `Client` makes."""

from __future__ import annotations

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.datasets.records import DatasetRecord
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput, NotOwner, ObjectChanged, ObjectNotFound, ServiceUnavailable, UnknownJob
from contract.keys.models import model_file
from contract.models.review import Review, Verdict
from contract.settings import Settings
from contract.watches.record import Watches
from contract.watches.segments import Segment, decide_segment
from producer import Client, HttpClient
from producer.exports.formats import IMAGES, LABELS
from producer.http_api import HttpApi
from producer.http_store import HttpStore
from tests import painter
from tests.producer.web.console.rows import commit_rows
from tests.serving import Api
from tests.synthetic import fabricate, synthesize_spec
from tests.waiting import wait_until


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the mark of whose it is."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".imagemill-export")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_owner_reads_what_is_theirs_and_nothing_else(api: Api, model: str) -> None:
    bucket = api.store.bucket
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob, api.client("admin") as root:
        body = {"command": "classify", "source": f"s3://{bucket}/photos/", "model": model}
        for client, name in ((ann, "mine"), (bob, "mine-too")):
            assert client.post("/v1/jobs", json={**body, "job": name}).status_code == 202
            watch = {"name": name[:6], "source": f"s3://{bucket}/camera-{name}/", "model": model}
            assert client.post("/v1/watches", json=watch).status_code == 201
            owner = client.get("/v1/token").json()["owner"]
            Datasets(api.store).add(DatasetRecord(name=name, owner=owner, created_at="2026-11-26T00:00:00Z"))
        readable = ["jobs/mine/spec.json", "active/mine", "models/", "photos/", f"s3://{bucket}/photos/one.jpg"]
        readable += ["datasets/mine/", "watches/mine.json", "watches/mine/x"]
        readable += [f"tables/mine-{Watches(api.store).get('mine').stamp}/"]
        for address in readable:
            assert ann.get("/v1/objects", params={"prefix": address}).status_code == 200, address
            assert ann.post("/v1/objects/links", json={"addresses": [address]}).status_code == 200, address
        hidden = ["jobs/mine-too/spec.json", "active/mine-too", "datasets/mine-too/", "watches/mine-t.json"]
        # Whoever names a watch as the table of another one is named does not read that.
        table = f"mine-t-{Watches(api.store).get('mine-t').stamp}"
        hidden += [f"tables/{table}/"]
        watch = {"name": table, "source": f"s3://{bucket}/camera-mine/", "model": model}
        assert ann.post("/v1/watches", json=watch).status_code == 201
        for address in hidden:
            assert ann.get("/v1/objects", params={"prefix": address}).status_code in (404, 422), address
            assert root.get("/v1/objects", params={"prefix": address}).status_code == 200, address
        # The beginning of a name may be another's too, and what lets people in is nobody's.
        kept = [
            "jobs/",
            "jobs/mine",
            "active/",
            "datasets/mine",
            "watches/mine",
            "tokens/",
            "tokens/x.json",
            "webhooks/x",
        ]
        kept += [
            "tok",
            "served/",
            "index/",
            "schedules/",
            "jobs/../tokens/x",
            "jobs/mine/../../tokens/x",
            "uploads/x/y",
            "watches/rejected/x",
            "tables/mine/",
            "tables/mine-20200101t000000000/",
        ]
        kept += ["%74okens/x", "//tokens/x", "s3://other-bucket/x", "s3://", "tokens\\x"]
        for address in kept:
            for client in (ann, root) if not address.startswith("uploads") else (ann,):
                params, sent = {"prefix": address}, {"addresses": ["photos/one.jpg", address]}
                if client is root and address.startswith("tables/mine-"):
                    continue
                assert client.get("/v1/objects", params=params).status_code in (404, 422), address
                assert client.post("/v1/objects/links", json=sent).status_code in (404, 422), address
        (active,) = ann.get("/v1/objects", params={"prefix": "active/mine"}).json()["objects"]
        assert active["key"] == "active/mine"
        past = {"prefix": "active/mine", "after": "active/mine"}
        assert ann.get("/v1/objects", params=past).json()["objects"] == []
        # Nor is a watch named as the folder of events that nobody understood.
        watch = {"name": "rejected", "source": f"s3://{bucket}/camera-r/", "model": model}
        refused = ann.post("/v1/watches", json=watch)
        assert refused.status_code == 422 and "watches/rejected/" in refused.json()["detail"]
    with api.client("infer") as client:
        assert client.get("/v1/objects", params={"prefix": "photos/"}).status_code == 403
    with api.client("review") as client:
        sent = {"addresses": ["models/disc/1/model.json"]}
        assert client.post("/v1/objects/links", json=sent).status_code == 200
        assert client.post("/v1/objects/links", json={"addresses": ["photos/one.jpg"]}).status_code == 403
        assert client.post("/v1/objects/links", json={**sent, "hours": 0.0001}).status_code == 422
        assert client.post("/v1/objects/links", json={"addresses": [f"s3://{bucket}/"]}).status_code == 422
        assert client.post("/v1/objects/links", json={**sent, "hours": 24}).status_code == 403
        assert client.post("/v1/objects/links", json={**sent, "hours": 169}).status_code == 422


def test_a_link_is_read_without_a_token_and_pages_end_where_the_next_begins(api: Api) -> None:
    for n in range(5):
        api.store.put(f"photos/{n}.jpg", bytes([n]) * n)
    with api.client("jobs") as client:
        found, after = [], ""
        while True:
            page = client.get("/v1/objects", params={"prefix": "photos/", "limit": 2, "after": after}).json()
            found += [(one["key"], one["size"]) for one in page["objects"]]
            if not (after := page["after"]):
                break
        assert found == [(f"photos/{n}.jpg", n) for n in range(5)] and page["bucket"] == api.store.bucket
        links = client.post("/v1/objects/links", json={"addresses": ["photos/3.jpg", "photos/none"]}).json()
        assert [httpx2.get(link["url"]).status_code for link in links] == [200, 404]
        assert httpx2.get(links[0]["url"]).content == b"\3\3\3"


def test_the_bucket_over_http_reads_as_with_keys(api: Api) -> None:
    api.store.put("photos/a b ü.bin", bytes(range(100)))
    api.store.put("photos/empty", b"")
    with closing(HttpApi(api.url, api.token("jobs"), timeout=30)) as wire:
        store, ours = HttpStore(wire), api.store
        assert store.bucket == ours.bucket
        ranges: list[dict[str, Any]]
        ranges = [{}, {"offset": 90}, {"offset": 3, "length": 4}, {"limit": 9}, {"limit": 200}, {"length": 500}]
        for how in ranges:
            assert store.get("photos/a b ü.bin", **how) == ours.get("photos/a b ü.bin", **how), how
        assert store.get("photos/empty") == b"" and store.size("photos/empty") == 0
        assert b"".join(store.pieces("photos/a b ü.bin", size=7)) == bytes(range(100))
        assert store.exists("photos/empty") and not store.exists("photos/emp")
        assert [one.key for one in store.list("photos/", at_once=1)] == [one.key for one in ours.list("photos/")]
        for key in ("photos/none", "photos/emp"):
            with pytest.raises(ObjectNotFound):
                store.get(key)
        (entry,) = ours.list("photos/a b")
        assert store.get(entry.key, etag=entry.etag) == ours.get(entry.key, etag=entry.etag)
        with pytest.raises(ObjectChanged):
            store.get(entry.key, etag="0" * 32)


def test_rows_are_written_as_with_keys(api: Api, model: str, settings: Settings, tmp_path: Path) -> None:
    with HttpClient(api.url, api.token("jobs")) as client, closing(Client(settings)) as other:
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job="mine")
        same = {"label": "disc", "label_index": 0, "score": 1 / 3, "top_k": []}
        files = {f"{n}.jpg": b"\xff\xd8\xff" + bytes([n]) * 9 for n in range(3)}
        rows = [{"key": key, "sha256": hashlib.sha256(data).hexdigest(), **same} for key, data in files.items()]
        for key, data in files.items():
            api.store.put(f"photos/{key}", data)
        commit_rows(api.store, "mine", [*rows, {"key": "bad.jpg", "status": "error", "error_code": "truncated"}])
        for name, format in LABELS.items():
            ours, theirs = tmp_path / f"http-{name}", tmp_path / f"keys-{name}"
            written = client.write_results("mine", name, ours)
            assert written == other.write_results("mine", name, theirs) and written.written >= 3, name
            if format.writes == "folder":
                assert tree(ours) == tree(theirs) and len(tree(ours)) == len(files) + 1, name
            else:
                assert ours.read_bytes() == theirs.read_bytes(), name
        # Links are good without a token.
        text = io.StringIO()
        client.write_results("mine", "labelstudio", text, presign_hours=2)
        address = text.getvalue().split('"image": "')[1].split('"')[0].replace("\\u0026", "&")
        assert httpx2.get(address).content == files["0.jpg"]
        with pytest.raises(UnknownJob):
            client.write_results("none", "csv", text)


def test_generated_images_are_exported_as_with_keys(api: Api, settings: Settings, tmp_path: Path) -> None:
    spec = synthesize_spec(api.store)
    fabricate(api.store, spec)
    with HttpClient(api.url, api.token("admin")) as client, closing(Client(settings)) as other:
        for name in IMAGES:
            if name == "idx":
                continue
            seen: list[tuple[int, int]] = []

            def note(done: int, total: int, into: list[tuple[int, int]] = seen) -> None:
                into.append((done, total))

            stats = client.export(spec.id, name, tmp_path / f"http-{name}", progress=note)
            assert stats == other.export(spec.id, name, tmp_path / f"keys-{name}")
            assert tree(tmp_path / f"http-{name}") == tree(tmp_path / f"keys-{name}"), name
            assert seen[-1][0] == seen[-1][1] > 0
    with HttpClient(api.url, api.token("jobs", owner="bob")) as client, pytest.raises(UnknownJob):
        client.export(spec.id, "webdataset", tmp_path / "theirs")


def test_a_model_is_pulled_as_with_keys(api: Api, settings: Settings, tmp_path: Path) -> None:
    painter.publish(api.store, b"weights" * 1000)
    with HttpClient(api.url, api.token("review", owner="bob")) as client, closing(Client(settings)) as other:
        ours = client.pull_model(painter.NAME, tmp_path / "http")
        theirs = other.pull_model(painter.REF, tmp_path / "keys")
        assert [path.name for path in ours] == [path.name for path in theirs]
        assert tree(tmp_path / "http") == tree(tmp_path / "keys")


def test_a_model_is_pushed_with_a_token_once_a_worker_has_tried_it(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "birds.safetensors"
    file.write_bytes(b"weights" * 1000)
    how: dict[str, Any] = {"labels": ["owl", "hen"], "size": 28, "family": "cnn"}
    with HttpClient(api.url, api.token("jobs")) as client, ThreadPoolExecutor(1) as pool:
        for verdict in (Verdict(ok=True, by="a worker"), Verdict(ok=False, reason="It has no softmax.")):
            # Given a model that is pushed,
            pushed = pool.submit(client.push_model, "birds", file, **how, timeout=60)
            version = 1 if verdict.ok else 2
            review = Review(api.store, "birds", version)
            wait_until(review.draft, 30, "the draft")
            assert api.store.get(model_file("birds", version, "weights.safetensors")) == file.read_bytes()
            # if a worker decides,
            review.settle(verdict)
            # I expect the model to be there, or the worker's sentence.
            if verdict.ok:
                assert (pushed.result(60).ref, pushed.result(60).owner) == ("birds@1", "ann")
            else:
                with pytest.raises(InvalidInput, match="no softmax"):
                    pushed.result(60)
        assert [one.ref for one in client.models()] == ["birds@1"]
        assert list(api.store.list("uploads/")) == []
        with pytest.raises(InvalidInput, match=r"neither a \.pt2"):
            client.push_model("birds", painted(tmp_path / "birds.pth"), **how)
        with pytest.raises(FileNotFoundError):
            client.push_model("birds", tmp_path / "none.pt2", **how)
    with HttpClient(api.url, api.token("jobs", owner="bob")) as client, pytest.raises(NotOwner):
        client.push_model("birds", file, **how)
    with HttpClient(api.url, api.token("jobs", owner="bob")) as client, pytest.raises(ServiceUnavailable):
        client.push_model("cats", file, **how, timeout=1)
    with api.client("review") as reader:
        assert reader.post("/v1/models", json={}).status_code == 403


def test_whoever_pushes_models_that_wait_leaves_places_to_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an owner, two of whose models no worker tries yet, however long this test takes,
    monkeypatch.setattr("producer.models._LONELY_SECONDS", 3600.0)
    files = {"files": ["weights.safetensors"]}
    body = {"sha256": "0" * 64, "labels": ["owl"], "size": 28, "family": "cnn", "timeout": 600}
    with api.client("jobs") as ann, api.client("jobs", owner="bob") as bob, ThreadPoolExecutor(3) as pool:

        def pushed(client: httpx2.Client, name: str) -> httpx2.Response:
            upload = client.post("/v1/uploads", json=files).json()
            httpx2.put(upload["files"][0]["url"], content=b"weights")
            return client.post("/v1/models", json={**body, "name": name, "upload": upload["source"]}, timeout=120)

        waits = [pool.submit(pushed, ann, name) for name in ("owls", "hens")]
        for name in ("owls", "hens"):
            wait_until(Review(api.store, name, 1).draft, 60, "a draft")
        # if she pushes a third, I expect to be told when to come back, soon, and another owner's to be tried.
        refused = pushed(ann, "cats")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
        other = pool.submit(pushed, bob, "dogs")
        wait_until(Review(api.store, "dogs", 1).draft, 60, "another owner's draft")
        for name in ("owls", "hens", "dogs"):
            Review(api.store, name, 1).settle(Verdict(ok=True, by="a worker"))
        assert [one.result(60).status_code for one in (*waits, other)] == [201, 201, 201]


def test_a_client_waits_for_a_place_and_uploads_its_model_once(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.models._LONELY_SECONDS", 3600.0)
    file = tmp_path / "birds.safetensors"
    file.write_bytes(b"weights")
    how: dict[str, Any] = {"labels": ["owl"], "size": 28, "family": "cnn"}
    with HttpClient(api.url, api.token("jobs")) as client, ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(client.push_model, name, file, **how, timeout=600) for name in ("owls", "hens")]
        for name in ("owls", "hens"):
            wait_until(Review(api.store, name, 1).draft, 60, "a draft")
        uploads = len(list(api.store.list("uploads/")))
        third = pool.submit(client.push_model, "cats", file, **how, timeout=600)
        wait_until(lambda: len(list(api.store.list("uploads/"))) > uploads, 30, "the third upload")
        for name in ("owls", "hens", "cats"):
            review = Review(api.store, name, 1)
            wait_until(review.draft, 60, "a draft")
            review.settle(Verdict(ok=True, by="a worker"))
        assert [one.result(60).ref for one in (*waits, third)] == ["owls@1", "hens@1", "cats@1"]


def painted(path: Path) -> Path:
    path.write_bytes(b"weights")
    return path


def test_rows_of_a_watch_are_followed(api: Api, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.http_client._LOOK_SECONDS", 0.05)
    with HttpClient(api.url, api.token("jobs")) as client:
        client.add_watch("camera", f"s3://{api.store.bucket}/camera/", model=model)
        watch = Watches(api.store).get("camera")
        job = watch.job(0)
        client.classify(f"s3://{api.store.bucket}/photos/", model=model, job=job)
        decided = Segment(number=0, job=job, opened_at="2026-11-26T08:31:00Z", before=0)
        decide_segment(api.store, watch.root, decided)
        # and a segment whose job is not there yet, or has been deleted,
        absent = Segment(number=1, job=watch.job(1), opened_at="2026-11-26T08:32:00Z", before=0)
        decide_segment(api.store, watch.root, absent)
        commit_rows(api.store, job, [{"key": "a.jpg", "label": "disc"}], 0)
        assert [row["key"] for row in client.watched_rows("camera")] == ["a.jpg"]
        stop, seen = threading.Event(), list[str]()
        for row in client.watched_rows("camera", follow=True, stop=stop):
            seen.append(row["key"])
            if len(seen) == 1:
                commit_rows(api.store, job, [{"key": "b.jpg", "label": "disc"}], 1)
            else:
                stop.set()
        assert seen == ["a.jpg", "b.jpg"]
