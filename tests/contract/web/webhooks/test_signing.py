"""Messages are signed as Standard Webhooks has it, and its reference library says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from contract.web.webhooks.signing import headers, new_secret, sign

BODY = '{"type": "job.succeeded", "data": {"job": "animals", "label": "Bär"}}'.encode()


def test_a_signature_is_that_of_the_reference_library() -> None:
    secret, at = new_secret(), int(time.time())
    theirs = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), BODY.decode())
    assert sign(secret, "msg_1", at, BODY) == theirs


def test_the_reference_library_reads_a_message_and_no_other() -> None:
    secret, at = new_secret(), int(time.time())
    told = headers([secret], "msg_1", at, BODY)
    assert Webhook(secret).verify(BODY, told)["data"]["job"] == "animals"

    # If the body, the id or the secret is another, I expect a refusal.
    for body, changed, by in [
        (BODY.replace(b"animals", b"animale"), told, secret),
        (BODY, {**told, "webhook-id": "msg_2"}, secret),
        (BODY, told, new_secret()),
    ]:
        with pytest.raises(WebhookVerificationError):
            Webhook(by).verify(body, changed)


def test_during_a_rotation_either_secret_reads_it() -> None:
    earlier, later = new_secret(), new_secret()
    told = headers([later, earlier], "msg_1", int(time.time()), BODY)
    assert Webhook(earlier).verify(BODY, told) == Webhook(later).verify(BODY, told)


def test_secrets_are_256_bits_that_nobody_has() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("whsec_") and len(secret) == 50 for secret in made)
