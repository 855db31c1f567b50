"""Controllers share watches: each keeps some, none is kept twice, and those of a dead one are taken over."""

from __future__ import annotations

from contract.backend.ledger import Ledger
from contract.watches import claims

NAMES = [f"w{n}" for n in range(7)]


def test_one_controller_keeps_all_and_two_share(ledger: Ledger) -> None:
    assert claims.share(ledger, "one", NAMES) == NAMES
    # If another one comes, the first lets go of what is above its share at its next turn.
    assert claims.share(ledger, "two", NAMES) == []
    one = claims.share(ledger, "one", NAMES)
    two = claims.share(ledger, "two", NAMES)
    assert (len(one), len(two)) == (4, 3)
    assert sorted(one + two) == NAMES
    # Neither moves from then on.
    assert claims.share(ledger, "one", NAMES) == one
    assert claims.share(ledger, "two", NAMES) == two


def test_one_that_leaves_gives_up_its_watches_at_once(ledger: Ledger) -> None:
    one = claims.share(ledger, "one", NAMES)
    claims.share(ledger, "two", NAMES)
    claims.leave(ledger, "one", one)
    assert claims.share(ledger, "two", NAMES) == NAMES


def test_one_that_dies_is_followed_once_its_claims_lapse(ledger: Ledger) -> None:
    claims.share(ledger, "dead", NAMES)
    assert all(0 < ledger.redis.pttl(ledger.keys.watch(name)) <= 1000 * claims.CLAIM_SECONDS for name in NAMES)
    # Given that the time is over, as Redis would say
    ledger.redis.delete(ledger.keys.watchers, *(ledger.keys.watch(name) for name in NAMES))
    assert claims.share(ledger, "two", NAMES) == NAMES


def test_one_that_starts_again_under_its_name_has_its_watches_at_once(ledger: Ledger) -> None:
    claims.share(ledger, "one", NAMES)
    assert claims.share(ledger, "one", NAMES) == NAMES


def test_no_watches_are_no_claims(ledger: Ledger) -> None:
    assert claims.share(ledger, "one", []) == []
