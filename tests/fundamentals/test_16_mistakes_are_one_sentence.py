"""A mistake is answered in one sentence that says what to do, before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.errors import (
    ImagemillError,
    InvalidInput,
    InvalidSettings,
    InvalidSource,
    RedisUnavailable,
    StoreUnavailable,
    UnknownModel,
)
from producer import Client
from tests.fundamentals.conftest import MODEL
from tests.mill import Mill


@contextmanager
def one_sentence(kind: type[ImagemillError], *words: str) -> Iterator[None]:
    """Expects an error of this kind, on one line, with these words in it."""
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?", "shows all."))
    assert len(said) < 300
    missing = [word for word in words if word not in said]
    assert not missing, said


@pytest.fixture(autouse=True)
def nothing_is_queued(client: Client) -> Iterator[None]:
    before = [job.id for job in client.jobs()]
    yield
    assert [job.id for job in client.jobs()] == before


@pytest.fixture
def client_with(mill: Mill) -> Iterator[Any]:
    """Makes a client with settings of its own."""
    made = []

    def make(**settings: Any) -> Client:
        made.append(Client(mill.settings.model_copy(update=settings)))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_a_folder_that_is_not_there(client: Client) -> None:
    with one_sentence(InvalidSource, "There is no 'fotos' here", "name a folder"):
        client.classify("fotos", model=MODEL)


def test_a_folder_without_images(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with one_sentence(InvalidSource, str(tmp_path), "holds no images", "1 other file", ".jpg"):
        client.classify(tmp_path, model=MODEL)


def test_one_file(client: Client, folder: Path) -> None:
    with one_sentence(InvalidSource, "koala.jpg is one image", "name the folder"):
        client.classify(folder / "koala.jpg", model=MODEL)


def test_one_web_address(client: Client) -> None:
    with one_sentence(InvalidSource, "one web address", ".jsonl"):
        client.classify("https://example.com/koala.jpg", model=MODEL)


def test_a_bucket_that_is_not_there(client: Client) -> None:
    with one_sentence(InvalidSource, "There is no bucket 'camra'", "create it, or correct"):
        client.classify("s3://camra/2026/", model=MODEL)


def test_a_name_that_no_bucket_can_have(client: Client) -> None:
    with one_sentence(InvalidSource, "No Bucket"):
        client.classify("s3://No Bucket/2026/", model=MODEL)


def test_a_prefix_with_nothing_under_it(client: Client, camera: ObjectStore) -> None:
    with one_sentence(InvalidSource, "There is nothing under s3://camera/1826/", "correct the address"):
        client.classify("s3://camera/1826/", model=MODEL)


def test_a_prefix_without_images(client: Client, camera: ObjectStore) -> None:
    camera.put("papers/a.pdf", b"%PDF")
    with one_sentence(InvalidSource, "s3://camera/papers/", "holds no images"):
        client.classify("s3://camera/papers/", model=MODEL)


def test_a_manifest_whose_third_line_is_wrong(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"uri": "s3://camera/a.jpg"}\n\n{"url": "s3://camera/b.jpg"}\n')
    with one_sentence(InvalidSource, "Line 3 of", "list.jsonl", "`uri` nor `source-ref`"):
        client.classify(path, model=MODEL)


def test_no_bucket_for_the_results(client: Client, folder: Path) -> None:
    with one_sentence(InvalidSource, "There is no bucket 'labls'", "create it"):
        client.classify(folder, model=MODEL, to="s3://labls/2026")


def test_a_model_that_is_not_there(client: Client, folder: Path) -> None:
    with one_sentence(UnknownModel, "efficientnet-lite", "did you mean efficientnet-lite0", "models list"):
        client.classify(folder, model="efficientnet-lite")
    with one_sentence(UnknownModel, "efficientnet-lite0@7", "efficientnet-lite0@1"):
        client.classify(folder, model="efficientnet-lite0@7")


def test_options_out_of_range(client: Client, folder: Path) -> None:
    with one_sentence(InvalidInput, "--shard-size"):
        client.classify(folder, model=MODEL, shard_size=5000)
    with one_sentence(InvalidInput, "--precision"):
        client.classify(folder, model=MODEL, precision="fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"s3_secret_key": SecretStr("wrong")}, {"s3_access_key": "NOBODY"}], ids=["secret", "access"]
)
def test_wrong_credentials(client_with: Any, folder: Path, wrong: dict[str, Any]) -> None:
    with one_sentence(InvalidSettings, "refuses", "IMAGEMILL_S3_ACCESS_KEY", "IMAGEMILL_S3_SECRET_KEY"):
        client_with(**wrong).classify(folder, model=MODEL)


def test_a_wrong_password_of_redis(mill: Mill, client_with: Any, folder: Path) -> None:
    address = str(mill.settings.redis_url).removeprefix("redis://")
    with one_sentence(InvalidSettings, "Redis refuses the password in IMAGEMILL_REDIS_URL"):
        client_with(redis_url=SecretUrl(f"redis://:wrong@{address}")).classify(folder, model=MODEL)


def test_a_home_bucket_that_is_not_there(client_with: Any, folder: Path) -> None:
    with one_sentence(InvalidSettings, "There is no bucket 'nowhere'", "IMAGEMILL_BUCKET"):
        client_with(bucket="nowhere").classify(folder, model=MODEL)


def test_no_redis(client_with: Any, folder: Path) -> None:
    with one_sentence(RedisUnavailable, "127.0.0.1:1/0", "IMAGEMILL_REDIS_URL"):
        client_with(redis_url=SecretUrl("redis://127.0.0.1:1/0")).classify(folder, model=MODEL)


def test_no_store(client_with: Any, folder: Path) -> None:
    with one_sentence(StoreUnavailable, "127.0.0.1:1", "IMAGEMILL_S3_ENDPOINT"):
        client_with(s3_endpoint="127.0.0.1:1").classify(folder, model=MODEL)
