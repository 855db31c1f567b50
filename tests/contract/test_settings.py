"""Settings come from arguments, variables, files of secrets and the stack file, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contract.errors import InvalidSettings, ServiceUnavailable
from contract.settings import addresses_given, load, of_the_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of secrets, in an environment that names no server."""
    for name in ("IMAGEMILL_REDIS_URL", "IMAGEMILL_S3_ENDPOINT", "IMAGEMILL_S3_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGEMILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("IMAGEMILL_SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    return tmp_path / "secrets"


def test_a_setting_may_be_a_file(folder: Path) -> None:
    (folder / "imagemill_redis_url").write_text("rediss://:geheim@redis.internal:6379/0\n")
    assert load().redis_url.get_secret_value() == "rediss://:geheim@redis.internal:6379/0"
    assert addresses_given() == [str(folder / "imagemill_redis_url")]


def test_a_secret_of_kubernetes_is_read_through_its_links(folder: Path) -> None:
    (folder / "..2026_11_26").mkdir()
    (folder / "..2026_11_26" / "imagemill_s3_secret_key").write_text("geheim")
    (folder / "..data").symlink_to("..2026_11_26")
    (folder / "imagemill_s3_secret_key").symlink_to("..data/imagemill_s3_secret_key")
    assert load().s3_secret_key.get_secret_value() == "geheim"


def test_a_variable_comes_before_a_file_and_a_file_before_the_stack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stack.json").write_text(json.dumps({"s3_endpoint": "stack:1", "redis_url": "redis://stack"}))
    (folder / "imagemill_s3_endpoint").write_text("file:1")
    assert load().s3_endpoint == "file:1"
    assert load().redis_url.get_secret_value() == "redis://stack"
    monkeypatch.setenv("IMAGEMILL_S3_ENDPOINT", "variable:1")
    assert load().s3_endpoint == "variable:1"
    assert addresses_given() == ["IMAGEMILL_S3_ENDPOINT"]


def test_a_folder_that_is_not_there_is_one_sentence(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(InvalidSettings, match=r"IMAGEMILL_SECRETS_DIR names .*, which is no folder"):
        load()


def test_a_wrong_value_of_a_file_is_not_shown(folder: Path) -> None:
    (folder / "imagemill_lease_seconds").write_text("geheim")
    with pytest.raises(InvalidSettings, match="IMAGEMILL_LEASE_SECONDS") as told:
        load()
    assert "geheim" not in str(told.value)


def test_what_needs_no_redis_asks_for_none(folder: Path) -> None:
    # Given nothing, I expect a sentence; given the object store alone, its settings.
    with pytest.raises(ServiceUnavailable, match="set IMAGEMILL_S3_ENDPOINT"):
        of_the_store()
    (folder / "imagemill_s3_endpoint").write_text("store.internal:9000")
    assert of_the_store().s3_endpoint == "store.internal:9000"
