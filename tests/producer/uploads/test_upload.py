"""What appears in a folder is uploaded once it stands still: real files, a real store."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, InvalidSource, StoreUnavailable, UnknownWatch
from contract.settings import Settings
from producer.uploads import hints as hints_module
from producer.uploads.send import Sent, send
from producer.uploads.sent import SentFiles
from producer.uploads.upload import Uploaded, Uploader
from tests.proxy import before
from tests.waiting import wait_until

SETTLE = 0.2


class Camera:
    """A folder, and uploads of it to one address, each as if it were a process of its own."""

    def __init__(self, store: ObjectStore, tmp_path: Path) -> None:
        self.store, self.folder, self.record = store, tmp_path / "photos", tmp_path / "record.sqlite"
        self.folder.mkdir()
        self.said: list[str] = []
        self.puts: Counter[str] = Counter()

    def take(self, name: str, data: bytes = b"photo") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def uploader(self, sent: SentFiles, store: ObjectStore | None = None, **options: Any) -> Uploader:
        given = {"settle": SETTLE, "max_bytes": 2**20, "say": self.said.append, **options}
        return Uploader(store or self.store, self.folder, f"s3://{self.store.bucket}/in/", sent, **given)

    def once(self, **options: Any) -> Uploaded:
        with closing(SentFiles(self.record)) as sent:
            return self.uploader(sent, **options).run(threading.Event(), once=True)

    def there(self) -> dict[str, bytes]:
        entries = self.store.list("in/")
        return {entry.key.removeprefix("in/"): self.store.get(entry.key) for entry in entries}


class Running:
    """An upload that goes on in a thread until `stop`."""

    def __init__(self, camera: Camera, **options: Any) -> None:
        self.stopping = threading.Event()
        self.done: list[Uploaded] = []
        self.error: list[Exception] = []

        def run() -> None:
            try:
                with closing(SentFiles(camera.record)) as sent:
                    self.done.append(camera.uploader(sent, **options).run(self.stopping))
            except Exception as error:
                self.error.append(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def stop(self) -> Uploaded:
        self.stopping.set()
        self._thread.join()
        assert not self.error, self.error
        return self.done[0]


@pytest.fixture
def camera(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Camera:
    made = Camera(store, tmp_path)
    put = store.put

    def counted(key: str, data: bytes, *, bucket: str = "") -> None:
        made.puts[key.removeprefix("in/")] += 1
        put(key, data, bucket=bucket)

    monkeypatch.setattr(store, "put", counted)
    return made


@pytest.fixture
def running(camera: Camera) -> Iterator[Callable[..., Running]]:
    begun: list[Running] = []

    def run(**options: Any) -> Running:
        begun.append(Running(camera, **options))
        return begun[-1]

    yield run
    for one in begun:
        one.stopping.set()
        one._thread.join()


def told_of_changes() -> bool:
    """Whether this process watches a folder by now, as far as the system says."""
    infos = Path("/proc/self/fdinfo")
    if not infos.is_dir():
        return True
    found = False
    for info in infos.iterdir():
        with suppress(OSError):  # closed since it was listed
            found |= "inotify wd:" in info.read_text()
    return found


def test_what_is_there_is_sent_and_then_what_appears(camera: Camera, running: Callable[..., Running]) -> None:
    camera.take("a.jpg", b"first")
    # A look only every hour: what comes is known by hints alone.
    upload = running(look=3600.0)
    wait_until(lambda: camera.there() == {"a.jpg": b"first"}, 20, "the first photo")
    wait_until(told_of_changes, 20, "hints")

    camera.take("b.jpg", b"second")
    camera.take("roll-2/deep/c.jpg", b"third")
    (camera.folder.parent / "d.part").write_bytes(b"renamed")
    (camera.folder.parent / "d.part").rename(camera.folder / "d.jpg")
    elsewhere = camera.folder.parent / "roll-3"
    elsewhere.mkdir()
    (elsewhere / "e.jpg").write_bytes(b"with its folder")
    elsewhere.rename(camera.folder / "roll-3")

    wait_until(lambda: len(camera.there()) == 5, 20, "what came")
    assert camera.there() == {
        "a.jpg": b"first",
        "b.jpg": b"second",
        "roll-2/deep/c.jpg": b"third",
        "d.jpg": b"renamed",
        "roll-3/e.jpg": b"with its folder",
    }
    done = upload.stop()
    assert (done.sent, done.unchanged, done.waiting, done.refused) == (5, 0, 0, 0)
    assert set(camera.puts.values()) == {1} and camera.said == []


def test_looking_finds_what_no_hint_tells(
    camera: Camera, running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a network drive, to which somebody else writes.
    monkeypatch.setattr(hints_module.Hints, "follow", lambda self, *, again=False: None)
    running(look=0.1)
    camera.take("a.jpg")
    wait_until(lambda: "a.jpg" in camera.there(), 20, "the photo")


def test_a_file_that_is_being_written_is_left_alone_until_it_stands_still(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = camera.take("slow.jpg", b"part 0")
    outcomes = list[str]()

    def slow(store: ObjectStore, bucket: str, sending: Any) -> Any:
        if len(outcomes) < 3:  # whenever it is about to be read, the writer goes on
            with path.open("ab") as file:
                file.write(f", part {len(outcomes) + 1}".encode())
        done = send(store, bucket, sending)
        outcomes.append(done.outcome)
        return done

    monkeypatch.setattr("producer.uploads.upload.send", slow)
    assert camera.once(look=0.1).sent == 1
    assert outcomes == ["changed", "changed", "changed", "sent"]
    assert camera.there() == {"slow.jpg": b"part 0, part 1, part 2, part 3"}


def test_what_is_hidden_or_no_image_by_its_name_stays(camera: Camera) -> None:
    for name in (".a.jpg.Xk2f", ".sync/b.jpg", "c.jpg.part", "Thumbs.db", "d.jpg"):
        camera.take(name)
    assert camera.once().sent == 1
    assert set(camera.there()) == {"d.jpg"} and camera.said == []


def test_each_file_that_cannot_be_sent_has_one_line_and_harms_no_other(
    camera: Camera, running: Callable[..., Running]
) -> None:
    camera.take("good.jpg")
    camera.take("empty.jpg", b"")
    camera.take("large.jpg", bytes(2**20 + 1))
    os.mkfifo(camera.folder / "pipe.jpg")
    (camera.folder / "dead.jpg").symlink_to("nowhere")
    (camera.folder / "round.jpg").symlink_to("round.jpg")
    (camera.folder / "linked.jpg").symlink_to(camera.take("good.jpg"))
    upload = running(look=0.1)
    wait_until(lambda: len(camera.there()) == 2 and len(camera.said) >= 5, 20, "all to be seen")
    # Looked at many times, each is told once.
    seen = len(camera.said)
    camera.take("later.jpg")
    wait_until(lambda: "later.jpg" in camera.there(), 20, "another look")
    done = upload.stop()
    assert set(camera.there()) == {"good.jpg", "linked.jpg", "later.jpg"}
    assert done.refused == 5 and len(camera.said) == seen == 5
    lines = {Path(line.split(" is not sent: ")[0]).name: line.split(" is not sent: ")[1] for line in camera.said}
    assert lines["empty.jpg"] == "it is empty so far."
    assert lines["large.jpg"] == "it has 1,048,577 bytes, and IMAGEMILL_MAX_IMAGE_BYTES allows 1,048,576."
    assert lines["pipe.jpg"] == "it is no file, but a pipe, a socket or a device."
    assert lines["dead.jpg"].startswith("it is a link that leads nowhere")
    assert lines["round.jpg"].startswith("it is a link that leads nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_is_sent_once_it_may_be_read(camera: Camera, running: Callable[..., Running]) -> None:
    path = camera.take("secret.jpg")
    path.chmod(0)
    upload = running(look=0.1)
    wait_until(lambda: camera.said, 20, "the line")
    assert "Permission denied" in camera.said[0]
    path.chmod(0o600)
    wait_until(lambda: "secret.jpg" in camera.there(), 20, "the photo")
    assert upload.stop().refused == 0 and len(camera.said) == 1


def test_an_unreadable_file_is_told_once_and_tried_again(
    camera: Camera, running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.take("broken.jpg")
    camera.take("good.jpg")
    broken = [True]

    def failing(store: ObjectStore, bucket: str, sending: Any) -> Any:
        if sending.path.endswith("broken.jpg") and broken:
            return Sent("refused", reason="Input/output error")
        return send(store, bucket, sending)

    monkeypatch.setattr("producer.uploads.upload.send", failing)
    upload = running(look=0.1)
    wait_until(lambda: camera.said and "good.jpg" in camera.there(), 20, "the other one")
    assert camera.said == [f"{camera.folder}/broken.jpg is not sent: Input/output error."]
    broken.clear()
    wait_until(lambda: "broken.jpg" in camera.there(), 20, "it too")
    assert upload.stop().sent == 2 and len(camera.said) == 1


def test_a_second_start_sends_what_came_meanwhile_and_nothing_twice(camera: Camera) -> None:
    camera.take("a.jpg")
    assert camera.once().sent == 1
    camera.take("b.jpg")
    done = camera.once()
    assert (done.sent, done.unchanged) == (1, 0)
    assert camera.puts == {"a.jpg": 1, "b.jpg": 1}


def test_without_its_record_it_asks_the_bucket(camera: Camera) -> None:
    camera.take("a.jpg", b"one")
    camera.take("b.jpg", b"two")
    assert camera.once().sent == 2
    camera.record.unlink()
    camera.take("b.jpg", b"TWO")

    done = camera.once()

    assert (done.sent, done.unchanged) == (1, 1)
    assert camera.there() == {"a.jpg": b"one", "b.jpg": b"TWO"} and camera.puts["a.jpg"] == 1


def test_a_damaged_record_is_begun_anew(camera: Camera) -> None:
    camera.take("a.jpg")
    camera.once()
    for path in camera.record.parent.glob("record.sqlite*"):
        path.write_bytes(b"no database" * 1000)
    assert camera.once().unchanged == 1
    assert camera.puts == {"a.jpg": 1}


def test_a_changed_file_is_sent_again_and_a_touched_one_is_not(camera: Camera) -> None:
    path = camera.take("a.jpg", b"before")
    camera.take("b.jpg")
    camera.once()
    path.write_bytes(b"after!")
    os.utime(camera.folder / "b.jpg", ns=(1, 1))

    done = camera.once()

    assert (done.sent, done.unchanged) == (1, 1)
    assert camera.there()["a.jpg"] == b"after!" and camera.puts == {"a.jpg": 2, "b.jpg": 1}


def test_names_that_are_no_utf8_keep_apart(camera: Camera) -> None:
    for name, data in ((b"G\xe4rten.jpg", b"one"), (b"G\xebrten.jpg", b"two"), ("Gärten.jpg".encode(), b"three")):
        try:
            Path(os.fsdecode(os.fsencode(camera.folder) + b"/" + name)).write_bytes(data)
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
    camera.once()
    assert camera.there() == {"G%E4rten.jpg": b"one", "G%EBrten.jpg": b"two", "Gärten.jpg": b"three"}


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(
    camera: Camera, running: Callable[..., Running], settings: Settings
) -> None:
    upstream = settings.s3_endpoint.removeprefix("http://")
    with before(upstream) as proxy:
        away = [True]
        proxy.refuses = lambda method, path: (503, "ServiceUnavailable") if away else None
        through = settings.model_copy(update={"s3_endpoint": proxy.address})
        with closing(ObjectStore(through, patience=0.1)) as store:
            for number in range(40):
                camera.take(f"{number:02d}.jpg", str(number).encode())
            upload = running(store=store)
            wait_until(lambda: camera.said, 20, "the line")
            away.clear()
            wait_until(lambda: len(camera.there()) == 40, 60, "all photos")
            assert upload.stop().sent == 40
    # One line for each time, not for each photo; an answer that was under way may begin another time.
    waits, goes_on = camera.said[::2], camera.said[1::2]
    assert len(waits) == len(goes_on) < 10
    assert all(line.startswith("Waiting: The store at ") for line in waits)
    assert set(goes_on) == {"The store takes files again."}


def test_once_does_not_wait_for_a_store(camera: Camera, settings: Settings) -> None:
    camera.take("a.jpg")
    nowhere = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    with closing(ObjectStore(nowhere, patience=0.1)) as store, pytest.raises(StoreUnavailable):
        camera.once(store=store)
    assert camera.once().sent == 1


def test_a_folder_that_goes_away_and_comes_back(camera: Camera, running: Callable[..., Running]) -> None:
    camera.take("a.jpg")
    upload = running(look=0.1)
    wait_until(lambda: "a.jpg" in camera.there(), 20, "the photo")

    shutil.rmtree(camera.folder)
    wait_until(lambda: camera.said, 20, "the line")
    camera.folder.mkdir()
    camera.take("b.jpg")

    wait_until(lambda: "b.jpg" in camera.there(), 20, "what came with it")
    done = upload.stop()
    assert (done.sent, done.refused) == (2, 0)
    assert camera.said == [f"{camera.folder} is not sent: No such file or directory."]
    shutil.rmtree(camera.folder)
    with pytest.raises(InvalidSource, match="cannot be listed"):
        camera.once()


def test_what_is_deleted_before_its_turn_is_told(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    path = camera.take("a.jpg")

    def late(store: ObjectStore, bucket: str, sending: Any) -> Any:
        path.unlink(missing_ok=True)
        return send(store, bucket, sending)

    monkeypatch.setattr("producer.uploads.upload.send", late)
    assert camera.once().sent == 0
    assert camera.said == [f"{path} was deleted before it was sent."]


def test_two_processes_do_not_upload_one_folder(camera: Camera) -> None:
    with closing(SentFiles(camera.record)), pytest.raises(InvalidInput, match="Another process uploads this folder"):
        camera.once()


def test_it_ends_with_its_watch(camera: Camera, running: Callable[..., Running]) -> None:
    def check() -> None:
        raise UnknownWatch("There is no watch 'camera'.")

    upload = running(check=check)
    wait_until(lambda: upload.error, 20, "the end")
    assert isinstance(upload.error[0], UnknownWatch)


def test_thousands_of_small_files(camera: Camera) -> None:
    for number in range(2000):
        camera.take(f"{number % 7}/{number:04d}.jpg", str(number).encode())
    done = camera.once()
    assert (done.sent, done.waiting) == (2000, 0)
    assert len(list(camera.store.list("in/"))) == 2000 and set(camera.puts.values()) == {1}
    assert camera.once().sent == 0
