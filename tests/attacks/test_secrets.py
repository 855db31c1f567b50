"""Whoever sees what the product prints, an error, a traceback or a dump of its settings, sees no password."""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.backend.wire import redis_address
from contract.errors import ImagemillError, InvalidSettings
from contract.settings import Settings, load
from deploy.local.servers import Servers
from deploy.local.stackfile import StackInfo

SECRET = "hushhush"


@pytest.fixture
def secret() -> Settings:
    return Settings(
        redis_url=f"redis://anna:{SECRET}@127.0.0.1:1/0",
        s3_endpoint="127.0.0.1:1",
        s3_access_key=f"key-{SECRET}",
        s3_secret_key=SecretStr(SECRET),
    )


def printed(thing: object) -> Iterator[str]:
    """All ways in which something ends up in a terminal, a log or a report."""
    yield from (repr(thing), str(thing), f"{thing}", f"{thing!r}", ascii(thing))
    stream = io.StringIO()
    logger = logging.Logger("secrets")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("it is %s, %r", thing, [thing])
    yield stream.getvalue()


def test_settings_show_no_secret(secret: Settings) -> None:
    for text in printed(secret):
        assert SECRET not in text
    secrets = secret.model_dump(exclude={"s3_access_key"})
    assert SECRET not in repr(secrets)
    assert SECRET not in secret.model_dump_json(exclude={"s3_access_key"})


def test_every_setting_that_may_be_a_secret_is_kept_as_one() -> None:
    """A new setting with such a name must not be plain text."""
    for name, field in Settings.model_fields.items():
        if any(word in name for word in ("secret", "password", "token", "credential", "redis_url")):
            if name != "secrets_dir":  # where they lie
                assert isinstance(field.annotation, type) and issubclass(field.annotation, SecretStr), name
        elif "key" in name:
            assert field.repr is False, name


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{SECRET}@host:1/0", "redis://host:1/0"),
        (f"rediss://anna:{SECRET}@[::1]:1/0", "rediss://[::1]:1/0"),
        (f"redis://host/0?password={SECRET}", "redis://host/0"),
        (f"redis://:hu/sh{SECRET}@host/0", "**********"),
        (f"redis://:hu#sh{SECRET}@host/0", "**********"),
        (f"redis://:hu?sh{SECRET}@host/0", "**********"),
        (f"redis://:1@2@{SECRET}:x", "**********"),
        (f"{SECRET}", "**********"),
        (f"//{SECRET}", "**********"),
        (f"redis://[{SECRET}", "**********"),
        ("", ""),
    ],
)
def test_a_url_shows_its_address_or_nothing(url: str, shown: str) -> None:
    held = SecretUrl(url)
    assert str(held) == shown
    for text in printed(held):
        assert SECRET not in text
    assert held.get_secret_value() == url
    assert pickle.loads(pickle.dumps(held)) == held  # as it goes to a child process


def test_records_of_a_stack_show_no_secret(tmp_path: Path) -> None:
    servers = Servers.of(tmp_path)
    info = StackInfo(
        state="running",
        data=tmp_path,
        pid=1,
        workers=1,
        bucket="imagemill",
        redis_url=servers.redis_url,
        s3_secret_key=servers.s3_secret_key,
    )
    for record in (servers, info):
        for text in printed(record):
            for word in (servers.redis_password, servers.s3_secret_key):
                assert word not in text
    record_type: type[BaseModel]
    for record_type in (Servers, StackInfo):
        with pytest.raises(ValidationError) as caught:
            record_type.model_validate({"redis_password": [SECRET], "redis_url": [SECRET]})
        assert SECRET not in str(caught.value)


def test_errors_and_tracebacks_show_no_secret(
    secret: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given settings that hold secrets and lead nowhere,
    def ledger() -> None:
        with closing(Ledger(secret, patience=0.0)) as found:
            found.info()

    def store() -> None:
        with closing(ObjectStore(secret, patience=0.0)) as found:
            found.get("a")

    def address() -> None:
        redis_address(secret.model_copy(update={"redis_url": SecretUrl(f"redis://:{SECRET}@host:x/0")}))

    def environment() -> None:
        monkeypatch.setenv("IMAGEMILL_REDIS_URL", f"redis://:{SECRET}@host/0")
        monkeypatch.setenv("IMAGEMILL_S3_SECRET_KEY", SECRET)
        monkeypatch.setenv("IMAGEMILL_SHARD_SIZE", "none")
        load()

    def stack_file() -> None:
        (tmp_path / "stack.json").write_text(f'{{"redis_url": "redis://:{SECRET}@host/0", "s3_secret_key": "{SECRET}",')
        load(data=tmp_path)

    with pytest.raises(InvalidSettings, match="damaged"):
        stack_file()

    # if what uses them fails, I expect no secret in message or traceback.
    for fails in (ledger, store, address, stack_file, environment):
        with pytest.raises(ImagemillError) as caught:
            fails()
        assert SECRET not in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_celery_dumps_shows_no_secret(secret: Settings) -> None:
    with closing(make_app(secret)) as app:
        with app.connection_for_write() as connection:
            for text in (*printed(app), *printed(connection), connection.as_uri()):
                assert SECRET not in text
        for text in (*printed(app.conf), app.conf.humanize(), app.bugreport(), str(app.conf.table(censored=True))):
            assert SECRET not in text
