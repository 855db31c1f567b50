"""What the page of a classify job shows, whatever people name their files, classes and workers."""

from __future__ import annotations

import pytest

from contract.jobs.specs import Classify
from contract.jobs.status import Status
from tests.worker.pages.test_page import ATTACKS, read
from worker.classify.sections import sections
from worker.classify.summary import Summary, Work
from worker.pages.page import Tile

SPEC = Classify.model_validate(
    {
        "id": "animals",
        "source": {"kind": "prefix", "uri": "s3://imagemill/in/", "label": "photos"},
        "model": "m@1",
        "weights_sha256": "0" * 64,
        "output": "s3://imagemill/jobs/animals/out/",
    }
)


def end(reason: str | None = None) -> Status:
    return Status.model_validate(
        {
            "id": "animals",
            "kind": "classify",
            "state": "failed" if reason else "succeeded",
            "created_at": "2026-03-01T00:00:00Z",
            "finished_at": "2026-03-01T00:01:00Z",
            "reason": reason,
        }
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_from_outside_are_shown_as_they_are(attack: str) -> None:
    # Given a job whose labels, keys, errors and workers bear names that an attacker chose,
    found = Summary(ok=1)
    found.labels[attack] += 1
    found.codes["truncated"] += 1
    found.examples["truncated"] = (attack, attack)
    found.work[attack, attack] = Work(1, 2, 0.5)
    found.scores[3] = 1
    tile = Tile(None, (attack, attack), "not_found")
    # I expect each of them as text, and nothing but the elements of a page.
    reader = read(*sections(SPEC, end(attack), found, [tile]))
    assert reader.text.count(attack) == 1 + 2 + 2 + 2
    assert not {"script", "iframe", "object", "link", "form", "a"} & set(reader.tags)
    assert set(reader.attributes) <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "scope", "src", "alt", "datetime"),
    }


def test_a_job_without_an_image_says_what_to_do() -> None:
    reader = read(*sections(SPEC, end(), Summary(), []))
    assert "Check that photos holds images" in reader.text
    assert len(reader.tables) == 1


def test_errors_name_the_commands_that_help() -> None:
    found = Summary()
    found.codes["truncated"] = 2
    found.examples["truncated"] = ("a.jpg", "The file ends before the image does; upload it again.")
    reader = read(*sections(SPEC, end(), found, []))
    assert "imagemill errors animals lists all" in reader.text and "imagemill retry animals runs" in reader.text
    assert reader.tags.count("code") == 2
