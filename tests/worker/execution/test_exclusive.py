"""Together, or alone."""

import threading

from tests.waiting import wait_until
from worker.execution.exclusive import SharedExclusiveLock


def test_who_is_alone_keeps_the_others_out_and_waits_for_those_inside() -> None:
    lock = SharedExclusiveLock()
    inside: list[str] = []
    leave = threading.Event()

    def together(name: str) -> None:
        with lock.shared():
            inside.append(name)
            leave.wait(60)

    def alone() -> None:
        with lock.exclusive():
            inside.append("alone")

    first = threading.Thread(target=together, args=("first",))
    first.start()
    wait_until(lambda: inside == ["first"], 5, "the first to be inside")
    suspect = threading.Thread(target=alone)
    suspect.start()
    wait_until(lambda: lock.waiting == 1, 5, "the suspect to wait")
    second = threading.Thread(target=together, args=("second",))
    second.start()
    assert inside == ["first"], "nobody passes who waits to be alone"

    leave.set()
    for thread in (first, suspect, second):
        thread.join(60)
    assert inside == ["first", "alone", "second"]
