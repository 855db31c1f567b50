"""Free ports: those that one call chooses, and those that processes choose at the same time, do not meet."""

from __future__ import annotations

import socket

import pytest

from deploy.local import ports
from deploy.local.ports import GRPC_OFFSET, LOOPBACK


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have chosen no port before, and forget those of these tests."""
    monkeypatch.setattr(ports, "_given", set())


def test_no_port_is_the_grpc_port_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine on which every port is free, if the whole range is chosen,
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    chosen = ports.choose([None] * len(ports._RANGE))

    # I expect no two servers at one port, gRPC included, all below what Linux hands out to clients.
    listening = [*chosen, *(port + GRPC_OFFSET for port in chosen)]
    assert len(set(listening)) == len(listening) == 2 * len(ports._RANGE)
    assert max(listening) < 32_768


def test_processes_that_choose_at_the_same_time_choose_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given processes that choose before any of them listens, as those of parallel tests, each for several stacks,
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    chosen: list[set[int]] = []
    for pid in range(4000, 4008):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        chosen.append({port for _ in range(5) for port in ports.choose([None] * 12)})

    # I expect no port to be chosen by two of them.
    assert sum(map(len, chosen)) == len(set().union(*chosen))


def test_a_process_chooses_no_port_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stack that chooses ports for its metrics, and then for its servers, before any of them listens,
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    chosen = [port for _ in range(20) for port in ports.choose([None] * 12)]

    # I expect each of them once, also when its group is used up.
    assert len(set(chosen)) == len(chosen) > len(ports._RANGE) / ports._GROUPS


def test_a_port_stays_unless_it_or_its_grpc_port_is_taken() -> None:
    kept, first, second = ports.choose([None, None, None])
    with socket.create_server((LOOPBACK, first)), socket.create_server((LOOPBACK, second + GRPC_OFFSET)):
        again = ports.choose([kept, first, second])
    assert again[0] == kept and again[1] != first and again[2] != second


def test_a_port_that_is_the_grpc_port_of_another_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # An earlier version chose such ports now and then, and a stack on them never came up.
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    kept, other = ports.choose([11_500, 11_500 + GRPC_OFFSET])
    assert kept == 11_500 and other != 11_500 + GRPC_OFFSET


def test_where_everything_is_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(OSError, match="no free ports between 11000 and 21000"):
        ports.choose([None])
