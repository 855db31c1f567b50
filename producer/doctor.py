"""The checks behind `imagemill doctor`: each looks at one part, reports its state, and says how to fix it.

A check that depends on an earlier one that failed is left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from contract.backend.heartbeats import Worker
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidSource, ServiceUnavailable, StoreRefused
from contract.keys.bucket import probe_object
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL
from contract.models.registry import Registry
from contract.online.connection import info as online_info
from contract.online.messages import MOST_WAITING_BYTES
from contract.settings import Settings, addresses_given, current, stack_file

OLDEST_REDIS = (6, 2)


@dataclass(frozen=True)
class Check:
    """One line of the doctor; `unreachable` if a service did not answer at all."""

    name: str
    ok: bool
    detail: str
    unreachable: bool = False


def run_checks() -> Iterator[Check]:
    """Yield every check as soon as it is made."""
    try:
        settings = current()
    except ImagemillError as error:
        yield Check("settings", False, str(error), unreachable=True)
        return
    yield Check("settings", True, settings_source(settings))
    ledger = Ledger(settings, interactive=True)
    with closing(ledger):
        try:
            info, workers = ledger.info(), ledger.workers()
        except ImagemillError as error:
            yield _failed("redis", error)
            workers = None
        else:
            yield from check_redis(info)
        if settings.online_redis_url:
            try:
                yield check_online(online_info(settings))
            except ImagemillError as error:
                yield _failed("online redis", error)
        try:
            yield from check_store(ObjectStore(settings, patience=2.0))
        except ImagemillError as error:
            yield _failed("store", error)
        if workers is not None:
            yield from check_workers(workers)
            yield from check_confinement(workers)
            yield from check_metrics(workers)
            yield check_clock(ledger.ticking())
            yield check_messages(ledger.rejected())


def settings_source(settings: Settings) -> str:
    """Return where the addresses of the servers come from."""
    given = addresses_given()
    stack = stack_file(settings.data)
    if stack.is_file() and len(given) < 2:
        return " and ".join([str(stack), *given])
    return " and ".join(given)


def check_redis(info: Mapping[str, Any]) -> Iterator[Check]:
    """Check version and durability, from the reply of Redis to `INFO`."""
    version = str(info.get("redis_version", "0"))
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_REDIS
    wanted = ".".join(map(str, OLDEST_REDIS))
    yield Check("redis", new_enough, f"Redis {version}" + ("" if new_enough else f"; install {wanted} or newer"))
    policy = str(info.get("maxmemory_policy", "unknown"))
    keeps = policy == "noeviction"
    advice = "" if keeps else "; it drops jobs when memory runs out: run CONFIG SET maxmemory-policy noeviction"
    yield Check("redis memory", keeps, f"maxmemory-policy {policy}{advice}")
    durable = str(info.get("aof_enabled", "0")) == "1"
    advice = (
        ""
        if durable
        else "; a restart forgets running jobs until they are rebuilt from the bucket: run CONFIG SET appendonly yes"
    )
    yield Check("redis on disk", durable, f"appendonly {'yes' if durable else 'no'}{advice}")


def check_online(info: Mapping[str, Any]) -> Check:
    """Check that the Redis of requests to served models has bounds, keeps nothing and drops nothing."""
    policy, most = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    wrong = []
    if policy != "noeviction":
        wrong.append(f"it drops requests when memory runs out ({policy}): run CONFIG SET maxmemory-policy noeviction")
    if not most:
        wrong.append("it may take all memory of its machine: run CONFIG SET maxmemory 256mb")
    elif most < 2 * MOST_WAITING_BYTES:
        wrong.append(f"{most // 2**20} MiB are not enough for what may wait: run CONFIG SET maxmemory 256mb")
    if str(info.get("aof_enabled", "0")) == "1":
        wrong.append("it writes every image to disk: run CONFIG SET appendonly no")
    found = f"maxmemory {most // 2**20} MiB, {policy}"
    return Check("online redis", not wrong, "; ".join(wrong) or found)


def check_store(store: ObjectStore) -> Iterator[Check]:
    """Check the store, its bucket, and that it writes an object only if it is absent."""
    exists = store.bucket_exists(store.bucket)
    with suppress(InvalidSource):  # there is none
        next(store.list("jobs/"), None)  # any HTTP server answers the question before, which has no body
    yield Check("store", True, store.endpoint)
    if not exists:
        yield Check("bucket", False, f"{store.bucket} does not exist; run `imagemill up`, or create it in the store")
        return
    yield Check("bucket", True, store.bucket)
    key = probe_object(secrets.token_hex(8))
    try:
        honoured = store.put_if_absent(key, b"first") and not store.put_if_absent(key, b"second")
    except StoreRefused:  # the store has been seen to ignore it
        honoured = False
    finally:
        store.delete(key)
    advice = "" if honoured else "; two writers could overwrite each other: use a store that supports If-None-Match"
    yield Check("conditional put", honoured, f"{'honoured' if honoured else 'ignored'}{advice}")
    models = [f"{name}@{version}" for name, version in Registry(store).versions()]
    yield Check(
        "models", bool(models), ", ".join(models) or "none; start a worker, which publishes the built-in models"
    )


def check_workers(alive: Sequence[Worker]) -> Iterator[Check]:
    """Check that a controller plans jobs, and that a worker labels images."""
    controllers = [w for w in alive if QUEUE_CONTROL in _queues(w)]
    yield Check(
        "controller",
        bool(controllers),
        ", ".join(w.name for w in controllers)
        or f"none, so no job is planned: run `imagemill up` or `imagemill-worker run --queues {QUEUE_CONTROL}`",
    )
    workers = [w for w in alive if QUEUE_CLASSIFY in _queues(w)]
    yield Check(
        "workers",
        any(not w.fields.get("unfit") for w in workers),
        ", ".join(_describe(w) for w in workers)
        or "none, so no image is labelled: run `imagemill up` or `imagemill-worker run`",
    )


def check_confinement(alive: Sequence[Worker]) -> Iterator[Check]:
    """Name the workers whose machines lack a layer that confines decoders and pushed programs; nothing if none does."""
    lacking = [f"{w.name} ({w.fields['unconfined'].replace(',', ', ')})" for w in alive if w.fields.get("unconfined")]
    if lacking:
        advice = "decode and run there only what you trust, or use a kernel and a container that allow them"
        yield Check("confinement", False, f"missing on {', '.join(lacking)}: {advice}")


def check_metrics(alive: Sequence[Worker]) -> Iterator[Check]:
    """Say where processes show probes and metrics; nothing if none does."""
    shown = [f"{w.name} at {w.fields['metrics']}" for w in alive if w.fields.get("metrics")]
    if shown:
        yield Check("metrics", True, ", ".join(shown))


def check_clock(ticking: bool) -> Check:
    """Check that the clock ticks, so that lost work is queued again."""
    advice = (
        "no recent tick, so lost work stays lost and schedules wait: run `imagemill up` or `celery -A worker.app beat`"
    )
    return Check("clock", ticking, "ticks" if ticking else advice)


def check_messages(rejected: Mapping[str, int]) -> Check:
    """Check that nobody puts into the queues what no Imagemill sends."""
    if not rejected:
        return Check("messages", True, "none was rejected")
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in rejected.items())
    return Check("messages", False, f"{sum(rejected.values()):,} were rejected ({kinds}): see who writes to Redis")


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 if all checks pass, 3 if a service cannot be reached, and 1 otherwise."""
    if any(check.unreachable for check in checks):
        return 3
    return 0 if all(check.ok for check in checks) else 1


def _queues(worker: Worker) -> list[str]:
    return worker.fields.get("queues", "").split(",")


def _describe(worker: Worker) -> str:
    if why := worker.fields.get("unfit"):
        return f"{worker.name} (takes no shards: {why})"
    engine = [worker.fields[name] for name in ("device", "runtime") if worker.fields.get(name)]
    return f"{worker.name} ({', '.join(engine) or 'no model loaded yet'})"


def _failed(name: str, error: ImagemillError) -> Check:
    return Check(name, False, str(error), unreachable=isinstance(error, ServiceUnavailable))
