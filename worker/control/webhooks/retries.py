"""When a message is sent again. It decides, and knows neither the store nor the network."""

from __future__ import annotations

import random

DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds from one attempt to the next, about three days in all (Standard Webhooks 1.0, "Retry schedule")."""
_JITTER = 0.1
_LONGEST_WISH = 86_400.0
"""Longest `Retry-After` that is heeded."""
_LONGEST_PAUSE = 30.0
_EARLY_SECONDS = 5.0
"""Between the last attempt and the first early one, once the receiver answers again."""
_PROBE_SECONDS = 60.0
_PROBE_SHARE = 0.1
"""Between the last attempt and one that sees whether the receiver is back; at least this share of the time that the
schedule has taken so far."""


def next_delay(attempts: int, asked: float | None = None, delays: tuple[float, ...] = DELAYS) -> float | None:
    """Return the seconds until the next attempt after `attempts` that failed, or None to give up.

    `asked` is the receiver's `Retry-After`. It makes the delay longer, at most a day, and never shorter: a receiver
    that asks to be called again at once would use the attempts up.
    """
    if attempts > len(delays):
        return None
    wanted = delays[attempts - 1] * random.uniform(1.0, 1.0 + _JITTER)
    return max(wanted, heeded(asked))


def heeded(asked: float | None) -> float:
    """Return how many of the seconds that a receiver asked for it gets."""
    return min(asked or 0.0, _LONGEST_WISH)


def longest_delay(attempts: int, delays: tuple[float, ...] = DELAYS) -> float:
    """Return the most seconds until the next attempt after `attempts` that failed; a receiver may ask for more."""
    return delays[min(max(attempts, 1), len(delays)) - 1] * (1.0 + _JITTER) if delays else 0.0


def pause(failures: int, asked: float | None = None) -> float:
    """Return for how many seconds a webhook gets no other message after so many failures in a row."""
    wanted = min(2.0 ** min(failures - 1, 10), _LONGEST_PAUSE) * random.uniform(1.0, 1.0 + _JITTER)
    return wanted if asked is None else max(wanted, min(asked, _LONGEST_PAUSE))


def early_delay(failed: int, delays: tuple[float, ...] = DELAYS) -> float:
    """Return the seconds from the last attempt to an early one, because the receiver answers again.

    `failed` is how many early ones failed since: these follow the schedule, because the message may be the reason.
    """
    return delays[min(failed, len(delays) - 1)] if failed and delays else _EARLY_SECONDS


def probe_delay(attempts: int, delays: tuple[float, ...] = DELAYS) -> float:
    """Return the seconds from the last attempt to one that sees whether the receiver is back."""
    return max(_PROBE_SECONDS, _PROBE_SHARE * sum(delays[: max(attempts - 1, 0)]))
