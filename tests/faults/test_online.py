"""The online path on a real stack: answers like a job's rows, overload, deaths of workers and of Redis, strangers."""

from __future__ import annotations

import hashlib
import io
import math
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contract.data import image_index
from contract.errors import ImagemillError, Overloaded, ServiceUnavailable
from contract.jobs.lifecycle import read_images
from contract.keys.online import OnlineKeys
from contract.online import messages
from contract.online.connection import connect, need_address
from contract.online.messages import MOST_IMAGES, RequestId
from contract.online.served import ServedModels
from contract.online.state import read_states
from tests.mill import Mill
from tests.waiting import standing_still, wait_until

NAME = "efficientnet-lite0"
REF = f"{NAME}@1"
MAKER = "fashion-gan"


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    made = Mill(tmp_path_factory.mktemp("online"), workers=2)
    with made.running():
        made.client.serve(NAME)
        wait_until(lambda: ready(made) == 2, 120, "both workers to serve")
        yield made


def ready(mill: Mill) -> int:
    return mill.client.served()[0].ready


@pytest.fixture
def whole(mill: Mill) -> Mill:
    """The same stack, with both workers ready again after an earlier test."""
    wait_until(lambda: ready(mill) == 2, 120, "both workers to serve")
    return mill


def answered(ask: Callable[..., list[dict[str, Any]]], *args: Any, **more: Any) -> list[dict[str, Any]]:
    """Ask again where no worker is ready: those that stand still for two seconds are taken for gone."""
    while True:
        try:
            return ask(*args, **more)
        except Overloaded as error:
            time.sleep(error.retry_after)


def smaller(path: Path, n: int) -> bytes:
    """A photo that no other call has."""
    with Image.open(path) as photo:
        file = io.BytesIO()
        photo.convert("RGB").resize((200 + n, 200)).save(file, "JPEG")
    return file.getvalue()


def test_rows_are_those_of_a_job(whole: Mill, photos: dict[str, Path], tmp_path: Path) -> None:
    # Given the photos and a file that is none, labelled by a job,
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, path in photos.items():
        (folder / f"{name}.jpg").write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    job = whole.client.classify(folder, model=NAME, top_k=3)
    whole.finished(job.id)
    expected = {row["key"]: row for row in whole.client.results(job.id)}

    # if I ask for the same files, at once and one by one, I expect the same rows but for the address.
    names = sorted(expected)
    files = [(folder / name).read_bytes() for name in names]
    together = answered(whole.client.classify_now, NAME, files, keys=names, top_k=3, deadline=60)
    apart = [
        answered(whole.client.classify_now, REF, [file], keys=[name], top_k=3)[0]
        for name, file in zip(names, files, strict=True)
    ]
    for found in (together, apart):
        assert [row["key"] for row in found] == names
        for row in found:
            wanted = expected[row["key"]]
            assert _alike(row, wanted)
    assert sum(row["status"] == "error" for row in together) == 1


