"""Long work leaves slots of a worker free for short work, and a process trains one thing at a time."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from contract.jobs.numerics import Needs
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_TRAIN
from worker.execution.admission import Admission

EVALUATION = Needs(long=True)
TRAINING = Needs(long=True, trains=True)


def admission(slots: int, *queues: str) -> Admission:
    return Admission(threading.Lock(), slots, frozenset(queues))


@pytest.mark.parametrize(
    ("slots", "queues", "most"),
    [
        (4, (QUEUE_CLASSIFY, QUEUE_TRAIN), 2),
        (3, (QUEUE_CLASSIFY, QUEUE_TRAIN), 1),
        (1, (QUEUE_CLASSIFY, QUEUE_TRAIN), 1),
        (3, (QUEUE_TRAIN,), 3),
    ],
)
def test_long_work_takes_half_of_a_worker_that_serves_short_work_too(
    slots: int, queues: tuple[str, ...], most: int
) -> None:
    admits = admission(slots, *queues)
    with ExitStack() as running:
        # Given a worker, if all of its slots ask for evaluations, I expect so many to get one,
        offers = [running.enter_context(admits.offer(QUEUE_TRAIN)) for _ in range(slots)]
        for offer in offers:
            offer.keep(EVALUATION)
        assert sum(offer.may_be_long for offer in offers) == most
        # and none of that to count for short work.
        running.enter_context(admits.offer(QUEUE_CLASSIFY))
    with admits.offer(QUEUE_TRAIN) as offer:
        assert offer.may_be_long and offer.may_train, "what has ended is free again"


def test_one_thing_trains_while_others_may_evaluate() -> None:
    admits = admission(4, QUEUE_TRAIN)
    with admits.offer(QUEUE_TRAIN) as first, admits.offer(QUEUE_TRAIN) as second:
        first.keep(TRAINING)
        assert (second.may_be_long, second.may_train) == (True, False)
    with admits.offer(QUEUE_TRAIN) as first:
        first.keep(EVALUATION)
        with admits.offer(QUEUE_TRAIN) as second:
            assert second.may_train, "an evaluation lets others train"
