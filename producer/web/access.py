"""Decides who asks, and how often: the token in a request's `Authorization`, its record in the bucket, and its rate.

A record is read again after a few seconds, so that a revocation is soon felt. Unknown tokens are looked up at a limited
rate, so that guesses cost the store little, and a token that was known before is looked up whatever strangers do.

The rate of a token is a bucket in the memory of this process, so several processes each admit it. That is the price of
a limit that needs no server to answer: with Redis down the API still reads from the bucket, and the limit still holds.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import anyio.to_thread
from starlette.requests import Request

from contract.errors import ServiceUnavailable
from contract.web.tokens import Scope, Token, Tokens, id_of
from producer.web.problems import Problem

KNOWN_SECONDS = 5.0
"""For how long a record is believed, and so how long a revoked token lives on."""
_MOST = 1024
_MOST_BUCKETS = 10_000
_LOOKUPS = 20.0
"""Lookups a second of tokens that this process does not know."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="imagemill"'}


class Limiter:
    """Token buckets by name; each holds a second's worth of requests, at least one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each bucket will be full again."""

    def take(self, name: str, rate: float, *, burst: float | None = None) -> float:
        """Take one request from a bucket that fills at `rate` a second; return 0, or the seconds to wait for one."""
        size = max(1.0, rate if burst is None else burst)
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.pop(name, now), now)
            # What is missing to full, in requests; the next may be taken while it is at most size - 1.
            missing = (full_at - now) * rate
            waits = (missing - (size - 1.0)) / rate
            if waits <= 1e-9:
                full_at += 1.0 / rate
                waits = 0.0
            self._full_at[name] = full_at
            while len(self._full_at) > _MOST_BUCKETS:
                self._full_at.popitem(last=False)
            return max(0.0, waits)


class Access:
    """The tokens that this process has seen lately, by the SHA-256 of each. Safe to use from many threads."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens, self._clock = tokens, clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Token]] = OrderedDict()
        self.limiter = Limiter(clock)

    def known(self, headers: Sequence[str]) -> Token | None:
        """Return the token of a request if its record was read lately; raises Problem for what cannot be a token."""
        return self._lately(_text(headers))

    def check(self, headers: Sequence[str]) -> Token:
        """Return the token of a request, reading its record if need be; raises Problem 401 or 429."""
        text = _text(headers)
        found = self._lately(text)
        if found is None:
            name = _digest(text)
            with self._lock:
                known_before = name in self._known
            waits = 0.0 if known_before else self.limiter.take("", _LOOKUPS)
            if waits:
                raise too_many("There are too many requests with tokens that are not known here", waits)
            found = self._tokens.find(text)
            if found is None:
                with self._lock:
                    self._known.pop(name, None)
                raise refused("The token is unknown, revoked or expired")
            with self._lock:
                self._known[name] = (self._clock() + KNOWN_SECONDS, found)
                self._known.move_to_end(name)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        return found

    def checked_lately(self, token: Token) -> bool:
        """Return whether the record of a token was read lately, and stands."""
        with self._lock:
            until, known = self._known.get(token.sha256, (0.0, None))
            return known is not None and until >= self._clock() and not known.expired(time.time())

    def check_again(self, token: Token) -> None:
        """Check that a token is still valid, for a long answer; raises Problem 401 once it is not.

        If the store is unavailable, the token is treated as valid.
        """
        if self.checked_lately(token):
            return
        try:
            found = self._tokens.again(token)
        except ServiceUnavailable:
            return
        with self._lock:
            if found is None:
                self._known.pop(token.sha256, None)
            else:
                self._known[token.sha256] = (self._clock() + KNOWN_SECONDS, found)
        if found is None:
            raise refused("The token was revoked, or has expired")

    def admit(self, token: Token) -> None:
        """Count a request; raises Problem 429 if the token makes more than it may."""
        if token.rate and (waits := self.limiter.take(token.id, token.rate)):
            raise too_many(f"This token may make {token.rate:g} requests a second", waits)

    def _lately(self, text: str) -> Token | None:
        name = _digest(text)
        with self._lock:
            until, found = self._known.get(name, (0.0, None))
            if found is None:
                return None
            if until < self._clock() or found.expired(time.time()):
                return None
        # The cache is found by a digest of the whole token; this only says so once more.
        return found if found.matches(text) else None


async def still_valid(access: Access, token: Token) -> None:
    """Check that a token is still valid, as `Access.check_again` does, on a thread if its record has to be read."""
    if not access.checked_lately(token):
        await anyio.to_thread.run_sync(access.check_again, token)


def needs(scope: Scope) -> Callable[[Request], Token]:
    """Return a dependency: the token of the request, which must have `scope`."""

    def token(request: Request) -> Token:
        found = token_of(request)
        if not found.allows(scope):
            raise Problem(
                403,
                f"This token may not do this: it needs the scope {scope}, and has {', '.join(found.scopes)}.",
            )
        return found

    return token


def token_of(request: Request) -> Token:
    """Return the token that the guard found; raises Problem 401 where there is none."""
    found = request.scope.get("imagemill.token")
    if not isinstance(found, Token):
        raise refused("The request has no token")
    return found


def refused(why: str) -> Problem:
    return Problem(
        401, f"{why}; send `Authorization: Bearer imk_…`, as `imagemill tokens create` prints it.", headers=_CHALLENGE
    )


def too_many(why: str, waits: float) -> Problem:
    seconds = max(1, math.ceil(waits))
    return Problem(429, f"{why}; wait {seconds} s.", headers={"Retry-After": str(seconds)})


def _text(headers: Sequence[str]) -> str:
    if len(headers) != 1:
        raise refused("The request has no token" if not headers else "The request has several tokens")
    scheme, _, text = headers[0].partition(" ")
    if scheme.lower() != "bearer" or id_of(text.strip()) is None:
        raise refused("What the request has is no token")
    return text.strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
