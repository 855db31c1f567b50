"""Webhooks in the console: hosts alone, what came of each message, and buttons for their owner."""

from __future__ import annotations

import time

import pytest

from contract.keys.bucket import WEBHOOKS
from contract.keys.webhooks import WEBHOOK_OF_ALL
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.outbox import Attempt, Event, Outbox, Outcome
from tests.producer.web.console.conftest import Browse
from tests.serving import Api

URL = "http://127.0.0.1:9/hook/xyzzy"
HOSTILE = "<img src=x onerror=alert(1)>"
PLACE = "/console/webhooks"


def register(api: Api, owner: str = "ann", url: str = URL) -> Endpoint:
    return Endpoints(api.store).register(url, owner, AddressPolicy("127.0.0.1", "1-65535"))


def tell(api: Api, hook: Endpoint, number: int, state: str = "waiting", error: str = "it answered 500") -> str:
    """Tell a webhook of a job that ended `number` hours ago; return the id of the message."""
    at_ms = int((time.time() - number * 3600) * 1000)
    event = Event("job.failed", f"job/job-{number}/0", at_ms, {"job": f"job-{number}"})
    outbox, name = Outbox(api.store), event.name(hook.id)
    outbox.add(event, hook.id, time.time())
    if state != "waiting":
        last = Attempt(at="2026-11-26T00:00:00Z", status=500, seconds=0.25, error=error)
        told = {"state": state, "attempts": 10, "at": last.at, "last": last}
        outbox.finish(hook.id, name, Outcome.model_validate(told))
    return outbox.told(hook.id, name).id


def test_an_owner_sees_what_came_of_each_message_and_steers_it(api: Api, browse: Browse) -> None:
    # Given a webhook with a message in each state,
    hook = register(api)
    place = f"{PLACE}/{hook.id}"
    ids = [tell(api, hook, n, state) for n, state in enumerate(("waiting", "delivered", "failed", "failed"))]
    client, reader, stranger = browse("jobs"), browse("review"), browse("jobs", owner="bob")
    # I expect its host and its newest message in the list, and all of them on its page; a reader has no buttons.
    listed = client.get(PLACE).text
    assert (
        place in listed and "http://<wbr>127.0.0.1:9/…" in listed and "xyzzy" not in listed and "job.failed" in listed
    )
    shown, read = client.get(place).text, reader.get(place).text
    for text in (shown, read):
        assert (
            "2 failed, 1 waiting, 1 delivered" in text
            and "500 <span" in text
            and "in 0.25&nbsp;s" in text
            and "it answered 500" not in text
        )
        assert 'href="/console/jobs/job-2"' in text and "xyzzy" not in text and "whsec_" not in text
    assert all(f'value="{id}"' in shown for id in ids)
    assert "<button" not in read.partition("<main")[2].partition("</main>")[0]
    # If I send one again, and then all that failed, I expect them to wait.
    assert client.post(f"{place}/resend", data={"message": ids[2]}).headers["Location"] == place
    assert "2 waiting, 1 delivered, 1 failed" in client.get(place).text
    assert client.post(f"{place}/resend").status_code == 303
    part = client.get(f"{place}/part").text
    assert "3 waiting, 1 delivered" in part and "<html" not in part
    # If it answered 410, I expect why it is told nothing, and a button that changes that.
    Endpoints(api.store).disable(hook.id, "it answered 410; `imagemill webhooks enable` changes that")
    assert "<code>imagemill webhooks enable</code>" in client.get(place).text
    assert "disabled" in client.get(PLACE).text
    client.post(f"{place}/enable")
    assert "disabled" not in client.get(place).text
    # Nobody else reaches it, and a reader changes nothing.
    assert place not in stranger.get(PLACE).text
    assert {stranger.get(f"{place}{end}").status_code for end in ("", "/part")} == {404}
    for action in ("resend", "enable", "remove"):
        assert reader.post(f"{place}/{action}").status_code == 403
        assert stranger.post(f"{place}/{action}").status_code == 404
        elsewhere = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
        assert client.post(f"{place}/{action}", headers=elsewhere).status_code == 403
    # If its owner removes it, I expect nothing of it to be left.
    assert client.post(f"{place}/remove").headers["Location"] == PLACE
    assert list(api.store.list(WEBHOOKS)) == []
    assert client.get(place).status_code == 404
    assert "imagemill webhooks add" in client.get(PLACE).text


def test_a_page_follows_what_waits_and_nothing_else(api: Api, browse: Browse) -> None:
    hook = register(api)
    tell(api, hook, 0, "delivered")
    assert "hx-get" not in browse("jobs").get(f"{PLACE}/{hook.id}").text
    tell(api, hook, 1)
    assert f'hx-get="{PLACE}/{hook.id}/part"' in browse("jobs").get(f"{PLACE}/{hook.id}").text


def test_messages_come_in_pages(api: Api, browse: Browse) -> None:
    hook, client = register(api), browse("jobs")
    for n in range(13):
        tell(api, hook, n, "delivered")
    first = client.get(f"{PLACE}/{hook.id}").text
    assert "10 delivered" in first and "job-9<" in first and "job-10<" not in first and "Newest messages" not in first
    before = first.partition("?before=")[2].partition('"')[0]
    second = client.get(f"{PLACE}/{hook.id}", params={"before": before}).text
    assert "3 delivered" in second and "job-10<" in second and "Older" not in second and "Newest messages" in second
    unknown = client.get(f"{PLACE}/{hook.id}", params={"before": "msg_1"})
    assert unknown.status_code == 404 and "has no message" in unknown.text


@pytest.mark.parametrize("owner", ["ann", ""])
def test_the_webhook_that_is_told_of_all_has_no_button_that_removes_it(api: Api, browse: Browse, owner: str) -> None:
    hook = register(api, owner)
    admin = browse("admin", owner="root")
    assert "/remove" in admin.get(f"{PLACE}/{hook.id}").text
    api.store.put(WEBHOOK_OF_ALL, hook.id.encode())
    shown = admin.get(f"{PLACE}/{hook.id}").text
    assert "/remove" not in shown and "IMAGEMILL_WEBHOOK_URL" in shown
    refused = admin.post(f"{PLACE}/{hook.id}/remove")
    assert refused.status_code == 422 and "IMAGEMILL_WEBHOOK_URL" in refused.text
    assert (owner or "the operator") in admin.get(PLACE).text


def test_what_a_receiver_answers_stays_text(api: Api, browse: Browse) -> None:
    hook = register(api)
    tell(api, hook, 0, "failed", error=HOSTILE)
    Endpoints(api.store).disable(hook.id, HOSTILE)
    for path in (PLACE, f"{PLACE}/{hook.id}"):
        text = browse("jobs").get(path).text
        assert HOSTILE not in text and "&lt;img" in text
