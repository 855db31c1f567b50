"""A bucket can be labelled as it fills: what is there, and then what comes, each object once."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidWatch, UnknownModel, UnknownWatch
from producer import Client
from producer.uploads.upload import Uploaded
from tests.fundamentals.conftest import MODEL, Imagemill
from tests.mill import Mill
from tests.waiting import wait_until

Put = Callable[..., None]


@pytest.fixture(autouse=True)
def no_watch_stays(client: Client) -> Iterator[None]:
    yield
    for watch in client.watches():
        client.remove_watch(watch.name)


@pytest.fixture
def put(camera: ObjectStore, photos: dict[str, Path], request: pytest.FixtureRequest) -> Put:
    """Have the camera take photos, below a prefix of this test's own."""

    def put(*names: str, of: str = "") -> None:
        for name in names:
            camera.put(f"{request.node.name}/{name}.jpg", photos[of or name].read_bytes())

    return put


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"s3://camera/{request.node.name}/"


def names(client: Client, watch: str) -> list[str]:
    """The photos that have a row, sorted; a name that comes twice has two rows."""
    return sorted(row["key"].rpartition("/")[2].removesuffix(".jpg") for row in client.watched_rows(watch))


def shows_one_photo(client: Client, watch: str) -> bool:
    return names(client, watch) == ["photo"]


def open_segment(client: Client) -> str:
    """The job that the watch appends to, once its controller has told."""
    (job,) = wait_until(lambda: client.watch("camera").jobs, 60, "the open segment")
    return job


def test_what_is_there_is_labelled_and_then_what_comes(client: Client, prefix: str, put: Put) -> None:
    put("koala", "espresso")
    added = client.add_watch("camera", prefix, model=MODEL, every="200ms")
    assert (added.name, added.start, added.overwrites) == ("camera", "beginning", "ignore")

    wait_until(lambda: names(client, "camera") == ["espresso", "koala"], 60, "the photos that were there")
    put("crab", "dam")

    wait_until(lambda: len(names(client, "camera")) == 4, 60, "the photos that came")
    assert names(client, "camera") == ["crab", "dam", "espresso", "koala"]
    # A row says when its object was written, and when it was planned.
    for row in client.watched_rows("camera"):
        assert row["status"] == "ok" and row["label"]
        assert row["event_time"] <= datetime.now(UTC) and row["planned_at"] <= datetime.now(UTC)
    # Its work is a job like any other, whose plan is open as long as the watch appends to it.
    job = open_segment(client)
    wait_until(lambda: client.status(job).done == 4, 60, "the counters")
    assert client.status(job).state == "planning"
    wait_until(lambda: client.watch("camera").planned == 4, 60, "the controller to tell")
    found = client.watch("camera")
    assert (found.state, found.planned, found.unplanned) == ("watching", 4, 0)
    assert (found.lag_seconds, found.uncommitted) == (0.0, 0)


def test_from_now_leaves_out_what_is_there(client: Client, prefix: str, put: Put) -> None:
    put("koala")
    made = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > made + timedelta(seconds=2), 10, "the next second")
    client.add_watch("camera", prefix, model=MODEL, every="200ms", start="now")
    wait_until(lambda: client.watch("camera").swept_at, 60, "the first sweep")
    put("espresso")
    wait_until(lambda: names(client, "camera") == ["espresso"], 60, "the photo that came")


def test_an_overwritten_photo_is_labelled_again_if_that_is_wanted(client: Client, prefix: str, put: Put) -> None:
    put("photo", of="koala")
    client.add_watch("once", prefix, model=MODEL, every="200ms")
    client.add_watch("again", prefix, model=MODEL, every="200ms", overwrites="again")
    for watch in ("once", "again"):
        wait_until(partial(shows_one_photo, client, watch), 60, "the first version")

    put("photo", of="espresso")

    wait_until(lambda: len(names(client, "again")) == 2, 60, "the second version")
    labels = {row["etag"]: row["label"] for row in client.watched_rows("again")}
    assert set(labels.values()) == {"koala", "espresso"}
    assert [row["label"] for row in client.watched_rows("once")] == ["koala"]


def test_what_is_no_image_is_an_error_row_and_the_watch_goes_on(
    client: Client, camera: ObjectStore, prefix: str, put: Put, request: pytest.FixtureRequest
) -> None:
    camera.put(f"{request.node.name}/broken.jpg", b"no photo at all")
    camera.put(f"{request.node.name}/huge.jpg", b"\0" * (4 * 2**20 + 1))
    camera.put(f"{request.node.name}/notes.txt", b"no photo by its name")
    client.add_watch("camera", prefix, model=MODEL, every="200ms")
    wait_until(lambda: len(names(client, "camera")) == 2, 60, "the bad ones")
    put("koala")
    wait_until(lambda: len(names(client, "camera")) == 3, 60, "the good one")
    codes = {row["key"].rpartition("/")[2]: row["error_code"] for row in client.watched_rows("camera")}
    assert codes == {"broken.jpg": "not_an_image", "huge.jpg": "too_many_bytes", "koala.jpg": None}


