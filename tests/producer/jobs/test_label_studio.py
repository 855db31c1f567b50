"""What Label Studio writes, read as it writes it, and refused where it is something else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from contract.errors import InvalidInput
from producer.jobs import label_studio
from producer.jobs.label_studio import Annotation, parse_event, parse_export

DATA = {"image": "s3://b/a.jpg", "key": "a.jpg", "uri": "s3://b/a.jpg"}


def choice(*labels: str) -> dict[str, Any]:
    """A result as the tag Choices makes it."""
    return {
        "value": {"choices": list(labels)},
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }


def annotation(**changes: Any) -> dict[str, Any]:
    """An annotation with the fields of Label Studio 1.13."""
    made = {
        "id": 17,
        "completed_by": 3,
        "result": [choice("cat")],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-26T10:00:00.000000Z",
        "updated_at": "2026-11-26T10:05:00.500000Z",
        "draft_created_at": None,
        "lead_time": 4.288,
        "prediction": {"id": 9, "model_version": "m@1", "score": 0.4},
        "result_count": 1,
        "unique_id": "2c2f2c52-0f5e-4a47-94c5-6d2f0c8b1f10",
        "last_action": None,
        "task": 1,
        "project": 83,
        "updated_by": 3,
        "parent_prediction": 9,
        "parent_annotation": None,
    }
    return {**made, **changes}


def task(*annotations: dict[str, Any]) -> dict[str, Any]:
    """A task of an export as JSON."""
    return {
        "id": 1,
        "annotations": list(annotations),
        "file_upload": "tasks.json",
        "drafts": [],
        "predictions": [9],
        "data": DATA,
        "meta": {},
        "created_at": "2026-11-26T09:52:49.513742Z",
        "updated_at": "2026-11-26T10:05:00.746926Z",
        "inner_id": 1,
        "total_annotations": len(annotations),
        "project": 83,
        "comment_count": 0,
    }


EXPECTED = Annotation("17", "a.jpg", "s3://b/a.jpg", "label-studio:3", 1795687500.5, "cat")


def test_an_export_as_json() -> None:
    found = parse_export(json.dumps([task(annotation(), annotation(id=18)), task()]).encode())
    assert found == [EXPECTED, replace(EXPECTED, id="18")]


def test_a_person_has_one_name_in_webhooks_and_in_exports_that_describe_people() -> None:
    person = {"id": 3, "email": "ann@example.org", "first_name": "Ann", "last_name": ""}
    assert parse_export(json.dumps([task(annotation(completed_by=person))])) == [EXPECTED]
    # JSON_MIN has the address alone then.
    (found,) = parse_export(json.dumps([minimal(label="cat", annotator="ann@example.org")]))
    assert found.by == "label-studio:ann@example.org"


def minimal(**more: Any) -> dict[str, Any]:
    """A line of an export as JSON_MIN, without an answer."""
    line = {
        **DATA,
        "id": 1,
        "annotator": 3,
        "annotation_id": 17,
        "created_at": "2026-11-26T10:00:00.000000Z",
        "updated_at": "2026-11-26T10:05:00.500000Z",
        "lead_time": 4.288,
    }
    return {**line, **more}


def test_an_export_as_json_min() -> None:
    assert parse_export(json.dumps([minimal(label="cat", camera="north")])) == [EXPECTED]
    # A task without annotations is a line too.
    assert parse_export(json.dumps([minimal(annotator=None, annotation_id=None)])) == []


@pytest.mark.parametrize("answer", [{}, {"label": [{"choices": ["cat", "dog"]}]}, {"label": " "}])
def test_other_data_of_a_task_is_no_answer_in_json_min(answer: dict[str, Any]) -> None:
    (found,) = parse_export(json.dumps([minimal(camera="north", **answer)]))
    assert not found.label and "no single choice in the field `label`" in found.why


def test_events_of_its_webhook() -> None:
    # Given the payloads of Label Studio, in which the project and the task are beside the annotation,
    more = {"project": {"id": 83, "title": "birds", "label_config": "<View/>"}}
    for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
        event = parse_event({"action": action, "annotation": annotation(), "task": task(), **more})
        assert event.given == (EXPECTED,) and not event.deleted
    # some of them with several,
    tasks = [{**task(), "id": 5, "data": {"key": "b.jpg"}}, task()]
    event = parse_event({"action": "ANNOTATIONS_CREATED", "annotation": [annotation()], "task": tasks, **more})
    assert event.given == (EXPECTED,)
    # and one with ids alone.
    event = parse_event({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 17}, {"id": 18}], **more})
    assert event.deleted == ("17", "18") and not event.given
    # Others say nothing of annotations.
    assert parse_event({"action": "TASKS_CREATED", "tasks": [task()], **more}) == label_studio.Event()
    with pytest.raises(InvalidInput, match="let the webhook send its payload"):
        parse_event({"action": "ANNOTATION_CREATED"})
    with pytest.raises(InvalidInput, match="names its `action`"):
        parse_event({"action": ["ANNOTATION_CREATED"]})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"was_cancelled": True}, "skipped"),
        ({"result": []}, "no choice"),
        ({"result": None}, "no choice"),
        ({"result": [choice("cat", "dog")]}, "several"),
        ({"result": [choice("cat"), choice("dog")]}, "several"),
        ({"result": [choice()]}, "several choices, or none"),
        ({"result": [{"type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}}]}, "no choice"),
        ({"result": [{"type": "choices", "value": ["cat"]}]}, "or none"),
        ({"result": [{"type": "choices", "value": {"choices": [{"a": 1}]}}]}, "or none"),
        ({"completed_by": None}, "whose it is"),
        ({"completed_by": {"email": "x" * 300}}, "whose it is"),
        ({"id": True}, "which it is"),
        ({"updated_at": "soon", "created_at": None}, "when"),
        ({"updated_at": "9" * 50}, "when"),
        ({"updated_at": "2026-13-45T00:00:00Z"}, "when"),
    ],
)
def test_an_annotation_without_a_single_label_has_a_reason(changes: dict[str, Any], why: str) -> None:
    (found,) = parse_export(json.dumps([task(annotation(**changes))]))
    assert not found.label and why in found.why


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[", b"{}", b"[1]", b"3", b"[" * 100_000, b'{"action": "ANNOTATION_CREATED"}'],
)
def test_what_is_no_export_is_one_sentence(text: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_export(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "MOST_ANNOTATIONS", 3)
    with pytest.raises(InvalidInput, match="more than 3 annotations"):
        parse_export(json.dumps([task(*[annotation(id=n) for n in range(4)])]))
    monkeypatch.setattr(label_studio, "MOST_BYTES", 100)
    with pytest.raises(InvalidInput, match="more than the 100 allowed"):
        parse_export(json.dumps([task(annotation())]))


def test_half_a_surrogate_pair_is_no_name() -> None:
    odd = {"key": "\ud800", "uri": "s3://b/\udfff", "image": "\ud800"}
    sent = [{**task(annotation(id="\ud800", completed_by={"email": "a\ud800@b"})), "data": odd}]
    (found,) = parse_export(json.dumps(sent))
    assert (found.key, found.uri, found.id, found.by) == ("", "", "", "")


@pytest.mark.parametrize("odd", [None, [], "x", 1, {"image": 3, "key": [], "uri": None}])
def test_odd_tasks_name_no_image(odd: object) -> None:
    (found,) = parse_export(json.dumps([{**task(annotation()), "data": odd}]))
    assert (found.key, found.uri) == ("", "")
