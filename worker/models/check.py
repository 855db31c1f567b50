"""Admits a model that was pushed to the registry, or says why not. It knows nothing of Celery."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from pydantic import ValidationError

from contract.errors import ModelError
from contract.jobs.lifecycle import Backend
from contract.models.registry import Model, Registry
from contract.models.review import Staging, Verdict
from worker.execution.model_cache import fetch_weights
from worker.models.trial import try_out

log = logging.getLogger(__name__)

_LOCK_SECONDS = 330.0  # a little more than a trial may take


def admit(backend: Backend, name: str, version: int, cache: Path) -> None:
    """Run the model `name@version` once and publish it, or write down why not and remove what was staged.

    Nothing happens where it was withdrawn, or where another worker is at it. Raises what the store raises: the
    producer, which waits, asks again.
    """
    staging = Staging(backend.store, name, version)
    if backend.ledger.lock("check", staging.ref, _LOCK_SECONDS) is None:
        log.info("%s is being tried by another worker", staging.ref)
        return
    try:
        _admit(staging, cache)
    finally:
        backend.ledger.unlock("check", staging.ref)


def _admit(staging: Staging, cache: Path) -> None:
    draft = staging.draft()
    if draft is None:
        log.info("%s was withdrawn, or is decided already", staging.ref)
        return
    verdict = staging.verdict() or staging.settle(_judge(staging, draft, cache))
    if verdict.ok:
        staging.publish(Model.model_validate_json(draft))
        log.info("%s is published", staging.ref)
    else:
        staging.discard()
        log.info("%s is refused: %s", staging.ref, verdict.reason)


def _judge(staging: Staging, draft: bytes, cache: Path) -> Verdict:
    host = socket.gethostname()
    try:
        model = Model.model_validate_json(draft)
        if model.ref != staging.ref or Registry(staging.store).exists(staging.name, staging.version):
            raise ModelError(f"{staging.ref} is another model already; push it again, for a version of its own.")
        weights = fetch_weights(staging.store, model, cache)
        try:
            try_out(model, weights)
        except ModelError:
            weights.unlink(missing_ok=True)
            raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Verdict(ok=False, reason=f"Its record cannot be read ({where}: {first['msg']}).", by=host)
    except ModelError as error:
        return Verdict(ok=False, reason=str(error), by=host)
    return Verdict(ok=True, by=host)
