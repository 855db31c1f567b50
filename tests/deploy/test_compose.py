"""The containers are closed; what can be run without Docker is run: the servers, by the commands in the file."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidSettings
from contract.settings import Settings
from deploy import compose_keys
from deploy.local import ports, servers, weed
from deploy.local.supervisor import Service, Supervisor
from tests.stranger import knock
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `make keys` wrote."""
    path = tmp_path_factory.mktemp("keys") / ".env"
    compose_keys.main(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    compose_keys.main(path)
    assert path.read_text() == written  # a second run changes nothing
    return dict(line.split("=", 1) for line in written.splitlines())


def compose(keys: Mapping[str, str]) -> dict[str, Any]:
    """The file, with variables put in as Docker does; raises KeyError for a mandatory one that is missing."""

    def put_in(match: re.Match[str]) -> str:
        name, sign, default = match.groups()
        return keys.get(name, default) if sign == ":-" else keys[name]

    text = re.sub(r"(?<!\$)\$\{(\w+)(:[-?])([^}]*)\}", put_in, FILE.read_text())
    loaded: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return loaded


def test_nothing_starts_without_passwords() -> None:
    with pytest.raises(KeyError, match="PASSWORD"):
        compose({})


def test_every_container_is_closed(keys: dict[str, str]) -> None:
    for name, service in compose(keys)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "network_mode" not in service, name
        # Arguments can be read by every user of the host.
        assert not [key for key in keys.values() if key in str(service.get("command", ""))], name


def test_two_ports_are_published_on_loopback_and_workers_alone_reach_the_world(keys: dict[str, str]) -> None:
    found = compose(keys)
    published = {name: service["ports"] for name, service in found["services"].items() if "ports" in service}
    assert published == {"redis": ["127.0.0.1:6379:6379"], "s3": ["127.0.0.1:8333:8333"]}
    assert found["networks"]["inside"] == {"internal": True}
    outside = [name for name, service in found["services"].items() if "outside" in service["networks"]]
    assert outside == ["worker"]


@pytest.fixture
def redis_port(tmp_path: Path, keys: dict[str, str]) -> Iterator[int]:
    """The Redis of the file, on a port of its own."""
    service = compose(keys)["services"]["redis"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(servers._redis_binary())
    [port] = ports.choose([None])
    shell, flag, script = service["command"]
    here = script.replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1 --dir {tmp_path}", 1)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **service["environment"]}

    def answers() -> bool:
        with closing(Ledger(settings_of(keys, port, 1), patience=0.0)) as ledger:
            try:
                return bool(ledger.info())
            except ImagemillError:
                return False

    redis = Service(name="redis", command=[shutil.which(shell) or shell, flag, here], env=env, ready=answers)
    with Supervisor([redis], tmp_path / "logs") as supervisor:
        supervisor.start()
        pid = supervisor.pid("redis")
        # The shell became Redis, so that it gets the signals; the password is not in its arguments.
        assert b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert keys["IMAGEMILL_REDIS_PASSWORD"].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        yield port


def settings_of(keys: Mapping[str, str], redis_port: int, s3_port: int) -> Settings:
    return Settings(
        redis_url=f"redis://:{keys['IMAGEMILL_REDIS_PASSWORD']}@127.0.0.1:{redis_port}/0",
        s3_endpoint=f"127.0.0.1:{s3_port}",
        s3_access_key=keys["IMAGEMILL_S3_ACCESS_KEY"],
        s3_secret_key=keys["IMAGEMILL_S3_SECRET_KEY"],
    )


def test_redis_wants_the_password(redis_port: int, keys: dict[str, str]) -> None:
    with closing(Ledger(settings_of(keys, redis_port, 1))) as ledger:
        info = ledger.info()
        assert info["aof_enabled"] == 1
        assert info["maxmemory_policy"] == "noeviction"
    for password in ("", "wrong"):
        wrong = settings_of({**keys, "IMAGEMILL_REDIS_PASSWORD": password}, redis_port, 1)
        with closing(Ledger(wrong, patience=0.0)) as ledger, pytest.raises(InvalidSettings):
            ledger.info()


def asks_for_a_certificate(port: int) -> bool:
    """Whether a port, once it is open, answers nobody without one."""
    said = knock(port)
    assert "certificate" in said or "refused" in said, f"{port}: {said}"
    return "certificate" in said


def test_the_s3_server_wants_the_keys_and_nothing_else_answers(tmp_path: Path, keys: dict[str, str]) -> None:
    service = compose(keys)["services"]["s3"]
    assert service["command"][:3] == ["python", "-m", "deploy.local.weed"]
    chosen = weed.Ports(
        **dict(zip(("s3", "master", "volume", "filer", "admin"), ports.choose([None] * 5), strict=True))
    )
    code = (
        "import sys; from pathlib import Path; from deploy.local import weed; "
        f"weed.become('localhost', Path(sys.argv[1]), Path(sys.argv[2]), weed.{chosen})"
    )
    (tmp_path / "data").mkdir()
    settings = settings_of(keys, 1, chosen.s3)

    def answers() -> bool:
        with closing(ObjectStore(settings, patience=0.0)) as store:
            try:
                store.ensure_bucket()
                servers.probe(store)
            except ImagemillError:
                return False
            return True

    command = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "home")]
    env = {**os.environ, **service["environment"], "PYTHONPATH": str(ROOT)}
    s3 = Service(name="s3", command=command, env=env, ready=answers, stop_seconds=0.5)
    with Supervisor([replace(s3, cwd=tmp_path)], tmp_path / "logs") as supervisor:
        supervisor.start()
        for port in chosen.all():
            if port != chosen.s3:
                wait_until(partial(asks_for_a_certificate, port), 20, f"an answer at port {port}")
    weed.remove_sockets(chosen)
