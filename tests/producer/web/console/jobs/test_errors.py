"""The pages of failures: counts by code, each image with its sentence, and paging."""

from __future__ import annotations

import re
import struct
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import IMAGE_ERRORS, REMEDIES
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from producer.web.console.drawing.image_kinds import kind_of, pixels_of
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.jobs.test_listing import HOSTILE, submit
from tests.producer.web.console.rows import commit_rows, end
from tests.serving import Api


def bad(key: str, code: str = "truncated") -> dict[str, object]:
    return {"key": key, "status": "error", "error_code": code, "error_message": f"{key} ends early; upload it again."}


@pytest.fixture
def job(api: Api, model: str, settings: Settings, store: ObjectStore) -> str:
    """A job of four shards: 30 failures of two codes, of which one shard has none."""
    id = submit(api, model)
    commit_rows(store, id, [bad(f"a{n:02d}") for n in range(20)], 0)
    commit_rows(store, id, [{"key": "fine", "label": "disc"}], 1)
    commit_rows(store, id, [bad(f"b{n:02d}", "too_many_pixels") for n in range(8)], 2)
    commit_rows(store, id, [bad(f"c{n:02d}") for n in range(2)], 3)
    codes = {"truncated": 22, "too_many_pixels": 8}
    end(settings, store, id, state="failed", reason="Too many failed.", ok=1, errors=30, total=31, error_codes=codes)
    return id


def keys_in(page: str) -> list[str]:
    return re.findall(r'<div title="s3://[^"]*">([abc]\d\d)</div>', page)


def test_every_failure_is_on_one_page_with_why_and_what_to_do(browse: Browse, job: str) -> None:
    client = browse("jobs")
    page = client.get(f"/console/jobs/{job}/errors").text
    assert "30 of 31 images failed" in page and "Too many failed." in page and "/retry" in page
    assert REMEDIES["truncated"].split(",")[0] in page and "a00 ends early; upload it again." in page
    # If I go through the pages, I expect each image once, in order.
    found = keys_in(page)
    assert len(found) == 24
    (after,) = re.findall(r"after=([\d.]+)\"", page)
    last = client.get(f"/console/jobs/{job}/errors", params={"after": after}).text
    found += keys_in(last)
    assert found == [*(f"a{n:02d}" for n in range(20)), *(f"b{n:02d}" for n in range(8)), "c00", "c01"]
    assert "Next page" not in last and "First page" in last
    # A page of one code lists only images with that code.
    page = client.get(f"/console/jobs/{job}/errors", params={"code": "too_many_pixels"}).text
    assert keys_in(page) == [f"b{n:02d}" for n in range(8)] and "Next page" not in page
    assert client.get(f"/console/jobs/{job}/errors", params={"after": "x"}).status_code == 422


def test_a_picture_that_could_do_harm_is_only_named(browse: Browse, job: str) -> None:
    client = browse("review")
    page = client.get(f"/console/jobs/{job}/errors", params={"code": "too_many_pixels"}).text
    assert "<img" not in page and page.count("not shown") == 8 and "/retry" not in page
    assert "<img" in client.get(f"/console/jobs/{job}/errors", params={"code": "truncated"}).text


