"""What `watch:NAME` stands for as a source: the segments that have succeeded, within bounds."""

from __future__ import annotations

import pytest

from contract.errors import InvalidSource
from contract.jobs import retention
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Source
from contract.jobs.templates import pin_source
from contract.watches import segments
from contract.watches.segments import labelled_segments
from tests.contract.watches.chain import segment

CAMERA = Source(kind="segment", uri="camera", label="watch:camera")
NEWEST = Source(kind="segment", uri="camera@newest", label="watch:camera@newest")


def test_every_segment_that_has_succeeded_and_is_there_counts_oldest_first(backend: Backend) -> None:
    # Given a chain in which some segments failed, were canceled, deleted, or are open,
    first, third, gone, last = (segment(backend, n) for n in (0, 2, 3, 4))
    segment(backend, 1, "canceled")
    segment(backend, 5, "failed")
    segment(backend, 6, None)
    retention.remove(backend, gone)

    # I expect the others, up to the one whose end is carried out,
    assert labelled_segments(backend.store, "camera") == [first, third, last]
    assert labelled_segments(backend.store, "camera", until=third) == [first, third]
    assert labelled_segments(backend.store, "camera", newest=True) == [last]
    # and a job to pin each, under the name that was typed.
    pinned = pin_source(CAMERA, backend.store)
    assert [(part.kind, part.uri) for part in pinned.each] == [("job", first), ("job", third), ("job", last)]
    assert pinned.label == "watch:camera"
    assert pin_source(NEWEST, backend.store) == Source(kind="job", uri=last, label=f"job:{last}")
    assert pin_source(NEWEST, backend.store, ("camera", third)).uri == third
    assert pin_source(NEWEST, backend.store, ("another", third)).uri == last


def test_images_that_are_named_twice_are_read_once(backend: Backend) -> None:
    first, second = segment(backend, 0), segment(backend, 1)
    part = Source(kind="job", uri=first, label=f"job:{first}")
    several = pin_source(Source.several([part, CAMERA]), backend.store)
    assert [one.uri for one in several.parts] == [first, second]
    assert several.label == f"job:{first} + watch:camera"


def test_the_newest_segments_are_taken_as_far_as_the_bounds_reach(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [segment(backend, n, ok=n + 1) for n in range(5)]  # 1, 2, 3, 4 and 5 images
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 4)
    assert labelled_segments(backend.store, "camera") == jobs[1:]
    monkeypatch.setattr(segments, "MOST_IMAGES", 9)
    assert labelled_segments(backend.store, "camera") == jobs[3:]
    monkeypatch.setattr(segments, "MOST_IMAGES", 1)
    assert labelled_segments(backend.store, "camera") == jobs[4:]


def test_why_there_is_none_is_one_sentence(backend: Backend) -> None:
    with pytest.raises(InvalidSource, match="There is no watch 'camera'; `imagemill watch list` lists them"):
        labelled_segments(backend.store, "camera")
    segment(backend, 0, None)
    with pytest.raises(InvalidSource, match="No segment of the watch 'camera' has succeeded yet; one ends after IMAG"):
        labelled_segments(backend.store, "camera")
