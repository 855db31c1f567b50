"""Sends one request to a webhook: to an address that passed the policy, and within one deadline.

The address comes from whoever submitted a job, and is judged as one of a manifest is (`contract.web.addresses`), again
for each request. A redirect is an answer and never followed, and of a body no more than a bound is read.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3

from contract.errors import AddressRefused, FetchFailed
from contract.web.addresses import AddressPolicy
from contract.web.client import retry_after
from contract.web.connections import checked_connections
from contract.web.deadlines import Deadline, Deadlines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

SECONDS = 15.0
"""Seconds for one request, from the lookup of the name to the end of the answer (Standard Webhooks 1.0: 15 to 30)."""
_MOST_BYTES = 2**16
_PIECE = 2**12


@dataclass(frozen=True)
class Answer:
    """What came of a request. `asked` is the receiver's `Retry-After` in seconds."""

    seconds: float
    status: int | None = None
    error: str | None = None
    asked: float | None = None
    refused: bool = False
    """The policy does not let us reach the address."""

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def unwell(self) -> bool:
        """Whether the receiver, rather than the message, seems to be the reason."""
        return not self.delivered and (self.status is None or self.status >= 500 or self.status == 429)


class Poster:
    """Sends requests. Safe to use from many threads."""

    def __init__(self, policy: AddressPolicy, *, seconds: float = SECONDS) -> None:
        self._policy, self._seconds = policy, seconds
        self._pools = checked_connections(policy, each_host=0)
        self._deadlines = Deadlines()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """End every request now."""
        self._closed.set()
        self._deadlines.cut()
        self._pools.clear()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body`, and return what came of it."""
        began = time.monotonic()
        with self._deadlines.within(self._seconds) as deadline:
            try:
                answer = self._post(url, headers, body, deadline)
            except (AddressRefused, FetchFailed) as error:
                # The sentence names the host, and may name the path, which can be a password.
                refused = isinstance(error, AddressRefused)
                said = "the address may not be reached" if refused else "the host has no address"
                answer = Answer(0.0, error=said, refused=refused)
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                answer = Answer(0.0, error=self._told(error, deadline))
        return Answer(time.monotonic() - began, answer.status, answer.error, answer.asked, answer.refused)

    def _post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: Deadline) -> Answer:
        target, left = self._policy.target(url), max(deadline.left, 0.001)
        response = self._pools.connection_from_host(target.host, target.port, target.scheme).urlopen(
            "POST",
            target.path,
            body=body,
            # A connection for each message: nothing that one answer leaves behind can be taken for the next.
            headers={"User-Agent": "imagemill", "Content-Type": "application/json", "Connection": "close", **headers},
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=left, read=left),
            preload_content=False,
        )
        try:
            self._drain(response)
            if deadline.over:  # a body without a length ends where its connection is cut
                return Answer(0.0, error=self._too_late)
        finally:
            response.close()
        if 200 <= response.status < 300:
            return Answer(0.0, response.status)
        said = f"it answered {response.status}"
        if 300 <= response.status < 400:
            said += ", and redirects are not followed"
        return Answer(0.0, response.status, said, retry_after(response.headers.get("Retry-After")))

    def _drain(self, response: BaseHTTPResponse) -> None:
        """Read the body to its end, or to a bound; raises what a body raises that is cut off."""
        size = 0
        while size < _MOST_BYTES and (piece := response.read(_PIECE, decode_content=False)):
            size += len(piece)

    def _told(self, error: Exception, deadline: Deadline) -> str:
        """Return an error in a few words, without what a library says of the address."""
        if deadline.over or isinstance(error, urllib3.exceptions.TimeoutError):
            return self._too_late
        if isinstance(error, urllib3.exceptions.SSLError):
            return "it has no valid certificate"
        if isinstance(error, urllib3.exceptions.NewConnectionError):
            return "it could not be connected to"
        return f"the answer was cut off ({type(error).__name__})"

    @property
    def _too_late(self) -> str:
        return f"there was no answer within {self._seconds:g} s"
