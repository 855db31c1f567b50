"""Another user of the machine probes all ports and files of a stack: 0 reads, 0 writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.settings import load
from deploy.local import web, weed
from deploy.local.servers import SERVERS_FILE, Servers, s3_service
from deploy.local.stack import Stack
from deploy.local.supervisor import Service, Supervisor
from producer import Client
from tests.conftest import PHOTOS
from tests.stranger import Target, listening, visit

CANARY = "sings only for its owner"
ROOT = os.geteuid() == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike those of pytest, so that only what lies in it is closed."""
    folder = Path(tempfile.mkdtemp(prefix="imagemill-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def target_of(data: Path, pids: list[int], servers: Servers) -> Target:
    """All ports, files, sockets and processes of a stack."""
    ports = sorted(set(listening(pids)))
    numbers = {str(port) for port in ports}
    sockets = [str(s) for s in weed.SOCKETS.glob("seaweedfs-*.sock") if s.stem.rpartition("-")[2] in numbers]
    files = [data, *(path for path in data.rglob("*") if not path.is_symlink())]
    # Somebody who may not enter a folder cannot tell what is in it, so each folder above the data counts as well.
    return Target(
        ports=ports,
        s3_port=servers.s3_port,
        paths=[str(path) for path in files if path.name != ".gitignore"],
        sockets=sockets,
        pids=pids,
        secrets=[servers.redis_password, servers.s3_secret_key, servers.web_token, CANARY],
        bucket="imagemill",
        key="canary",
    )


def test_a_stranger_gets_nothing(long: bool, open_folder: Path, figures: Callable[..., None]) -> None:
    # Given a stack with an object and a key in Redis, and, in the long form, with workers that ran a job,
    data = open_folder / "data"
    with Stack(data, workers=2 if long else 0, control=long) as stack:
        settings = load(data=data)
        servers = Servers.model_validate_json((data / SERVERS_FILE).read_text())
        with closing(ObjectStore(settings)) as store, closing(Ledger(settings)) as ledger:
            store.put("canary", CANARY.encode())
            ledger.redis.set("canary", CANARY)
            if long:
                with closing(Client(settings)) as client:
                    *_, end = client.follow(client.classify(PHOTOS, model="efficientnet-lite0").id)
                    assert end.state == "succeeded"
            names = ["redis", "redis-online", "s3"]
            if long:
                names += ["controller", "clock", "worker-1", "worker-2", *(["web"] if web.can_serve() else [])]
            pids = [pid for name in names if (pid := stack.supervisor.pid(name))]
            before = [entry.key for entry in store.list("")]

            # if somebody without a password tries every door,
            loot = visit(target_of(data, pids, servers), other_user=ROOT)

            # I expect no read, no write, and nothing to have changed.
            figures(attempts=loot.attempts, reads=len(loot.read), writes=len(loot.written), other_user=ROOT)
            assert loot.attempts > 1000
            assert (loot.read, loot.written) == ([], [])
            assert store.get("canary") == CANARY.encode()
            assert [entry.key for entry in store.list("")] == before
            assert ledger.redis.get("canary") == CANARY


def test_the_same_stranger_gets_into_a_server_as_it_comes(open_folder: Path, figures: Callable[..., None]) -> None:
    """The control experiment: without certificates the same doors are open."""
    servers = Servers.of(open_folder)
    service = s3_service(servers, open_folder, lambda: True)
    security = open_folder / "s3" / ".seaweedfs" / "security.toml"
    security.unlink()

    def answers() -> bool:
        settings = load(
            data=open_folder,
            redis_url=servers.redis_url,
            s3_endpoint=servers.s3_endpoint,
            s3_access_key=servers.s3_access_key,
            s3_secret_key=servers.s3_secret_key,
        )
        try:
            with closing(ObjectStore(settings, patience=0.0)) as store:
                store.ensure_bucket()
                store.put("canary", CANARY.encode())
        except Exception:  # not yet
            return False
        return True

    plain: Service = replace(service, ready=answers, stop_seconds=0.5)
    with Supervisor([plain], open_folder / "logs") as supervisor:
        supervisor.start()
        pid = supervisor.pid("s3")
        assert pid
        loot = visit(target_of(open_folder, [pid], servers), other_user=ROOT)
    figures(attempts=loot.attempts, reads=len(loot.read), writes=len(loot.written))
    for kind in ("GET /buckets/imagemill/canary", "grpc", "/dir/assign"):
        assert any(kind in what for what in loot.read), kind
    assert any("/buckets/imagemill/new" in what for what in loot.written)
