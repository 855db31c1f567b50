"""The containers are closed; what can be run without Docker is run: the servers, by the commands in the file."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from pydantic import SecretStr

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.errors import ImagemillError, InvalidSettings
from contract.settings import Settings
from contract.web.tokens import Tokens, describe, new_token
from deploy import compose_keys, healthy
from deploy.local import ports, servers, weed
from deploy.local.supervisor import Service, Supervisor
from tests.serving import serving
from tests.stranger import knock
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make keys` wrote: `secrets/`, `secrets/host/` and `.env`."""
    folder = tmp_path_factory.mktemp("docker")
    compose_keys.main(folder)
    return folder


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """The secrets of the containers, by name."""
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir() if path.is_file()}


def compose() -> dict[str, Any]:
    """The file as Docker reads it. It names no variable, so no value of the host's environment gets in."""
    text = FILE.read_text()
    assert not re.search(r"(?<!\$)\$\{?\w", text)
    loaded: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return loaded


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """The secrets of a service: what each is called in the container, by the name of its file."""
    entries = ({"source": one, "target": one} if isinstance(one, str) else one for one in service.get("secrets", ()))
    return {entry["source"]: entry["target"] for entry in entries}


def test_the_passwords_are_for_their_owner_alone_and_are_written_once(folder: Path, keys: dict[str, str]) -> None:
    # Containers run as another user and mount single files, so only the folder can keep others out.
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / "secrets" / name).stat().st_mode) for name in keys} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "secrets" / "host").iterdir()} == {0o600}
    assert (folder / ".env").read_text() == "COMPOSE_PROFILES=cpu\n"
    compose_keys.main(folder)
    assert {name: (folder / "secrets" / name).read_text() for name in keys} == keys


def test_the_passwords_of_an_older_env_file_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IMAGEMILL_REDIS_PASSWORD=r\nIMAGEMILL_S3_ACCESS_KEY=a\nIMAGEMILL_S3_SECRET_KEY=s\n")
    compose_keys.main(tmp_path)
    assert (tmp_path / "secrets" / "redis_password").read_text() == "r"
    assert (tmp_path / "secrets" / "host" / "imagemill_s3_secret_key").read_text() == "s"
    assert "PASSWORD" not in (tmp_path / ".env").read_text()


def test_what_an_older_version_did_not_make_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    # Given the secrets of a version before the HTTP API,
    compose_keys.main(tmp_path)
    made, new = tmp_path / "secrets", ("redis_online_password", "imagemill_online_redis_url", "web_s3_access_key")
    for path in [*(made / name for name in new), made / "web_s3_secret_key", made / "host" / new[1]]:
        path.unlink()
    before = {path: path.read_text() for path in made.rglob("*_*") if path.is_file()}
    # if I run `make keys`, I expect the others, as closed as those,
    compose_keys.main(tmp_path)
    assert {path: path.read_text() for path in before} == before
    password = (made / new[0]).read_text()
    assert (made / new[1]).read_text() == f"redis://:{password}@redis-online:6379/0"
    assert (made / "host" / new[1]).read_text() == f"redis://:{password}@127.0.0.1:6380/0"
    assert {stat.S_IMODE((made / name).stat().st_mode) for name in new} == {0o444}
    assert stat.S_IMODE((made / "host" / new[1]).stat().st_mode) == 0o600
    # and another run to change nothing.
    after = {path: path.read_text() for path in made.rglob("*_*") if path.is_file()}
    compose_keys.main(tmp_path)
    assert {path: path.read_text() for path in after} == after and not (tmp_path / "secrets.new").exists()


def test_the_api_has_keys_of_its_own_and_they_alone_are_of_its_role() -> None:
    found = compose()["services"]
    web = {target: source for source, target in secrets_of(found["web"]).items()}
    assert web["imagemill_s3_access_key"] == "web_s3_access_key"
    assert web["imagemill_s3_secret_key"] == "web_s3_secret_key"
    # Nobody but the server that checks them has them as well.
    assert [name for name in found if "web_s3_secret_key" in secrets_of(found[name])] == ["s3", "web"]


