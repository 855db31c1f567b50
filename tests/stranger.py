"""Another user of the machine, who tries every door of a stack without a password.

It is a program: it gives up root, if it has it, and reports on stdout what it could read and write. It is given a list
of what there is, so that nothing stays closed only because it was not found.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401, what is imported later may not be readable any more
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

NOBODY = 65534
TIMEOUT = 2.0
READING, WRITING = ("HEAD", "OPTIONS", "GET"), ("GET", "POST", "PUT", "DELETE")
PATHS = (
    # S3, then filer, master and volume server; {bucket} and {key} name an object that is there.
    "/",
    "/{bucket}",
    "/{bucket}?list-type=2",
    "/{bucket}/{key}",
    "/{bucket}/new",
    "/{bucket}?policy",
    "/{bucket}?delete",
    "/?Action=CreateUser&UserName=stranger&Version=2010-05-08",
    "/?Action=AssumeRole&RoleArn=arn:aws:iam::role/Admin&RoleSessionName=x&Version=2011-06-15",
    "/{bucket}/{key}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x&X-Amz-Signature=0",
    "/buckets/{bucket}/{key}",
    "/buckets/{bucket}/new",
    "/buckets/?pretty=y",
    "/etc/iam/identity.json",
    "/dir/assign",
    "/dir/status",
    "/vol/status",
    "/cluster/status",
    "/submit",
    "/col/delete?collection={bucket}",
    "/status",
    "/ui/index.html",
    "/1,01637037d6",
    "/metrics",
    "/debug/pprof/goroutine?debug=2",
    # The HTTP API.
    "/v1/jobs",
    "/v1/token",
    "/v1/workers",
    "/v1/uploads",
    "/v1/models/efficientnet-lite0/classify",
    "/v2/models/efficientnet-lite0/infer",
)
HARMLESS = {"/status", "/healthz"}
"""Paths of S3 itself, which say that it runs and nothing more."""
RPCS = (
    "/master_pb.Seaweed/VolumeList",
    "/master_pb.Seaweed/Assign",
    "/filer_pb.SeaweedFiler/ListEntries",
    "/filer_pb.SeaweedFiler/CreateEntry",
    "/volume_server_pb.VolumeServer/VolumeServerStatus",
    "/iam_pb.SeaweedIdentityAccessManagement/CreateUser",
    "/s3_pb.SeaweedS3IamCache/PutIdentity",
    "/worker_pb.WorkerService/WorkerStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)
COMMANDS = (
    "PING",
    "INFO",
    "KEYS *",
    "GET canary",
    "SET stranger 1",
    "FLUSHALL",
    "CONFIG GET requirepass",
    "CONFIG SET dir /tmp",
    "ACL LIST",
    "EVAL return(1) 0",
    "SUBSCRIBE x",
    "MONITOR",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "HELLO 3",
    "AUTH default",
    "AUTH password",
)


def anybody(*protocols: str) -> ssl.SSLContext:
    """A client that trusts every server, and has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


ANYBODY, HTTP2 = anybody(), anybody("h2")


@dataclass
class Target:
    """What there is of a stack."""

    ports: list[int]
    s3_port: int
    paths: list[str]
    """Files and folders."""
    sockets: list[str]
    pids: list[int]
    secrets: list[str]
    """Words that no answer may hold: passwords, and the content of an object."""
    bucket: str
    key: str


