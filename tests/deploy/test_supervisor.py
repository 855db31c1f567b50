"""What a supervisor promises, with children that are small shell commands."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract.errors import ServiceUnavailable
from deploy.local import orphans, supervisor
from deploy.local.supervisor import Service, Supervisor
from tests.waiting import wait_until


def sleeper(name: str = "sleeper", **more: object) -> Service:
    return Service(name=name, command=["sleep", "600"], **more)  # type: ignore[arg-type]


def shell(script: str, name: str = "shell", **more: object) -> Service:
    return Service(name=name, command=["sh", "-c", script], **more)  # type: ignore[arg-type]


def said(children: Supervisor, name: str) -> int:
    """How often a service has said that it was started."""
    log = children.log_file(name)
    return log.read_text().count("started") if log.is_file() else 0


def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with Supervisor([sleeper()], tmp_path) as children:
        children.start()
        before = children.pid("sleeper")

        children.kill("sleeper")

        after = wait_until(lambda: (pid := children.pid("sleeper")) != before and pid, 5, "another pid")
        assert after != before


def test_a_child_that_ends_as_it_was_told_stays_down_until_it_is_started(tmp_path: Path) -> None:
    # Given a service that may end, beside one that may not, if both end with status 0,
    script = "echo started; exit 0"
    with Supervisor([shell(script, "ends", ends=True), shell(script, "stays")], tmp_path) as children:
        children.start(wait=False)  # who waits may miss one that ends at once
        wait_until(lambda: said(children, "stays") >= 3, 10, "restarts")
        wait_until(lambda: not children.wants("ends"), 10, "the end of the other")

        # I expect the first to stay down, and to be started when somebody asks.
        assert said(children, "ends") == 1
        children.start("ends", wait=False)
        wait_until(lambda: said(children, "ends") == 2, 10, "another start")


def test_restarts_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF", (0.1, 0.4))
    with Supervisor([shell("date +%s.%N; exit 3")], tmp_path) as children:
        log = children.log_file("shell")
        children.start(wait=False)
        wait_until(lambda: log.is_file() and len(log.read_text().split()) >= 5, 10, "five starts")
    times = [float(line) for line in log.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


def test_a_service_that_never_answers_is_named_with_its_log_and_last_words(tmp_path: Path) -> None:
    broken = shell("echo no such dragon >&2; exit 3", ready=lambda: True)
    with Supervisor([broken], tmp_path) as children:
        children.start(wait=False)
        with pytest.raises(ServiceUnavailable, match=r"exit status 3.*no such dragon.*shell\.log"):
            wait_until(lambda: children.check(), 5)


def test_a_service_that_is_up_but_silent_is_not_waited_for_forever(tmp_path: Path) -> None:
    silent = sleeper(ready=lambda: False, ready_seconds=0.3)
    with (
        Supervisor([silent], tmp_path) as children,
        pytest.raises(ServiceUnavailable, match="did not answer within"),
    ):
        children.start()


def test_a_command_that_is_not_there_says_so(tmp_path: Path) -> None:
    missing = Service(name="missing", command=["/no/such/program"], ready=lambda: False)
    with (
        Supervisor([missing], tmp_path) as children,
        pytest.raises(ServiceUnavailable, match=r"exit status 127.*/no/such/program cannot be run"),
    ):
        children.start()


def test_stop_follows_the_order_and_waits(tmp_path: Path) -> None:
    order = tmp_path / "order"
    services = [
        shell(
            f"trap 'sleep 0.2; echo {name} >> {order}; exit 0' TERM; touch {tmp_path}/{name}; "
            "while :; do sleep 0.05; done",
            name=name,
            stop_order=number,
            ready=(tmp_path / name).exists,
        )
        for name, number in (("server", 2), ("clock", 1), ("worker", 0))
    ]
    children = Supervisor(services, tmp_path)
    children.start()

    children.stop()

    assert order.read_text().split() == ["worker", "clock", "server"]


def test_one_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    stubborn = shell(
        f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done",
        stop_seconds=0.3,
        ready=(tmp_path / "up").exists,
    )
    children = Supervisor([stubborn], tmp_path)
    children.start()
    pid = children.pid("shell")
    assert pid is not None

    begun = time.monotonic()
    children.stop()

    assert 0.3 <= time.monotonic() - begun < Service.stop_seconds
    assert not orphans.exists(pid)


def test_stop_ends_grandchildren_even_in_sessions_of_their_own(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = shell(
        f"sleep 600 & echo $! >> {pids}; setsid sleep 600 & echo $! >> {pids}; touch {tmp_path}/up; wait",
        ready=(tmp_path / "up").exists,
    )
    children = Supervisor([parent], tmp_path)
    children.start()
    wait_until(lambda: len(orphans.marked(children.mark)) == 3, 5, "a shell and two sleepers")

    children.stop()

    assert orphans.marked(children.mark) == []


def test_what_a_dead_child_forked_does_not_work_beside_its_successor(tmp_path: Path) -> None:
    parent = shell(f"sleep 600 & echo $! >> {tmp_path}/pids; wait")
    with Supervisor([parent], tmp_path) as children:
        children.start()
        orphan = int(wait_until(lambda: (tmp_path / "pids").is_file() and (tmp_path / "pids").read_text(), 5))

        children.kill("shell")

        wait_until(lambda: not orphans.exists(orphan), 5, f"the end of {orphan}")


def test_a_stopped_service_stays_down_until_it_is_started(tmp_path: Path) -> None:
    with Supervisor([sleeper()], tmp_path) as children:
        children.start()
        children.stop_service("sleeper")
        assert children.pid("sleeper") is None

        children.start_service("sleeper")
        assert children.pid("sleeper") is not None


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from deploy.local.supervisor import *; import time\n"
        f"s = Supervisor([Service(name='sleeper', command=['sleep', '600'])], Path({str(tmp_path)!r}))\n"
        "s.start(); print(s.pid('sleeper'), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())

        os.kill(process.pid, signal.SIGKILL)

        wait_until(lambda: not orphans.exists(child), 5, f"the end of {child}")


def test_a_large_log_is_set_aside_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    (tmp_path / "shell.log").write_text("long ago and far away\n")
    with Supervisor([shell("echo here; sleep 600")], tmp_path) as children:
        children.start()
        wait_until(lambda: children.log_file("shell").read_text() == "here\n", 5, "the fresh log")
    assert (tmp_path / "shell.log.1").read_text() == "long ago and far away\n"
