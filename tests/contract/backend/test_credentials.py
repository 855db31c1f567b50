"""Requests are signed with the keys of the settings, or with what the machine has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.backend.credentials import MachineCredentials, credentials_of
from contract.backend.objects import ObjectStore
from contract.errors import CredentialsRefused
from contract.settings import Settings
from tests.sites import LOOPBACK, send, site
from worker.sources.obstore_reader import ObstoreReader


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine without any credentials, on which no role is asked for: a container's address that answers nothing."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


def test_keys_of_the_settings_come_first(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "machine")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = credentials_of(
        Settings(s3_access_key="own", s3_secret_key=SecretStr("x"), s3_session_token=SecretStr("token"))
    ).retrieve()
    assert (found.access_key, found.secret_key, found.session_token) == ("own", "x", "token")
    assert "hidden" not in repr(Settings(s3_session_token=SecretStr("hidden")))


def test_without_a_key_the_machine_is_asked(settings: Settings, bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a store, and no key in the settings,
    keyless = settings.model_copy(update={"s3_access_key": "", "s3_secret_key": SecretStr("")})

    def works() -> bool:
        with closing(ObjectStore(keyless, patience=0)) as store:
            store.put("x", b"data")
            return store.get("x") == b"data" and ObstoreReader(keyless)(store.bucket, "x", 0, None) == b"data"

    # I expect a sentence where the machine has none,
    with pytest.raises(CredentialsRefused, match="IMAGEMILL_S3_ACCESS_KEY"):
        works()
    # and that it works with AWS variables, with a credentials file, and with the role of a container.
    bare.setenv("AWS_ACCESS_KEY_ID", settings.s3_access_key)
    bare.setenv("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key.get_secret_value())
    assert works()
    bare.delenv("AWS_ACCESS_KEY_ID")
    bare.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {settings.s3_access_key}\n"
        f"aws_secret_access_key = {settings.s3_secret_key.get_secret_value()}\n"
    )
    assert works()
    (tmp_path / "credentials").unlink()
    with _role(settings) as (address, _):
        bare.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        with pytest.raises(CredentialsRefused):
            ObjectStore(keyless, patience=0).get("x")  # the store knows no such token: SeaweedFS has no sessions
        found = MachineCredentials().retrieve()
        assert (found.access_key, found.session_token) == (settings.s3_access_key, "session")


def test_credentials_of_a_role_are_renewed_and_missed_without_blame(
    settings: Settings, bare: pytest.MonkeyPatch
) -> None:
    with _role(settings, seconds=5) as (address, asked):
        bare.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        chain = MachineCredentials()
        # Given a role whose credentials last less than the margin of the SDK,
        chain.retrieve()
        # if I sign again, I expect fresh ones,
        chain.retrieve()
        assert len(asked) == 2
    # and once the role does not answer, a fault of the machine that may pass.
    with pytest.raises(CredentialsRefused) as caught:
        chain.retrieve()
    assert caught.value.retryable


@contextmanager
def _role(settings: Settings, seconds: float = 3600) -> Iterator[tuple[str, list[str]]]:
    """Serve the credentials of the tests as a container's role does, with a session token."""
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        found = {
            "AccessKeyId": settings.s3_access_key,
            "SecretAccessKey": settings.s3_secret_key.get_secret_value(),
            "Token": "session",
            "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}",
        }
        send(request, 200, json.dumps(found).encode())
        request.close_connection = True

    with site(answer) as port:
        yield f"http://{LOOPBACK}:{port}/role", asked
