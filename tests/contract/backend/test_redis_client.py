"""What a connection says of a Redis that does not answer."""

from collections.abc import Callable
from contextlib import closing

import pytest
from redis import Redis

from contract.backend.ledger import Ledger
from contract.backend.redis_client import RedisClient
from contract.backend.secret_url import SecretUrl
from contract.errors import RedisUnavailable
from contract.settings import Settings


def test_a_silent_redis_is_one_sentence(settings: Settings) -> None:
    silent = settings.model_copy(update={"redis_url": SecretUrl("redis://:hush@127.0.0.1:1/0")})
    client = RedisClient(silent, patience=0.1)
    with pytest.raises(RedisUnavailable, match=r"Redis at 127\.0\.0\.1:1/0 cannot be reached") as caught:
        client.value("a")
    assert "hush" not in str(caught.value), "passwords stay out of messages"
    assert caught.value.exit_code == 3


def set_to(name: str, value: str) -> Callable[[Redis], object]:
    return lambda redis: redis.config_set(name, value)


UNWRITABLE: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object], str]] = {
    "a replica": (
        lambda redis: redis.replicaof("127.0.0.1", "1"),
        lambda redis: redis.replicaof("NO", "ONE"),
        "is a read-only replica; point IMAGEMILL_REDIS_URL to its primary.",
    ),
    "too few replicas": (
        set_to("min-replicas-to-write", "1"),
        set_to("min-replicas-to-write", "0"),
        "accepts no writes, because too few replicas follow it;",
    ),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_redis_that_accepts_no_writes_is_one_sentence_and_asked_over_a_new_connection(
    settings: Settings, name: str
) -> None:
    begin, end, why = UNWRITABLE[name]
    with closing(Ledger(settings, patience=0.1)) as ledger, closing(Redis.from_url(ledger._address.url)) as other:
        # Given a Redis that was the primary until now, with connections of ours,
        before = ledger.redis.client_id()
        begin(other)
        try:
            # if it is written to, by a command, a script or a pipeline, I expect one sentence that says what to do,
            for write in (
                lambda: ledger.once_in(1, "a"),
                lambda: ledger.script("return redis.call('DEL', KEYS[1])", [ledger.keys.clock], []),
                lambda: ledger.beat("worker", 1.0, pid=1),
            ):
                with pytest.raises(RedisUnavailable) as caught:
                    write()
                assert str(caught.value).startswith(f"Redis at {ledger._address.shown} {why}")
        finally:
            end(other)
        # and that the next connection may lead to whatever has its address now.
        assert ledger.redis.client_id() != before
        assert ledger.once_in(1, "a")


def test_a_replica_that_lost_its_primary_is_told_from_a_cluster(settings: Settings) -> None:
    with closing(RedisClient(settings, patience=0.1)) as client, closing(Redis.from_url(client._address.url)) as other:
        other.config_set("replica-serve-stale-data", "no")
        other.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(RedisUnavailable, match="is a replica that has lost its primary"):
                client.value("a")
        finally:
            other.replicaof("NO", "ONE")
            other.config_set("replica-serve-stale-data", "yes")
