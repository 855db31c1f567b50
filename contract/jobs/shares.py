"""Which part of the slots a job gets: as its spec asks, or as somebody has set since."""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.jobs.options import Share
from contract.jobs.specs import AnySpec
from contract.keys.jobs import JobKeys


def asked(spec: AnySpec) -> Share:
    """Return the share that a spec asks for."""
    return Share.model_validate({name: getattr(spec, name) for name in Share.model_fields})


def read(store: ObjectStore, spec: AnySpec) -> Share:
    """Return the share that a job has now."""
    try:
        return Share.model_validate_json(store.get(JobKeys(spec.id).share))
    except ObjectNotFound:
        return asked(spec)


def write(store: ObjectStore, id: str, share: Share) -> None:
    """Give a job another share; the ledger is to be told next."""
    store.put(JobKeys(id).share, share.to_json())
