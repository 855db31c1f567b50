"""An upload is kept from its first use on; of a use and a deletion at the same moment one wins, and both know which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.backend import uploads
from contract.backend.listing import Entry
from contract.errors import InvalidSettings, UnknownUpload
from contract.keys.uploads import upload_begun, upload_claim, upload_prefix, uploads_of
from tests.interleaved import Actor, DictStore, KilledError, Scheduler, Stepped, killed_at

DAY = 86_400.0
NOW = 100 * DAY
OLD = NOW - 8 * DAY
BEFORE = NOW - 7 * DAY
ID = "0123456789abcdef"
PLACE = uploads.place_of("ann", ID)
PREFIX = upload_prefix("ann", ID)
STEPS = frozenset({"get", "put", "put_if_absent", "delete", "list"})
NAMED = f'{{"uri": "s3://bucket/{PREFIX}"}}'


class Dated(DictStore):
    """A store that says when each object was written; what a test leaves there first was written long ago."""

    def __init__(self) -> None:
        super().__init__()
        self.now = OLD
        self._written: dict[str, float] = {}

    def put(self, key: str, data: bytes, **_: Any) -> None:
        self._written[key] = self.now
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes, **_: Any) -> bool:
        fresh = super().put_if_absent(key, data)
        if fresh:
            self._written[key] = self.now
        return fresh

    def list(self, prefix: str, **_: Any) -> Iterator[Entry]:
        return (Entry(entry.key, entry.size, self._written[entry.key]) for entry in super().list(prefix))

    def delete_all(self, keys: Any) -> None:
        for key in keys:
            self.delete(key)


class FileByFile(Stepped):
    """A store on which others act between the deletions of two files."""

    def delete_all(self, keys: Any) -> None:
        for key in keys:
            self.delete(key)


def uploaded(files: int = 2) -> Any:
    """Return a store with an upload that is eight days old."""
    store: Any = Dated()
    uploads.begin(store, "ann", ID)
    for n in range(files):
        store.put(f"{PREFIX}{n}.jpg", b"x")
    store.now = NOW
    return store


def there(store: Any) -> int:
    return len(list(store.list(PREFIX)))


def discard(store: Any, now: float = NOW) -> int:
    return len(uploads.discard(store, PLACE, before=BEFORE, now=now))


def test_what_nobody_used_is_deleted_and_leaves_nothing() -> None:
    store = uploaded()
    assert list(uploads.overdue(store, BEFORE)) == [PLACE]
    assert discard(store) == 2
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "text",
    [
        NAMED,
        f"s3://bucket/{PREFIX}0.jpg",
        f'["s3://bucket/{uploads_of("ann")}"]',
        "s3://bucket/uploads/",
        '"s3://bucket/uploads"',
        '{"uri": "s3://bucket/"}',
        f'{{"source": {{"parts": [{{"uri": "s3://elsewhere/"}}, {{"uri": "s3://bucket/{PREFIX}"}}]}}}}',
        f"s3://elsewhere/{PREFIX} s3://bucket/{PREFIX}list.csv",
    ],
)
def test_what_was_used_once_stays(text: str) -> None:
    store = uploaded()
    uploads.use(store, text)
    assert list(uploads.overdue(store, NOW)) == []
    assert discard(store) == 0
    # Also if more files are to come, and if whoever used it died before the last step.
    uploads.begin(store, "ann", ID)
    store.put(upload_begun(PLACE), b"")
    assert discard(store) == 0
    assert list(uploads.overdue(store, NOW + DAY)) == []
    assert there(store) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://elsewhere/uploads/",
        f"s3://bucket/x/{PREFIX}",
        "s3://bucket/uploads/ffff/",
        "s3://bucket/uploads/team-photos/",
        "s3://bucket/up-to-date/",
        f'{{"labels": ["s3://bucket/{PREFIX}"], "recipe": {{"note": "s3://bucket/uploads/"}}, "uri": "s3://bucket/x"}}',
        f'{{"source": {{"uri": "s3://elsewhere/", "label": "s3://bucket/{PREFIX}"}}}}',
    ],
)
def test_what_others_name_is_no_use(text: str) -> None:
    store = uploaded()
    uploads.use(store, text)
    assert discard(store) == 2


def test_a_manifest_that_lists_files_uses_their_uploads_with_one_request_each() -> None:
    store = uploaded()
    asked = 0

    class Counting(Dated):
        def list(self, prefix: str, **_: Any) -> Iterator[Entry]:
            nonlocal asked
            asked += 1
            return store.list(prefix)

        def __getattribute__(self, name: str) -> Any:
            return object.__getattribute__(self, name) if name in ("list", "bucket") else getattr(store, name)

    uses = uploads.Uses(Counting())  # type: ignore[arg-type]
    for n in range(100):
        uses.note(f"s3://bucket/photos/{n}.jpg")
        uses.note(f"s3://bucket/{PREFIX}{n}.jpg")
    assert asked == 1
    assert discard(store) == 0


@pytest.mark.parametrize(
    "uri", ["s3://bucket/uploads/", "s3://bucket/uploads/a/x", f"s3://bucket/uploads/{'f' * 16}/x"]
)
def test_a_line_of_a_manifest_reaches_the_uploads_of_no_others(uri: str) -> None:
    store = uploaded()
    uploads.Uses(store).note(uri)
    assert discard(store) == 2


def test_a_line_whose_upload_is_being_deleted_fails_no_others() -> None:
    store = uploaded()
    store.put(upload_claim(PLACE), b"deleting 1")
    uploads.Uses(store).note(f"s3://bucket/{PREFIX}0.jpg")
    assert store.get(upload_claim(PLACE)) == b"deleting 1"


def test_what_comes_late_is_waited_for() -> None:
    store = uploaded()
    uploads.begin(store, "ann", ID)
    assert list(uploads.overdue(store, BEFORE)) == []
    assert discard(store) == 0
    # Nor is a file deleted that came without a new address.
    store = uploaded()
    store.put(f"{PREFIX}late.jpg", b"x")
    assert discard(store) == 0
    assert there(store) == 3
    # It can be used after that.
    uploads.use(store, NAMED)


def test_a_deletion_that_broke_off_is_gone_on_with_after_a_day() -> None:
    # Given a process that died while it deleted,
    store = uploaded()

    class Dies(Exception): ...

    def dies(_: object) -> None:
        raise Dies

    delete_all, store.delete_all = store.delete_all, dies
    with pytest.raises(Dies):
        discard(store)
    store.delete_all = delete_all
    # I expect nobody to use what may be half gone, another deletion to leave it alone, and one of the next day not to.
    with pytest.raises(UnknownUpload, match="is being deleted"):
        uploads.use(store, NAMED)
    with pytest.raises(UnknownUpload, match="is being deleted"):
        uploads.begin(store, "ann", ID)
    assert list(uploads.overdue(store, BEFORE)) == [PLACE], "whoever tries again puts nothing off"
    uploads.forget(store, "ann", ID)
    assert discard(store) == 0
    assert uploads.discard(store, PLACE, before=NOW + DAY, now=NOW + 2 * DAY)
    assert list(store.list("")) == []


def test_a_deletion_that_ends_at_any_step_leaves_nothing_for_ever() -> None:
    deaths = 0
    for step in range(1, 20):
        store = uploaded()
        check = killed_at(step)

        class Dying(FileByFile):
            def __getattr__(self, name: str, check: Any = check) -> Any:
                if name in STEPS:
                    check()
                return getattr(self._inner, name)

        try:
            discard(Dying(store, Scheduler(0), STEPS))
        except KilledError:
            deaths += 1
        # If others go on two days later, I expect nothing to be left, and the same upload to be begun again.
        for place in list(uploads.overdue(store, NOW)):
            uploads.discard(store, place, before=NOW, now=NOW + 2 * DAY)
        assert list(store.list("")) == [], step
        uploads.begin(store, "ann", ID)
        uploads.use(store, NAMED)
    assert deaths == 7


def test_without_the_right_to_delete_it_stays_as_it_was() -> None:
    store = uploaded()
    everything = list(store.list(""))

    def refuse(_: object) -> None:
        raise InvalidSettings("no")

    store.delete_all = refuse
    with pytest.raises(InvalidSettings):
        discard(store)
    assert list(store.list("")) == everything


def test_what_can_only_be_deleted_in_part_is_used_by_nobody() -> None:
    store = uploaded()

    def deletes_one(keys: Any) -> None:
        store.delete(next(iter(keys)))
        raise InvalidSettings("no")

    store.delete_all = deletes_one
    with pytest.raises(InvalidSettings):
        discard(store)
    with pytest.raises(UnknownUpload):
        uploads.use(store, NAMED)


def test_an_upload_of_an_earlier_version_stays_when_more_comes_to_it() -> None:
    # Given files without a note, which a job may have named,
    store = uploaded()
    store.delete(upload_begun(PLACE))
    # if its owner asks for another address, I expect nobody to delete it a week later.
    uploads.begin(store, "ann", ID)
    assert list(uploads.overdue(store, NOW + DAY)) == []


def test_a_claim_whose_answer_was_lost_is_known_again() -> None:
    store = uploaded()
    put_if_absent = store.put_if_absent

    def loses(key: str, data: bytes, **_: Any) -> bool:
        put_if_absent(key, data)
        return False

    store.put_if_absent = loses
    assert discard(store) == 2
    again = uploaded()
    again.put_if_absent = lambda key, data, **_: DictStore.put_if_absent(again, key, data) and False
    again._written[upload_claim(PLACE)] = NOW
    uploads.use(again, NAMED)
    assert discard(again) == 0


def test_whoever_is_first_nobody_uses_what_is_half_deleted() -> None:
    """A job is submitted, more files come, and two processes delete, in every order that a seed makes."""
    won = {"use": 0, "begin": 0, "deletion": 0, "died": 0}
    for seed in range(2000):
        store = uploaded()
        scheduler = Scheduler(seed)
        stepped: Any = FileByFile(store, scheduler, STEPS)

        def left(store: Any = store) -> int:
            return sum(not entry.key.endswith("new.jpg") for entry in store.list(PREFIX))

        def use(stepped: Any = stepped, left: Any = left) -> int:
            uploads.use(stepped, NAMED)
            return int(left())

        def begin(stepped: Any = stepped, left: Any = left) -> int:
            uploads.begin(stepped, "ann", ID)
            found = int(left())
            stepped.put(f"{PREFIX}new.jpg", b"x")
            return found

        def delete(stepped: Any = stepped) -> int:
            return discard(stepped)

        actors = [Actor("deletes", delete), Actor("deletes too", delete)]
        actors += [Actor("use", use)] if seed % 3 else []
        actors += [Actor("begin", begin)] if seed % 3 != 1 else []
        if seed % 5 == 0:
            actors[0].dies_at = scheduler.random.randint(1, 9)
        scheduler.play(actors)
        for actor in actors[2:]:
            if actor.error is not None:
                assert isinstance(actor.error, UnknownUpload), (seed, actor.error)
                continue
            # I expect whoever was told nothing to find all files or none, and what was there then to be there still.
            assert actor.answer == left() and left() in (0, 2), (seed, actor.answer, left())
            if actor.name == "begin":
                assert store.exists(f"{PREFIX}new.jpg"), seed
            won[actor.name] += actor.answer == 2
        won["died"] += actors[0].dead
        won["deletion"] += left() == 0
    assert all(count > 50 for count in won.values()), won
