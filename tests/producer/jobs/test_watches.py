"""Mistakes of a watch with an archive are found before anything is written; how a watch stands is said in words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, InvalidWatch
from contract.jobs.lifecycle import Backend
from contract.jobs.options import WatchOptions, parse_options
from contract.keys.bucket import PROBES
from contract.keys.models import model_record
from contract.settings import Settings
from contract.watches.record import Watch, Watches
from producer.jobs.requests import make_watch_template
from producer.jobs.watches import new_watch, overview
from tests.parity import MODEL

INBOX = {"overwrites": "again"}


def made(store: ObjectStore, settings: Settings, **options: Any) -> Watch:
    """What `imagemill watch add` makes of these options for `s3://BUCKET/in/`."""
    given = {"name": "camera", "source": f"s3://{store.bucket}/in/", "model": "parity", **INBOX, **options}
    parsed = parse_options(WatchOptions, {name: str(value) for name, value in given.items()})
    return new_watch(parsed, make_watch_template(parsed, store, settings), store)


@pytest.fixture(autouse=True)
def model(store: ObjectStore) -> None:
    store.put(model_record("parity", 1), MODEL.to_json())


def test_its_jobs_may_read_the_archive(store: ObjectStore, settings: Settings) -> None:
    watch = made(store, settings, archive=f"s3://{store.bucket}/done")
    source = watch.template.spec["source"]
    assert watch.archive == f"s3://{store.bucket}/done/"
    assert source["uri"] == watch.places == f"{watch.source} {watch.archive}" and source["label"] == watch.source
    assert made(store, settings).places == watch.source
    assert list(store.list(PROBES)) == []


@pytest.mark.parametrize(
    ("archive", "error", "why"),
    [
        ("s3://{}/in/done/", InvalidWatch, "one below the other"),
        ("s3://{}/in", InvalidWatch, "one below the other"),
        ("s3://{}/", InvalidWatch, "one below the other"),
        ("s3://{}/jobs/x/", InvalidInput, "is reserved"),
        ("s3://{}/a//b/", InvalidInput, "oddly spelled"),
        ("s3://no-such-bucket-x/done/", InvalidWatch, "no bucket 'no-such-bucket-x'"),
    ],
)
def test_an_archive_that_cannot_be(
    store: ObjectStore, settings: Settings, archive: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        made(store, settings, archive=archive.format(store.bucket))


def test_names_that_come_again_must_be_labelled_again(store: ObjectStore, settings: Settings) -> None:
    with pytest.raises(InvalidWatch, match="add --overwrites again"):
        made(store, settings, archive=f"s3://{store.bucket}/done/", overwrites="ignore")


def test_two_watches_of_one_prefix_cannot_have_an_archive(store: ObjectStore, settings: Settings) -> None:
    archive = f"s3://{store.bucket}/done/"
    first = made(store, settings, archive=archive)
    Watches(store).add(first)
    for source in ("in/", "in/left/"):
        with pytest.raises(InvalidWatch, match="The watch camera follows"):
            made(store, settings, name="other", source=f"s3://{store.bucket}/{source}")
    # But the archive itself may be watched, and what lies elsewhere.
    made(store, settings, name="other", source=archive)
    made(store, settings, name="other", source=f"s3://{store.bucket}/out/", archive=f"s3://{store.bucket}/done-2/")


def test_a_store_that_overwrites_all_the_same_is_refused(
    store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "heeds_etags", lambda key: False)
    with pytest.raises(InvalidWatch, match="could lose an image"):
        made(store, settings, archive=f"s3://{store.bucket}/done/")


def test_a_watch_that_was_just_added_is_no_cause_for_alarm(backend: Backend, settings: Settings) -> None:
    # Given a watch that no controller has taken up,
    watch = made(backend.store, settings)
    Watches(backend.store).add(watch)
    added = datetime.fromisoformat(watch.created_at).timestamp()
    # I expect a wait of seconds to be said at first, and the check of the parts to be named after half a minute.
    for seconds, reason in ((2, "It was added just now"), (40, "see `imagemill doctor`")):
        (found,) = overview(backend, ["camera"], added + seconds)
        assert found.state == "unattended"
        assert found.reason is not None and reason in found.reason
