"""A thousand interleavings of cancel, finalize, resume, retry, workers and ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.jobs.ends import read_standing
from contract.settings import Settings
from tests.attacks.test_ends import play
from tests.interleaved import DictStore


def test_what_was_answered_is_what_stays(
    store: ObjectStore, ledger: Ledger, settings: Settings, long: bool, figures: Callable[..., None]
) -> None:
    in_memory, real = (1000, 100) if long else (60, 5)
    ends: Counter[str] = Counter()
    runs = 0
    for seed in range(20_000, 20_000 + in_memory + real):
        one = play(seed, DictStore() if seed < 20_000 + in_memory else store, ledger, settings)
        now = read_standing(one.store, one.id)
        assert now.end is not None
        ends[now.end.state] += 1
        runs += now.run + 1
    figures(interleavings=in_memory, on_the_real_store=real, runs=runs, **ends, contradicted=0)
