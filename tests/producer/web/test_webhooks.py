"""Webhooks over HTTP: an owner sees and steers its own, and nobody else's."""

from __future__ import annotations

import time

import pytest

from contract.errors import InvalidInput, UnknownWebhook
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.outbox import Attempt, Event, Outbox, Outcome
from producer import HttpClient
from tests.serving import Api

URL = "http://127.0.0.1:9/hook/xyzzy"
POLICY = AddressPolicy("127.0.0.1", "1-65535")


def test_an_owner_makes_a_webhook_names_it_and_reads_its_secret(api: Api, model: str) -> None:
    with HttpClient(api.url, api.token("jobs", owner="ann")) as client:
        made = client.add_webhook(URL)
        assert (made.owner, made.state, made.waiting, made.url) == ("ann", "active", 0, "http://127.0.0.1:9/…")
        assert client.webhooks() == [made] == [client.webhook(made.id)]
        secret = client.webhook_secret(made.id)
        assert secret.startswith("whsec_")

        # If a job names the URL or the id, I expect the same webhook, and the URL in nothing that is said of the job.
        bucket = f"s3://{api.store.bucket}/photos/"
        for n, name in enumerate((URL, made.id)):
            job = client.classify(bucket, model=model, job=f"job-{n}", webhook=name)
            assert "xyzzy" not in job.model_dump_json()
            assert b"xyzzy" not in api.store.get(f"jobs/job-{n}/spec.json")
        assert [one.id for one in client.webhooks()] == [made.id]

        # If the secret is rotated, I expect another, which is then read.
        assert client.rotate_webhook(made.id, keep=60) == client.webhook_secret(made.id) != secret


def test_what_was_given_up_is_listed_and_sent_again(api: Api) -> None:
    with HttpClient(api.url, api.token("jobs", owner="ann")) as client:
        hook, outbox = client.add_webhook(URL), Outbox(api.store)
        for n in range(3):
            event = Event("job.failed", f"job/j{n}/0", int(time.time() * 1000) + n, {"job": f"j{n}"})
            outbox.add(event, hook.id, time.time())
            last = Attempt(at="2026-11-26T00:00:00Z", status=500, error="it answered 500")
            state = "failed" if n else "delivered"
            told = Outcome.model_validate({"state": state, "attempts": 10, "at": last.at, "last": last})
            outbox.finish(hook.id, event.name(hook.id), told)
        found = client.webhook_messages(hook.id)
        assert [one.state for one in found] == ["failed", "failed", "delivered"]
        assert client.webhook_messages(hook.id, limit=1, before=found[0].id) == [found[1]]
        assert {one.id for one in client.resend_webhook(hook.id)} == {found[0].id, found[1].id}
        assert client.webhook(hook.id).waiting == 2
        assert client.resend_webhook(hook.id, [found[2].id])[0].state == "waiting"
        with pytest.raises(UnknownWebhook, match="has no message"):
            client.resend_webhook(hook.id, ["msg_nope"])

        Endpoints(api.store).disable(hook.id, "it answered 410")
        assert client.webhook(hook.id).state == "disabled"
        assert client.enable_webhook(hook.id).state == "active"


def test_nobody_reaches_anothers_webhook_or_that_of_all(api: Api, model: str) -> None:
    # Given a webhook of ann, and one that is told of all,
    endpoints = Endpoints(api.store)
    hooks = [endpoints.register(URL, owner, POLICY).id for owner in ("ann", "")]
    bucket = f"s3://{api.store.bucket}/photos/"
    with HttpClient(api.url, api.token("jobs", owner="bob")) as bob:
        # if bob names them, I expect them to be as unknown as one that is not there.
        assert bob.webhooks() == []
        said = set()
        for id in (*hooks, "wh_" + "0" * 20):
            for call in (
                bob.webhook,
                bob.webhook_secret,
                bob.rotate_webhook,
                bob.webhook_messages,
                bob.resend_webhook,
                bob.enable_webhook,
                lambda name: bob.classify(bucket, model=model, webhook=name),
                lambda name: bob.add_watch("cam", bucket, model=model, webhook=name),
            ):
                with pytest.raises(UnknownWebhook) as caught:
                    call(id)
                said.add(str(caught.value).replace(id, "ID"))
        assert said == {"There is no webhook 'ID'; GET /v1/webhooks lists them."}
    with HttpClient(api.url, api.token("admin", owner="root")) as admin:
        assert sorted(one.id for one in admin.webhooks()) == sorted(hooks)
        assert all(admin.webhook_secret(id).startswith("whsec_") for id in hooks)


def test_a_reviewer_reads_no_secret(api: Api) -> None:
    hook = Endpoints(api.store).register(URL, "ann", POLICY)
    with HttpClient(api.url, api.token("review", owner="ann")) as client:
        assert client.webhook(hook.id).id == hook.id
        for call in (client.webhook_secret, client.rotate_webhook, client.resend_webhook, client.enable_webhook):
            with pytest.raises(InvalidInput, match="scope"):
                call(hook.id)


@pytest.mark.parametrize("url", ["http://10.0.0.1/xyzzy", "http://169.254.169.254/xyzzy", "file:///etc/xyzzy"])
def test_an_inner_address_is_refused_in_one_sentence(api: Api, model: str, url: str) -> None:
    with HttpClient(api.url, api.token("jobs", owner="ann")) as client:
        for call in (
            lambda: client.add_webhook(url),
            lambda: client.classify(f"s3://{api.store.bucket}/photos/", model=model, webhook=url),
        ):
            with pytest.raises(InvalidInput, match="refused") as caught:
                call()
            assert "xyzzy" not in str(caught.value)
