"""The receiver of the page about webhooks takes what is signed, and nothing else."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from contract.web.webhooks.signing import headers, new_secret
from deploy.local.ports import choose
from tests.docs.pages import DOCS, blocks
from tests.waiting import wait_until

BODY = b'{"type": "job.succeeded", "timestamp": "2026-11-26T00:00:00Z", "data": {"job": "animals"}}'


def ask(port: int, told: dict[str, str]) -> int:
    """Post the message; return the status, 0 without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with suppress(http.client.RemoteDisconnected):
        connection.request("POST", "/", BODY, told)
        return connection.getresponse().status
    return 0


def test_the_receiver_of_the_page_takes_what_is_signed(tmp_path: Path) -> None:
    # Given the program on the page, as somebody would copy it,
    (program,) = blocks((DOCS / "howto" / "webhooks.md").read_text("utf-8"), "py")
    assert len([line for line in program.splitlines() if line.strip()]) <= 11
    (port,), secret = choose([None]), new_secret()
    log = tmp_path / "log"
    with log.open("wb") as out:
        receiver = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        try:

            def listens() -> bool:
                with suppress(ConnectionRefusedError):
                    ask(port, {})
                    return True
                return False

            wait_until(listens, 30, "the receiver")
            now = int(time.time())
            # if a message is sent with a foreign signature, an old one, and a true one, I expect the last to be taken.
            assert ask(port, headers([new_secret()], "msg_1", now, BODY)) == 0
            assert ask(port, headers([secret], "msg_1", now - 3600, BODY)) == 0
            assert ask(port, headers([new_secret(), secret], "msg_1", now, BODY)) == 204
        finally:
            receiver.kill()
            receiver.wait()
    assert log.read_text() == "job.succeeded animals\n"
