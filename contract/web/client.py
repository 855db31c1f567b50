"""Fetches one file from the web: every hop is checked, and everything together ends within one deadline."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import urllib3

from contract.errors import AddressRefused, FetchFailed, ImageDenied, ImageNotFound, TooManyBytes
from contract.settings import Settings
from contract.web.addresses import AddressPolicy, shown
from contract.web.connections import checked_connections
from contract.web.deadlines import Deadline, Deadlines

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_HOPS = 5
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({404, 410})
_DENIED = frozenset({401, 403})
_SILENCE = 10.0
"""Seconds without a byte after which the request is sent again."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 8.0
_SLICE = 2**20
_DRAINED = 2**16
"""Bytes of an error page that are read for the sake of its connection."""


class _Again(Exception):
    """The server may answer later; `pause` is what it asks for in seconds, if it does."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


class WebClient:
    """Fetches files. Safe to use from many threads; `connections` idle connections are kept for each host."""

    def __init__(
        self, policy: AddressPolicy | None = None, *, seconds: float | None = None, connections: int = 8
    ) -> None:
        self.policy = policy or AddressPolicy()
        self.seconds = Settings.model_fields["fetch_seconds"].default if seconds is None else seconds
        self._pools = checked_connections(self.policy, each_host=connections)
        self._deadlines = Deadlines()
        self._closed = threading.Event()

    @staticmethod
    def of(settings: Settings) -> WebClient:
        """Return a client under the policy and the deadline of the settings."""
        return WebClient(
            AddressPolicy.of(settings), seconds=settings.fetch_seconds, connections=settings.fetch_host_lanes
        )

    def close(self) -> None:
        """End every fetch, so that the threads of a process that ends do not wait for slow hosts."""
        self._closed.set()
        self._deadlines.cut()
        self._pools.clear()

    def read(
        self,
        url: str,
        max_bytes: int,
        *,
        room: Callable[[int], None] = lambda size: None,
        within: float | None = None,
    ) -> bytes:
        """Return the bytes at a web address, at most `max_bytes`, within `seconds` over all redirects and retries.

        `within` may be a shorter time for this one.
        `room` is called before bytes are kept, with how many there will be as far as that is known; what it raises
        ends the fetch. Raises AddressRefused, ImageNotFound, ImageDenied, TooManyBytes or FetchFailed.
        """
        seconds = self.seconds if within is None else min(within, self.seconds)
        with self._deadlines.within(seconds) as deadline:
            pause = _FIRST_PAUSE
            while True:
                try:
                    return self._attempt(url, max_bytes, deadline, room)
                except _Again as again:
                    wanted = again.pause if again.pause is not None else pause * random.uniform(1.0, 1.5)
                    if deadline.over:
                        raise self._too_late(url, str(again)) from again
                    if wanted >= deadline.left:
                        asked = f" and asks to wait {again.pause:,.0f} s" if again.pause is not None else ""
                        raise FetchFailed(
                            f"{shown(url)} {again}{asked}; that is beyond the {self.seconds:g} s of "
                            "IMAGEMILL_FETCH_SECONDS; retry the job later."
                        ) from again
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    if self._closed.wait(wanted):
                        raise FetchFailed(f"{shown(url)} {again}, and the worker is ending; retry the job.") from again

    def _attempt(self, url: str, max_bytes: int, deadline: Deadline, room: Callable[[int], None]) -> bytes:
        """Follow the redirects from `url` once; raises _Again if it may succeed later."""
        at = url
        try:
            for _ in range(_MOST_HOPS + 1):
                response = self._open(at, deadline)
                keep = False
                try:
                    if response.status in _REDIRECTS and (to := response.headers.get("Location")):
                        keep = _drain(response)
                        at = urljoin(at, to)
                        continue
                    if response.status == 200:
                        data = _body(response, max_bytes, room)
                        if deadline.over:  # a body without a length ends where its connection is cut
                            raise _Again("did not arrive in time")
                        keep = True
                        return data
                    error = _refusal(url, response)
                    keep = _drain(response)
                    raise error
                finally:
                    if not keep:
                        response.close()
                    response.release_conn()
            raise FetchFailed(f"{shown(url)} redirects more than {_MOST_HOPS} times; correct the address.")
        except AddressRefused as error:
            if at == url:
                raise
            raise AddressRefused(f"{shown(url)} redirects to another address. {error}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if deadline.over:
                raise self._too_late(url, f"was cut off ({type(error).__name__})") from error
            if isinstance(error, urllib3.exceptions.SSLError):
                raise FetchFailed(f"{shown(url)} has no valid certificate ({error}); correct the address.") from error
            raise _Again(f"did not answer ({type(error).__name__})") from error
        except ValueError as error:  # a redirect that is no address
            raise FetchFailed(f"{shown(url)} redirects to what is no address ({error}); correct it.") from error

    def _open(self, url: str, deadline: Deadline) -> BaseHTTPResponse:
        target = self.policy.target(url)
        left = max(deadline.left, 0.001)
        return self._pools.connection_from_host(target.host, target.port, target.scheme).urlopen(
            "GET",
            target.path,
            headers={"User-Agent": "imagemill"},
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=left, read=min(left, _SILENCE)),
            preload_content=False,
        )

    def _too_late(self, url: str, why: str) -> FetchFailed:
        return FetchFailed(
            f"{shown(url)} took longer than the {self.seconds:g} s of IMAGEMILL_FETCH_SECONDS: it {why}; retry the job "
            "later."
        )


def _refusal(url: str, response: BaseHTTPResponse) -> Exception:
    """Return the error that a status stands for."""
    status = response.status
    if status in _ABSENT:
        return ImageNotFound(f"{shown(url)} answered {status}; the image is not there.")
    if status in _DENIED:
        return ImageDenied(f"{shown(url)} answered {status}; it needs a permission that workers lack.")
    if status in _TRY_AGAIN:
        return _Again(f"answered {status}", retry_after(response.headers.get("Retry-After")))
    return FetchFailed(f"{shown(url)} answered {status}; retry the job later.")


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait: a number, or a date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return min(float(text), 1e9)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())


def _body(response: BaseHTTPResponse, max_bytes: int, room: Callable[[int], None]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > max_bytes:
        raise too_many_bytes(int(length), max_bytes)
    announced = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
    if announced is not None:
        room(announced)
    while piece := response.read(_SLICE):
        size += len(piece)
        if size > max_bytes:
            raise too_many_bytes(None, max_bytes)
        if announced is None:
            room(size if size < _SLICE else min(2 * size, max_bytes))  # twice, so that room is seldom asked for
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _drain(response: BaseHTTPResponse) -> bool:
    """Read a short body to its end, so that the connection can be used again; return whether it can."""
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and len(length) < 6 and int(length) <= _DRAINED:
        response.read()
        return True
    return False


def too_many_bytes(size: int | None, limit: int) -> TooManyBytes:
    """Return the error of a file that is larger than allowed; `size` is None if it was not read to its end."""
    what = f"The file has {size:,} bytes, more than" if size else "The file has more than"
    return TooManyBytes(f"{what} the {limit:,} allowed; raise IMAGEMILL_MAX_IMAGE_BYTES to read it.")
