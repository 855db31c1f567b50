"""Together, or alone."""

import threading

from tests.waiting import wait_until
from worker.execution.exclusive import Gate


def test_who_is_alone_keeps_the_others_out_and_waits_for_those_inside() -> None:
    gate = Gate()
    inside: list[str] = []
    leave = threading.Event()

    def together(name: str) -> None:
        with gate.together():
            inside.append(name)
            leave.wait(5)

    def alone() -> None:
        with gate.alone():
            inside.append("alone")

    first = threading.Thread(target=together, args=("first",))
    first.start()
    wait_until(lambda: inside == ["first"], 5, "the first to be inside")
    suspect = threading.Thread(target=alone)
    suspect.start()
    wait_until(lambda: gate._waiting_alone == 1, 5, "the suspect to wait")
    second = threading.Thread(target=together, args=("second",))
    second.start()
    assert inside == ["first"], "nobody passes who waits to be alone"

    leave.set()
    for thread in (first, suspect, second):
        thread.join(5)
    assert inside == ["first", "alone", "second"]
