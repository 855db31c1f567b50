"""Generated images in the console: candidates with their verdicts, what other thresholds keep, and datasets."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.datasets.records import DatasetRecord, Part, Version
from contract.jobs.status import ShardCommit
from contract.keys.datasets import dataset_record, dataset_version
from contract.keys.jobs import JobKeys
from contract.keys.models import model_record
from contract.keys.names import content_name
from contract.keys.shards import shard_stem
from contract.models.registry import File, Model, Preprocess
from contract.settings import Settings
from producer.web.console.datasets.candidates import Candidates, thresholds_of
from tests.contract.data.test_dataset_card import SYNTHESIZE
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.rows import end
from tests.serving import Api

HOSTILE = "<img src=x onerror=alert(1)>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def candidate(
    label: str, index: int, score: float, distance: float | None, reason: str | None = None
) -> dict[str, object]:
    kept = reason is None
    return {
        "key": f"00000-{index:09d}-{label[0]}" if label[0].isalnum() else f"00001-{index:09d}",
        "label": label,
        "label_index": 0 if label == "disc" else 1,
        "seed": 0,
        "index": index,
        "accepted": kept,
        "reject_reason": reason,
        "predicted": "square" if reason == "class" else label,
        "score": score,
        "copy_distance": distance,
        "offset": index * len(PNG) if kept else None,
        "size": len(PNG) if kept else None,
    }


ROWS = [
    candidate("disc", 0, 0.95, 0.4),
    candidate("disc", 1, 0.99, 0.1),
    candidate("disc", 2, 0.80, 0.5, "score"),
    candidate("disc", 3, 0.20, 0.5, "class"),
    candidate("disc", 4, 0.97, 0.02, "copy"),
    candidate("disc", 5, 0.99, 0.5, "surplus"),
    candidate("square", 0, 0.91, 0.3),
    candidate("square", 1, 0.85, 0.3, "score"),
]


def candidates(rows: Sequence[dict[str, object]] = ROWS) -> Candidates:
    return Candidates(pa.Table.from_pylist([*rows], schema=image_index.schema()), complete=True)


def test_the_job_s_own_thresholds_keep_what_was_accepted() -> None:
    found = candidates().kept(0.9, 0.05)
    assert (found.kept, found.accepted, found.more) == (3, 3, 0) and found.outside == []
    assert [(one.label, one.candidates, one.accepted, one.kept) for one in found.classes] == [
        ("disc", 6, 2, 2),
        ("square", 2, 1, 1),
    ]


def test_stricter_thresholds_take_images_away_and_laxer_ones_let_candidates_pass() -> None:
    # If I ask for more, I expect images to go, the nearest to the edge first.
    found = candidates().kept(0.93, 0.2)
    assert [(one.label, one.kept) for one in found.classes] == [("disc", 1), ("square", 0)]
    assert [(row["label"], row["index"]) for row in found.outside] == [("disc", 1), ("square", 0)]
    assert [row["index"] for row in found.inside] == [0]
    # If I ask for less, I expect what was rejected for that reason alone to pass,
    assert [one.more for one in candidates().kept(0.85, 0.05).classes] == [0, 1]
    assert [one.more for one in candidates().kept(0.0, 0.0).classes] == [2, 1]
    # but neither another class nor what was surplus.
    assert candidates().kept(0.0, 0.0).more == 3
    # By distance, the nearest to the edge is another image.
    assert [row["index"] for row in candidates().kept(0.0, 0.0, order="distance").inside] == [1, 0, 0]


def test_a_threshold_that_was_typed_is_compared_as_the_column_is() -> None:
    # 0.9 has no float32; the nearest one is smaller.
    rows = [candidate("disc", 0, 0.9, None)]
    assert candidates(rows).kept(0.9, 1.0).kept == 1
    assert candidates(rows).distance is None and candidates([]).kept(0.5, 0.5).classes == []


@pytest.fixture
def job(api: Api, settings: Settings, store: ObjectStore) -> str:
    """A synthesis of two classes that has ended, with its selected shard."""
    pre = Preprocess(size=32, crop=1.0, interpolation="bicubic", mean=127.5, std=127.5, channels=3)
    weights = File(name="weights.safetensors", sha256="0" * 64, bytes=1)
    for name, family, task in (("maker", "gan", "generate"), ("shapes", "cnn", "classify")):
        model = Model(
            name=name,
            version=1,
            family=family,
            task=task,
            labels=("disc", "square"),
            preprocess=pre,
            weights=weights,
        )
        store.put(model_record(name, 1), model.to_json())
    body = {"command": "synthesize", "model": "maker", "gate": "shapes", "per_class": 2}
    with api.client("jobs") as client:
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        id = str(answer.json()["id"])
    select(store, id, [*ROWS[:-1], candidate(HOSTILE, 1, 0.85, 0.3, "score")])
    end(settings, store, id, kind="synthesize", ok=8, done=8, total=8, model="maker@1")
    return id


def select(store: ObjectStore, id: str, rows: Sequence[dict[str, object]]) -> ShardCommit:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*rows], schema=image_index.schema()), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    stem = f"jobs/{id}/out/{content_name(shard_stem(0), digest, '')}"
    store.put(f"{stem}.parquet", buffer.getvalue())
    store.put(f"{stem}.tar", PNG * len(rows))
    commit = ShardCommit(
        shard=0,
        items=len(rows),
        ok=3,
        errors=0,
        output=f"s3://{store.bucket}/{stem}.parquet",
        sha256=digest,
    )
    store.put(JobKeys(id).selected(0), commit.to_json())
    return commit


def test_candidates_are_browsed_by_verdict_and_class(browse: Browse, job: str) -> None:
    client = browse("review")
    assert f"/console/jobs/{job}/images" in client.get(f"/console/jobs/{job}").text
    place = f"/console/jobs/{job}/images"
    page = client.get(place).text
    assert "1 to 3 of 3" in page and "rejected: score (2)" in page and 'type="range"' in page
    picture = re.findall(r'<img src="([^"]+)"', page.partition('id="browse"')[2])[1]
    answer = client.get(picture)
    assert answer.content == PNG and answer.headers["Content-Type"] == "image/png"
    # A rejected one has its figures and the reason, and no picture.
    part = client.get(place, params={"reason": "score"}).text.partition('id="browse"')[2]
    assert "1 to 2 of 2" in part and "0.850" in part and "less sure" in part and "<img " not in part
    assert HOSTILE not in part and "&lt;img" in part
    part = client.get(place, params={"label": "square"}).text.partition('id="browse"')[2]
    assert "1 to 1 of 1" in part
    assert browse("review", owner="bob").get(place).status_code == 404


def test_a_slider_shows_what_it_would_keep(browse: Browse, job: str) -> None:
    client = browse("review")
    part = client.get(f"/console/jobs/{job}/images/kept", params={"score": 0.93, "distance": 0.2}).text
    assert "<b>1</b> of 3 accepted images stay, 2 go" in part and "<html" not in part and "Would go" in part
    part = client.get(f"/console/jobs/{job}/images/kept", params={"score": 0.0}).text
    assert "candidates would pass too" in part
    for wrong in ({"score": 2}, {"distance": -1}, {"order": "name"}):
        assert client.get(f"/console/jobs/{job}/images/kept", params=wrong).status_code == 422


def sliders(page: str) -> dict[str, float]:
    """What a browser makes of the sliders of a page: each stands at the step from 0 that is nearest to its value."""
    found = {}
    for name, step, value in re.findall(r'<input id="(\w+)" name=[^>]* step="([^"]+)" value="([^"]+)">', page):
        found[name] = round(float(value) / float(step)) * float(step)
    return found


def test_sliders_begin_at_the_thresholds_of_the_job(browse: Browse, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browse("review")
    place = f"/console/jobs/{job}/images"
    for score, distance in ((0.9, 0.0002), (0.333, 0.05), (0.0, 0.0), (1.0, 0.0499), (0.9, 3e-5)):
        monkeypatch.setattr(
            "producer.web.console.datasets.pages.thresholds_of", lambda spec, now=(score, distance): now
        )
        page = client.get(place).text
        # If a slider is touched and put back, I expect what the page showed first.
        assert sliders(page) == pytest.approx({"score": score, "distance": distance}, rel=1e-6, abs=0)
        part = client.get(f"{place}/kept", params=sliders(page)).text.strip()
        assert part.partition("</table>")[0] in page
    # The distance to accepted images begins where duplicates were told from others.
    spec = SYNTHESIZE.model_copy(update={"min_score": 0.8, "dedup": 0.0005})
    assert thresholds_of(spec) == (0.8, 0.0005)
    assert thresholds_of(spec.model_copy(update={"away_from": spec.source, "copy_distance": 0.1})) == (0.8, 0.1)


def test_datasets_are_listed_with_their_versions_for_their_owner(api: Api, browse: Browse, job: str) -> None:
    store = api.store
    commit = select(store, job, ROWS)
    for name, owner in (("shapes", "ann"), ("theirs", "bob")):
        record = DatasetRecord(name=name, owner=owner, created_at="2026-11-26T00:00:00.000Z")
        store.put(dataset_record(name), record.to_json())
    for number in (1, 2):
        version = Version(
            dataset="shapes",
            number=number,
            at=f"2026-11-2{number}T00:00:00.000Z",
            job=job,
            model="maker@1",
            weights_sha256="0" * 64,
            gate="shapes@1",
            gate_sha256="0" * 64,
            seed=number,
            labels=("disc", "square"),
            size=32,
            channels=3,
            image_format="png",
            accepted={"disc": 2, "square": 1},
            parts=(Part(index=str(commit.output), sha256=str(commit.sha256), accepted=3),),
        )
        store.put(dataset_version("shapes", number), version.to_json())
    client = browse("review")
    page = client.get("/console/datasets").text
    assert 'href="/console/datasets/shapes"' in page and ">6</td>" in page and "theirs" not in page
    page = client.get("/console/datasets/shapes").text
    assert "shapes@2" in page and f"/console/jobs/{job}/images" in page
    page = client.get("/console/datasets/shapes@1").text
    assert "shapes@2" not in page and "<dd>3</dd>" in page
    assert client.get("/console/datasets/theirs").status_code == 404
    assert "theirs" in browse("admin").get("/console/datasets").text
    assert "begins one" in browse("review", owner="eve").get("/console/datasets").text
