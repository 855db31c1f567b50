"""What every page of this tutorial stands on: a mill that runs, photos, and a bucket of a camera."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs.status import Status
from producer import Client
from tests.conftest import PHOTOS
from tests.gate import Gate, closed_gate
from tests.mill import Mill

MODEL = "efficientnet-lite0"
MAX_BYTES = 4 * 2**20

# Labels beyond dispute; the other photos show no ImageNet class, see SOURCES.md.
EVIDENT = {
    "alpaca": "llama",
    "camels": "Arabian camel",
    "chameleon": "African chameleon",
    "cheetah": "cheetah",
    "chickens": "hen",
    "crab": "rock crab",
    "dam": "dam",
    "espresso": "espresso",
    "german-shepherd": "German shepherd",
    "giant-panda": "giant panda",
    "goldfish": "goldfish",
    "gorilla": "gorilla",
    "koala": "koala",
    "meerkats": "meerkat",
    "paintbrushes": "paintbrush",
    "polar-bear": "ice bear",
    "red-panda": "lesser panda",
    "ring-tailed-lemurs": "Madagascar cat",
    "roman-aqueduct": "viaduct",
    "scarlet-macaw": "macaw",
}

Row = dict[str, Any]
Label = Callable[..., Status]
Rows = Callable[[Status], dict[str, Row]]
Imagemill = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="package")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Redis, an S3 server, a controller, a clock and one worker, for this whole folder."""
    # Nothing is killed here, so a process that stands still for some seconds is not taken for dead.
    patient: dict[str, Any] = {"lease_seconds": 30.0, "fetch_seconds": 600.0}
    with Mill(
        tmp_path_factory.mktemp("mill"), workers=1, max_image_bytes=MAX_BYTES, fetch_buckets="camera", **patient
    ).running() as made:
        yield made


@pytest.fixture(scope="package")
def client(mill: Mill) -> Iterator[Client]:
    """What the user holds."""
    made = Client(mill.settings)
    yield made
    made.close()


@pytest.fixture(scope="package")
def camera(mill: Mill) -> ObjectStore:
    """The user's own bucket, `camera`; Imagemill keeps its jobs in another."""
    return mill.bucket("camera")


@pytest.fixture(scope="package")
def imagemill(mill: Mill) -> Imagemill:
    """The command, as a user has it: exit code, stdout, stderr."""
    return mill.imagemill


@pytest.fixture(scope="package")
def label(mill: Mill, client: Client) -> Label:
    """Label a source, and wait for the end; any number of images may fail unless the test says how many."""

    def label(source: str | Path, **options: Any) -> Status:
        options = {"max_errors": "100%", **options}
        return mill.finished(client.classify(source, model=MODEL, **options).id, timeout=15)

    return label


@pytest.fixture(scope="package")
def rows(client: Client) -> Rows:
    """The rows of a job by key; fails where a key comes twice or the counters do not agree."""

    def rows(job: Status) -> dict[str, Row]:
        found = list(client.results(job.id))
        by_key = {row["key"]: row for row in found}
        assert len(by_key) == len(found) == job.done == job.total
        assert sum(row["status"] == "ok" for row in found) == job.ok
        assert sum(row["status"] == "error" for row in found) == job.errors
        return by_key

    return rows


@pytest.fixture(scope="package")
def painter_and_critic(mill: Mill, client: Client, crops: Path) -> None:
    """A generator and a classifier of the same four classes, `painter` and `critic`, trained for a few seconds."""
    both = ["size=16", "batch_size=32", "ema=0.9"]
    trainings = [
        client.train("vae", crops, name="painter", epochs=30, settings=[*both, "latent=8", "learning_rate=0.003"]),
        client.train("cnn", crops, name="critic", epochs=8, settings=[*both, "variant=classic", "learning_rate=0.02"]),
    ]
    assert [mill.finished(job.id).state for job in trainings] == ["succeeded"] * 2


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="package")
def web() -> Iterator[str]:
    """A web server with the photos; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(PHOTOS))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """A folder with four photos."""
    made = tmp_path / "photos"
    made.mkdir()
    for name in ("espresso", "giant-panda", "koala", "polar-bear"):
        (made / f"{name}.jpg").write_bytes(photos[name].read_bytes())
    return made


@pytest.fixture
def gate(photos: dict[str, Path]) -> Iterator[Gate]:
    """A web server whose photos may be held back, to see a job at work."""
    with closed_gate([photos[name] for name in ("espresso", "giant-panda", "koala", "polar-bear")]) as made:
        yield made


@pytest.fixture
def many(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """A folder with 320 files."""
    made = tmp_path / "many"
    made.mkdir()
    files = list(photos.values())
    for n in range(320):
        (made / f"{n:03d}.jpg").symlink_to(files[n % len(files)])
    return made
