"""Webhooks over HTTP: an owner sees and steers its own, and nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, UnknownWebhook
from contract.keys.bucket import WEBHOOKS
from contract.keys.webhooks import WEBHOOK_OF_ALL
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.outbox import Attempt, Event, Outbox, Outcome
from producer import HttpClient
from producer.jobs.webhooks import remove
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


def test_a_webhook_is_removed_with_its_messages_and_what_names_it_goes_on(api: Api, model: str) -> None:
    # Given a webhook that answered 410, with a message that waits and one that does not, and a watch that names it,
    with HttpClient(api.url, api.token("jobs", owner="ann")) as client:
        hook, outbox = client.add_webhook(URL), Outbox(api.store)
        secret = client.webhook_secret(hook.id)
        events = [Event("job.failed", f"job/j{n}/0", int(time.time() * 1000), {}) for n in range(2)]
        for event in events:
            outbox.add(event, hook.id, time.time())
        outbox.finish(hook.id, events[0].name(hook.id), Outcome(state="failed", attempts=1, at="2026-11-26T00:00:00Z"))
        Endpoints(api.store).disable(hook.id, "it answered 410")
        client.add_watch("camera", f"s3://{api.store.bucket}/photos/", model=model, webhook=hook.id)
        # if it is removed, I expect nothing of it to be left, and a sentence for whoever names it,
        client.remove_webhook(hook.id)
        assert list(api.store.list(WEBHOOKS)) == []
        assert client.webhooks() == []
        for call in (client.webhook, client.remove_webhook, client.webhook_messages, client.resend_webhook):
            with pytest.raises(UnknownWebhook, match="There is no webhook"):
                call(hook.id)
        assert client.watch("camera").state != "paused"
        # and if the URL is added again, the same id, another secret and no messages.
        again = client.add_webhook(URL)
        assert (again.id, again.state, again.waiting) == (hook.id, "active", 0)
        assert client.webhook_secret(hook.id) != secret
        assert client.webhook_messages(hook.id) == []


def test_a_removal_that_breaks_off_sends_nothing_and_is_repeated(settings: Settings, store: ObjectStore) -> None:
    # Given a removal that ends before each of its deletions in turn,
    class Ends(Exception): ...

    class Breaking(ObjectStore):
        left = 0

        def delete(self, key: str, *, bucket: str = "", etag: str = "") -> None:
            self._count()
            super().delete(key, bucket=bucket, etag=etag)

        def delete_all(self, keys: Iterable[str]) -> None:
            self._count()
            super().delete_all(keys)

        def _count(self) -> None:
            if self.left == 0:
                raise Ends
            self.left -= 1

    endpoints = Endpoints(store)
    ends = 0
    while True:
        hook = endpoints.register(URL, "ann", POLICY)
        Outbox(store).add(Event("job.failed", "job/a/0", int(time.time() * 1000), {}), hook.id, time.time())
        with closing(Breaking(settings)) as breaking:
            breaking.left = ends
            try:
                remove(breaking, hook)
                break
            except Ends:
                ends += 1
        # I expect that nothing can be signed any more once anything is gone, and that the removal can be repeated.
        if ends > 1:
            with pytest.raises(UnknownWebhook, match="has no secret"):
                endpoints.secrets(hook.id)
        remove(store, endpoints.get(hook.id))
        assert list(store.list(WEBHOOKS)) == []
    assert ends == 4


def test_the_webhook_that_is_told_of_all_is_not_removed(api: Api) -> None:
    hook = Endpoints(api.store).register(URL, "", POLICY)
    api.store.put(WEBHOOK_OF_ALL, hook.id.encode())
    with HttpClient(api.url, api.token("admin", owner="root")) as admin:
        with pytest.raises(InvalidInput, match="IMAGEMILL_WEBHOOK_URL"):
            admin.remove_webhook(hook.id)
        assert admin.webhook_secret(hook.id)
        api.store.delete(WEBHOOK_OF_ALL)
        admin.remove_webhook(hook.id)
        assert admin.webhooks() == []


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
                bob.remove_webhook,
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
        for call in (
            client.webhook_secret,
            client.rotate_webhook,
            client.resend_webhook,
            client.enable_webhook,
            client.remove_webhook,
        ):
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
