"""What a process takes, holds, loses and leaves to others, on a real Redis."""

from __future__ import annotations

from contract.online.connection import GROUP
from contract.online.messages import Reply, write_reply
from contract.online.state import WorkerSays
from tests.waiting import wait_until
from tests.worker.process.serving.conftest import ASKER, LONG_MS, REF, Asker, MakeInbox
from worker.process.serving.inbox import Inbox, Taken


def taken_by(inbox: Inbox, count: int, most: int = 10) -> list[Taken]:
    """Take until there are so many."""
    found: list[Taken] = []
    wait_until(lambda: found.extend(inbox.take(most, 50)) or len(found) >= count, 20, f"{count} requests")
    return found


def claimed_by(inbox: Inbox) -> list[Taken]:
    found: list[Taken] = []
    wait_until(lambda: found.extend(inbox.claim()) or found, 20, "a claim")
    return found


def done(taken: Taken) -> bytes:
    return write_reply(Reply(id=str(taken.id), outcome="done"))


def say(inbox: Inbox, asker: Asker, *, ago_ms: int = -LONG_MS) -> None:
    """Have a process say that it is there, as one that goes on to do so, or as one that did so some time ago."""
    inbox.say(WorkerSays(at_ms=asker.now_ms() - ago_ms, rate=10.0, worker="w"))


def test_requests_come_in_their_order_and_leave_nothing(asker: Asker, inbox_of: MakeInbox) -> None:
    inbox = inbox_of("p1")
    ids = [asker.ask(b"x") for _ in range(3)]
    taken = taken_by(inbox, 3)
    assert [one.id for one in taken] == ids and {one.deliveries for one in taken} == {1}
    assert inbox.take(10, 1) == []
    _, payloads = inbox.payloads(taken)
    assert all(payloads)
    assert inbox.reply([(one, ASKER, done(one)) for one in taken]) == [True] * 3
    assert [asker.reply().id for _ in ids] == [str(id) for id in ids]
    assert (asker.pending(), asker.left()) == ({}, 0)
    # A second reply is none, and what has its reply has no payload.
    assert inbox.reply([(taken[0], ASKER, done(taken[0]))]) == [False]
    assert inbox.payloads(taken)[1] == [None] * 3


def test_each_asker_has_its_replies_whatever_lies_where_those_of_another_go(asker: Asker, inbox_of: MakeInbox) -> None:
    # Given four requests of two askers, one with its reply, and a key of a third one that somebody wrote over,
    inbox, other, foreign = inbox_of("p1"), "1" * 32, "2" * 32
    ids = [asker.ask(b"x") for _ in range(4)]
    taken = taken_by(inbox, 4)
    asker.redis.set(asker.keys.replies(foreign), b"x")
    assert inbox.reply([(taken[0], ASKER, done(taken[0]))]) == [True]
    # if all are answered in one step,
    askers = (ASKER, foreign, other, ASKER)
    firsts = inbox.reply([(one, who, done(one)) for one, who in zip(taken, askers, strict=True)])
    # I expect a reply for each that had none, where its asker reads it, and nothing on the stream.
    assert firsts == [False, True, True, True]
    assert [asker.reply().id for _ in range(2)] == [str(ids[0]), str(ids[3])]
    assert asker.redis.lrange(asker.keys.replies(other), 0, -1) == [done(taken[2])]
    assert asker.redis.get(asker.keys.replies(foreign)) == b"x" and asker.redis.ttl(asker.keys.replies(foreign)) == -1
    assert (asker.pending(), asker.left()) == ({}, 0)
    asker.redis.delete(asker.keys.replies(foreign))


def test_malformed_entries_are_taken_off_the_stream(asker: Asker, inbox_of: MakeInbox) -> None:
    inbox = inbox_of("p1")
    for fields in (
        {"id": b"\xff"},
        {"other": b"1"},
        {"id": f"{'0' * 32}-1-1-other@1"},
        {"id": f"{'0' * 32}-1-99999999-{REF}"},
    ):
        asker.redis.xadd(asker.keys.requests(REF), fields)  # type: ignore[arg-type]
    id = asker.ask(b"x")
    assert [one.id for one in taken_by(inbox, 1)] == [id]
    assert asker.left() == 1


