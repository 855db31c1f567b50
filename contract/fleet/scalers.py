"""The policies that the simulator compares, as an autoscaler sees them: one number at each look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from contract.fleet.snapshot import Fleet
from contract.fleet.wanted import Policy, Wanted, wanted
from contract.keys.queues import QUEUE_CLASSIFY


class Scaler(Protocol):
    """A policy as an autoscaler sees it."""

    name: str
    stabilisation_seconds: float
    """For how long the autoscaler remembers a larger answer before it takes workers away."""
    zero_seconds: float
    """How long nothing may wait before the last worker goes."""

    def metric(self, fleet: Fleet) -> float:
        """Return how many workers are asked for, before it is rounded up."""


@dataclass
class ByWanted:
    """`contract.fleet.wanted`, which has a cool-down of its own."""

    policy: Policy
    name: str = "wanted"
    stabilisation_seconds: float = 0.0
    zero_seconds: float = 0.0
    _previous: Wanted | None = None

    def metric(self, fleet: Fleet) -> float:
        self._previous = wanted(fleet, self.policy, self._previous)
        return self._previous.workers


@dataclass
class ByQueueLength:
    """KEDA's scaler of a Redis list with its default of five messages a worker, and Kubernetes' and KEDA's defaults."""

    messages_per_worker: float = 5.0
    name: str = "queue length / 5"
    stabilisation_seconds: float = 300.0
    zero_seconds: float = 300.0

    def metric(self, fleet: Fleet) -> float:
        return fleet.queue(QUEUE_CLASSIFY).messages / self.messages_per_worker
