"""A generator that is served on a real Redis, with random weights: its files are those of the work of a job."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from contract.jobs import specs
from contract.online import messages
from contract.online.messages import Classify, Generate, RequestId
from tests import painter
from tests.waiting import wait_until
from tests.worker.process.serving.conftest import ASKER, Asker
from worker.engine.generators.generator import Generator
from worker.engine.types import ModelSpec
from worker.execution.device_slots import DeviceSlots
from worker.execution.health import Health
from worker.generation.candidate_plan import whole_plan
from worker.generation.shard import encode_images
from worker.process.serving.counter import Counter
from worker.process.serving.images import Images
from worker.process.serving.inbox import Inbox

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    weights = painter.random_weights()
    file = tmp_path_factory.mktemp("painter") / "weights.safetensors"
    file.write_bytes(weights)
    return Generator(ModelSpec.of(painter.record(weights), Path(file)), device="cpu", precision="fp32")


@pytest.fixture
def images(generator: Generator) -> Iterator[Images]:
    with closing(Images(painter.record(), generator, "fp32", DeviceSlots(CPU, 1))) as made:
        yield made


@pytest.fixture
def counter(images: Images, asker: Asker) -> Iterator[Counter]:
    inbox = Inbox(asker.redis, asker.keys, painter.REF, "w1")
    health = Health(lambda: None, lambda why: None)
    resources = SimpleNamespace(name="w1", leaving=threading.Event(), health=health)
    made = Counter(cast("Any", resources), inbox, images)
    yield made
    made.stop(20)


def ask(asker: Asker, request: messages.Classify | Generate) -> str:
    """Put a request where a worker finds it."""
    payload = messages.write_request(request, [b"x"] if isinstance(request, Classify) else ())
    id = str(RequestId(uuid.uuid4().hex, getattr(request, "count", 1), len(payload), painter.REF))
    asker.redis.set(asker.keys.payload(id), payload, px=60_000)
    asker.redis.zadd(asker.keys.open, {id: 2**50})
    asker.redis.xadd(asker.keys.requests(painter.REF), {"id": id})
    return id


def answers(asker: Asker, count: int) -> dict[str, tuple[messages.Reply, list[bytes]]]:
    found = {}
    for _ in range(count):
        reply: Any = wait_until(lambda: asker.redis.blpop([asker.keys.replies(ASKER)], timeout=1), 20, "a reply")
        read = messages.read_reply(reply[1])
        found[read[0].id] = read
    return found


def of_a_job(generator: Generator, request: Generate) -> list[bytes]:
    """The files that a job with the same options writes, in its order."""
    spec = specs.Generate(
        id="job",
        model=painter.REF,
        weights_sha256="0" * 64,
        output="s3://bucket/out/",
        classes=painter.record().class_numbers(request.classes),
        **request.model_dump(include={"seed", "count", "size", "truncation", "image_format"}),
    )
    files = []
    for block in whole_plan(spec):
        labels, numbers = torch.tensor(list(block.images())).T
        group = generator.sampler(spec.seed, spec.truncation).images(labels, numbers)
        files += encode_images(spec, group.movedim(1, -1).contiguous().numpy())
    return files


REQUESTS = (
    Generate(reply_to=ASKER),
    Generate(reply_to=ASKER, seed=7, count=64),
    Generate(reply_to=ASKER, seed=7, count=10, classes=("wren",)),
    Generate(reply_to=ASKER, seed=8, count=5, truncation=0.7, size=20, image_format="webp"),
    Generate(reply_to=ASKER, seed=2**32 - 1, count=2, classes=("wren", "owl"), image_format="jpeg"),
)


@pytest.mark.parametrize("shares", [True, False])
def test_the_files_are_those_of_a_job(
    counter: Counter, images: Images, asker: Asker, generator: Generator, shares: bool
) -> None:
    # Given requests that wait together, on a device that lets them share groups and on one that does not,
    if shares and not images.shares:
        pytest.skip("this CPU makes another image at another place of a group")
    images.shares = shares
    asked = {ask(asker, request): request for request in REQUESTS}
    counter.start()
    # I expect each to have the files that a job with its options writes.
    found = answers(asker, len(asked))
    for id, request in asked.items():
        reply, files = found[id]
        assert files == of_a_job(generator, request), request
        assert [row["size"] for row in reply.rows] == [len(file) for file in files]
        assert {(row["model"], row["seed"], row["precision"]) for row in reply.rows} == {
            ("painter@1", request.seed, "fp32")
        }
    rows = found[next(id for id, request in asked.items() if request.count == 5)][0].rows
    assert [(row["label"], row["index"]) for row in rows] == [
        ("owl", 0),
        ("hen", 0),
        ("wren", 0),
        ("owl", 1),
        ("hen", 1),
    ]


def test_single_images_share_a_group(counter: Counter, images: Images, asker: Asker, generator: Generator) -> None:
    if not images.shares:
        pytest.skip("this CPU makes another image at another place of a group")
    groups: list[int] = []
    sampler = images._sampler
    images._sampler = cast(
        "Any", SimpleNamespace(images=lambda draws: groups.append(len(draws)) or sampler.images(draws))
    )
    # Given many requests at once for an image each,
    asked = {ask(asker, request): request for request in [Generate(reply_to=ASKER, seed=n) for n in range(40)]}
    counter.start()
    found = answers(asker, 40)
    # I expect a few groups, and the right image for each.
    assert sum(groups) == 40 and len(groups) < 40
    for id, request in asked.items():
        assert found[id][1] == of_a_job(generator, request)


def test_what_the_model_does_not_have_is_refused(counter: Counter, asker: Asker) -> None:
    wrong = {
        ask(asker, Generate(reply_to=ASKER, classes=("owls",))): "did you mean 'owl'",
        ask(asker, Generate(reply_to=ASKER, count=64, size=4096)): "16 at most",
        ask(asker, Classify(reply_to=ASKER, keys=("a",))): "labels no images",
    }
    counter.start()
    found = answers(asker, len(wrong))
    for id, says in wrong.items():
        assert found[id][0].outcome == "refused" and says in found[id][0].says


def test_a_device_that_makes_other_images_than_before_is_unfit(images: Images, generator: Generator) -> None:
    images.warm_up()
    images.check()
    images._known = b"others"
    with pytest.raises(ArithmeticError):
        images.check()


def test_a_model_that_raises_blames_no_image(images: Images, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a generator that raises on a seed, and two workers,
    def raises(draws: Any) -> Any:
        if any(draw.seed == 13 for draw in draws):
            raise RuntimeError("a kernel has failed")
        return sampler.images(draws)

    sampler = images._sampler
    images._sampler = cast("Any", SimpleNamespace(images=raises))
    health = Health(lambda: None, lambda why: None)
    workers = []
    for name in ("w1", "w2"):
        resources = SimpleNamespace(name=name, leaving=threading.Event(), health=health)
        workers.append(Counter(cast("Any", resources), Inbox(asker.redis, asker.keys, painter.REF, name), images))
    for worker in workers:
        worker.beat()
        worker.start()
    try:
        good, bad = ask(asker, Generate(reply_to=ASKER, seed=1)), ask(asker, Generate(reply_to=ASKER, seed=13))
        found: dict[str, Any] = {}

        def answered() -> bool:
            for worker in workers:
                worker.beat()
            reply: Any = asker.redis.lpop(asker.keys.replies(ASKER))
            if reply is not None:
                read = messages.read_reply(reply)
                found[read[0].id] = read[0]
            return len(found) == 2

        wait_until(answered, 30, "both replies")
    finally:
        for worker in workers:
            worker.stop(20)
    # I expect an answer for the others, and a sentence for that one.
    assert found[good].outcome == "done"
    assert found[bad].outcome == "failed" and "2 processes" in found[bad].says and "a kernel" in found[bad].says


def test_a_stop_waits_for_what_was_taken(counter: Counter, asker: Asker) -> None:
    ids = {ask(asker, Generate(reply_to=ASKER, seed=n, count=32)) for n in range(6)}
    counter.start()
    wait_until(lambda: asker.redis.llen(asker.keys.replies(ASKER)), 20, "a reply")
    counter.stop(20)
    replies = int(cast("Any", asker.redis.llen(asker.keys.replies(ASKER))))
    left = int(asker.redis.xlen(asker.keys.requests(painter.REF)))
    assert replies + left == len(ids)
