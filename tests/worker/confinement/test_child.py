"""A confined child has no credentials, no network and no files, and dies of its deadline or with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from worker.confinement.child import Child, ChildDied, ChildError
from worker.confinement.confine import Limits

TESTS = str(Path(__file__).parent.parent.parent)
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def make(*, slots: int = 1, threads: int = 1) -> Child:
        limits = Limits(memory=512 * 2**20, readable=(TESTS,))
        child = Child(
            "tests.worker.confinement.hostile",
            limits,
            greeting={"name": "me"},
            size=2**20,
            slots=slots,
            threads=threads,
        )
        children.append(child)
        return child

    yield make
    for child in children:
        child.close()


@pytest.fixture
def child(start: Start) -> Child:
    return start()


def does(child: Child, action: str, *arguments: str, seconds: float = 60.0) -> str:
    return str(child.call({"do": action, "arguments": list(arguments)}, [], seconds=seconds)[0]["said"])


def test_blobs_go_there_and_back(child: Child) -> None:
    assert child.facts == {"greeting": "me"}
    assert child.call({"do": "echo"}, [b"one", b"", b"three" * 1000], seconds=60)[1] == [b"one", b"", b"three" * 1000]
    with pytest.raises(ValueError, match="do not fit"):
        child.call({"do": "echo"}, [bytes(2**21)], seconds=60)
    assert does(child, "echo") == "", "a slot that was refused is free again"


def test_closing_it_again_leaves_the_files_of_others_alone(child: Child) -> None:
    # Given a child that one of its users closed, and a file that was opened since, under the same number,
    child.close()
    one, other = os.pipe()
    # if another user closes the child too, I expect the file to stay open.
    child.close()
    os.fstat(one), os.fstat(other)
    os.close(one)
    os.close(other)


def test_requests_overlap(start: Start) -> None:
    child = start(slots=4, threads=2)
    futures = [child.submit({"do": "echo"}, [bytes([n])], seconds=60) for n in range(20)]
    assert [future.result()[1] for future in futures] == [[bytes([n])] for n in range(20)]


def test_it_is_told_which_gpus_are_its_parents(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"} < set(does(start(), "environment").split())


def test_it_inherits_neither_environment_nor_files(
    monkeypatch: pytest.MonkeyPatch, start: Start, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMAGEMILL_S3_SECRET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        child = start()

        assert not {name for name in does(child, "environment").split() if name.startswith(("IMAGEMILL", "AWS"))}
        if sys.platform.startswith("linux"):
            assert str(tmp_path) not in does(child, "files")


@pytest.mark.parametrize(
    ("layer", "action"),
    [("seccomp", "socket"), ("seccomp", "fork"), ("seccomp", "execute"), ("seccomp", "kill")],
)
def test_what_no_decoder_needs_is_denied(child: Child, layer: str, action: str) -> None:
    if layer not in child.enforced:
        pytest.skip(f"this machine has no {layer}")
    with pytest.raises(ChildError, match="not permitted"):
        does(child, action)
    assert does(child, "echo") == ""


def test_files_are_closed(child: Child, tmp_path: Path) -> None:
    if "landlock" not in child.enforced:
        pytest.skip("this machine has no Landlock")
    (tmp_path / "secret").write_text("secret")
    for path in (str(tmp_path / "secret"), "/etc/passwd", f"/proc/{os.getpid()}/environ"):
        with pytest.raises(ChildError, match="Permission denied"):
            does(child, "read", path)
    with pytest.raises(ChildError, match="Permission denied"):
        does(child, "write", str(tmp_path / "new"))


def test_endless_memory_ends_in_an_error_of_the_child(child: Child) -> None:
    # An error where Python can say so, a death where it cannot.
    with pytest.raises((ChildError, ChildDied)) as caught:
        does(child, "allocate")
    assert getattr(caught.value, "kind", "MemoryError") == "MemoryError"


@pytest.mark.parametrize("action", ["hang", "sleep"])
def test_it_is_ended_by_its_deadline(child: Child, action: str) -> None:
    with pytest.raises(ChildDied, match="did not answer in time") as caught:
        does(child, action, seconds=0.5)
    assert caught.value.late
    with pytest.raises(ChildDied):
        does(child, "echo")
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_crash_is_told(child: Child) -> None:
    with pytest.raises(ChildDied, match="SIGSEGV"):
        does(child, "crash")


def test_garbage_in_its_pipe_ends_it(child: Child) -> None:
    with pytest.raises(ChildDied):
        does(child, "garbage", seconds=10)


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    # Given a parent with a child that computes,
    code = (
        "from worker.confinement.child import Child\nfrom worker.confinement.confine import Limits\n"
        f"limits = Limits(readable=({TESTS!r},))\n"
        "child = Child('tests.worker.confinement.hostile', limits, size=9)\n"
        "print(child.pid, flush=True)\nchild.call({'do': 'hang'}, [], seconds=600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # if the parent is killed, I expect the child to be gone.
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
