"""What is counted of generated images, and what is written about them. Pure: no store."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from contract.data import dataset_card
from contract.data.dataset_stats import ClassCount, DatasetStats, count
from contract.data.image_index import schema
from contract.datasets.records import Balance
from contract.jobs.specs import Generate, Source, Synthesize
from contract.jobs.status import Status
from producer.exports.images import parquet
from producer.exports.images.croissant import croissant, data_file

COMMON: dict[str, Any] = {
    "id": "digits",
    "model": "digits-gan@3",
    "weights_sha256": "a" * 64,
    "classes": (0, 4),
    "output": "s3://mill/jobs/digits/out/",
}
GENERATE = Generate(**COMMON, count=10)
SYNTHESIZE = Synthesize(**COMMON, per_class=5, gate="digits@1", gate_sha256="b" * 64)


def index(*rows: dict[str, Any]) -> pa.Table:
    kept = {"accepted": True, "width": 8, "height": 8, "size": 100, "key": "k"}
    return pa.Table.from_pylist([{**dict.fromkeys(schema().names), **kept, **row} for row in rows], schema=schema())


def stats(**fields: Any) -> DatasetStats:
    classes = (
        ClassCount(index=0, label="zero", candidates=4, accepted=3, mean_score=0.95),
        ClassCount(index=4, label="a | b", candidates=2, accepted=2),
    )
    return DatasetStats(classes=classes, **{"sizes": ((8, 8),), "rejected": {"score": 1}, **fields})


def test_a_census_is_of_all_shards() -> None:
    first = index(
        {"label": "four", "label_index": 4, "score": 0.5},
        {"label": "zero", "label_index": 0, "score": 0.9},
        {"label": "zero", "label_index": 0, "accepted": False, "reject_reason": "copy", "width": None, "size": None},
    )
    second = index(
        {"label": "four", "label_index": 4, "score": 1.0, "width": 9},
        {"label": "one", "label_index": 1, "accepted": False, "reject_reason": "copy", "score": 0.1},
    )

    found = count([first, second])

    assert found.labels == ("zero", "one", "four")
    assert found.numbers == {0: 0, 1: 1, 4: 2}
    assert [(one.candidates, one.accepted) for one in found.classes] == [(2, 1), (1, 0), (2, 2)]
    assert [one.mean_score for one in found.classes] == [pytest.approx(0.9), None, pytest.approx(0.75)]
    assert (found.candidates, found.accepted, found.bytes) == (5, 3, 300)
    assert (found.rejected, found.sizes) == ({"copy": 2}, ((8, 8), (9, 8)))


def test_a_census_of_nothing_is_empty() -> None:
    assert count([]) == count([index()]) == DatasetStats(classes=())


@pytest.mark.parametrize(
    ("images", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (60_000, "10K<n<100K"), (10**8, "100M<n<1B")],
)
def test_sizes_are_called_as_hugging_face_calls_them(images: int, category: str) -> None:
    assert dataset_card.size_category(images) == category


def test_the_command_that_makes_them_again_leaves_nothing_out() -> None:
    away = Source(kind="idx", uri="s3://sets/mnist/", label="my digits/")
    spec = SYNTHESIZE.model_copy(update={"dedup": 0.01, "away_from": away, "truncation": 1.5, "size": 32, "seed": 7})

    assert dataset_card.command(spec, stats()) == (
        "imagemill synthesize --model digits-gan@3 --gate digits@1 --per-class 5 --min-score 0.9 --dedup 0.01 "
        "--away-from 'my digits/' --copy-distance 0.0002 --max-attempts 20x --class zero --class 'a | b' --seed 7 "
        "--truncation 1.5 --size 32 --image-format png"
    )
    assert dataset_card.command(GENERATE.model_copy(update={"precision": "fp32"}), stats()) == (
        "imagemill generate --model digits-gan@3 --count 10 --class zero --class 'a | b' --seed 0 --image-format png "
        "--precision fp32"
    )


def test_a_card_of_a_balanced_job_has_a_command_a_class() -> None:
    why = {"watch": "camera", "segments": 2, "seen": {"zero": 40, "a | b": 2}, "made": {}, "aim": 40}
    balance = Balance.model_validate({**why, "among": ["a | b"]})
    spec = SYNTHESIZE.model_copy(update={"counts": (5, 38), "per_class": 38, "balance": balance})

    first, second = dataset_card.command(spec, stats()).splitlines()
    assert "--per-class 5 " in first and "--class zero " in first and "a | b" not in first
    assert "--per-class 38 " in second and "--class 'a | b' " in second
    text = dataset_card.card(spec, stats(), parquet.LAYOUT)
    assert "alone: all commands but\nthe last make the same images again." in text
    assert "what it lacked to 40, of 42 images that the watch camera had labelled, of at most 20 candidates" in text


def test_a_card_tells_of_model_gate_thresholds_and_counts() -> None:
    text = dataset_card.card(SYNTHESIZE, stats(), parquet.LAYOUT)

    for fact in (
        "a" * 64,
        "b" * 64,
        "`digits@1`",
        "| least score of the gate | 0.9 |",
        "| accepted | 5 of 6 candidates |",
    ):
        assert fact in text
    assert "| 0 | 0 | zero | 3 | 4 | 75.0% | 0.9500 |" in text
    assert "| 1 | 4 | a \\| b | 2 | 2 | 100.0% |  |" in text, "a name does not break the table"
    assert "Rejected: score 1." in text
    assert "until then" not in text


def test_a_card_without_a_gate_tells_of_none() -> None:
    text = dataset_card.card(
        GENERATE,
        stats(rejected={}),
        dataset_card.WEBDATASET,
        end=Status(id="digits", kind="generate", state="failed", reason="No room."),
    )

    assert "gate" not in text
    assert "The job has failed: No room." in text


def test_croissant_has_the_fields_that_there_are() -> None:
    files = [data_file("train.parquet", b"images")]

    told = croissant(GENERATE, stats(), parquet.records(GENERATE, files), files, created_at="2026-11-24T04:39:25.523Z")

    (file,) = told["distribution"]
    assert (file["contentSize"], file["encodingFormat"]) == ("6 B", "application/x-parquet")
    fields = {record["@id"]: [field["name"] for field in record["field"]] for record in told["recordSet"]}
    assert fields.keys() == {"images", "classes"}, "no candidates where none are told of"
    assert not {"score", "predicted"} & set(fields["images"])
    assert "rai:machineAnnotationTools" not in told
