"""Makes a worker process ready for its first shard: models that ship are published, and the default one is loaded."""

from __future__ import annotations

import logging

from contract.errors import ImagemillError
from contract.import_paths import load
from contract.jobs.kinds import kind_of
from worker.execution.resources import Resources
from worker.process.leaving import Leaving

log = logging.getLogger(__name__)


def warm_up(resources: Resources, leaving: Leaving) -> None:
    """Publish missing built-in models, and load the default one if this worker may; leave if its code is broken."""
    try:
        _warm_up(resources)
    except ImagemillError as error:
        # A shard will meet the same error and report it to the user.
        log.error("The built-in model could not be loaded: %s", error)
    except ImportError as error:
        leaving.unfit(error)
    except Exception:
        log.exception("The built-in model could not be loaded")


def _warm_up(resources: Resources) -> None:
    from contract.models.registry import Registry
    from worker.execution.capabilities import of_this_process
    from worker.zoo import builtin

    resources.once(load(kind_of("classify").run))  # code that cannot be loaded is found before a shard is taken
    store = resources.backend.store
    store.ensure_bucket()
    registry = Registry(store)
    for (name, version), make in builtin.models().items():
        if not registry.exists(name, version):
            registry.publish(*make(), ships=True)
    models, ref = resources.models, f"{builtin.NAME}@{builtin.VERSION}"
    if resources.once(of_this_process).rule.admits([models.model(ref)]):
        with models.use(ref, "auto"):
            pass
