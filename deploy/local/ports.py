"""Free TCP ports on loopback. Knows nothing of what will listen there."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence

LOOPBACK = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC this far above each HTTP port."""

# Both halves end below 32768, where Linux starts to hand out ports to clients: a server that restarts must not find its
# own port taken by somebody's outgoing connection. They do not overlap, so no chosen port is the gRPC port of another.
_RANGE = range(11_000, 11_000 + GRPC_OFFSET)
_GROUPS = 97
"""A process looks among the ports of its own group first. A chosen port is free until a server listens there, about a
second later, and processes that choose in that second would otherwise choose the same one now and then."""
_given: set[int] = set()
"""What this process has chosen, which comes last: a stack chooses ports for its metrics, then for its servers, and both
before anything listens."""


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port and on its gRPC port now."""
    return all(_can_bind(p) for p in (port, port + GRPC_OFFSET))


def choose(preferred: Sequence[int | None], unless: Callable[[int], bool] = lambda port: False) -> list[int]:
    """Return a free port for each entry: the preferred one if it is still free, else another.

    A port of which `unless` is true is never chosen. Raises OSError if the whole range is taken.
    """
    listening: set[int] = set()

    def take(port: int) -> bool:
        """Whether a server can have the port, beside those that have theirs already."""
        both = {port, port + GRPC_OFFSET}
        if both & listening or not is_free(port) or unless(port):
            return False
        listening.update(both)
        return True

    kept = [port if port is not None and take(port) else None for port in preferred]
    fresh = filter(take, _candidates())
    try:
        chosen = [next(fresh) if port is None else port for port in kept]
    except StopIteration:
        raise OSError(f"no free ports between {_RANGE.start} and {_RANGE.stop}") from None
    _given.update(chosen)
    return chosen


def _candidates() -> Iterator[int]:
    """Yield every port of the range once, in random order: those of this process's group first, and last those that it
    has chosen before."""
    group, given = os.getpid() % _GROUPS, frozenset(_given)
    shuffled = random.sample(_RANGE, len(_RANGE))
    yield from sorted(shuffled, key=lambda port: (port in given, port % _GROUPS != group))


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a connection that lingers in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
