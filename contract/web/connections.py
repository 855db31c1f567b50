"""Connections that lead only to checked addresses: the place where every fetch from the web meets the network.

The name stays what the address says, for the Host header, for SNI and for the check of the certificate; the socket
connects to an address that `AddressPolicy.resolve` returned, and the name is not resolved again.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from contract.web.addresses import Address, AddressPolicy
from contract.web.deadlines import Line, current

_HOSTS = 64
"""Hosts to which idle connections are kept."""
_CONNECT_SECONDS = 5.0
_LOOKUPS = 256
"""Names that are looked up at once: twice the lanes of a worker, since a lookup that nobody waits for goes on."""


class _Lookups:
    """Looks names up on threads of their own, because a resolver cannot be interrupted.

    Whoever asks for a name that is being looked up waits for the same answer: a name server that never answers holds
    one thread, however often its name is tried again.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._pool = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="resolve")
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[list[Address]]] = {}

    def find(self, host: str, port: int, seconds: float) -> list[Address]:
        """Return the addresses of a host, which passed the policy; raises what it raises, and TimeoutError."""
        wanted = host, port
        with self._lock:
            lookup = self._under_way.get(wanted)
            if lookup is None:
                lookup = self._under_way[wanted] = self._pool.submit(self._policy.resolve, host, port)
                fresh = True
            else:
                fresh = False
        if fresh:  # outside of the lock, which the callback takes, at once if the answer is there
            lookup.add_done_callback(lambda _: self._forget(wanted))
        return lookup.result(seconds)

    def _forget(self, wanted: tuple[str, int]) -> None:
        with self._lock:
            self._under_way.pop(wanted, None)


class _Checked(HTTPConnection):
    """A connection to a host whose addresses passed the policy."""

    def __init__(self, *args: Any, lookups: _Lookups, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lookups = lookups
        self._line: Line | None = None

    def _new_conn(self) -> socket.socket:
        until = time.monotonic() + _CONNECT_SECONDS
        deadline = current()
        if deadline is not None:
            until = min(until, deadline.at)
        problem: OSError = TimeoutError("no address")
        for address in self._addresses(until):
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                connected = _connect(address, int(self.port), left)
            except OSError as error:
                problem = error
                continue
            if self._line is not None:
                self._line.drop()
            self._line = Line(connected)
            if deadline is not None:
                deadline.use(self._line)
            return connected
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from problem
        raise NewConnectionError(self, f"Failed to establish a new connection: {problem}") from problem

    def _addresses(self, until: float) -> list[Address]:
        try:
            return self._lookups.find(self._dns_host, int(self.port), max(0.0, until - time.monotonic()))
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"The lookup of {self.host} timed out.") from error
        except OSError as error:
            raise NewConnectionError(self, f"The lookup of {self.host} failed: {error}") from error

    def request(self, *args: Any, **options: Any) -> None:
        deadline = current()
        if deadline is not None and self._line is not None:  # an idle connection is used again
            deadline.use(self._line)
        super().request(*args, **options)

    def close(self) -> None:
        super().close()
        line, self._line = self._line, None
        if line is not None:
            line.drop()


class _CheckedTls(_Checked, HTTPSConnection):
    """The same with TLS, which checks the certificate of the name."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Checked


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CheckedTls


class _Once(urllib3.HTTPConnectionPool):
    """Keeps no connection for another request, whatever the server says."""

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.close()


class _OncePool(_Once, _Pool):
    pass


class _OnceTlsPool(_Once, _TlsPool):
    pass


def checked_connections(policy: AddressPolicy, *, each_host: int) -> urllib3.PoolManager:
    """Return pools of connections under `policy`; up to `each_host` idle ones are kept for each host.

    With 0 no connection is used twice, so each request has its name looked up and its address checked.

    Proxies of the environment are not used: behind a proxy nobody can tell what an address leads to.
    """
    manager = urllib3.PoolManager(num_pools=_HOSTS, maxsize=each_host, cert_reqs="CERT_REQUIRED")
    lookups = _Lookups(policy)
    plain: Any = _Pool if each_host else _OncePool
    tls: Any = _TlsPool if each_host else _OnceTlsPool
    manager.pool_classes_by_scheme = cast(
        "Any", {"http": partial(plain, lookups=lookups), "https": partial(tls, lookups=lookups)}
    )
    return manager


def _connect(address: Address, port: int, timeout: float) -> socket.socket:
    made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(timeout)
        made.connect((str(address), port))
    except BaseException:
        made.close()
        raise
    return made
