"""A webhook is one for each URL of an owner; its secrets rotate, and its path is never shown."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, NotOwner, UnknownWebhook
from contract.keys.webhooks import webhook_record
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints, hidden

URL = "https://hooks.test/services/T0/B0/xyzzy"
OPEN = AddressPolicy("hooks.test", resolver=lambda *_: ["127.0.0.1"])


def test_the_same_url_of_an_owner_is_one_webhook(store: ObjectStore) -> None:
    endpoints = Endpoints(store)
    first = endpoints.register(URL, "ann", OPEN)
    secret = endpoints.secrets(first.id)

    # If it is named again, I expect the same with the same secret; another owner's is another, with another secret.
    assert endpoints.register(URL, "ann", OPEN) == first
    assert endpoints.secrets(first.id) == secret
    theirs = endpoints.register(URL, "bob", OPEN)
    assert theirs.id != first.id
    assert endpoints.secrets(theirs.id) != secret
    assert {one.id for one in endpoints.all()} == {first.id, theirs.id}


def test_an_owner_reaches_it_by_id_and_by_url_and_nobody_else_does(store: ObjectStore) -> None:
    endpoints = Endpoints(store)
    made = endpoints.register(URL, "ann", OPEN)
    assert endpoints.owned(made.id, "ann") == endpoints.owned(URL, "ann") == made
    with pytest.raises(NotOwner, match="belongs to ann"):
        endpoints.owned(made.id, "bob")
    with pytest.raises(UnknownWebhook) as caught:
        endpoints.owned(URL, "bob")
    assert "xyzzy" not in str(caught.value)


def test_a_rotation_keeps_the_earlier_secret_for_a_while(store: ObjectStore) -> None:
    endpoints = Endpoints(store)
    id = endpoints.register(URL, "ann", OPEN).id
    (first,) = endpoints.secrets(id)
    second = endpoints.rotate(id, keep=3600)
    assert endpoints.secrets(id) == [second, first]

    # Once that is over, I expect the new one alone, and with no time at all at once.
    import time

    assert endpoints.secrets(id, now=time.time() + 3601) == [second]
    third = endpoints.rotate(id, keep=0)
    assert endpoints.secrets(id, now=time.time() + 1) == [third, first]


def test_records_hold_no_secret_and_print_no_path(store: ObjectStore) -> None:
    made = Endpoints(store).register(URL, "ann", OPEN)
    assert "xyzzy" not in repr(made)
    assert b"whsec_" not in store.get(webhook_record(made.id))
    assert made.host == "https://hooks.test/…"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host.test/x", "https://host.test/…"),
        ("http://[::1]:8080/x?token=1", "http://[::1]:8080/…"),
        ("https://host.test:99999/x", "…"),
        ("nonsense", "…"),
        ("https://[::1/x", "…"),
    ],
)
def test_of_a_url_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert hidden(url) == shown


def test_a_url_that_may_not_be_reached_is_one_sentence_without_its_path(store: ObjectStore) -> None:
    inside = AddressPolicy(resolver=lambda *_: ["10.1.2.3"])
    for url in [
        URL,
        "http://127.0.0.1/xyzzy",
        "http://169.254.169.254/xyzzy",
        "ftp://hooks.test/xyzzy",
        "https://a:xyzzy@hooks.test/",
        "https://hooks.test:22/xyzzy",
        "https://hooks.test/xyzzy\r\nX-Injected: 1",
        "https://hooks.test/" + "xyzzy" * 1000,
    ]:
        with pytest.raises(InvalidInput) as caught:
            Endpoints(store).register(url, "ann", inside)
        said = str(caught.value)
        assert said.startswith("The webhook cannot be used. ")
        assert "\n" not in said
        assert "xyzzy" not in said, said
    assert list(Endpoints(store).all()) == []
