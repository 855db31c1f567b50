"""The embedded stack, with real servers: what they keep, and what `down` leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.errors import CredentialsRefused, InvalidInput, InvalidSettings, ServiceUnavailable
from contract.settings import load, stack_file
from deploy import cli
from deploy.local import daemon, orphans, ports
from deploy.local.lock import holder
from deploy.local.servers import REDIS, S3, SERVERS_FILE, Servers
from deploy.local.stack import Stack
from deploy.local.supervisor import mark_of
from deploy.local.weed import SOCKETS
from tests.waiting import wait_until


def processes(data: Path) -> list[int]:
    """Everything that came from a stack on this folder or names it in its command line."""
    found = set(orphans.marked(mark_of(data / "logs")))
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(data).encode() in words and int(entry.name) != os.getpid():
            found.add(int(entry.name))
    return sorted(found)


def runner() -> CliRunner:
    """Forgets what `--data` writes into the environment."""
    return CliRunner(env={"IMAGEMILL_DATA": None})


# Patience is there to end a hang: a server that was killed is back within seconds, but on a busy machine.
def store_of(data: Path) -> ObjectStore:
    return ObjectStore(load(data=data), patience=60.0)


def ledger_of(data: Path) -> Ledger:
    return Ledger(load(data=data), patience=60.0)


def keep(ledger: Ledger) -> None:
    """Write a word that is on the disk: SIGKILL costs what Redis has not appended while the disk was slow."""
    ledger.redis.config_set("appendfsync", "always")
    ledger.redis.set("word", "kept")


def test_redis_comes_back_from_sigkill_on_its_port_with_its_data(stack: Stack) -> None:
    ledger = ledger_of(stack.data)
    keep(ledger)
    before = stack.supervisor.pid(REDIS)

    stack.supervisor.kill(REDIS)

    wait_until(lambda: stack.supervisor.pid(REDIS) not in (None, before), 5, "another Redis")
    assert ledger.redis.get("word") == "kept"  # the same client: the address did not change


def test_the_s3_server_comes_back_from_sigkill_on_its_port_with_its_data(stack: Stack) -> None:
    store = store_of(stack.data)
    store.put("a/small", b"kept")
    store.put("a/large", b"x" * 20_000_000)
    before = stack.supervisor.pid(S3)

    stack.supervisor.kill(S3)

    wait_until(lambda: stack.supervisor.pid(S3) not in (None, before), 5, "another S3 server")
    assert store.get("a/small") == b"kept"
    assert store.get("a/large") == b"x" * 20_000_000
    store.put("a/after", b"writes too")


def test_the_s3_server_leaves_no_sockets_behind(tmp_path: Path) -> None:
    # Given an S3 server that made its sockets,
    stack = Stack(tmp_path / "data", 0, control=False)
    with stack:
        made = Servers.model_validate_json((stack.data / SERVERS_FILE).read_text())
        assert sockets(made)

    # if it is stopped, I expect none of them to be left;
    assert sockets(made) == []

    # and the next start to remove what a killed one left, but not what is answered.
    left, answered = (SOCKETS / f"seaweedfs-test-{port}.sock" for port in (made.s3_port, made.admin_port))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(answered))
        alive.listen()
        try:
            Servers.of(stack.data)
            assert sockets(made) == [answered]
        finally:
            answered.unlink()


def sockets(servers: Servers) -> list[Path]:
    """The sockets of a SeaweedFS on these ports."""
    found = servers.model_dump()
    numbers = {str(port + more) for name, port in found.items() if name.endswith("_port") for more in (0, 10_000)}
    return sorted(path for path in SOCKETS.glob("seaweedfs-*.sock") if path.stem.rpartition("-")[2] in numbers)


def test_both_servers_can_be_away_for_a_while(stack: Stack) -> None:
    store, ledger = store_of(stack.data), ledger_of(stack.data)
    store.put("word", b"kept")
    ledger.redis.set("word", "kept")

    stack.supervisor.stop_service(REDIS, S3)
    with pytest.raises(ServiceUnavailable):
        ObjectStore(load(data=stack.data), patience=0.0).get("word")
    stack.supervisor.start(REDIS, S3)

    assert store.get("word") == b"kept"
    assert ledger.redis.get("word") == "kept"


def test_servers_refuse_whoever_has_no_credentials(stack: Stack) -> None:
    settings = load(data=stack.data)
    update = {"redis_url": SecretUrl(str(settings.redis_url)), "s3_secret_key": SecretStr("guessed")}
    stranger = settings.model_copy(update=update)
    with pytest.raises(InvalidSettings):
        Ledger(stranger, patience=0.0).info()
    with pytest.raises(CredentialsRefused):
        ObjectStore(stranger, patience=0.0).get("word")


def test_servers_listen_on_loopback_only(stack: Stack) -> None:
    pids = {stack.supervisor.pid(REDIS), stack.supervisor.pid(S3)}
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    listening = []
    for table in Path("/proc/net").glob("tcp*"):  # none for IPv6 where the machine has none
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].partition(":")[0])
    assert len(listening) >= 3
    assert set(listening) == {"0100007F"}


def test_secrets_are_for_the_owner_alone(stack: Stack) -> None:
    for path in (stack_file(stack.data), stack.data / "servers.json", stack.data / "redis" / "redis.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    pid = stack.supervisor.pid(REDIS)
    password = Servers.of(stack.data).redis_password
    assert password not in Path(f"/proc/{pid}/cmdline").read_text()


def test_down_leaves_no_process_and_the_next_up_finds_its_data_and_ports(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = daemon.run_detached(data, 0, control=False)
    assert len(processes(data)) == 4  # supervisor, two Redis, S3 server
    store_of(data).put("word", b"kept")
    ledger_of(data).redis.set("word", "kept")

    assert daemon.stop(data)
    assert processes(data) == []
    assert not stack_file(data).exists()

    second = daemon.run_detached(data, 0, control=False)
    try:
        assert second.ports == first.ports
        assert store_of(data).get("word") == b"kept"
        assert ledger_of(data).redis.get("word") == "kept"
    finally:
        daemon.stop(data)
    assert processes(data) == []


def test_a_second_stack_on_a_folder_is_refused_and_does_the_first_no_harm(stack: Stack) -> None:
    second = Stack(stack.data, workers=0, control=False)
    with pytest.raises(InvalidInput, match="Another stack runs"):
        second.start()
    second.stop()

    assert holder(stack.data) == os.getpid()
    assert stack_file(stack.data).exists()
    assert ledger_of(stack.data).info()
    assert store_of(stack.data).bucket_exists("imagemill")


def test_up_on_a_running_stack_says_where_it_is(stack: Stack) -> None:
    done = runner().invoke(cli.up, ["--data", str(stack.data)])
    assert done.exit_code == 0
    assert "runs already" in done.stdout
    info = load(data=stack.data)
    assert info.s3_endpoint in done.stdout
    assert Servers.of(stack.data).redis_password not in done.stdout
    assert "@" not in done.stdout


def test_after_a_crash_of_the_supervisor_the_folder_counts_as_down(tmp_path: Path) -> None:
    data = tmp_path / "data"
    info = daemon.run_detached(data, 0, control=False)
    keep(ledger_of(data))

    os.kill(info.pid, signal.SIGKILL)

    wait_until(lambda: daemon.running(data) is None, 5, "a folder that is free")
    wait_until(lambda: processes(data) == [], 5, "servers that died with their supervisor")
    assert stack_file(data).exists()  # what a crash leaves does not count
    again = daemon.run_detached(data, 0, control=False)
    try:
        assert again.pid != info.pid
        assert ledger_of(data).redis.get("word") == "kept"
    finally:
        daemon.stop(data)


def test_down_where_nothing_runs_says_so(tmp_path: Path) -> None:
    done = runner().invoke(cli.down, ["--data", str(tmp_path)])
    assert done.exit_code == 0
    assert done.stdout == f"No stack runs in {tmp_path}.\n"


def test_a_server_that_the_user_names_is_not_started_here(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load(data=stack.data)
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", given.redis_url.get_secret_value())
    with Stack(tmp_path / "other", workers=0, control=False) as other:
        assert other.supervisor.pid(S3)
        with pytest.raises(KeyError):
            other.supervisor.pid(REDIS)
        found = load(data=other.data)
        assert found.redis_url == given.redis_url
        assert found.s3_endpoint != given.s3_endpoint


def test_an_error_of_the_detached_supervisor_reaches_the_caller(stack: Stack) -> None:
    with pytest.raises(InvalidInput, match="Another stack runs"):
        daemon.run_detached(stack.data, 0, control=False)


def test_a_port_that_somebody_took_is_given_up(tmp_path: Path) -> None:
    first = Servers.of(tmp_path)
    with socket.create_server((ports.LOOPBACK, first.redis_port)):
        second = Servers.of(tmp_path)
    assert second.redis_port != first.redis_port
    assert second.redis_password == first.redis_password
    assert second.s3_endpoint == first.s3_endpoint