def test_what_was_handed_out_when_the_connection_broke_comes_again(asker: Asker, inbox_of: MakeInbox) -> None:
    # Given a process that works on more requests than it takes at once,
    inbox = inbox_of("p1")
    held = [asker.ask(b"x") for _ in range(3)]
    assert [one.id for one in taken_by(inbox, 3, most=2)] == held
    # and to which more were handed out, by answers that it never saw,
    lost = [asker.ask(b"x") for _ in range(2)]
    asker.redis.xreadgroup(GROUP, "p1", {asker.keys.requests(REF): ">"}, count=10)
    inbox.lose([])
    # I expect these to come, one after the other, and none that is worked on,
    found = [inbox.take(1, 1) for _ in range(2)]
    assert [one.id for taken in found for one in taken] == lost
    assert inbox.take(1, 1) == []
    # and no delivery to be counted, since no process has died.
    assert set(asker.pending().values()) == {("p1", 1)}
    assert {one.deliveries for taken in found for one in taken} == {1}


def test_what_was_not_begun_comes_again(asker: Asker, inbox_of: MakeInbox) -> None:
    inbox = inbox_of("p1")
    ids = [asker.ask(b"x") for _ in range(2)]
    first, second = taken_by(inbox, 2)
    inbox.lose([second])
    assert [one.id for one in inbox.take(10, 1)] == ids[1:]
    # One whose reply had arrived does not.
    assert inbox.reply([(first, ASKER, done(first))]) == [True]
    inbox.lose([first])
    assert inbox.take(10, 1) == []


def test_only_what_a_silent_process_holds_is_claimed(asker: Asker, inbox_of: MakeInbox) -> None:
    dead, other = inbox_of("p1"), inbox_of("p2")
    id = asker.ask(b"x")
    taken_by(dead, 1)
    say(dead, asker)
    assert other.claim() == []
    say(dead, asker, ago_ms=60_000)
    (claimed,) = claimed_by(other)
    assert (claimed.id, claimed.deliveries) == (id, 2)
    assert other.claim() == [], "it is worked on"
    # If the second one dies too, I expect a third to know that two had it.
    (again,) = claimed_by(inbox_of("p3"))
    assert (again.id, again.deliveries) == (id, 3)


def test_a_process_that_is_gone_is_forgotten(asker: Asker, inbox_of: MakeInbox) -> None:
    gone, there = inbox_of("p1"), inbox_of("p2")
    say(gone, asker, ago_ms=70_000)
    say(there, asker)
    # What a newer version says stays, although it says more.
    newer = WorkerSays(at_ms=asker.now_ms(), rate=1.0).field().replace('"worker"', '"more":1,"worker"')
    asker.redis.hset(asker.keys.workers(REF), "p3", newer)
    there.claim()
    assert set(asker.redis.hkeys(asker.keys.workers(REF))) == {b"p2", b"p3"}
    assert set(there.living()[1]) == {"p2", "p3"}
    there.leave()
    assert set(there.living()[1]) == {"p3"}
    # A beat that began before it left says nothing any more.
    say(there, asker)
    assert set(there.living()[1]) == {"p3"}


def test_what_raised_here_goes_to_another_process(asker: Asker, inbox_of: MakeInbox) -> None:
    # Given a request that raised in a live process, which passes it on,
    first, second = inbox_of("p1"), inbox_of("p2")
    say(first, asker)
    id = asker.ask(b"x")
    (taken,) = taken_by(first, 1)
    assert first.faults(taken) == 0
    assert first.pass_on(taken) == 1
    # I expect another one to get it, knowing of one fault, and of no death;
    (again,) = claimed_by(second)
    assert (again.id, again.deliveries) == (id, 1)
    assert second.faults(again) == 1
    # and if it raises there too and is passed on, neither of the two.
    assert second.pass_on(again) == 2
    wait_until(lambda: asker.idle_ms() > 1000, 20, "it to be free for a claim")
    assert first.claim() == [] and second.claim() == []
    assert [one.id for one in claimed_by(inbox_of("p3"))] == [id]


def test_what_is_handed_over_has_nothing_counted_against_it(asker: Asker, inbox_of: MakeInbox) -> None:
    first, second = inbox_of("p1"), inbox_of("p2")
    say(first, asker)
    id = asker.ask(b"x")
    (taken,) = taken_by(first, 1)
    # Whoever hands it over leaves it as it was, however many do.
    for sick, next_one in ((first, second), (second, inbox_of("p3"))):
        sick.hand_over(taken)
        (taken,) = claimed_by(next_one)
        assert (taken.id, taken.deliveries, next_one.faults(taken)) == (id, 1, 0)


def test_a_new_namespace_has_nothing_to_claim(asker: Asker, inbox_of: MakeInbox) -> None:
    inbox = inbox_of("p1")
    assert inbox.claim() == []
    inbox.lose([])
    assert inbox.take(1, 1) == []
