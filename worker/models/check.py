"""Admits a model that was pushed to the registry, or says why not. It knows nothing of Celery."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from pydantic import ValidationError

from contract.errors import ModelError, NotOwner
from contract.jobs.lifecycle import Backend
from contract.models.registry import Model, Registry
from contract.models.review import Review, Verdict
from contract.models.rules import ANY, Rule
from worker.execution.model_cache import fetch_weights
from worker.models.trial import try_out

log = logging.getLogger(__name__)

_LOCK_SECONDS = 330.0  # a little more than a trial may take


def admit(backend: Backend, name: str, version: int, cache: Path, rule: Rule = ANY) -> None:
    """Run the model `name@version` once and publish it, or write down why not and remove what was staged.

    Nothing happens where it was withdrawn, where another worker is at it, or where it is a program and this worker's
    `rule` takes none. Raises what the store raises. In all of these cases the producer, which waits, asks again.
    """
    review = Review(backend.store, name, version)
    with backend.ledger.lock("check", review.ref, _LOCK_SECONDS) as lock:
        if lock is None:
            log.info("%s is being tried by another worker", review.ref)
            return
        _admit(review, cache, rule)


def _admit(review: Review, cache: Path, rule: Rule) -> None:
    draft = review.draft()
    if draft is None:
        log.info("%s was withdrawn, or is decided already", review.ref)
        return
    # A pool that serves some names may try any: the trial is a process of its own.
    if not rule.model_copy(update={"models": ()}).admits(_read(draft)):
        log.info("%s is a program, which another worker must try: this one takes %s", review.ref, rule)
        return
    verdict = review.verdict() or review.settle(_judge(review, draft, cache))
    if verdict.ok:
        review.publish(Model.model_validate_json(draft))
        log.info("%s is published", review.ref)
    else:
        review.discard()
        log.info("%s is refused: %s", review.ref, verdict.reason)


def _read(draft: bytes) -> list[Model]:
    """Return the record of a draft; nothing if it cannot be read, which `_judge` tells."""
    try:
        return [Model.model_validate_json(draft)]
    except ValidationError:
        return []


def _judge(review: Review, draft: bytes, cache: Path) -> Verdict:
    host = socket.gethostname()
    try:
        model, registry = Model.model_validate_json(draft), Registry(review.store)
        if model.ref != review.ref or registry.exists(review.name, review.version):
            raise ModelError(f"{review.ref} is another model already; push it again, for a version of its own.")
        registry.owners.check(model.name, model.owner)
        weights = fetch_weights(review.store, model, cache)
        try:
            try_out(model, weights)
        except ModelError:
            weights.unlink(missing_ok=True)
            raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Verdict(ok=False, reason=f"Its record cannot be read ({where}: {first['msg']}).", by=host)
    except (ModelError, NotOwner) as error:
        return Verdict(ok=False, reason=str(error), by=host)
    return Verdict(ok=True, by=host)