def test_workers_and_the_api_know_the_redis_of_requests() -> None:
    found = compose()["services"]
    knows = [name for name in found if "imagemill_online_redis_url" in secrets_of(found[name])]
    assert knows == ["web", "worker", "worker-gpu"]
    assert all("redis-online" in found[name]["depends_on"] for name in knows)


def test_the_health_check_of_the_api_asks_its_own_port() -> None:
    web = compose()["services"]["web"]
    assert web["ports"] == [f"127.0.0.1:8080:{web['environment']['IMAGEMILL_WEB_PORT']}"]
    assert web["healthcheck"]["test"][1:4] == ["python", "-m", "deploy.healthy"]
    assert web["healthcheck"]["test"][4] == f"http://127.0.0.1:{web['environment']['IMAGEMILL_WEB_PORT']}/livez"
    known = {f"IMAGEMILL_{name.upper()}" for name in Settings.model_fields}
    assert set(web["environment"]) <= known


def test_prometheus_asks_every_process_that_shows_metrics() -> None:
    found = compose()["services"]
    config = yaml.safe_load((ROOT / "deploy" / "observability" / "prometheus.yml").read_text())
    [scrape] = config["scrape_configs"]
    [names] = scrape["dns_sd_configs"]
    ours = {name: one["environment"] for name, one in found.items() if str(one.get("image")).startswith("imagemill:")}
    shows = {name for name, variables in ours.items() if variables.get("IMAGEMILL_METRICS_PORT") not in (None, "0")}
    assert set(names["names"]) == shows == {"controller", "web", "worker", "worker-gpu"}
    assert {ours[name]["IMAGEMILL_METRICS_PORT"] for name in shows} == {str(names["port"])}
    # It reaches each, and nobody from outside does.
    for name in shows:
        assert set(found[name]["networks"]) & set(found["prometheus"]["networks"]), name
        assert not [port for port in found[name].get("ports", ()) if str(names["port"]) in port], name


def test_every_secret_is_a_file_that_was_made_and_no_variable_holds_one(folder: Path, keys: dict[str, str]) -> None:
    found = compose()
    assert {name: entry["file"] for name, entry in found["secrets"].items()} == {n: f"secrets/{n}" for n in keys}
    for name, service in found["services"].items():
        assert set(secrets_of(service)) <= set(keys), name
        assert not re.search("password|_key|redis_url", str(service.get("environment", "")), re.I), name


def test_programs_of_the_host_read_the_same_passwords(
    folder: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_SECRETS_DIR", str(folder / "secrets" / "host"))
    settings = Settings()
    assert settings.s3_endpoint == "127.0.0.1:8333"
    assert settings.s3_secret_key.get_secret_value() == keys["imagemill_s3_secret_key"]
    assert settings.redis_url.get_secret_value() == f"redis://:{keys['redis_password']}@127.0.0.1:6379/0"
    online = f"redis://:{keys['redis_online_password']}@127.0.0.1:6380/0"
    assert settings.online_redis_url.get_secret_value() == online


def test_each_profile_adds_workers_of_one_kind() -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose()["services"].items()}
    assert [name for name, of in profiles.items() if not of] == [
        *("redis", "redis-online", "s3", "controller", "clock", "web")
    ]
    assert profiles["worker"] == ["cpu"] and profiles["worker-gpu"] == ["gpu"]


def test_every_container_is_closed(keys: dict[str, str]) -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "network_mode" not in service, name
        # Arguments can be read by every user of the host.
        assert not [key for key in keys.values() if key in str(service.get("command", ""))], name


def test_every_file_that_is_mounted_is_there() -> None:
    for name, service in compose()["services"].items():
        for source in (entry.split(":")[0] for entry in service.get("volumes", ()) if entry.startswith(".")):
            assert (FILE.parent / source).is_file(), f"{name}: {source}"


