"""What a connection says of a Redis that does not answer."""

import pytest

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