def test_a_paused_watch_goes_on_where_it_was(client: Client, prefix: str, put: Put) -> None:
    put("koala")
    client.add_watch("camera", prefix, model=MODEL, every="200ms")
    wait_until(lambda: names(client, "camera") == ["koala"], 60, "the first photo")
    assert client.pause_watch("camera").state == "paused"
    wait_until(lambda: (told := _told(client, "camera")) and told.paused, 60, "the controller to know")
    put("espresso")
    assert client.unpause_watch("camera").state != "paused"
    wait_until(lambda: names(client, "camera") == ["espresso", "koala"], 60, "the photo that came meanwhile")


def test_a_removed_watch_leaves_its_jobs_and_a_new_one_begins_anew(client: Client, prefix: str, put: Put) -> None:
    put("koala")
    client.add_watch("camera", prefix, model=MODEL, every="200ms")
    wait_until(lambda: names(client, "camera") == ["koala"], 60, "the first photo")
    job = open_segment(client)

    client.remove_watch("camera")

    # Its open segment ends like any job.
    wait_until(lambda: client.status(job).ended, 60, "the segment to end")
    assert (client.status(job).state, client.status(job).ok) == ("succeeded", 1)
    assert [row["label"] for row in client.results(job)] == ["koala"]
    store = client.backend.store
    wait_until(lambda: not list(store.list("watches/")), 60, "what it had seen to be gone")
    with pytest.raises(UnknownWatch, match="nor any other"):
        client.watch("camera")
    # One of the same name has seen nothing, however soon it is added.
    client.add_watch("camera", prefix, model=MODEL, every="200ms")
    wait_until(lambda: names(client, "camera") == ["koala"], 60, "the photo, once more")
    assert open_segment(client) != job


def test_the_command_line(client: Client, imagemill: Imagemill, prefix: str, put: Put) -> None:
    put("koala")
    code, _, said = imagemill("watch", "list")
    assert (code, said) == (0, "There are no watches yet; `imagemill watch add --help` shows how to add one.\n")

    code, out, _ = imagemill("watch", "add", "camera", prefix, "--model", MODEL, "--every", "200ms", "--json")
    assert code == 0 and json.loads(out)["every_seconds"] == 0.2
    wait_until(lambda: names(client, "camera") == ["koala"], 60, "the row")

    code, out, _ = imagemill("results", "--watch", "camera", "--since", "1h")
    (row,) = map(json.loads, out.splitlines())
    assert code == 0 and row["label"] == "koala" and row["planned_at"].endswith("Z")
    assert imagemill("results", "--watch", "camera", "--since", "2999-01-01")[1] == ""

    wait_until(lambda: client.watch("camera").planned == 1, 60, "the controller to tell")
    wait_until(lambda: not client.watch("camera").uncommitted, 60, "the worker to tell")
    code, out, _ = imagemill("watch", "list")
    heading, line = out.splitlines()
    assert heading.split()[:4] == ["WATCH", "STATE", "LAG", "UNPLANNED"]
    assert line.split()[:7] == ["camera", "watching", "0.0", "s", "0", "0", "1"]
    assert "koala" not in imagemill("watch", "show", "camera")[1]
    assert imagemill("watch", "pause", "camera")[0] == imagemill("watch", "unpause", "camera")[0] == 0
    assert imagemill("watch", "remove", "camera")[2] == "Removed the watch camera; its jobs and their rows stay.\n"


def test_what_was_planned_is_labelled_again_with_another_version(
    client: Client, imagemill: Imagemill, prefix: str, put: Put
) -> None:
    put("koala", "espresso")
    client.add_watch("camera", prefix, model=MODEL, every="200ms", top_k=2)
    wait_until(lambda: names(client, "camera") == ["espresso", "koala"], 60, "the photos")
    until = max(row["planned_at"] for row in client.watched_rows("camera")) + timedelta(milliseconds=1)
    put("crab")
    wait_until(lambda: len(names(client, "camera")) == 3, 60, "a later photo")

    command = ("watch", "replay", "camera", "--from", "1h", "--to", until.isoformat(), "--model", MODEL)
    code, out, said = imagemill(*command, "--json")

    assert code == 0, said
    job = json.loads(out)["id"]
    assert (job.startswith("camera-replay-"), json.loads(out)["total"]) == (True, 2)
    old = {row["key"]: row for row in client.watched_rows("camera")}
    rows = list(client.results(job))
    assert sorted(row["label"] for row in rows) == ["espresso", "koala"]
    for row in rows:  # it says when the object was written and first planned, as the watch's own row does
        known = old[row["key"]]
        assert (row["event_time"], row["planned_at"]) == (known["event_time"], known["planned_at"])
        assert len(row["top_k"]) == 2
    # The same span by the same times is the same job.
    since = (until - timedelta(hours=1)).isoformat()
    same = ("watch", "replay", "camera", "--from", since, "--to", until.isoformat(), "--model", MODEL, "--detach")
    assert imagemill(*same)[1] == imagemill(*same)[1] != f"{job}\n"
    code, _, said = imagemill(
        "watch", "replay", "camera", "--from", "2000-01-01", "--to", "2000-01-02", "--model", MODEL
    )
    assert code == 2 and "There is nothing to label in what camera planned from 2000-01-01T00:00:00.000Z" in said


