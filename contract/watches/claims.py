"""Which controller keeps which watch: each keeps its share, and the share of one that died is taken by the others.

Claims save work and nothing rests on them: two controllers that keep one watch plan each object once all the same
(`worker.control.watching.chain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contract.backend.ledger import Ledger
from contract.errors import RedisUnavailable

_SHARE = Path(__file__).with_name("claims.lua").read_text()

CLAIM_SECONDS = 5.0
"""Seconds after which another controller may take the watches of one that died."""


def share(ledger: Ledger, controller: str, names: Sequence[str]) -> list[str]:
    """Claim this controller's share of all watches, or renew the claims; return the watches that it keeps.

    A controller that was started again under its name keeps what it had. Raises RedisUnavailable.
    """
    claims = [ledger.keys.watch(name) for name in names]
    kept = ledger.script(_SHARE, [ledger.keys.watchers, *claims], [controller, CLAIM_SECONDS])
    return [names[int(place)] for place in kept]


def leave(ledger: Ledger, controller: str, names: Sequence[str]) -> None:
    """Give up the claims of a controller that ends; they lapse by themselves if Redis does not answer."""
    with suppress(RedisUnavailable), ledger.pipeline() as pipe:
        pipe.zrem(ledger.keys.watchers, controller)
        for name in names:
            pipe.delete(ledger.keys.watch(name))
        pipe.execute()
