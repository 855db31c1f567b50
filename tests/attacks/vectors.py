"""Addresses by which a manifest would reach what is not public, each with a listener behind it where one can be."""

from __future__ import annotations

from collections.abc import Iterator


def vectors(port: int) -> Iterator[str]:
    """Yield addresses of loopback, private, link-local and metadata services, in every notation known to the writer."""
    for host in (
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "127.0.0.1.",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::80ff:fffe]",
        "[fe80::1%25lo]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xa9fea9fe",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
    ):
        yield f"http://{host}:{port}/x.jpg"
    yield f"https://127.0.0.1:{port}/x.jpg"
    yield f"http://user:secret@127.0.0.1:{port}/x.jpg"
    yield f"http://example.com@127.0.0.1:{port}/x.jpg"
    yield f"http://127.0.0.1:{port}\\@example.com/x.jpg"
    yield f"http://example.com:80@127.0.0.1:{port}/x.jpg"
    yield f"http://127.0.0.1:{port}#@example.com/x.jpg"
    yield f"http:127.0.0.1:{port}/x.jpg"
    yield f"http:///127.0.0.1:{port}/x.jpg"
    yield f"http://127.0.0.1:{port}\t/x.jpg"
    yield f"gopher://127.0.0.1:{port}/_GET"
    yield f"ftp://127.0.0.1:{port}/x.jpg"
    yield f"dict://127.0.0.1:{port}/x"
    yield "file:///etc/passwd"
    yield "data:image/png;base64,iVBORw0KGgo="
    yield f"jar:http://127.0.0.1:{port}/x!/y"
    yield f"//127.0.0.1:{port}/x.jpg"
