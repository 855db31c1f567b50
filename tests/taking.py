"""Leases a shard that the test names, where a worker asks for any."""

from __future__ import annotations

from contract.backend import ledger as module
from contract.backend.dispatch import Grant
from contract.backend.ledger import Ledger
from contract.backend.trouble import Trouble

_SCRIPT = (
    module.JOBS_LUA
    + """
use(KEYS[4])
local shard, token, lease = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', job) == 0 then return {'unknown'} end
if stopped() then return {'stopped'} end
if redis.call('GETBIT', done, shard) == 1 then return {'done'} end
if redis.call('HEXISTS', leases, shard) == 1 then return {'leased'} end
if tonumber(redis.call('ZSCORE', queued, shard) or '0') > tonumber(stamp(now)) then return {'later'} end
redis.call('HSET', leases, shard, token .. ' ' .. stamp(now + lease) .. ' 0 0 waits ' .. stamp(now))
redis.call('ZREM', queued, shard)
redis.call('HSETNX', job, 'started_at', stamp(now))
redis.call('HDEL', job, 'unmet_since')
place()
flush()
local kind, needs = unpack(redis.call('HMGET', job, 'kind', 'needs'))
return {'taken', redis.call('HGET', troubles, shard) or '', stamp(now), kind, needs, num('run')}
"""
)


def take(ledger: Ledger, job: str, shard: int, token: str) -> tuple[str, Trouble]:
    """Return `taken` with what has gone wrong so far, or why nobody gets the shard now."""
    answer, grant = _ask(ledger, job, shard, token)
    return answer, grant.trouble if grant is not None else Trouble()


def granted(ledger: Ledger, job: str, shard: int, token: str) -> Grant | None:
    """Return what a worker gets that is given this shard, or None if nobody gets it now."""
    return _ask(ledger, job, shard, token)[1]


def _ask(ledger: Ledger, job: str, shard: int, token: str) -> tuple[str, Grant | None]:
    lease = ledger._settings.lease_seconds
    answer = ledger.script(_SCRIPT, (*ledger.keys.dispatch, job), (shard, token, lease))
    if answer[0] != "taken":
        return answer[0], None
    _, trouble, now, kind, needs, run = answer
    return "taken", Grant(job, kind, shard, token, needs, Trouble.parse(trouble, float(now)), run=int(run))
