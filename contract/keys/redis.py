"""Redis keys, but for those of the online path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RedisKeys:
    """Redis keys under one namespace."""

    namespace: str

    @property
    def broker_prefix(self) -> str:
        """Prefix of everything that Celery keeps."""
        return f"{self.namespace}:celery:"

    @property
    def active(self) -> str:
        """Set of the ids of jobs that have not ended."""
        return f"{self.namespace}:active"

    def job(self, id: str) -> list[str]:
        """The six keys of a job: hash, done bits, leases, trouble, queued, copies (entry.lua)."""
        base = f"{self.namespace}:job:{id}"
        return [base, f"{base}:done", f"{base}:leases", f"{base}:trouble", f"{base}:queued", f"{base}:copies"]

    @property
    def dispatch(self) -> tuple[str, str, str]:
        """Prefixes of the entries of jobs, of the index of those that have a shard to run, and of queues; the order of
        entry.lua."""
        return f"{self.namespace}:job:", f"{self.namespace}:next:", self.broker_prefix

    @property
    def slots(self) -> str:
        """Hash of queues: the slots of all live workers that serve one."""
        return f"{self.namespace}:next:slots"

    @property
    def rules(self) -> str:
        """Hash of the rules by which live workers load models (`contract.models.rules`): JSON by id."""
        return f"{self.namespace}:next:rules"

    def lock(self, what: str, id: str = "") -> str:
        return f"{self.namespace}:lock:{what}" + (f":{id}" if id else "")

    @property
    def rejected(self) -> str:
        """Number of malformed messages that were rejected, by kind; kept for 30 days after the last."""
        return f"{self.namespace}:rejected"

    @property
    def schedules(self) -> str:
        """Sorted set of schedules by their last tick that is done with."""
        return f"{self.namespace}:schedules"

    @property
    def watches(self) -> str:
        """Hash of how each watch stands, by name, as its controller last wrote it."""
        return f"{self.namespace}:watches"

    @property
    def watchers(self) -> str:
        """Sorted set of the controllers that keep watches, by when they last said so."""
        return f"{self.namespace}:watchers"

    def watch(self, name: str) -> str:
        """The controller that keeps a watch, a string with a TTL."""
        return f"{self.namespace}:watch:{name}"

    def hints(self, watch: str) -> str:
        """Stream of keys that were announced for a watch, with a TTL (`contract.watches.hints`)."""
        return f"{self.namespace}:hints:{watch}"

    @property
    def hinted(self) -> str:
        """Stream of the names of watches for which a key was announced, with a TTL (`contract.watches.hints`)."""
        return f"{self.namespace}:hinted"

    @property
    def clock(self) -> str:
        """Present as long as ticks arrive."""
        return f"{self.namespace}:clock"

    def worker(self, name: str) -> str:
        """Heartbeat of a worker, a hash with a TTL."""
        return f"{self.namespace}:worker:{name}"

    def drain(self, name: str) -> str:
        """The process of a worker that is asked to drain, a string with a TTL (`contract.fleet.drain`)."""
        return f"{self.namespace}:drain:{name}"

    @property
    def workers(self) -> str:
        """Set of the names of workers whose heartbeat may be there."""
        return f"{self.namespace}:workers"

    def scale(self, pool: str) -> str:
        """How many workers a pool was last asked to have, with a TTL."""
        return f"{self.namespace}:scale:{pool}"

    @property
    def rates(self) -> str:
        """Measured images per second, a hash with a TTL (`contract.fleet.rates`)."""
        return f"{self.namespace}:rates"