def test_a_folder_of_this_machine_is_watched_too(
    client: Client, imagemill: Imagemill, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    (folder / "roll-1").mkdir(parents=True)
    code, _, said = imagemill("watch", "add", "camera", str(folder), "--model", MODEL)
    assert code == 2 and said.endswith("A folder of this machine is uploaded with --upload.\n")

    # `imagemill watch add camera FOLDER --upload` does these two.
    added = client.add_upload_watch("camera", model=MODEL, every="200ms")
    assert added.source == f"s3://{client.settings.bucket}/feeds/camera/"
    stop, done = threading.Event(), list[Uploaded]()

    def upload() -> None:
        done.append(client.upload_to_watch("camera", folder, settle=0.2, stop=stop))

    uploader = threading.Thread(target=upload)
    uploader.start()
    try:
        shutil.copy(photos["koala"], tmp_path / "koala.jpg")
        (tmp_path / "koala.jpg").rename(folder / "roll-1" / "koala.jpg")  # whole at once, however long this takes
        wait_until(lambda: names(client, "camera") == ["koala"], 60, "its row")
    finally:
        stop.set()
        uploader.join()
    assert (done[0].sent, done[0].waiting) == (1, 0)
    (row,) = client.watched_rows("camera")
    assert row["key"] == "feeds/camera/roll-1/koala.jpg" and row["label"] == "koala"

    # The next start sends what came meanwhile.
    (folder / "espresso.jpg").write_bytes(photos["espresso"].read_bytes())
    (folder / "gone.jpg").symlink_to("nowhere")
    code, out, said = imagemill("watch", "upload", "camera", str(folder), "--once", "--settle", "200ms", "--json")
    assert code == 1 and "gone.jpg is not sent: it is a link that leads nowhere" in said
    assert {**json.loads(out), "bytes": 0} == {
        "address": f"s3://{client.settings.bucket}/feeds/camera/",
        "sent": 1,
        "bytes": 0,
        "unchanged": 0,
        "waiting": 0,
        "refused": 1,
    }
    wait_until(lambda: names(client, "camera") == ["espresso", "koala"], 60, "the row of the second photo")
    assert imagemill("watch", "upload", "camera", str(tmp_path / "nowhere"))[0] == 2
    assert "There is no watch 'camcorder'" in imagemill("watch", "upload", "camcorder", str(folder))[2]


def test_rows_are_followed_as_they_are_committed(client: Client, prefix: str, put: Put) -> None:
    put("koala")
    client.add_watch("camera", prefix, model=MODEL, every="200ms")
    seen: list[str] = []
    stop = threading.Event()

    def follow() -> None:
        seen.extend(row["label"] for row in client.watched_rows("camera", follow=True, stop=stop))

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        wait_until(lambda: seen == ["koala"], 60, "the first row")
        put("espresso")
        wait_until(lambda: len(seen) == 2, 60, "the second row")
    finally:
        stop.set()
        follower.join()
    assert seen == ["koala", "espresso"]


def test_mistakes_are_found_before_anything_is_written(
    client: Client, imagemill: Imagemill, prefix: str, mill: Mill
) -> None:
    own = mill.settings.bucket
    for source, options, why in (
        (prefix, {"every": "5"}, "write it as 500ms"),
        ("photos/", {}, "follows s3://bucket/prefix"),
        ("s3://nowhere-at-all/", {}, "There is no bucket"),
        (f"s3://{own}/", {}, "what Imagemill itself writes"),
        (f"s3://{own}/jobs/x/out/", {}, "what Imagemill itself writes"),
        (prefix, {"to": f"{prefix}labels/"}, "would find its own rows"),
        ("s3://camera/cam", {"to": "s3://camera/"}, "would find its own rows"),
    ):
        given: dict[str, Any] = {"model": MODEL, **options}
        with pytest.raises(InvalidWatch, match=why):
            client.add_watch("camera", source, **given)
    with pytest.raises(UnknownModel):
        client.add_watch("camera", prefix, model="no-such-model")
    with pytest.raises(InvalidWatch, match="cannot be the name"):
        client.add_watch("My Camera", prefix, model=MODEL)
    assert client.watches() == []
    code, _, said = imagemill("results", "--watch", "camera")
    assert code == 2 and "There is no watch 'camera'" in said


def _told(client: Client, name: str) -> Any:
    from contract.watches.state import read_states

    return read_states(client.backend.ledger).get(name)
