"""Measured speed: images per second of one slot, for each kind of job, model and kind of device.

Workers add what each commit took to one hash in Redis, which is disposable: until something is measured, a prior
stands in. The rate is that of a slot beside the others that were busy then, so a worker gives slots times as much.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contract.backend.ledger import Ledger
from contract.jobs.kinds import KINDS

HALF_LIFE_SECONDS = 120.0
"""After this long, a measurement counts half as much as a new one."""
MOST_FIELDS = 256
"""Combinations of kind, model and device that are remembered; the one not measured for longest makes room."""
KEEP_SECONDS = 7 * 86400
"""Redis forgets all rates when nothing was measured for a week."""

_PRIORS = {("labels", "cpu"): 50.0, ("labels", "cuda"): 70.0, ("images", "cpu"): 100.0, ("images", "cuda"): 2000.0}
"""Images per second of a slot, by what a kind makes and by device. With EfficientNet-Lite0, two cores label 110 (fp32)
to 310 (bf16) images a second on three slots, and an H100 beside 16 cores, which decode, 1,170 on 17. It generates
34,000 small images a second, two cores 1,000 of 112 × 112 pixels, before they are encoded (docs/log.md)."""
_SLOWEST_PRIOR = min(_PRIORS.values())
_RECENT_SECONDS = 60.0
"""How far back a worker's own rate looks."""

_SCRIPT = Path(__file__).with_name("rates.lua").read_text()


@dataclass(frozen=True)
class Rate:
    """Images per second of one slot, and whether they were measured."""

    images_per_second: float
    measured: bool


@dataclass(frozen=True)
class Rates:
    """What was measured so far; by `rate_field`."""

    measured: Mapping[str, float] = field(default_factory=dict)

    def of(self, kind: str, model: str, device: str) -> Rate:
        """Return the rate of a model on a kind of device (`cpu` or `cuda`), or a prior until one is measured."""
        found = self.measured.get(rate_field(kind, model, device))
        return Rate(prior(kind, device), measured=False) if found is None else Rate(found, measured=True)

    def of_any(self, kind: str, model: str) -> list[float]:
        """Return the measured images per second of a model, one for each kind of device that ran it."""
        return [rate for name, rate in self.measured.items() if name.startswith(rate_field(kind, model, ""))]


def rate_field(kind: str, model: str, device: str) -> str:
    """Return the field of the hash: `classify|efficientnet-lite0@1|cpu`."""
    return f"{kind}|{model}|{device}"


def prior(kind: str, device: str) -> float:
    """Return the images per second of a slot that are assumed until a rate is measured."""
    makes = KINDS[kind].makes if kind in KINDS else ""
    return _PRIORS.get((makes, device), _SLOWEST_PRIOR)


def counts_images(kind: str) -> bool:
    """Return whether a shard of this kind is so many images, rather than a whole training or evaluation."""
    return kind in KINDS and KINDS[kind].makes in ("labels", "images")


def parse_rates(fields: Mapping[str, str]) -> Rates:
    """Return the rates in the hash, without values that are not ours."""
    found = {}
    for name, value in fields.items():
        try:
            rate = float(value.split(" ", 1)[0])
        except ValueError:
            continue
        if 0 < rate < float("inf"):
            found[name] = rate
    return Rates(found)


def read_rates(ledger: Ledger) -> Rates:
    """Return what was measured; raises RedisUnavailable."""
    return parse_rates(ledger.hash(ledger.keys.rates))


class Meter:
    """Measures one worker: adds up its commits until the next heartbeat publishes them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: dict[str, tuple[int, float]] = {}
        self._recent: list[tuple[float, int]] = []
        self._warm: dict[str, float] = {}

    def add(self, kind: str, model: str, device: str, images: int, seconds: float) -> None:
        """Count a shard of `images` that took a slot so many seconds and ends now.

        A shard that began before the first one ended does not count: it waited for the model to load.
        """
        if not images or seconds <= 0 or not counts_images(kind):
            return
        name, now = rate_field(kind, model, device), time.monotonic()
        with self._lock:
            self._recent.append((now, images))
            if now - seconds < self._warm.setdefault(name, now):
                return
            before, took = self._new.get(name, (0, 0.0))
            self._new[name] = before + images, took + seconds

    def images_per_second(self) -> float:
        """Return the images per second of this worker, over the last minute."""
        since = time.monotonic() - _RECENT_SECONDS
        with self._lock:
            self._recent = [(at, images) for at, images in self._recent if at > since]
            return round(sum(images for _, images in self._recent) / _RECENT_SECONDS, 1)

    def publish(self, ledger: Ledger) -> None:
        """Add what is new to the hash, in one step; raises RedisUnavailable, and then keeps it for the next time."""
        with self._lock:
            new, self._new = self._new, {}
        if not new:
            return
        try:
            add_rates(ledger, ((name, images, seconds) for name, (images, seconds) in new.items()))
        except BaseException:
            with self._lock:
                for name, (images, seconds) in new.items():
                    more, took = self._new.get(name, (0, 0.0))
                    self._new[name] = images + more, seconds + took
            raise


def add_rates(ledger: Ledger, measured: Iterable[tuple[str, int, float]]) -> None:
    """Add measurements, each a `rate_field`, images and slot seconds; raises RedisUnavailable."""
    flat = [part for one in measured for part in (one[0], str(one[1]), f"{one[2]:.6g}")]
    ledger.script(_SCRIPT, [ledger.keys.rates], [HALF_LIFE_SECONDS, MOST_FIELDS, KEEP_SECONDS, *flat])
