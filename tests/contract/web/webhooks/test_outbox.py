"""A message is written once, whoever makes it; it waits until it is delivered or given up, and can be sent again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from threading import Barrier
from typing import Any

import pytest

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, UnknownWebhook
from contract.keys.webhooks import WEBHOOK_MESSAGES, webhook_message, webhook_outcome, webhook_record
from contract.web.webhooks.outbox import KEEP_DAYS, Attempt, Event, Outbox, Outcome, Told, name_of

HOOK = "wh_" + "0" * 20
NOW = 1_795_600_000.0


def event(subject: str = "job/animals/0", at: float = NOW) -> Event:
    return Event("job.succeeded", subject, int(at * 1000), {"job": "animals"})


def done(name: str, state: str = "delivered", round: int = 0) -> Outcome:
    last = Attempt(at="2026-11-26T00:00:00Z", status=200)
    return Outcome.model_validate({"round": round, "state": state, "attempts": 1, "at": last.at, "last": last})


def test_one_event_is_one_message_with_one_id(store: ObjectStore) -> None:
    outbox = Outbox(store)
    assert outbox.add(event(), HOOK, NOW)
    assert not outbox.add(event(), HOOK, NOW + 1)
    (told,) = outbox.messages(HOOK, limit=10)
    assert told.id == outbox.message(HOOK, event().name(HOOK)).id  # type: ignore[union-attr]
    assert "." not in told.id
    assert name_of(told.id) == event().name(HOOK)
    assert json.loads(told.body) == {
        "type": "job.succeeded",
        "timestamp": "2026-11-25T09:46:40.000Z",
        "data": {"job": "animals"},
    }

    # Another webhook, another run and another time are other messages.
    names = {event().name(HOOK), event().name("wh_" + "1" * 20), event("job/animals/1").name(HOOK)}
    assert len({*names, event(at=NOW + 0.001).name(HOOK)}) == 4


def test_what_was_delivered_does_not_wait_again_when_it_is_added_again(store: ObjectStore) -> None:
    outbox, name = Outbox(store), event().name(HOOK)
    outbox.add(event(), HOOK, NOW)
    outbox.finish(HOOK, name, done(name))
    outbox.add(event(), HOOK, NOW)
    assert outbox.waiting(HOOK, name) is None
    assert outbox.told(HOOK, name).state == "delivered"


def test_a_controller_that_died_after_the_message_is_completed(store: ObjectStore) -> None:
    outbox, name = Outbox(store), event().name(HOOK)
    store.put(webhook_message(HOOK, name), event().message(HOOK).to_json())
    assert not outbox.add(event(), HOOK, NOW)
    assert outbox.waiting(HOOK, name) is not None


def test_a_message_is_sent_again_with_its_id(store: ObjectStore) -> None:
    outbox, name = Outbox(store), event().name(HOOK)
    outbox.add(event(), HOOK, NOW)
    outbox.finish(HOOK, name, done(name, "failed"))
    id = outbox.told(HOOK, name).id

    told = outbox.resend(HOOK, id, NOW + 5)
    assert (told.id, told.state, told.attempts) == (id, "waiting", 0)

    # If the delivery that was under way ends now, I expect that the wish stands.
    outbox.finish(HOOK, name, done(name))
    assert outbox.told(HOOK, name).state == "waiting"
    outbox.finish(HOOK, name, done(name, round=1))
    assert outbox.told(HOOK, name).state == "delivered"


@pytest.mark.parametrize("id", ["msg_1", "../endpoints/x", "", "msg_" + "0" * 13 + "_" + "0" * 24])
def test_an_unknown_message_cannot_be_sent_again(store: ObjectStore, id: str) -> None:
    with pytest.raises(UnknownWebhook, match="has no message"):
        Outbox(store).resend(HOOK, id, NOW)


@pytest.mark.parametrize("before", ["msg_1", "../endpoints/x", "\x00", "msg_\ud800"])
def test_a_page_begins_behind_a_message_and_nothing_else(store: ObjectStore, before: str) -> None:
    with pytest.raises(UnknownWebhook, match="has no message"):
        Outbox(store).messages(HOOK, limit=1, before=before)


def test_messages_are_listed_newest_first_in_pages(store: ObjectStore) -> None:
    outbox = Outbox(store)
    for n in range(5):
        outbox.add(event(f"job/j{n}/0", NOW + n), HOOK, NOW)
    first = outbox.messages(HOOK, limit=2)
    rest = outbox.messages(HOOK, limit=10, before=first[-1].id)
    assert [one.at for one in (*first, *rest)] == sorted((one.at for one in (*first, *rest)), reverse=True)
    assert len({one.id for one in (*first, *rest)}) == 5


def test_what_is_older_than_30_days_is_kept_no_longer(store: ObjectStore) -> None:
    store.put(webhook_record(HOOK), b"{}")  # also of a version that cannot be read here
    outbox, now = Outbox(store), time.time()
    old, young = now - (KEEP_DAYS + 1) * 86_400, now - (KEEP_DAYS - 1) * 86_400
    for at in (old, young, now):
        outbox.add(event(f"job/{at}/0", at), HOOK, now)
    outbox.finish(HOOK, event(f"job/{young}/0", young).name(HOOK), done(""))
    ((hook, gone, size),) = outbox.old(now)
    assert hook == HOOK
    assert size > 0
    store.delete_all(gone)
    assert len(outbox.messages(HOOK, limit=10)) == 2
    assert outbox.count_waiting(HOOK) == 1
    assert list(outbox.old(now)) == []


def test_the_outcome_of_a_message_that_is_gone_is_kept_no_longer_either(store: ObjectStore) -> None:
    store.put(webhook_record(HOOK), b"{}")
    outbox, old = Outbox(store), event(at=NOW - (KEEP_DAYS + 1) * 86_400).name(HOOK)
    outbox.finish(HOOK, old, done(old))
    assert [gone for _, gone, _ in outbox.old(NOW)] == [[webhook_outcome(HOOK, old)]]


def test_of_a_webhook_that_was_removed_nothing_is_kept(store: ObjectStore) -> None:
    # Given messages in each state, and what an attempt that ran then has written since,
    store.put(webhook_record(HOOK), b"{}")
    outbox = Outbox(store)
    for n in range(3):
        outbox.add(event(f"job/j{n}/0"), HOOK, NOW)
    outbox.finish(HOOK, event("job/j1/0").name(HOOK), done(""))
    other = "wh_" + "1" * 20
    store.put(webhook_record(other), b"{}")
    outbox.add(event(), other, NOW)
    outbox.forget(HOOK)
    store.delete(webhook_record(HOOK))
    assert list(outbox.old(NOW)) == []
    outbox.add(event("job/j2/0"), HOOK, NOW)
    outbox.finish(HOOK, event("job/j1/0").name(HOOK), done(""))
    # I expect it to be found, and nothing of the other.
    ((hook, gone, _),) = outbox.old(NOW)
    assert (hook, len(gone)) == (HOOK, 3)
    store.delete_all(gone)
    assert list(outbox.old(NOW)) == []
    assert outbox.count_waiting(other) == 1


def test_what_is_told_to_a_webhook_that_was_added_again_meanwhile_is_kept(store: ObjectStore) -> None:
    # Given what is left of a webhook that was removed,
    outbox = Outbox(store)
    outbox.add(event(), HOOK, NOW)

    class AddedAgain(Outbox):
        def _of(self, endpoint: str, *, after: str = "") -> Iterator[Entry]:
            # if it is added again before that is listed, and is told something,
            store.put(webhook_record(HOOK), b"{}")
            outbox.add(event("job/new/0"), HOOK, NOW)
            return super()._of(endpoint, after=after)

    # I expect nothing of it to be deleted.
    assert list(AddedAgain(store).old(NOW)) == []


def test_messages_of_a_page_are_read_together(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a store that answers no request for a message before there are two,
    outbox, together, get = Outbox(store), Barrier(2), ObjectStore.get
    for n in range(4):
        outbox.add(event(f"job/j{n}/0", NOW + n), HOOK, NOW)

    def meet(self: ObjectStore, key: str, **options: Any) -> bytes:
        if key.startswith(WEBHOOK_MESSAGES):
            together.wait(60)
        return get(self, key, **options)

    monkeypatch.setattr(ObjectStore, "get", meet)
    assert len(outbox.messages(HOOK, limit=4)) == 4


def test_a_message_whose_time_is_over_leaves_room_for_the_next(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given messages of which the newest two are deleted between the listing and their reading,
    outbox, told = Outbox(store), Outbox.told
    for n in range(5):
        outbox.add(event(f"job/j{n}/0", NOW + n), HOOK, NOW)
    gone = {name_of(one.id) for one in outbox.messages(HOOK, limit=2)}

    def read(self: Outbox, endpoint: str, name: str) -> Told:
        if name in gone:
            raise ObjectNotFound(name)
        return told(self, endpoint, name)

    monkeypatch.setattr(Outbox, "told", read)
    found = outbox.messages(HOOK, limit=2)
    assert len(found) == 2 and not gone & {name_of(one.id) for one in found}
