"""Jobs in the console: the list, a job's page, its pictures, and what a press of a button does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from producer import Client
from producer.web.console.drawing.image_kinds import kind_of
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.rows import commit_rows, end
from tests.producer.web.v1.test_jobs import body
from tests.serving import Api

HOSTILE = "<img src=x onerror=alert(1)>'\"{{7*7}}\u202e"


def submit(api: Api, model: str, owner: str = "ann", **more: object) -> str:
    with api.client("jobs", owner=owner) as client:
        answer = client.post("/v1/jobs", json=body(api.store, model, **more))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def test_a_job_is_listed_shown_canceled_resumed_and_deleted(api: Api, browse: Browse, model: str) -> None:
    client, id = browse("jobs"), submit(api, model)
    page = client.get("/console/jobs").text
    assert f'href="/console/jobs/{id}"' in page and "Not ended" in page
    assert f'action="/console/jobs/{id}/cancel"' in client.get(f"/console/jobs/{id}").text
    # If I cancel it, I expect its page, and the list of ended jobs to ask for itself.
    answer = client.post(f"/console/jobs/{id}/cancel")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/console/jobs/{id}")
    part = client.get("/console/parts/running", params={"shown": id})
    assert id not in part.text and part.headers["HX-Trigger"] == "ended"
    assert "HX-Trigger" not in client.get("/console/parts/running").headers
    assert id in client.get("/console/parts/ended").text
    page = client.get(f"/console/jobs/{id}").text
    assert f'action="/console/jobs/{id}/resume"' in page and "/cancel" not in page
    assert client.post(f"/console/jobs/{id}/resume").status_code == 303
    assert id in client.get("/console/parts/running").text and id not in client.get("/console/parts/ended").text
    assert client.post(f"/console/jobs/{id}/cancel").status_code == 303
    assert client.post(f"/console/jobs/{id}/delete").headers["Location"] == "/console/jobs"
    assert client.get(f"/console/jobs/{id}").status_code == 404


def test_who_may_read_has_no_buttons_and_strangers_have_no_page(api: Api, browse: Browse, model: str) -> None:
    id = submit(api, model)
    reader, stranger, root = browse("review"), browse("jobs", owner="bob"), browse("admin", owner="root")
    page = reader.get(f"/console/jobs/{id}")
    assert page.status_code == 200 and f"/{id}/cancel" not in page.text
    assert reader.post(f"/console/jobs/{id}/cancel").status_code == 403
    for path in ("", "/events", "/samples", "/pictures/0/0", "/made/0/0/1", "/report"):
        assert stranger.get(f"/console/jobs/{id}{path}").status_code == 404, path
    for action in ("cancel", "resume", "retry", "delete"):
        assert stranger.post(f"/console/jobs/{id}/{action}").status_code == 404, action
    assert id not in stranger.get("/console/jobs").text and id in root.get("/console/jobs").text
    assert browse("infer").get("/console/jobs").status_code == 403


def test_progress_comes_as_parts_of_the_page_until_the_end(api: Api, browse: Browse, model: str) -> None:
    client, id = browse("jobs"), submit(api, model)
    client.post(f"/console/jobs/{id}/cancel")
    answer = client.get(f"/console/jobs/{id}/events")
    assert "event: end\ndata: <div" in answer.text and "canceled" in answer.text
    (last,) = [line[4:] for line in answer.text.splitlines() if line.startswith("id: ")]
    assert client.get(f"/console/jobs/{id}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_without_redis_the_pages_show_what_the_bucket_knows(
    api: Api, browse: Browse, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contract.errors import RedisUnavailable

    client, id = browse("jobs"), submit(api, model)

    def away(*_: object, **__: object) -> None:
        raise RedisUnavailable("Redis at 10.0.0.1:6379 does not answer; start it.")

    for name in ("status", "active", "exists"):
        monkeypatch.setattr(Ledger, name, away)
    for path in ("/console/jobs", f"/console/jobs/{id}"):
        page = client.get(path)
        assert page.status_code == 200 and id in page.text and "10.0.0.1" not in page.text


def test_hostile_names_stay_text(api: Api, browse: Browse, model: str, settings: Settings, store: ObjectStore) -> None:
    # Given a source whose name is markup,
    prefix = "photos/<b onmouseover=alert(1)>'x\"/"
    store.put(f"{prefix}1.jpg", b"x")
    id = submit(api, model, source=f"s3://{store.bucket}/{prefix}")
    # and rows whose keys, labels, codes and messages are too,
    ok = {"key": HOSTILE, "label": HOSTILE, "score": 0.5, "top_k": [{"label": HOSTILE, "label_index": 0, "score": 0.5}]}
    bad = {"key": f"{HOSTILE}2", "status": "error", "error_code": HOSTILE, "error_message": HOSTILE}
    commit_rows(store, id, [ok, bad])
    end(settings, store, id, labels={HOSTILE: 1}, error_codes={HOSTILE: 1}, errors=1, ok=1)
    # I expect to see them as text on every page that shows them.
    client = browse("jobs")
    for path in ("/jobs", "/parts/ended", f"/jobs/{id}", f"/jobs/{id}/events", f"/jobs/{id}/samples"):
        page = client.get(f"/console{path}").text
        assert "<b onmouseover" not in page and "<img src=x" not in page and "&#34;49" not in page, path
        assert "&lt;b onmouseover" in page or "&lt;img src=x" in page, path
        assert "\u202e" not in page, path


def test_a_picture_is_an_image_or_nothing(api: Api, browse: Browse, model: str, store: ObjectStore) -> None:
    client, id = browse("jobs"), submit(api, model)
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
    files = {
        "a.png": png,
        "b.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "c.html": b"<script>alert(1)</script>",
    }
    for name, data in files.items():
        store.put(f"photos/{name}", data)
    lines = [
        *(f'{{"key": "{name}", "uri": "s3://{store.bucket}/photos/{name}", "size": 100}}' for name in files),
        '{"key": "d", "uri": "file:///etc/hostname"}',
        f'{{"key": "e", "uri": "s3://{store.bucket}/photos/gone.png"}}',
    ]
    store.put(JobKeys(id).manifest(0), "\n".join(lines).encode())
    answers = [client.get(f"/console/jobs/{id}/pictures/0/{place}") for place in range(6)]
    assert [answer.status_code for answer in answers] == [200, 415, 415, 404, 404, 404]
    assert answers[0].content == png and answers[0].headers["Content-Type"] == "image/png"
    assert "sandbox" in answers[0].headers["Content-Security-Policy"]
    assert answers[0].headers["X-Content-Type-Options"] == "nosniff"


def test_a_manifest_opens_nothing_that_its_author_may_not_read(
    api: Api, browse: Browse, model: str, store: ObjectStore, settings: Settings
) -> None:
    # Given images in another bucket and among what others keep, and a manifest that names them,
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
    finance = ObjectStore(settings.model_copy(update={"bucket": "finance"}))
    finance.ensure_bucket()
    finance.put("scan.png", png)
    other, id = submit(api, model, owner="bob"), submit(api, model)
    store.put(f"jobs/{other}/epochs/1.png", png)
    store.put("photos/a.png", png)
    uris = ["s3://finance/scan.png", f"s3://{store.bucket}/jobs/{other}/epochs/1.png"]
    uris += [f"s3://{store.bucket}/photos/../jobs/{other}/epochs/1.png", f"s3://{store.bucket}/photos/a.png"]
    lines = [Item("x", uri).to_line() for uri in uris]
    lines.append(Item.of_frames("s", "s3://finance/", [Item("f", uris[0])], length=1).to_line())
    store.put(JobKeys(id).manifest(0), "\n".join(lines).encode())
    # I expect the server to open none of them with its keys, and what the author may read as before.
    answers = [browse("jobs").get(f"/console/jobs/{id}/pictures/0/{place}") for place in range(len(lines))]
    assert [answer.status_code for answer in answers[:4]] == [404, 404, 404, 200]
    assert answers[4].status_code == 404 and png not in [answer.content for answer in (*answers[:3], answers[4])]


def test_files_that_were_packed_for_a_job_are_shown(
    browse: Browse, model: str, settings: Settings, tmp_path: Path
) -> None:
    # Given a job of a folder on the machine of whoever submits it,
    pictures = [b"\x89PNG\r\n\x1a\n" + b"\0" * 99 + bytes([n]) for n in range(2)]
    for n, picture in enumerate(pictures):
        (tmp_path / f"{n}.png").write_bytes(picture)
    with closing(Client(settings.model_copy(update={"owner": "ann"}))) as client:
        id = client.classify(tmp_path, model=model).id
    # I expect to see its images, which are in a tar of the job.
    answers = [browse("jobs").get(f"/console/jobs/{id}/pictures/0/{place}") for place in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert [answer.content for answer in answers[:2]] == pictures


@pytest.mark.parametrize(
    "data", [b"", b"<svg/>", b"%PDF-1.7", b"\0\0\0\0ftypmp42", b"RIFF0000WAVE", HOSTILE.encode("utf-8", "replace")]
)
def test_what_no_browser_shows_as_an_image_has_no_kind(data: bytes) -> None:
    assert kind_of(data) == ""


def test_a_page_that_nobody_foresaw_to_fail_says_nothing_of_the_server(
    api: Api, browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from producer.jobs import pages

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/srv/secret")

    monkeypatch.setattr(pages, "listed", broken)
    answer: httpx2.Response = browse("jobs").get("/console/jobs")
    assert answer.status_code == 500 and "secret" not in answer.text and "text/html" in answer.headers["Content-Type"]