def test_few_ports_are_published_on_loopback_and_who_fetches_alone_reaches_the_world() -> None:
    found = compose()
    published = {name: service["ports"] for name, service in found["services"].items() if "ports" in service}
    assert published == {
        "redis": ["127.0.0.1:6379:6379"],
        "redis-online": ["127.0.0.1:6380:6379"],
        "s3": ["127.0.0.1:8333:8333"],
        "web": ["127.0.0.1:8080:8080"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert found["networks"]["inside"] == {"internal": True}
    outside = [name for name, service in found["services"].items() if "outside" in service["networks"]]
    assert outside == ["controller", "web", "worker", "worker-gpu"]


@contextmanager
def redis_of_the_file(name: str, password: str, tmp_path: Path, folder: Path) -> Iterator[int]:
    """Run a Redis of the file on a port of its own, and yield that."""
    service = compose()["services"][name]
    here = tmp_path / name
    (here / "bin").mkdir(parents=True)
    (here / "bin" / "redis-server").symlink_to(servers._redis_binary())
    [port] = ports.choose([None])
    shell, flag, script = service["command"]
    script = script.replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1 --dir {here}", 1)
    script = script.replace("/run/secrets", str(folder / "secrets"))
    env = {"PATH": f"{here / 'bin'}:{os.environ['PATH']}"}

    def answers() -> bool:
        with closing(Ledger(Settings(redis_url=address(password, port)), patience=0.0)) as ledger:
            try:
                return bool(ledger.info())
            except ImagemillError:
                return False

    redis = Service(name=name, command=[shutil.which(shell) or shell, flag, script], env=env, ready=answers)
    with Supervisor([redis], here / "logs") as supervisor:
        supervisor.start()
        pid = supervisor.pid(name)
        # The shell became Redis, so that it gets the signals; the password is not in its arguments.
        assert b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        yield port


def address(password: str, port: int) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


@pytest.fixture
def redis_port(tmp_path: Path, folder: Path, keys: dict[str, str]) -> Iterator[int]:
    """The Redis of the ledger."""
    with redis_of_the_file("redis", keys["redis_password"], tmp_path, folder) as port:
        yield port


@pytest.fixture
def online_port(tmp_path: Path, folder: Path, keys: dict[str, str]) -> Iterator[int]:
    """The Redis of requests to served models."""
    with redis_of_the_file("redis-online", keys["redis_online_password"], tmp_path, folder) as port:
        yield port


def settings_of(keys: Mapping[str, str], redis_port: int, s3_port: int) -> Settings:
    return Settings(
        redis_url=address(keys["redis_password"], redis_port),
        s3_endpoint=f"127.0.0.1:{s3_port}",
        s3_access_key=keys["imagemill_s3_access_key"],
        s3_secret_key=keys["imagemill_s3_secret_key"],
    )


def test_redis_wants_the_password(redis_port: int, keys: dict[str, str]) -> None:
    with closing(Ledger(settings_of(keys, redis_port, 1))) as ledger:
        info = ledger.info()
        assert info["aof_enabled"] == 1
        assert info["maxmemory_policy"] == "noeviction"
    for password in ("", "wrong"):
        wrong = settings_of({**keys, "redis_password": password}, redis_port, 1)
        with closing(Ledger(wrong, patience=0.0)) as ledger, pytest.raises(InvalidSettings):
            ledger.info()


def test_the_redis_of_requests_keeps_nothing_and_refuses_too_much(online_port: int, keys: dict[str, str]) -> None:
    settings = Settings(redis_url=address(keys["redis_online_password"], online_port))
    with closing(Ledger(settings)) as ledger:
        info = ledger.info()
        assert (info["aof_enabled"], info["maxmemory_policy"]) == (0, "noeviction")
        assert info["maxmemory"] == servers.ONLINE_BYTES
        assert ledger.redis.config_get("save") == {"save": ""}
    # The password of the ledger's Redis is another.
    wrong = Settings(redis_url=address(keys["redis_password"], online_port))
    with closing(Ledger(wrong, patience=0.0)) as ledger, pytest.raises(InvalidSettings):
        ledger.info()


def asks_for_a_certificate(port: int) -> bool:
    """Whether a port, once it is open, answers nobody without one."""
    said = knock(port)
    assert "certificate" in said or "refused" in said, f"{port}: {said}"
    return "certificate" in said


@contextmanager
def s3_of_the_file(keys: dict[str, str], tmp_path: Path, folder: Path) -> Iterator[weed.Ports]:
    """Run the S3 server of the file on ports of its own, with the secrets that it has there."""
    service = compose()["services"]["s3"]
    assert service["command"][:3] == ["python", "-m", "deploy.local.weed"]
    chosen = weed.Ports(
        **dict(zip(("s3", "master", "volume", "filer", "admin"), ports.choose([None] * 5), strict=True))
    )
    code = (
        "import sys; from pathlib import Path; from deploy.local import weed; "
        f"weed.become('localhost', Path(sys.argv[1]), Path(sys.argv[2]), weed.{chosen})"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "secrets").mkdir()
    for source, target in secrets_of(service).items():
        (tmp_path / "secrets" / target).write_text((folder / "secrets" / source).read_text())
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
    assert service["environment"] == {"IMAGEMILL_SECRETS_DIR": "/run/secrets"}
    env = {**os.environ, "IMAGEMILL_SECRETS_DIR": str(tmp_path / "secrets"), "PYTHONPATH": str(ROOT)}
    s3 = Service(name="s3", command=command, env=env, ready=answers, stop_seconds=0.5)
    with Supervisor([replace(s3, cwd=tmp_path)], tmp_path / "logs") as supervisor:
        supervisor.start()
        yield chosen
    weed.remove_sockets(chosen)


def test_the_s3_server_wants_the_keys_and_nothing_else_answers(
    tmp_path: Path, folder: Path, keys: dict[str, str]
) -> None:
    with s3_of_the_file(keys, tmp_path, folder) as chosen:
        # The health check of the container finds it,
        assert healthy.main([f"http://127.0.0.1:{chosen.s3}/healthz"]) == 0
        # and a stranger finds closed ports.
        for port in chosen.all():
            if port != chosen.s3:
                wait_until(partial(asks_for_a_certificate, port), 20, f"an answer at port {port}")


def test_the_api_answers_with_its_own_keys_and_can_make_no_token(
    tmp_path: Path, folder: Path, keys: dict[str, str], redis_port: int, online_port: int
) -> None:
    # Given the servers of the file, and the API with the secrets that its container has,
    with s3_of_the_file(keys, tmp_path, folder) as chosen:
        operator = settings_of(keys, redis_port, chosen.s3)
        own = {target: keys[source] for source, target in secrets_of(compose()["services"]["web"]).items()}
        web = operator.model_copy(
            update={
                "s3_access_key": own["imagemill_s3_access_key"],
                "s3_secret_key": SecretStr(own["imagemill_s3_secret_key"]),
                "online_redis_url": SecretUrl(address(keys["redis_online_password"], online_port)),
                "web_s3_endpoint": f"localhost:{chosen.s3}",
            }
        )
        with closing(ObjectStore(operator)) as store, serving(web, store) as api:
            # if an operator makes a token, I expect the API to be ready, to take it,
            assert healthy.main([f"{api.url}/readyz"]) == 0
            with api.client("jobs") as ann:
                assert ann.get("/v1/token").json()["owner"] == "ann"
                # and a file to come to the bucket by a link that leads to the published port.
                [file] = ann.post("/v1/uploads", json={"files": ["1.jpg"]}).json()["files"]
                assert httpx2.put(file["url"], content=b"x").status_code == 200
                # It finds no served model, which says that the Redis of requests answers it,
                assert ann.get("/v1/served").json() == []
        # and what it holds lets nobody in.
        with closing(ObjectStore(web, patience=0.0)) as store, pytest.raises(InvalidSettings):
            Tokens(store).put(describe(new_token(), owner="eve", scopes=("admin",)))
