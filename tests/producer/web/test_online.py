"""Served models over HTTP: a thread stands in for the worker, which labels what it is told to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import httpx2
import pytest
import redis

from contract.backend.objects import ObjectStore
from contract.data.label_rows import schema
from contract.errors import InvalidInput, NotServed
from contract.keys.online import OnlineKeys, served_record
from contract.models.registry import Registry
from contract.online import messages
from contract.online.connection import GROUP, connect, need_address, script
from contract.online.messages import Reply
from contract.online.served import Served, ServedModels
from contract.online.state import WorkerSays
from contract.settings import Settings
from producer import HttpClient
from producer.web.online import images as fetching
from tests import painter
from tests.serving import Api, codes
from tests.waiting import wait_until

REF = "birds@1"


class Worker:
    """Answers every request for a model in a thread: an owl, or a bad image for bytes that say so; or files."""

    def __init__(self, settings: Settings, ref: str = REF) -> None:
        self.ref = ref
        self.keys = OnlineKeys(settings.namespace)
        self.redis = connect(need_address(settings))
        self._answer = self.redis.register_script(script("answer"))
        self._stop = threading.Event()
        self.rate, self.silent = 1000.0, False
        self.ready()  # before anybody asks
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.redis.close()

    def ready(self) -> None:
        # A minute ahead, so that this thread may stand still for longer than a worker may be silent.
        seconds, micros = self.redis.time()
        says = WorkerSays(at_ms=(seconds + 60) * 1000 + micros // 1000, rate=self.rate, worker="w")
        with suppress(redis.OutOfMemoryError):
            self.redis.hset(self.keys.workers(self.ref), "p1", says.field())

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.ready()
            found: Any = self.redis.xrange(self.keys.requests(self.ref))
            for entry, fields in found if not self.silent else ():
                self._reply(entry, fields[b"id"].decode())

    def _reply(self, entry: bytes, id: str) -> None:
        payload: Any = self.redis.get(self.keys.payload(id))
        if payload is None:
            return
        request, images = messages.read_request(payload)
        rows: tuple[dict[str, Any], ...]
        files: list[bytes] = []
        if isinstance(request, messages.Generate):
            files = [_file(request, n) for n in range(request.count)]
            facts = {"width": 14, "height": 14, "model": self.ref, "precision": "fp32", "device": "cpu"}
            rows = tuple({"label": "owl", "index": n, "seed": request.seed, **facts} for n in range(request.count))
        else:
            pairs = zip(request.keys, images, strict=True)
            rows = tuple(self._row(key, image, request.top_k) for key, image in pairs)
        reply = Reply(id=id, outcome="done", rows=rows)
        keys = [self.keys.open, self.keys.load, self.keys.requests(self.ref), self.keys.payload(id)]
        keys.append(self.keys.replies(request.reply_to))
        self._answer(keys, [GROUP, 10_000, id, entry, messages.write_reply(reply, files)])

    def _row(self, key: str, image: bytes, top_k: int) -> dict[str, Any]:
        row: dict[str, Any] = {**dict.fromkeys(schema().names), "key": key, "model": REF}
        if not image:
            return {**row, "status": "error", "error_code": "empty_file", "error_message": "The file has no bytes."}
        if image == b"bad":
            return {**row, "status": "error", "error_code": "not_an_image", "error_message": "It is no image."}
        labels = [{"label": f"owl {n}", "label_index": n, "score": 1 / (n + 2)} for n in range(top_k)]
        return {**row, "status": "ok", "label": "owl 0", "label_index": 0, "score": 0.5, "top_k": labels}


def _file(request: messages.Generate, number: int) -> bytes:
    """What stands for the file of an image, which says what was asked for."""
    return f"{request.seed} {number} {','.join(request.classes)} {request.image_format}".encode()


@pytest.fixture
def worker(settings: Settings, store: ObjectStore) -> Iterator[Worker]:
    record = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    store.put(served_record("birds", 1), record.to_json())
    with closing(Worker(settings)) as made:
        yield made


@pytest.fixture
def maker(settings: Settings, store: ObjectStore) -> Iterator[Worker]:
    painter.publish(store)
    record = Served(name=painter.NAME, version=1, task="generate", created_at="2026-11-26T00:00:00Z")
    store.put(served_record(painter.NAME, 1), record.to_json())
    with closing(Worker(settings, painter.REF)) as made:
        yield made


IMAGE = {"Content-Type": "image/jpeg"}


def test_an_image_is_answered_with_its_row_however_it_is_sent(api: Api, worker: Worker) -> None:
    place, text = "/v1/models/birds/classify", base64.b64encode(b"an owl").decode()
    api.store.put("photos/owl.jpg", b"an owl")
    with api.client("infer") as client:
        # One as the body is one row,
        row = client.post(place, content=b"an owl", headers=IMAGE, params={"top_k": 2}).json()
        assert (row["key"], row["label"], len(row["top_k"]), row["status"]) == ("0", "owl 0", 2, "ok")
        # many as files of a form are rows by their names,
        files = [("a", ("a.jpg", b"an owl")), ("a", ("b.jpg", b"bad")), ("c", ("c.jpg", b"an owl"))]
        rows = client.post(place, files=files).json()["rows"]
        assert [(row["key"], row["status"]) for row in rows] == [("a.jpg", "ok"), ("b.jpg", "error"), ("c.jpg", "ok")]
        # and JSON takes bytes and addresses, each bad one a row too.
        images = [
            {"base64": text, "key": "mine"},
            {"s3": f"s3://{api.store.bucket}/photos/owl.jpg"},
            {"s3": f"s3://{api.store.bucket}/photos/none.jpg"},
            {"url": "http://169.254.169.254/latest/meta-data/"},
            {"url": "http://user:pass@example.com/x.jpg"},
        ]
        rows = client.post(place, json={"images": images, "top_k": 1}).json()["rows"]
        assert [row["status"] for row in rows] == ["ok", "ok", "error", "error", "error"]
        assert [row["error_code"] for row in rows[2:]] == ["not_found", "address_refused", "address_refused"]
        assert rows[0]["key"] == "mine"


def test_no_more_is_fetched_than_a_request_may_have(api: Api, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given far more behind addresses than a request may bring along,
    fetched: list[Any] = []
    monkeypatch.setattr(fetching, "_fetch", lambda image, **how: fetched.append(image) or b"x" * 6 * 2**20)
    images = [{"s3": f"s3://{api.store.bucket}/photos/{n}.jpg"} for n in range(64)]
    with api.client("infer") as client:
        answer = client.post("/v1/models/birds/classify", json={"images": images})
    # I expect it to be refused before all of it lies in memory.
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert len(fetched) < 16


@pytest.mark.usefixtures("worker")
def test_images_that_are_fetched_too_slowly_cost_the_deadline_and_no_more(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an address that does not answer, if I allow half a second, I expect to hear that it was too little.
    answered = threading.Event()
    monkeypatch.setattr(fetching, "_fetch", lambda image, **how: answered.wait(60) and b"")
    with api.client("infer") as client:
        body = {"images": [{"url": "https://example.com/x.jpg"}], "deadline": 0.5}
        answer = client.post("/v1/models/birds/classify", json=body)
    answered.set()
    assert (answer.status_code, answer.json()["code"]) == (504, "expired") and "within 0.5 s" in answer.text


def test_who_accepts_the_shape_of_hugging_face_gets_it(api: Api, worker: Worker) -> None:
    place, text = "/v1/models/birds/classify", base64.b64encode(b"an owl").decode()
    accept = {"Accept": "application/vnd.huggingface+json"}
    with api.client("infer") as client:
        sent = {"inputs": text, "parameters": {"top_k": 2}}
        found = client.post(place, json=sent, headers=accept)
        assert found.json() == [{"label": "owl 0", "score": 0.5}, {"label": "owl 1", "score": 0.333333}]
        refused = client.post(place, content=b"bad", headers={**IMAGE, **accept})
        assert (refused.status_code, refused.json()["code"]) == (422, "not_an_image")


def test_a_request_that_cannot_be_answered_says_why(api: Api, worker: Worker) -> None:
    place = "/v1/models/birds/classify"
    with api.client("infer") as client, api.client("jobs") as jobs:
        assert jobs.post(place, content=b"x", headers=IMAGE).status_code == 403
        unknown = client.post("/v1/models/cats/classify", content=b"x", headers=IMAGE)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_served")
        for content, headers, expected in (
            (b"", IMAGE, 400),
            (b"x", {"Content-Type": "text/html"}, 415),
            (b"{", {"Content-Type": "application/json"}, 400),
            (b'{"images": []}', {"Content-Type": "application/json"}, 422),
            (b'{"images": [{}]}', {"Content-Type": "application/json"}, 422),
            (b'{"images": [{"base64": "%"}]}', {"Content-Type": "application/json"}, 422),
            (b'{"images": [{"s3": "s3://other-bucket/x"}]}', {"Content-Type": "application/json"}, 422),
            (b'{"images": [{"url": "file:///etc/passwd"}]}', {"Content-Type": "application/json"}, 200),
            (b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 422),
            (b"--y", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
            (b"--x", {"Content-Type": "multipart/form-data"}, 400),
            (b"x" * (17 * 2**20), IMAGE, 413),
            (b"x" * (25 * 2**20), IMAGE, 413),
        ):
            answer = client.post(place, content=content, headers=dict(headers))
            assert answer.status_code == expected, (content[:40], answer.status_code, answer.text[:300])
            assert "root:" not in answer.text
        assert client.post(place, content=b"x", headers=IMAGE, params={"deadline": 0}).status_code == 422
        # An image too many is said to be that, and nothing of a form is left out without a word.
        many = client.post(place, files=[("a", (f"{n}.jpg", b"an owl")) for n in range(65)])
        assert (many.status_code, many.json()["code"]) == (413, "request_too_large") and "64" in many.json()["detail"]
        named = client.post(place, files=[("a", ("a.jpg", b"an owl")), ("b", (None, b"owl.jpg"))])
        assert named.status_code == 422 and "'b'" in named.json()["detail"]


def test_an_image_without_bytes_is_a_row_and_the_others_have_theirs(api: Api, worker: Worker) -> None:
    place, owl = "/v1/models/birds/classify", base64.b64encode(b"an owl").decode()
    api.store.put("photos/empty.jpg", b"")
    with api.client("infer") as client:
        files = [("a", ("a.jpg", b"")), ("b", ("b.jpg", b"an owl"))]
        rows = client.post(place, files=files).json()["rows"]
        assert [(row["key"], row["status"]) for row in rows] == [("a.jpg", "error"), ("b.jpg", "ok")]
        images = [{"base64": owl}, {"base64": ""}, {"s3": f"s3://{api.store.bucket}/photos/empty.jpg"}]
        rows = client.post(place, json={"images": images}).json()["rows"]
        assert [row["error_code"] for row in rows] == [None, "empty_file", "empty_file"]


def test_each_key_is_that_of_its_image_whatever_it_is(api: Api, worker: Worker) -> None:
    keys = ["", 'a"b.jpg', "a\nb", "ü/c;d.jpg", "x" * 2000]
    with HttpClient(api.url, api.token("infer")) as client:
        rows = client.classify_now("birds", [b"an owl"] * 4 + [b"bad"], keys=keys)
        assert [row["key"] for row in rows] == [*keys[:4], "x" * 1024]
        assert [row["status"] for row in rows] == [*["ok"] * 4, "error"]
        for images, names in (([], None), ([b"x"] * 65, None), ([b"x"], ["a", "b"])):
            with pytest.raises(InvalidInput):
                client.classify_now("birds", images, keys=names)


def test_who_administers_ends_and_moves_what_others_serve(api: Api, settings: Settings, model: str) -> None:
    store = api.store
    Registry(store).own(model, "ann")
    ServedModels(store).add(model, owner="ann")
    alias = f"/v1/models/{model}/aliases/live"
    with api.client("jobs", owner="bob") as bob, api.client("admin", owner="root") as root:
        # Given a model of ann's, which bob may not change, I expect that whoever administers may, as ann.
        assert bob.put(alias, json={"version": 1}).status_code == bob.delete(f"/v1/served/{model}").status_code == 403
        assert root.put(alias, json={"version": 1}).status_code == 200
        assert root.delete(alias).status_code == 204
        assert root.put("/v1/models/x$y/aliases/live", json={"version": 1}).status_code == 422
        answer = root.delete(f"/v1/served/{model}")
        assert (answer.status_code, answer.json()) == (200, [f"{model}@1"])
        assert root.delete(f"/v1/served/{model}").status_code == 404
    assert Registry(store).owners.of(model).owner == "ann"  # type: ignore[union-attr]


def test_overload_is_refused_with_a_time_and_lateness_is_said(api: Api, worker: Worker) -> None:
    place = "/v1/models/birds/classify"
    with api.client("infer") as client:
        # Given a worker that does not answer in time, I expect 504,
        worker.silent = True
        late = client.post(place, content=b"x", headers=IMAGE, params={"deadline": 0.5})
        assert (late.status_code, late.json()["code"]) == (504, "expired")
        # and where none takes requests, 503 and when to come back.
        worker.rate = 0.0

        def refused() -> httpx2.Response | None:
            answer = client.post(place, content=b"x", headers=IMAGE, params={"deadline": 1})
            return answer if answer.status_code == 503 else None

        answer = wait_until(refused, 30, "a refusal")
        assert answer is not None
        assert answer.json()["code"] == "overloaded" and int(answer.headers["Retry-After"]) >= 1


@pytest.mark.usefixtures("maker")
def test_images_are_answered_as_a_file_or_as_rows(api: Api) -> None:
    place = "/v1/models/painter/generate"
    with api.client("infer") as client:
        # One image is its file,
        one = client.post(place)
        assert (one.headers["Content-Type"], one.content) == ("image/png", b"0 0  png")
        one = client.post(place, json={"classes": ["hen"], "seed": 7, "image_format": "webp"})
        assert (one.headers["Content-Type"], one.content) == ("image/webp", b"7 0 hen webp")
        # and a row for who wants JSON; many are rows.
        (row,) = client.post(place, headers={"Accept": "application/json"}).json()["images"]
        assert (row["label"], row["precision"], base64.b64decode(row["image"])) == ("owl", "fp32", b"0 0  png")
        rows = client.post(place, json={"count": 3, "seed": 2**32 - 1}).json()["images"]
        assert [base64.b64decode(row["image"]) for row in rows] == [b"4294967295 %d  png" % n for n in range(3)]
    with HttpClient(api.url, api.token("infer")) as notebook:
        rows = notebook.generate_now("painter@1", classes=("owl",), seed=3, count=2)
        assert [row["image"] for row in rows] == [b"3 0 owl png", b"3 1 owl png"]
        with pytest.raises(InvalidInput, match="did you mean 'owl'"):
            notebook.generate_now("painter", classes=("owls",))
        with pytest.raises(NotServed):
            notebook.generate_now("painters")


def test_a_request_for_images_that_cannot_be_answered_says_why(api: Api, maker: Worker) -> None:
    place = "/v1/models/painter/generate"
    with api.client("infer") as client, api.client("jobs") as jobs:
        assert jobs.post(place).status_code == 403
        for path, body, status, code in (
            (place, {"count": 65}, 422, "invalid_input"),
            (place, {"count": 0}, 422, "invalid_input"),
            (place, {"seed": 2**32}, 422, "invalid_input"),
            (place, {"seed": -1}, 422, "invalid_input"),
            (place, {"truncation": 0}, 422, "invalid_input"),
            (place, {"image_format": "gif"}, 422, "invalid_input"),
            (place, {"class": "owl"}, 422, "invalid_input"),
            (place, {"classes": ["owls"]}, 422, "invalid_input"),
            (place, {"classes": ["owl"] * 65}, 422, "invalid_input"),
            (place, {"count": 64, "size": 4096}, 413, "request_too_large"),
            ("/v1/models/nothing/generate", {}, 404, "not_served"),
            (place.replace("generate", "classify"), {"images": [{"base64": "eA=="}]}, 422, "invalid_input"),
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (body, answer.text)
        maker.silent = True
        late = client.post(place, json={"deadline": 0.5})
        assert (late.status_code, late.json()["code"]) == (504, "expired")
        maker.rate = 0.0

        def refused() -> httpx2.Response | None:
            answer = client.post(place, json={"deadline": 1})
            return answer if answer.status_code == 503 else None

        answer = wait_until(refused, 30, "a refusal")
        assert answer is not None and int(answer.headers["Retry-After"]) >= 1


def test_many_clients_at_once_get_their_own_answers(api: Api, worker: Worker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with api.client("infer") as client, ThreadPoolExecutor(16) as pool:

        def ask(n: int) -> httpx2.Response:
            return client.post("/v1/models/birds@1/classify", files=[("f", (f"{n}.jpg", b"an owl"))])

        answers = list(pool.map(ask, range(64)))
    assert set(codes(answers)) == {200}
    assert [answer.json()["rows"][0]["key"] for answer in answers] == [f"{n}.jpg" for n in range(64)]


def test_the_open_inference_protocol_is_spoken(api: Api, worker: Worker) -> None:
    place = "/v2/models/birds"
    with api.client("infer") as client:
        assert httpx2.get(f"{api.url}/v2/health/live").status_code == 200
        assert httpx2.get(f"{api.url}/v2/health/ready").status_code == 200
        assert httpx2.get(f"{api.url}{place}").status_code == 401
        assert client.get(place).json()["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert client.get(f"{place}/ready").status_code == client.get(f"{place}/versions/1").status_code == 200
        assert client.get(f"{place}/versions/1/ready").status_code == 200
        assert client.get(f"{place}/versions/2/ready").status_code == 404
        # What is refused before a route sees it has the protocol's form too.
        packed = client.post(f"{place}/infer", content=b"x", headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415 and packed.json()["error"] == packed.json()["detail"]
        text = base64.b64encode(b"an owl").decode()
        tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [text, base64.b64encode(b"bad").decode()]}
        found = client.post(f"{place}/infer", json={"id": "7", "inputs": [tensor]}).json()
        assert (found["id"], found["model_name"], found["model_version"]) == ("7", "birds", "1")
        outputs = {one["name"]: one["data"] for one in found["outputs"]}
        assert outputs["label"] == ["owl 0", ""] and outputs["status"] == ["ok", "error"]
        wrong: dict[str, Any]
        for wrong in (
            {"inputs": []},
            {"inputs": [{**tensor, "shape": [3]}]},
            {"inputs": [{**tensor, "shape": [-1, -2]}]},
            {"inputs": [{**tensor, "datatype": "FP32"}]},
            {"inputs": [{**tensor, "data": [1, 2]}]},
            {"inputs": [tensor], "outputs": [{"name": "x"}]},
            {"inputs": [{**tensor, "parameters": {"binary_data_size": 10**12}}]},
        ):
            answer = client.post(f"{place}/infer", json=wrong)
            assert answer.status_code == 400 and answer.json()["error"], (wrong, answer.text)
        many = {**tensor, "shape": [65], "data": [text] * 65}
        assert client.post(f"{place}/infer", json={"inputs": [many]}).status_code == 413
        # Elements without a byte are many in a small body.
        empty = {k: v for k, v in tensor.items() if k != "data"} | {"parameters": {"binary_data_size": 4 * 2**20}}
        head = json.dumps({"inputs": [{**empty, "shape": [2**20]}]}).encode()
        binary = {"Inference-Header-Content-Length": str(len(head))}
        answer = client.post(f"{place}/infer", content=head + bytes(4 * 2**20), headers=binary)
        assert answer.status_code == 413, answer.text
        length = {"Inference-Header-Content-Length": "999999"}
        assert client.post(f"{place}/infer", json={"inputs": [tensor]}, headers=length).status_code == 400


def test_a_generator_is_no_model_of_the_open_inference_protocol(api: Api, maker: Worker) -> None:
    with api.client("infer") as client:
        for place in ("", "/ready", "/versions/1", "/versions/1/ready"):
            answer = client.get(f"/v2/models/{painter.NAME}{place}")
            assert answer.status_code == 422 and "generate" in answer.json()["error"], place


@pytest.mark.filterwarnings("ignore")
def test_tritonclient_speaks_with_it(api: Api, worker: Worker) -> None:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    import numpy as np

    headers = {"Authorization": f"Bearer {api.token('infer')}"}
    with closing(http.InferenceServerClient(api.url.removeprefix("http://"))) as client:
        assert client.is_server_live(headers=dict(headers)) and client.is_server_ready(headers=headers)
        assert client.is_model_ready("birds", headers=dict(headers))
        assert client.is_model_ready("birds", "1", headers=dict(headers))
        assert client.get_model_metadata("birds", headers=dict(headers))["versions"] == ["1"]
        for binary in (True, False):
            image = http.InferInput("image", [2], "BYTES")
            data = [b"an owl", b"bad"] if binary else [base64.b64encode(one).decode() for one in (b"an owl", b"bad")]
            image.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
            found = client.infer("birds", [image], headers=dict(headers))
            assert list(found.as_numpy("label")) == ["owl 0", ""]
            assert found.as_numpy("score").dtype == np.float32
        with pytest.raises(Exception, match="cats"):
            client.infer("cats", [image], headers=dict(headers))
