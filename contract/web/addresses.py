"""Decides which web addresses may be fetched. An address comes from the author of a manifest, whom nobody trusts.

`AddressPolicy.target` judges what an address says, `AddressPolicy.resolve` what its host stands for. A connection is
made only to what `resolve` returned (`contract.web.connections`), so a name that changes between a check and its use
changes nothing.

Sources of the tables: the IANA IPv4 and IPv6 Special-Purpose Address Registries. They are written out because the
tables behind `ipaddress.is_global` differ between versions of Python.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from contract.errors import AddressRefused, FetchFailed, InvalidSettings
from contract.settings import Settings

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host as text; raises OSError. Its second argument is the port."""

PORTS = frozenset({80, 443})
"""Ports that are always open."""
SCHEMES = {"http": 80, "https": 443}

_SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and DNS: a public address that is different for each machine
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, benchmarking, ORCHID: tunnels and identifiers, no hosts of images
        "2001:db8::/32",
        "2002::/16",  # 6to4, which leads to any IPv4 address
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # how an IPv6-only network reaches IPv4: as good as the address within
# What a name never opens: an operator who allows a host means its images, not the credentials of a machine.
_BY_NETWORK_ONLY = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "224.0.0.0/3",
        "::/128",
        "fd00:ec2::254/128",
        "fe80::/10",
        "ff00::/8",
    )
)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_ALLOWED_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")


@dataclass(frozen=True)
class Target:
    """One hop of a fetch. `host` has brackets around an IPv6 address; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str


class AddressPolicy:
    """What may be fetched: global addresses at the listed ports, and whatever `allow` opens.

    `allow` lists hosts (`images.example.com`, `*.example.com`), addresses and networks (`10.1.0.0/16`); `ports` lists
    ports and ranges (`8080, 9000-9010`) beside 80 and 443. Raises InvalidSettings for an entry that is neither.
    """

    def __init__(self, allow: str = "", ports: str = "", resolver: Resolver | None = None) -> None:
        self._names: list[str] = []
        self._networks: list[Network] = []
        for entry in _entries(allow):
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                if not _ALLOWED_NAME.fullmatch(entry.lower()) or _is_number(entry.lower()):
                    raise InvalidSettings(
                        f"IMAGEMILL_FETCH_ALLOW lists {entry!r}, which is no host, address or network; write "
                        "images.example.com, *.example.com, 10.1.2.3 or 10.1.0.0/16, with commas between."
                    ) from None
                self._names.append(entry.lower())
        self._ports = [range(port, port + 1) for port in PORTS] + list(_ranges(ports))
        self._resolver = resolver or _system_resolver

    @staticmethod
    def of(settings: Settings) -> AddressPolicy:
        """Return the policy that the settings describe."""
        return AddressPolicy(settings.fetch_allow, settings.fetch_ports)

    def target(self, url: str) -> Target:
        """Return where an address leads, without asking for the addresses of its host; raises AddressRefused."""
        if any(ord(char) < 0x20 or char == "\x7f" for char in url):
            raise AddressRefused(f"{shown(url)} has control characters; correct the address.")
        try:
            parts = parse_url(url)
        except (LocationParseError, ValueError) as error:
            raise AddressRefused(f"{shown(url)} is not a web address; correct it.") from error
        scheme, host = (parts.scheme or "").lower(), (parts.host or "").lower()
        if scheme not in SCHEMES:
            raise AddressRefused(f"{shown(url)} is refused: only http:// and https:// addresses are fetched.")
        if parts.auth is not None:
            raise AddressRefused(
                f"{shown(url)} is refused: it holds a user name or password; remove it, or use a signed address."
            )
        port = SCHEMES[scheme] if parts.port is None else parts.port
        if not any(port in ports for ports in self._ports):
            raise AddressRefused(
                f"{shown(url)} is refused: port {port} is closed to fetches; IMAGEMILL_FETCH_PORTS opens it."
            )
        if literal(host) is None and (not _HOST.fullmatch(host) or _is_number(host)):
            raise AddressRefused(
                f"{shown(url)} is refused: {host!r} is no host name, and addresses are written as 192.0.2.1 or "
                "[2001:db8::1]."
            )
        return Target(scheme, host, port, parts.request_uri)

    def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, all of which may be connected to.

        Raises AddressRefused if any may not, FetchFailed if there is none, and OSError if the resolver fails for now.
        """
        single = literal(host)
        name = host.rstrip(".").lower()
        if single is not None:
            found: list[Address] = [single]
        else:
            try:
                found = [ip_address(text.partition("%")[0]) for text in self._resolver(host, port)]
            except socket.gaierror as error:
                if error.errno == socket.EAI_AGAIN:
                    raise
                raise FetchFailed(f"The host {name} has no address; correct it, or retry the job later.") from error
            except UnicodeError as error:
                raise AddressRefused(f"{name!r} is refused: it is no host name.") from error
        if not found:
            raise FetchFailed(f"The host {name} has no address; correct it, or retry the job later.")
        for address in found:
            if not self._may_reach(name, address):
                what = name if str(address) == name.strip("[]") else f"{name} ({address})"
                raise AddressRefused(
                    f"{what} is refused: it is no public address; IMAGEMILL_FETCH_ALLOW opens hosts and networks."
                )
        return list(dict.fromkeys(found))

    def _may_reach(self, name: str, address: Address) -> bool:
        inner = _inner(address)
        if is_public(inner) or any(inner in network or address in network for network in self._networks):
            return True
        if any(inner in network for network in _BY_NETWORK_ONLY):
            return False
        return any(name == entry or (entry[0] == "*" and name.endswith(entry[1:])) for entry in self._names)


def is_public(address: Address) -> bool:
    """Return whether an address is a host of the public internet."""
    address = _inner(address)
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _SPECIAL_V4)
    return (
        address.is_global
        and address in _GLOBAL_V6
        and not address.is_multicast
        and not any(address in network for network in _SPECIAL_V6)
    )


def literal(host: str) -> Address | None:
    """Return the address that a host is, in its usual notation, or None for a name."""
    try:
        return ip_address(host[1:-1]) if host.startswith("[") and host.endswith("]") else IPv4Address(host)
    except ValueError:
        return None


def shown(url: str) -> str:
    """Return an address as it may be printed: short, without control characters and without a password."""
    text = "".join(char if char.isprintable() else "?" for char in url)
    text = re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#]*@", r"\1…@", text)
    return text if len(text) <= 300 else f"{text[:299]}…"


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_number(host: str) -> bool:
    """Return whether resolvers would take a host for a number, such as 2130706433, 0x7f.1 or 127.1.

    They decide by the last label; `literal` has taken the usual notation out before.
    """
    return _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def _entries(text: str) -> Iterator[str]:
    return (entry for entry in (part.strip() for part in text.split(",")) if entry)


def _ranges(text: str) -> Iterator[range]:
    for entry in _entries(text):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", entry)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise InvalidSettings(
                f"IMAGEMILL_FETCH_PORTS lists {entry!r}, which is no port; write them as in 8080, 9000-9010."
            )
        yield range(first, last + 1)


def _system_resolver(host: str, port: int) -> list[str]:
    infos: Sequence[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]
