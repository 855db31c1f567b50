"""What lies behind the S3 port is closed: ports, sockets and files of the embedded stack."""

from __future__ import annotations

import socket
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from deploy.local import weed
from deploy.local.certificates import make_identity
from deploy.local.ports import GRPC_OFFSET, LOOPBACK
from deploy.local.servers import Servers, s3_service
from deploy.local.stack import make_folder
from deploy.local.supervisor import Supervisor
from tests.mill import make_servers
from tests.stranger import knock


def test_only_the_certificate_of_this_start_opens_what_lies_behind_s3(tmp_path: Path) -> None:
    # Given an S3 server, its own certificate, and one of somebody else,
    services, settings = make_servers(tmp_path)
    servers = Servers.of(tmp_path)
    own = tmp_path / "s3" / ".seaweedfs"
    identity = (own / "certificate.pem", own / "key.pem")
    (tmp_path / "stranger").mkdir()
    made = make_identity(tmp_path / "stranger", [LOOPBACK])
    stranger = (made.certificate, made.key)
    with Supervisor(services[1:], tmp_path / "logs") as supervisor:
        supervisor.start()

        # if I ask the filer, I expect the own certificate alone to be answered,
        assert knock(servers.filer_port, identity) == "HTTP/1.0 200 OK"
        assert "certificate" in knock(servers.filer_port, None)
        assert not knock(servers.filer_port, stranger).startswith("HTTP")

        # and no other port to be open to whoever brings none, or another.
        for port in servers.weed_ports.all():
            if port != servers.s3_port:
                assert not knock(port, None).startswith("HTTP")
                assert not knock(port, stranger).startswith("HTTP")
            assert not knock(port + GRPC_OFFSET, None).startswith("HTTP")

        # The store itself works.
        with closing(ObjectStore(settings)) as store:
            store.put("large", b"x" * 9_000_000)
            assert store.get("large") == b"x" * 9_000_000


def test_each_start_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        weed.secure(tmp_path, [LOOPBACK])
        keys.add((tmp_path / ".seaweedfs" / "key.pem").read_text())
    assert len(keys) == 2
    for path in (tmp_path / ".seaweedfs").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_configuration_in_the_current_folder_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeaweedFS reads `security.toml` of the current folder before that of its home."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "security.toml").write_text("")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("WEED_HTTPS_FILER_KEY", "")
    servers = Servers.of(tmp_path / "project")
    service = replace(s3_service(servers, tmp_path / "project", lambda: True), stop_seconds=0.5)
    assert service.cwd == tmp_path / "project" / "s3"
    assert not [name for name in service.env if name.startswith("WEED_")]


def test_a_socket_that_somebody_laid_in_the_way_costs_the_port_and_nothing_else(tmp_path: Path) -> None:
    # Given a socket of another user where ours would be, which we cannot remove,
    first = Servers.of(tmp_path)
    laid = weed.SOCKETS / f"seaweedfs-filer-{first.filer_port}.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(laid))
        other.listen()
        try:
            # if the stack starts, I expect another port for the filer, and the others to stay.
            second = Servers.of(tmp_path)
        finally:
            laid.unlink()
    assert second.filer_port != first.filer_port
    assert second.s3_endpoint == first.s3_endpoint


def test_a_data_folder_of_an_older_version_is_closed(tmp_path: Path) -> None:
    # Given a stack whose files everybody could read,
    data = tmp_path / "data"
    for name in ("logs", "redis", "s3"):
        (data / name).mkdir(parents=True)
    Servers.of(data)
    for path in (data, *data.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    log = data / "logs" / "s3.log"
    log.write_text("")
    log.chmod(0o644)

    # if the new version starts it,
    make_folder(data)
    services, _ = make_servers(data)
    with Supervisor(services, data / "logs") as supervisor:
        supervisor.start()

    # I expect folders and logs for their owner alone.
    for path in (data, data / "logs", data / "redis", data / "s3", log):
        assert not path.stat().st_mode & 0o077, path


def test_a_folder_that_holds_other_things_too_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