def test_the_codes_of_a_job_that_runs_are_counted_from_its_commits(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    id = submit(api, model)
    commit_rows(store, id, [bad("a"), bad("b"), bad("c", "empty_file")])
    with closing(Ledger(settings)) as ledger:
        ledger.forget(id)  # so that it is counted anew from the bucket
    page = browse("review").get(f"/console/jobs/{id}/errors").text
    assert re.search(r"truncated</code></a></th><td class=\"figure bad\" data-unit=\"images\">2<", page)
    assert re.search(r"empty_file</code></a></th><td class=\"figure bad\" data-unit=\"image\">1<", page)


def test_the_errors_of_all_jobs_are_counted_by_code(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore, job: str
) -> None:
    other, theirs = submit(api, model), submit(api, model, owner="bob")
    end(settings, store, other, errors=3, ok=1, error_codes={"truncated": 3})
    end(settings, store, theirs, errors=5, error_codes={"empty_file": 5})
    page = browse("review").get("/console/errors").text
    assert re.search(r"truncated</code></th><td [^>]*data-unit=\"images\">25</td><td [^>]*data-unit=\"jobs\">2<", page)
    assert job in page and other in page and theirs not in page and "empty_file" not in page
    assert f"<code>imagemill retry {job}</code>" in page
    assert theirs in browse("admin").get("/console/errors").text


def test_nothing_failed_and_strangers_see_nothing(api: Api, browse: Browse, model: str, job: str) -> None:
    fine = submit(api, model)
    assert "No image has failed" in browse("review").get(f"/console/jobs/{fine}/errors").text
    stranger = browse("review", owner="bob")
    assert stranger.get(f"/console/jobs/{job}/errors").status_code == 404
    assert "Nothing failed" in stranger.get("/console/errors").text


def test_hostile_codes_and_messages_stay_text(
    api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore
) -> None:
    id = submit(api, model)
    commit_rows(
        store, id, [{"key": HOSTILE, "status": "error", "error_code": HOSTILE, "error_message": f"`{HOSTILE}`"}]
    )
    end(settings, store, id, state="failed", reason=f"`{HOSTILE}`", errors=1, total=1, error_codes={HOSTILE: 1})
    for path in ("/errors", f"/jobs/{id}/errors", f"/jobs/{id}"):
        page = browse("review").get(f"/console{path}").text
        assert "<img src=x" not in page and "&lt;img src=x" in page and "\u202e" not in page, path


def test_every_code_says_what_to_do() -> None:
    assert REMEDIES.keys() == IMAGE_ERRORS.keys()


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60000, 50000), 3_000_000_000),
        (b"GIF89a" + struct.pack("<HH", 300, 20), 6000),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 30, -20), 600),
        (b"BM" + bytes(12) + struct.pack("<IHH", 12, 30, 20), 600),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x09\0\0\x13\0\0", 200),
        (b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 9 | 19 << 14), 200),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 10, 20), 200),
        (b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x0b\x08" + struct.pack(">HH", 20, 10), 200),
        (b"\xff\xd8" + b"\xff" * 10**6 + b"\xc2\0\x0b\x08" + struct.pack(">HH", 20, 10), 200),
        (b"\0\0\0\x1cftypavif" + bytes(40) + b"ispe" + bytes(4) + struct.pack(">II", 10, 20), 200),
        (b"\xff\xd8\xff", 0),
        (b"\x89PNG\r\n\x1a\n", 0),
        (b"", 0),
    ],
)
def test_a_header_says_how_large_an_image_is(data: bytes, pixels: int) -> None:
    assert pixels_of(data) == pixels
    assert (kind_of(data) != "") == (data != b"")


def test_an_image_of_too_many_pixels_is_not_sent(api: Api, browse: Browse, model: str, store: ObjectStore) -> None:
    id = submit(api, model)
    store.put("photos/bomb.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60000, 50000))
    line = f'{{"key": "bomb.png", "uri": "s3://{store.bucket}/photos/bomb.png"}}'
    store.put(JobKeys(id).manifest(0), line.encode())
    answer = browse("review").get(f"/console/jobs/{id}/pictures/0/0")
    assert answer.status_code == 415 and "3,000,000,000 pixels" in answer.text


def test_a_job_of_a_newer_version_hides_no_other(browse: Browse, api: Api, model: str, job: str) -> None:
    # Given a job that failed, and one beside it whose kind only a newer version has,
    client, other = browse("jobs"), submit(api, model)
    key = JobKeys(job).end
    api.store.put(key, api.store.get(key).replace(b'"classify"', b'"count"'))

    # I expect both in every list, and a sentence in place of its page.
    for path in ("jobs", "errors"):
        page = client.get(f"/console/{path}")
        assert page.status_code == 200 and f"/console/jobs/{job}" in page.text, path
    assert f"/console/jobs/{other}" in client.get("/console/jobs").text
    page = client.get(f"/console/jobs/{job}")
    assert page.status_code == 422 and "no job kind &#39;count&#39; in this version" in page.text
