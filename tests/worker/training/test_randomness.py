"""What is drawn follows from (seed, purpose, number) alone."""

from __future__ import annotations

import torch

from worker.engine.seeds import derived
from worker.training.randomness import reseed, seeded


def test_each_choice_has_numbers_of_its_own() -> None:
    choices = [(seed, purpose, number) for seed in (0, 1) for purpose in ("order", "augment") for number in range(50)]
    assert len({derived(*choice) for choice in choices}) == len(choices)
    assert all(0 <= derived(*choice) < 2**63 for choice in choices)


def test_a_choice_is_the_same_on_every_machine() -> None:
    # From `printf 0/order/3 | sha256sum`: a training must go on as it began after an update, too.
    assert derived(0, "order", 3) == 0x4B9958534E8D938F >> 1


def test_generators_do_not_know_each_other() -> None:
    one = seeded(0, "augment", 7)
    first = torch.rand(3, generator=one)
    torch.rand(100)
    seeded(0, "augment", 8)
    assert torch.equal(torch.rand(3, generator=seeded(0, "augment", 7)), first)
    assert not torch.equal(torch.rand(3, generator=one), first), "a generator goes on"


def test_the_global_generator_is_set() -> None:
    reseed(0, "dropout", 1)
    first = torch.rand(3)
    torch.rand(5)
    reseed(0, "dropout", 1)
    assert torch.equal(torch.rand(3), first)
