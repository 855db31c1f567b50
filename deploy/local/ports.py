"""Free TCP ports on loopback. Knows nothing of what will listen there."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence

LOOPBACK = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC this far above each HTTP port."""

# Both halves end below 32768, where Linux starts to hand out ports to clients: a server that restarts
# must not find its own port taken by somebody's outgoing connection.
_RANGE = range(11_000, 22_000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port and on its gRPC port now."""
    return all(_can_bind(p) for p in (port, port + GRPC_OFFSET))


def choose(preferred: Sequence[int | None], unless: Callable[[int], bool] = lambda port: False) -> list[int]:
    """Return a free port for each entry: the preferred one if it is still free, else another.

    A port of which `unless` is true is never chosen. Raises OSError if the whole range is taken.
    """

    def usable(port: int) -> bool:
        return is_free(port) and not unless(port)

    kept = [port if port is not None and usable(port) else None for port in preferred]
    fresh = (port for port in random.sample(_RANGE, len(_RANGE)) if port not in kept and usable(port))
    try:
        return [next(fresh) if port is None else port for port in kept]
    except StopIteration:
        raise OSError(f"no free ports between {_RANGE.start} and {_RANGE.stop}") from None


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a connection that lingers in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
