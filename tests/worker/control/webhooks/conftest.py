"""A webhook, its receiver, and a job that has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, Source
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from tests.hooks import Receiver

POLICY = AddressPolicy("127.0.0.1", "1-65535")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as made:
        yield made


@pytest.fixture
def hook(store: ObjectStore, receiver: Receiver) -> Endpoint:
    """The webhook of the receiver, ann's."""
    return Endpoints(store).register(receiver.url(), "ann", POLICY)


@pytest.fixture
def ended(backend: Backend) -> Callable[..., str]:
    """Submits a job, and ends it."""

    def end(id: str, webhook: str | None, state: str = "succeeded", **details: object) -> str:
        spec = Classify(
            id=id,
            source=Source(
                kind="prefix", uri=f"s3://{backend.store.bucket}/p/", label="https://host.test/l?signature=xyzzy"
            ),
            model="m@1",
            weights_sha256="0" * 64,
            output=f"s3://{backend.store.bucket}/jobs/{id}/out/",
            webhook=webhook,
        )
        lifecycle.submit(backend, spec, "ann")
        lifecycle.close(backend, id, state, **details)  # type: ignore[arg-type]
        return id

    return end
