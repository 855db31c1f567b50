"""What an answer of Redis means; the texts are those that servers of the versions gave."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from contract.backend.ledger import Ledger
from contract.backend.redis_client import RedisClient
from contract.backend.secret_url import SecretUrl
from contract.backend.wire import NotWritableError, meant_by
from contract.errors import RedisUnavailable
from contract.settings import Settings

SCRIPT_6_2 = "Error running script (call to f_82cdd3d7ab6b96f9a5947917c9f163ca06cc907a): @user_script:1: "
LINE_6_2 = "@user_script: 1: "
SCRIPT_8_2 = " script: 82cdd3d7ab6b96f9a5947917c9f163ca06cc907a, on @user_script:1."
MISCONF_6_2 = (
    "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk. Commands that "
    "may modify the data set are disabled, because this instance is configured to report errors during writes if RDB "
    "snapshotting fails (stop-writes-on-bgsave-error option). "
    "Please check the Redis logs for details about the RDB error."
)
BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
UNBLOCKED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
UNWRITABLE = {
    f"{SCRIPT_6_2}{LINE_6_2}-READONLY You can't write against a read only replica.": "is a read-only replica",
    f"{SCRIPT_6_2}{LINE_6_2}-NOREPLICAS Not enough good replicas to write.": "too few replicas follow it",
    f"NOREPLICAS Not enough good replicas to write.{SCRIPT_8_2}": "too few replicas follow it",
    f"{SCRIPT_6_2}{LINE_6_2}-{MISCONF_6_2}": "cannot save to its disk",
    BUSY: "is busy with a script",
    UNBLOCKED: "has just become a replica",
}


@pytest.mark.parametrize("text", UNWRITABLE)
def test_a_server_that_accepts_no_writes_is_known_by_any_of_its_answers(text: str) -> None:
    error = meant_by(ResponseError(text))
    assert isinstance(error, NotWritableError)
    assert UNWRITABLE[text] in str(error)


CLASSES: dict[str, type[ResponseError]] = {
    f"{SCRIPT_6_2}{LINE_6_2}-OOM command not allowed when used memory > 'maxmemory'.": OutOfMemoryError,
    f"{SCRIPT_6_2}{LINE_6_2}The user executing the script can't run this command or subcommand": NoPermissionError,
    f"{SCRIPT_6_2}{LINE_6_2}The user executing the script can't access at least one of the keys mentioned in the "
    "command arguments": NoPermissionError,
    f"ACL failure in script: User u has no permissions to run the 'set' command{SCRIPT_8_2}": NoPermissionError,
    f"ACL failure in script: No permissions to access a key{SCRIPT_8_2}": NoPermissionError,
}


@pytest.mark.parametrize("text", CLASSES)
def test_an_error_within_a_script_has_the_class_that_it_has_outside(text: str) -> None:
    assert type(meant_by(ResponseError(text))) is CLASSES[text]


WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def test_a_mistake_within_a_script_keeps_its_code_and_one_outside_is_the_same_error() -> None:
    assert str(meant_by(ResponseError(SCRIPT_6_2 + WRONGTYPE))) == WRONGTYPE
    assert type(meant_by(ResponseError(SCRIPT_6_2 + WRONGTYPE))) is ResponseError
    outside = ResponseError(WRONGTYPE)
    assert meant_by(outside) is outside


def test_a_user_without_a_command_that_a_script_calls_is_one_sentence(settings: Settings) -> None:
    # Given a user who may run scripts, but not write within them,
    with closing(RedisClient(settings)) as client:
        address = client._address
        client.redis.acl_setuser("reader", enabled=True, passwords=["+hush"], keys=["*"], commands=["+@all", "-hset"])
        try:
            told = settings.model_copy(
                update={"redis_url": SecretUrl(f"redis://reader:hush@{address.host}:{address.port}/{address.db}")}
            )
            with closing(Ledger(told, patience=0.1)) as ledger, pytest.raises(RedisUnavailable) as caught:
                # if a script writes, I expect the sentence that a plain command gets.
                ledger.script("return redis.call('HSET', KEYS[1], 'a', 1)", [ledger.keys.clock], [])
        finally:
            client.redis.acl_deluser("reader")
    assert "extend the user's ACL" in str(caught.value)
    assert isinstance(caught.value.__cause__, redis.RedisError)