@dataclass
class Loot:
    """What a stranger got."""

    attempts: int = 0
    read: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def visit(target: Target, *, other_user: bool) -> Loot:
    """Try every door in a process of its own, as another user if `other_user`, which takes root."""
    told = json.dumps({**asdict(target), "uid": NOBODY if other_user else None})
    done = subprocess.run(
        [sys.executable, __file__], input=told, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return Loot(**json.loads(done.stdout))


def main() -> None:
    told = json.loads(sys.stdin.read())
    uid = told.pop("uid")
    if uid is not None:
        os.chdir("/")
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    target, loot = Target(**told), Loot()
    files(target, loot, as_owner=uid is None)
    # What may be read is read before anything may be deleted.
    for methods in (READING, WRITING):
        for port in target.ports:
            web(target, port, methods, loot)
    # A server that lets strangers call its procedures may die of them.
    for port in target.ports:
        grpc(port, loot)
        redis(port, loot)
    print(json.dumps(asdict(loot)))


def files(target: Target, loot: Loot, *, as_owner: bool) -> None:
    """Open every file, list and write to every folder, connect to every socket, look into every process.

    The owner may do all that, so as the owner it looks at permissions instead.
    """
    for name in [*target.paths, *target.sockets]:
        loot.attempts += 1
        path = Path(name)
        if as_owner:
            mode = path.stat().st_mode
            if all(folder.stat().st_mode & 0o011 for folder in path.parents):  # others get as far as this
                loot.read += [f"{name} {mode:o}"] if mode & 0o055 else []
                loot.written += [f"{name} {mode:o}"] if mode & 0o022 else []
            continue
        with suppress(OSError):
            if name in target.sockets:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(name)
                loot.written.append(name)
            elif path.is_dir():
                loot.read.append(f"{name}: {len(list(path.iterdir()))} entries")
            else:
                loot.read.append(f"{name}: {len(path.read_bytes())} bytes")
        with suppress(OSError):
            if path.is_dir():
                (path / "stranger").touch()
            else:
                os.close(os.open(name, os.O_WRONLY))
            loot.written.append(name)
    for pid, part in itertools.product(target.pids, ("cmdline", "environ", "maps")):
        loot.attempts += 1
        with suppress(OSError):
            found = Path(f"/proc/{pid}/{part}").read_text(errors="replace")
            if part == "cmdline":
                loot.read += [f"{pid} {part}" for secret in target.secrets if secret in found]
            elif not as_owner and found:
                loot.read.append(f"{pid} {part}")


def web(target: Target, port: int, methods: Sequence[str], loot: Loot) -> None:
    """Send each method to every path, in plaintext and over TLS without a certificate."""
    for secure, method, pattern in itertools.product({False, speaks_tls(port)}, methods, PATHS):
        deletes = "delete" in pattern  # whatever the method
        if deletes if methods == READING else method == "GET" and not deletes:
            continue
        path = pattern.format(bucket=target.bucket, key=target.key)
        loot.attempts += 1
        with suppress(OSError, http.client.HTTPException):
            connection = (
                http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=ANYBODY)
                if secure
                else http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            )
            with closing(connection):
                body = b"stranger" if method in ("POST", "PUT") else None
                connection.request(method, path, body=body, headers={"Content-Type": "application/octet-stream"})
                answer = connection.getresponse()
                text = answer.read(100_000).decode(errors="replace")
            what = f"{'https' if secure else 'http'} {port} {method} {path}: {answer.status} {text[:60]!r}"
            if any(secret in text for secret in target.secrets):
                loot.read.append(what)
            elif answer.status < 400 and method != "OPTIONS" and not (port == target.s3_port and path in HARMLESS):
                (loot.read if method in READING else loot.written).append(what)


def grpc(port: int, loot: Loot) -> None:
    """Call remote procedures over HTTP/2; a server that lets us in answers with a SETTINGS frame."""
    for secure, rpc in itertools.product({False, speaks_tls(port)}, RPCS):
        loot.attempts += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as raw:
            stream = HTTP2.wrap_socket(raw) if secure else raw
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + call(rpc))
            answer = b""
            while len(answer) < 9 and (more := stream.recv(4096)):
                answer += more
            if len(answer) >= 9 and answer[3] == 4 and not answer.startswith(b"HTTP/"):
                loot.read.append(f"grpc{'s' if secure else ''} {port} {rpc}: {answer[:40]!r}")


def redis(port: int, loot: Loot) -> None:
    """Send commands of Redis; whatever it answers but an error is a way in."""
    for command in COMMANDS:
        loot.attempts += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            words = command.split(" ")
            client.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
            client.shutdown(socket.SHUT_WR)  # so that a server of HTTP does not wait for more
            answer = client.recv(4096)
            if answer[:1] in (b"+", b":", b"$", b"*", b"%", b"_", b"#", b","):
                loot.read.append(f"redis {port} {command}: {answer[:40]!r}")


def knock(port: int, identity: tuple[Path, Path] | None = None) -> str:
    """Ask over TLS with a certificate and its key, or none; return the status line, or why there is none."""
    context = anybody()
    if identity is not None:
        context.load_cert_chain(*identity)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw) as stream:
            stream.sendall(b"GET /buckets/ HTTP/1.0\r\n\r\n")
            return stream.recv(4096).split(b"\r\n")[0].decode(errors="replace")
    except (ssl.SSLError, ConnectionError) as error:
        return str(error).lower()


@cache
def speaks_tls(port: int) -> bool:
    """Whether a port completes a handshake, so that one that does not is not asked over TLS for every path.

    A server that wants a certificate completes it too, and hangs up afterwards (TLS 1.3).
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as raw:
            ANYBODY.wrap_socket(raw).close()
    except OSError:
        return False
    return True


def call(rpc: str) -> bytes:
    """The frames of a gRPC request with an empty message."""
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", rpc.encode()),
            (b":authority", b"127.0.0.1"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    return frame(1, 4, 1, headers) + frame(0, 1, 1, b"\0\0\0\0\0")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def listening(pids: Sequence[int]) -> Iterator[int]:
    """Yield the TCP ports on which these processes listen."""
    inodes = set[str]()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields: list[Any] = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                yield int(fields[1].rpartition(":")[2], 16)


if __name__ == "__main__":
    main()
