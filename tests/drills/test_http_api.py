"""A client with nothing but a token uploads images, has them labelled, and reads the rows, on a stack that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pyarrow as pa
import pytest

from tests.mill import Mill
from tests.serving import Api, serving

MODEL = "efficientnet-lite0"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Mill(tmp_path_factory.mktemp("mill"), workers=1)
    with made.running(), serving(made.settings, made.client.backend.store) as found:
        yield found


def test_a_client_with_a_token_labels_its_images(api: Api, photos: dict[str, Path]) -> None:
    names = ["koala", "espresso", "goldfish"]
    with api.client("jobs") as client:
        # Given photos and a broken file that I put where the API says,
        upload = client.post("/v1/uploads", json={"files": [*(f"{name}.jpg" for name in names), "broken.jpg"]}).json()
        for file in upload["files"]:
            photo = photos.get(file["name"].removesuffix(".jpg"))
            httpx2.put(file["url"], content=photo.read_bytes() if photo else b"no image").raise_for_status()
        # if I have them labelled, and wait,
        sent = {"command": "classify", "source": upload["source"], "model": MODEL, "max_errors": "100%", "embed": True}
        place = client.post("/v1/jobs", json=sent, headers={"Prefer": "wait=1"}).headers["Location"]
        with client.stream("GET", f"{place}/events", timeout=120) as events:
            last = [line for line in events.iter_lines() if line.startswith("data: ")][-1]
        end = json.loads(last.removeprefix("data: "))
        assert (end["state"], end["ok"], end["errors"]) == ("succeeded", 3, 1), end
        # I expect a row for each as lines and as record batches, the failures by themselves, and the page.
        rows = [json.loads(line) for line in client.get(f"{place}/results").text.splitlines()]
        assert {row["key"].rpartition("/")[2]: row["label"] for row in rows} == {
            "koala.jpg": "koala",
            "espresso.jpg": "espresso",
            "goldfish.jpg": "goldfish",
            "broken.jpg": None,
        }
        accept = {"Accept": "application/vnd.apache.arrow.stream"}
        table = pa.ipc.open_stream(client.get(f"{place}/results", headers=accept).content).read_all()
        assert table.column("key").to_pylist() == [row["key"] for row in rows] and "embedding" in table.column_names
        (failed,) = client.get(f"{place}/results", params={"status": "error"}).text.splitlines()
        assert json.loads(failed)["error_code"] == "not_an_image"
        page = client.get(f"{place}/report", params={"timeout": 60}, timeout=90)
        assert page.status_code == 200 and "<html" in page.text and "sandbox" in page.headers["Content-Security-Policy"]
        assert client.post(f"{place}/retry").status_code == 200
        again = client.get(place, headers={"Prefer": "wait=60"}, timeout=90).json()
        assert (again["state"], again["errors"]) == ("succeeded", 1)
