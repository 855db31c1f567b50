"""The pools of a fleet, as `IMAGEMILL_POOLS` names them: what each serves, and how it is scaled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from contract.errors import InvalidInput, InvalidSettings
from contract.fleet.wanted import Policy
from contract.keys.queues import WORKER_QUEUES
from contract.records import Record
from contract.settings import Settings

_USUAL = Policy()


class Pool(Record):
    """One value of the object in `IMAGEMILL_POOLS`."""

    queues: Annotated[tuple[str, ...], Field(min_length=1)] = WORKER_QUEUES
    min: int = _USUAL.least
    max: int = 1000
    target_seconds: float = _USUAL.target_seconds
    cold_start_seconds: float = _USUAL.cold_start_seconds
    cool_down_seconds: float = _USUAL.cool_down_seconds


_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_POOLS: TypeAdapter[dict[str, Pool]] = TypeAdapter(dict[_Name, Pool])


def read_pools(settings: Settings) -> dict[str, Policy]:
    """Return the policy of each pool by its name: those of `IMAGEMILL_POOLS`, or the pool `default` on all queues.

    Raises InvalidSettings, naming pool and field.
    """
    if not settings.pools:
        return {"default": policy_of("default", Pool())}
    try:
        found = _POOLS.validate_json(settings.pools)
        return {name: policy_of(name, pool) for name, pool in found.items()}
    except ValidationError as error:
        first = error.errors()[0]
        where, example = ".".join(str(part) for part in first["loc"]), '{"gpu": {"queues": ["generate"], "max": 4}}'
        raise InvalidSettings(
            f"IMAGEMILL_POOLS: {where or 'the value'}: {first['msg']}; write, for example, {example}."
        ) from None
    except InvalidInput as error:
        raise InvalidSettings(f"IMAGEMILL_POOLS: {error}") from None


def policy_of(name: str, pool: Pool) -> Policy:
    """Return the policy of a pool; raises InvalidInput if it contradicts itself."""
    return Policy(
        pool=name,
        queues=pool.queues,
        least=pool.min,
        most=pool.max,
        target_seconds=pool.target_seconds,
        cold_start_seconds=pool.cold_start_seconds,
        cool_down_seconds=pool.cool_down_seconds,
    )
