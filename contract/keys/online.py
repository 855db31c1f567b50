"""Keys of the online path, which answers single requests: which models are served, and what Redis holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from contract.keys.bucket import SERVED

_SERVED = re.compile(r"^served/([a-z0-9][a-z0-9-]{0,62})/(\d{1,9})\.json$")


def served_record(name: str, version: int) -> str:
    """Says that a version of a model answers single requests, and with which precision."""
    return f"{SERVED}{name}/{version}.json"


def parse_served(key: str) -> tuple[str, int] | None:
    """The name and version of the served model whose record this is, or None."""
    match = _SERVED.match(key)
    return (match[1], int(match[2])) if match else None


@dataclass(frozen=True)
class OnlineKeys:
    """Keys of the online path, which may lie in another Redis. `model` is `name@version`, `id` that of a request."""

    namespace: str

    @property
    def open(self) -> str:
        """Sorted set of the ids of requests without a reply, by their deadline in milliseconds of Redis' clock."""
        return f"{self.namespace}:online:open"

    @property
    def load(self) -> str:
        """Hash of what these weigh: `bytes`, and `images:MODEL` for each model."""
        return f"{self.namespace}:online:load"

    @property
    def changed(self) -> str:
        """A number that grows when a model is served or no longer; absent after a restart."""
        return f"{self.namespace}:online:changed"

    def requests(self, model: str) -> str:
        """Stream of ids of requests; workers read it as the group `workers`."""
        return f"{self.namespace}:online:requests:{model}"

    def payload(self, id: str) -> str:
        """What a request asks for and its images, with a TTL until the deadline."""
        return f"{self.namespace}:online:payload:{id}"

    def replies(self, asker: str) -> str:
        """List of the replies to one asking process, with a TTL."""
        return f"{self.namespace}:online:replies:{asker}"

    def workers(self, model: str) -> str:
        """Hash of the processes that serve a model: when each last said so, its images per second, and the latency."""
        return f"{self.namespace}:online:workers:{model}"

    def faults(self, id: str) -> str:
        """Set of the processes on which a request raised, with a TTL."""
        return f"{self.namespace}:online:faults:{id}"
