"""Cuts one process off from the servers without ending a connection, as a broken switch does, and mends the cut.

In a network namespace of its own it is the link that goes down: packets are lost and sent again, addresses are
unreachable. That takes root. Everywhere, the wires to the servers can swallow what they are given.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from deploy.local.ports import LOOPBACK
from deploy.local.supervisor import Service
from tests.wires import Wire, tap

_numbers = itertools.count(os.getpid() % 200)


class NoNamespaces(Exception):
    """This system gives no network namespaces; the message says why."""


@dataclass
class Partition:
    """The way of one process to the servers."""

    host: str
    """Where the process finds the servers."""
    command: tuple[str, ...] = ()
    """Comes before the command of the process."""
    wires: list[Wire] = field(default_factory=list)
    link: str = ""
    """Goes down in place of the wires."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def behind(self, service: Service) -> Service:
        """Return a service that reaches Redis and the object store this way only."""
        env = dict(service.env)
        for name in ("IMAGEMILL_REDIS_URL", "IMAGEMILL_S3_ENDPOINT"):
            before, _, port = env[name].rpartition(f"{LOOPBACK}:")
            port, slash, after = port.partition("/")
            wire = self._stack.enter_context(tap(int(port), self.host))
            self.wires.append(wire)
            env[name] = f"{before}{self.host}:{wire.port}{slash}{after}"
        return replace(service, env=env, command=[*self.command, *service.command])

    def cut(self) -> None:
        """Let nothing through any more."""
        if self.link:
            _ip("link", "set", self.link, "down")
        else:
            for wire in self.wires:
                wire.flows.clear()

    def mend(self) -> None:
        """Let everything through again, what was held back first."""
        if self.link:
            _ip("link", "set", self.link, "up")
        for wire in self.wires:
            wire.flows.set()


@contextmanager
def by_wires() -> Iterator[Partition]:
    """A way that swallows what it is given while it is cut."""
    with ExitStack() as stack:
        yield Partition(LOOPBACK, _stack=stack)


@contextmanager
def by_namespace() -> Iterator[Partition]:
    """A network namespace behind one link; raises NoNamespaces without root, or where the kernel refuses."""
    if os.geteuid() or shutil.which("ip") is None:
        raise NoNamespaces("network namespaces take root and the command `ip` of iproute2")
    number = next(_numbers)
    name, link, inner, net = f"mill-{number}", f"mill-{number}-a", f"mill-{number}-b", f"10.231.{number}"
    with ExitStack() as stack:
        try:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("link", "add", link, "type", "veth", "peer", "name", inner, "netns", name)
        except subprocess.CalledProcessError as error:
            raise NoNamespaces(f"network namespaces are refused here: {error.stderr.strip()}") from error
        _ip("addr", "add", f"{net}.1/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", name, "addr", "add", f"{net}.2/30", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield Partition(f"{net}.1", ("ip", "netns", "exec", name), link=link, _stack=stack)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)
