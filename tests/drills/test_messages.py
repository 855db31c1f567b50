"""Thousands of mutated messages into every queue, while a job is labelled: no process ends, and no image is lost."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.queues import Queues
from contract.keys.queues import QUEUES
from contract.keys.redis import RedisKeys
from tests.mill import Mill, check_complete
from tests.waiting import wait_until

IMAGES = 48


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Mill]:
    data = tmp_path / "mill"
    data.mkdir()
    with Mill(data, workers=1).running() as made:
        yield made


def samples(mill: Mill) -> list[bytes]:
    """Messages as they are sent, from queues that nobody reads."""
    aside = mill.settings.model_copy(update={"namespace": "aside"})
    app = make_app(aside)
    queues = Queues(app)
    queues.plan("a-job")
    queues.finalize("a-job")
    queues.finish("a-job")
    queues.check("birds", 3)
    app.close()
    with closing(Ledger(aside)) as ledger:
        ledger.send_tickets("classify", 2)
    redis = mill.client.backend.ledger.redis
    found = [redis.lrange(f"{RedisKeys('aside').broker_prefix}{queue}", 0, -1) for queue in QUEUES]
    return [str(raw).encode() for raws in found for raw in raws]


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1e308,
    "",
    "x" * 5000,
    [],
    {},
    [[]],
    {"__type__": "uuid", "__value__": 1},
]


def mutated(rng: random.Random, samples: list[bytes]) -> bytes:
    """One message with some bytes, or some fields, that are not its own."""
    raw = rng.choice(samples)
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return raw[: rng.randrange(len(raw))]
        case 2:
            at = rng.randrange(len(raw))
            return raw[:at] + rng.randbytes(rng.randrange(1, 4)) + raw[at + 1 :]
    message = json.loads(raw)
    for _ in range(rng.randrange(1, 4)):
        inner = rng.choice([message, message["headers"], message["properties"]])
        if isinstance(inner, dict) and inner:
            name = rng.choice(sorted(inner))
            if name in ("headers", "properties") and rng.random() < 0.8:
                continue
            if rng.random() < 0.3:
                del inner[name]
            else:
                inner[name] = rng.choice(VALUES)
        if not all(isinstance(message.get(name), dict) for name in ("headers", "properties")):
            break
    return json.dumps(message).encode()


def test_mutated_messages_end_nobody(
    mill: Mill, photos: dict[str, Path], tmp_path: Path, long: bool, figures: Callable[..., None]
) -> None:
    number = 20_000 if long else 600
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, path in zip(range(IMAGES), sorted(photos.values()) * IMAGES, strict=False):
        shutil.copyfile(path, folder / f"{n:03d}.jpg")
    rng, real, redis = random.Random(7), samples(mill), mill.client.backend.ledger.redis
    pids = {name: mill.supervisor.pid(name) for name in ("controller", *mill.workers)}
    prefix = RedisKeys(mill.settings.namespace).broker_prefix

    # Given a job, if mutated messages lie before and between its own in every queue,
    def send(count: int) -> None:
        for _ in range(count):
            redis.lpush(f"{prefix}{rng.choice(QUEUES)}", mutated(rng, real))

    send(number // 2)
    mill.client.classify(str(folder), model="efficientnet-lite0", job="amid", shard_size=8)
    send(number - number // 2)

    # I expect it to end complete, every queue to be empty, and every process to be the one that it was.
    mill.finished("amid", 300 if long else 120)
    check_complete(mill.client, "amid", [f"{n:03d}.jpg" for n in range(IMAGES)])
    wait_until(lambda: not any(redis.llen(f"{prefix}{q}") for q in QUEUES), 300, "the queues to be empty")
    exits = sum(mill.supervisor.pid(name) != pid for name, pid in pids.items())
    rejected = mill.client.backend.ledger.rejected()
    figures(messages=number, exits=exits, rejected=sum(rejected.values()), kinds=len(rejected))
    assert exits == 0
    assert sum(rejected.values()) > number / 2
