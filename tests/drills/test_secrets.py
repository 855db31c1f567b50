"""A whole run over TLS: no secret on the wire, in a log, on a terminal or in the arguments of a process."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

from contract.backend.secret_url import SecretUrl
from contract.backend.wire import redis_address
from deploy.local.servers import Servers
from tests.mill import Mill, check_complete, variables
from tests.waiting import wait_until
from tests.wires import tls_before


def command_lines() -> str:
    """The arguments of all processes of the machine, as `ps` shows them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # ended, or hidden
            continue
    return "\n".join(found)


def test_a_whole_run_keeps_its_secrets(
    long: bool, tmp_path: Path, photos: dict[str, Path], figures: Callable[..., None]
) -> None:
    # Given a mill that reaches its servers over TLS alone, and a tap on each wire,
    authority = trustme.CA()
    ca_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made = Servers.of(tmp_path)
    secrets = [made.redis_password, made.s3_secret_key]
    printed = []
    with tls_before(made.redis_port, context) as redis, tls_before(made.s3_port, context) as store:
        settings: dict[str, Any] = {
            "redis_url": SecretUrl(f"rediss://:{made.redis_password}@127.0.0.1:{redis.port}/0"),
            "s3_endpoint": f"https://127.0.0.1:{store.port}",
            "ca_file": ca_file,
        }
        mill = Mill(tmp_path, workers=2 if long else 1, **settings)
        with mill.running():
            files = list(photos.values()) if long else list(photos.values())[:6]
            folder = tmp_path / "photos"
            folder.mkdir()
            for path in files:
                shutil.copy(path, folder)

            # if I run jobs, cut the connections meanwhile, and use commands that succeed and that fail,
            for _ in range(10 if long else 1):
                job = mill.client.classify(folder, model="efficientnet-lite0").id
                mill.kill("redis", signal.SIGKILL)
                wait_until(lambda: mill.supervisor.pid("redis"), 10, "Redis to come back")
                mill.finished(job)
                check_complete(mill.client, job, [path.name for path in files])
                good = {**os.environ, **variables(mill.settings)}
                wrong_address = f"rediss://:{made.redis_password}@127.0.0.1:{redis.port}/0?ssl_cert_reqs=none"
                doctors = [
                    subprocess.Popen(
                        [sys.executable, "-c", "from producer.cli import main; main()", "doctor"],
                        env=env,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                    for env in (good, {**good, "IMAGEMILL_CA_FILE": ""}, {**good, "IMAGEMILL_REDIS_URL": wrong_address})
                ]
                printed += [doctor.communicate(timeout=120)[0] for doctor in doctors]
                assert "is not trusted" in printed[-2]
                assert "always verified" in printed[-1]
            seen = command_lines()
            assert mill.settings.namespace and f":{redis_address(mill.settings).port}" not in seen
        logs = "\n".join(path.read_text(errors="replace") for path in (tmp_path / "logs").iterdir())
        wire = bytes(redis.seen + store.seen)

    # I expect the secrets nowhere, and neither messages nor images on the wire.
    leaks = {
        "wire": sum(word.encode() in wire for word in [*secrets, "AUTH", job, "JFIF", "HTTP/1.1"]),
        "logs": sum(word in logs for word in secrets),
        "terminal": sum(word in text for word in secrets for text in printed),
        "arguments": sum(word in seen for word in secrets),
    }
    figures(connections=redis.connections + store.connections, wire_bytes=len(wire), log_bytes=len(logs), **leaks)
    assert len(wire) > 100_000 and redis.connections > 5
    assert set(leaks.values()) == {0}, leaks