def _alike(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two rows have the same columns, and the same values but for the last digits of scores."""
    inexact = {"score", "top_k", "uri"}
    assert row.keys() == wanted.keys()
    assert {k: v for k, v in row.items() if k not in inexact} == {k: v for k, v in wanted.items() if k not in inexact}
    for one, other in zip(row["top_k"] or [], wanted["top_k"] or [], strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-3)
    return True


def test_sixteen_clients_each_have_their_own_answer(whole: Mill, photos: dict[str, Path]) -> None:
    names = sorted(photos)
    files = [photos[name].read_bytes() for name in names]
    labels = [row["label"] for row in answered(whole.client.classify_now, NAME, files, deadline=60)]

    def client(n: int) -> None:
        for turn in range(10):
            at = (n + turn) % len(files)
            (row,) = answered(whole.client.classify_now, NAME, [files[at]], keys=[f"{n}-{turn}"], deadline=60)
            assert (row["key"], row["label"]) == (f"{n}-{turn}", labels[at])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_worker_that_goes_takes_no_answer_with_it(whole: Mill, photos: dict[str, Path], how: signal.Signals) -> None:
    # Given clients who ask all the time,
    files = [path.read_bytes() for path in photos.values()]
    labels = [row["label"] for row in answered(whole.client.classify_now, NAME, files, deadline=60)]
    stop = threading.Event()
    answers: list[int] = []

    def client(n: int) -> None:
        while not stop.is_set():
            at = n % len(files)
            (row,) = answered(whole.client.classify_now, NAME, [files[at]], deadline=30)
            assert row["label"] == labels[at]
            answers.append(n)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, n) for n in range(4)]
        wait_until(lambda: len(answers) > 20, 60, "answers")
        # if a worker is killed, stands still or is asked to end amid their requests,
        if how == signal.SIGSTOP:
            whole.pause("worker-0")
        else:
            whole.kill("worker-0", how)
        before = len(answers)
        # I expect each to be answered, rightly, by the other.
        wait_until(lambda: len(answers) > before + 40, 60, "more answers")
        stop.set()
        for one in clients:
            one.result()
        whole.go_on("worker-0")


def test_a_redis_that_restarts_loses_no_request(whole: Mill, photos: dict[str, Path]) -> None:
    files = [path.read_bytes() for path in photos.values()]
    labels = [row["label"] for row in answered(whole.client.classify_now, NAME, files, deadline=60)]
    stop = threading.Event()
    answers: list[float] = []

    def client(n: int) -> None:
        while not stop.is_set():
            try:
                (row,) = whole.client.classify_now(NAME, [files[n]], deadline=30)
            except ServiceUnavailable:  # it was not admitted
                continue
            assert row["label"] == labels[n]
            answers.append(time.monotonic())

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, n) for n in range(4)]
        wait_until(lambda: len(answers) > 20, 60, "answers")
        whole.kill("redis-online")
        before = len(answers)
        wait_until(lambda: len(answers) > before + 40, 60, "more answers")
        stop.set()
        for one in clients:
            one.result()
    # And it holds nothing that nobody waits for.
    with closing(connect(need_address(whole.settings))) as client_:
        wait_until(lambda: not client_.zcard(OnlineKeys(whole.settings.namespace).open), 30, "nothing to be open")


def test_overload_is_refused_at_once_and_what_is_admitted_is_in_time(whole: Mill, photos: dict[str, Path]) -> None:
    # Given clients who ask for twice as many images as the workers, however fast, can label within a deadline,
    files = [smaller(path, 0) for path in photos.values()]
    clients, deadline, until = 48, 3.0, time.monotonic() + 8
    images = max(4, min(MOST_IMAGES, math.ceil(2 * deadline * whole.client.served()[0].capacity / clients)))
    admitted: list[float] = []
    refused: list[float] = []
    waits: list[float] = []

    def client(n: int) -> None:
        while time.monotonic() < until or (not (refused and admitted) and time.monotonic() < until + 60):
            began = time.monotonic()
            try:
                whole.client.classify_now(NAME, [files[n % len(files)]] * images, deadline=deadline)
                admitted.append(time.monotonic() - began)
            except Overloaded as error:
                refused.append(time.monotonic() - began)
                waits.append(error.retry_after)
                time.sleep(0.05)
            except ServiceUnavailable:
                pass  # too late, while the rate is not known yet

    with standing_still() as still, ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    # I expect refusals, and answers within the deadline.
    assert refused and admitted and min(waits) > 0
    assert max(admitted) < deadline + 1.0 + still.seconds


def test_what_strangers_write_harms_nobody(whole: Mill, photos: dict[str, Path]) -> None:
    keys = OnlineKeys(whole.settings.namespace)
    good = messages.write_request(messages.Classify(reply_to="0" * 32, keys=("a",)), [b"x"])
    bombs = [b"", b"\xff" * 1000, good[:-1], good.replace(b"classify", b"generate"), bytes(messages.MOST_BYTES + 10)]
    bombs.append(b"\x00\x00\x75\x30" + b"[" * 30_000)
    bombs.append(messages.write_request(messages.Classify(reply_to="0" * 32, keys=("a",) * 64), [b""] * 64))
    bombs.append(messages.write_request(messages.Generate(reply_to="0" * 32)))
    with closing(connect(need_address(whole.settings))) as redis:
        for fields in ({"id": b"x"}, {"id": b"\xff"}, {"other": b"1"}, {"id": str(RequestId.new(1, 1, "other@1"))}):
            redis.xadd(keys.requests(REF), fields)  # type: ignore[arg-type]
        for bomb in bombs:
            id = str(RequestId(uuid.uuid4().hex, 1, 1, REF))
            redis.set(keys.payload(id), bomb, px=60_000)
            redis.zadd(keys.open, {id: 2**50})
            redis.xadd(keys.requests(REF), {"id": id})
        redis.hset(keys.workers(REF), "stranger", b"\xff not a number")
        # I expect all of it to be taken off the stream, and the next request to be answered.
        (row,) = answered(whole.client.classify_now, NAME, [photos["koala"].read_bytes()], deadline=30)
        assert row["label"] == "koala"
        wait_until(lambda: not redis.xlen(keys.requests(REF)), 30, "the stream to be empty")
    wait_until(lambda: ready(whole) == 2, 60, "both workers to serve as before")


@pytest.fixture
def maker(whole: Mill) -> Iterator[Mill]:
    """The same stack, with a generator that both workers serve as well."""
    whole.client.serve(MAKER)
    wait_until(lambda: whole.client.served()[1].ready == 2, 120, "both workers to serve the generator")
    yield whole
    whole.client.unserve(MAKER)


def test_images_are_those_of_a_job_whoever_dies(maker: Mill) -> None:
    # Given the images that a job makes,
    job = maker.client.generate(MAKER, count=24, seed=11)
    maker.finished(job.id)
    store = maker.client.backend.store
    tables = [table for _, table in image_index.shards(store, read_images(store, job.id))]
    expected = [row["sha256"] for table in tables for row in table.to_pylist()]

    # if clients ask a served generator for them, all at once or only the first few,
    stop = threading.Event()
    answers: list[int] = []

    def client(n: int) -> None:
        while not stop.is_set():
            count = 24 if n % 2 else 1 + len(answers) % 9
            rows = answered(maker.client.generate_now, MAKER, count=count, seed=11, deadline=60)
            assert [row["sha256"] for row in rows] == expected[:count]
            assert [hashlib.sha256(row["image"]).hexdigest() for row in rows] == expected[:count]
            answers.append(n)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, n) for n in range(4)]
        wait_until(lambda: len(answers) > 20 or any(one.done() for one in clients), 60, "answers")
        # and a worker is killed meanwhile, I expect the same bytes of the job for each, from whoever is left.
        maker.kill("worker-0", signal.SIGKILL)
        before = len(answers)
        wait_until(lambda: len(answers) > before + 40 or any(one.done() for one in clients), 60, "more answers")
        stop.set()
        for one in clients:
            one.result()


def test_a_model_is_served_until_it_is_not(whole: Mill, photos: dict[str, Path]) -> None:
    photo = photos["koala"].read_bytes()
    before = ServedModels(whole.client.backend.store).all()
    assert whole.client.unserve(NAME) == [REF]
    assert whole.client.served() == []

    def answer() -> str:
        """Return the label, or the name of the error; Expired is that of a request that came while a worker ended."""
        try:
            return str(whole.client.classify_now(NAME, [photo])[0]["label"])
        except ImagemillError as error:
            return type(error).__name__

    wait_until(lambda: read_states(whole.settings, before)[0].ready == 0, 30, "workers to have seen it")
    wait_until(lambda: answer() in ("NotServed", "Overloaded"), 30, "askers to have seen it")
    whole.client.serve(NAME, precision="fp32")
    wait_until(lambda: ready(whole) == 2, 120, "both workers to serve")
    wait_until(lambda: answer() == "koala", 30, "askers to have seen it too")
