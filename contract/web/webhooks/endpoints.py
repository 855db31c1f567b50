"""Where messages go: a URL of an owner, with secrets of its own. Specs and outputs name it by its id alone.

The URL may be a password itself, as that of a chat's incoming webhook is, so it is shown without its path.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import AddressRefused, FetchFailed, InvalidInput, NotOwner, ObjectNotFound, UnknownWebhook
from contract.keys.webhooks import WEBHOOK_RECORDS, parse_webhook, webhook_disabled, webhook_record, webhook_secret
from contract.records import Record
from contract.times import iso
from contract.web.addresses import AddressPolicy, shown
from contract.web.webhooks.signing import new_secret

ID = r"wh_[0-9a-f]{20}"
ROTATION_SECONDS = 86_400.0
"""How long a message is signed with the earlier secret too, after a rotation."""
_MOST_SECRETS = 4
_LONGEST = 2048


class Endpoint(Record):
    """`webhooks/endpoints/<id>.json`; never changed."""

    id: str
    url: str = Field(repr=False)
    owner: str = Field("", description="Who may read its secret; empty: whoever operates the controllers.")
    created_at: str

    @property
    def host(self) -> str:
        """The URL as it may be printed."""
        return hidden(self.url)


class Disabled(Record):
    """`webhooks/disabled/<id>.json`."""

    at: str
    reason: str


class _Secret(Record):
    secret: str = Field(repr=False)
    until: str | None = Field(None, description="Used until then; null: the current one.")


class _Secrets(Record):
    """`webhooks/secrets/<id>.json`, the newest first."""

    secrets: tuple[_Secret, ...] = Field(repr=False)


def hidden(url: str) -> str:
    """Return a URL as it may be printed: scheme, host and port, and no path, which may be a password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "…"
    host = "".join(char for char in parts.hostname or "" if char.isprintable())[:255]
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}/…" if parts.scheme and host else "…"


def endpoint_id(url: str, owner: str) -> str:
    """Return the id of a URL of an owner, the same for whoever asks."""
    return "wh_" + hashlib.sha256(f"{owner}\0{url}".encode()).hexdigest()[:20]


def check_url(url: str, policy: AddressPolicy) -> None:
    """Raise InvalidInput, in one sentence without the URL's path, unless messages may be sent there."""
    try:
        if len(url) > _LONGEST:
            raise AddressRefused(f"Its URL has more than {_LONGEST:,} characters; shorten it.")
        target = policy.target(url)
        policy.resolve(target.host, target.port)
    except (AddressRefused, FetchFailed) as error:
        said = str(error).replace(shown(url), hidden(url)).replace("fetched", "reached").replace(" to fetches", "")
        raise InvalidInput(f"The webhook cannot be used. {said.replace('retry the job later', 'try again')}") from None
    except OSError:
        pass  # the resolver fails for now; each delivery asks again


class Endpoints:
    """The webhooks of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def register(self, url: str, owner: str, policy: AddressPolicy) -> Endpoint:
        """Return the webhook of a URL, made if need be; raises InvalidInput for a URL that may not be reached."""
        check_url(url, policy)
        id = endpoint_id(url, owner)
        found = self.find(id)
        if found is not None:
            return found
        # The secret first: whoever finds the record can sign.
        made = _Secrets(secrets=(_Secret(secret=new_secret()),))
        self._store.put_if_absent(webhook_secret(id), made.to_json())
        self._store.delete(webhook_disabled(id))  # of one that was removed while its receiver answered 410
        endpoint = Endpoint(id=id, url=url, owner=owner, created_at=iso(time.time()) or "")
        self._store.put_if_absent(webhook_record(id), endpoint.to_json())
        return self.get(id)

    def named(self, name: str, owner: str, policy: AddressPolicy) -> Endpoint:
        """Return the webhook of a URL, made if need be, or of an id that `owner` may use.

        Raises InvalidInput, UnknownWebhook and NotOwner.
        """
        return self.owned(name, owner) if re.fullmatch(ID, name) else self.register(name, owner, policy)

    def find(self, id: str) -> Endpoint | None:
        """Return a webhook by its id; None if there is none."""
        if not re.fullmatch(ID, id):
            return None
        try:
            found = Endpoint.model_validate_json(self._store.get(webhook_record(id)))
        except (ObjectNotFound, ValidationError):
            return None
        return found if found.id == id else None

    def get(self, id: str) -> Endpoint:
        """Return a webhook by its id; raises UnknownWebhook."""
        found = self.find(id)
        if found is None:
            what = id if re.fullmatch(ID, id) else hidden(id)
            raise UnknownWebhook(f"There is no webhook {what!r}; `imagemill webhooks list` shows them.")
        return found

    def owned(self, name: str, owner: str) -> Endpoint:
        """Return the webhook that `owner` calls by its id or its URL; raises UnknownWebhook and NotOwner."""
        if not re.fullmatch(ID, name):
            own = self.find(endpoint_id(name, owner)) or self.find(endpoint_id(name, ""))
            return own or self.get(name)
        found = self.get(name)
        if found.owner not in ("", owner):
            raise NotOwner(
                f"The webhook {name} belongs to {found.owner}, and you are {owner}; set IMAGEMILL_OWNER if that is you "
                "too."
            )
        return found

    def all(self) -> Iterator[Endpoint]:
        """Yield every webhook by its id."""
        for entry in self._store.list(WEBHOOK_RECORDS):
            id = parse_webhook(entry.key)
            if id is not None and (found := self.find(id)) is not None:
                yield found

    def exists(self, id: str) -> bool:
        """Return whether there is a webhook of this id, perhaps one that this version cannot read."""
        return self._store.exists(webhook_record(id))

    def remove(self, id: str) -> None:
        """Delete a webhook; whoever removes it deletes its messages, between `silence` and this."""
        self._store.delete(webhook_disabled(id))
        self._store.delete(webhook_record(id))

    # Secrets

    def silence(self, id: str) -> None:
        """Delete the secrets of a webhook, without which nothing can be sent to it."""
        self._store.delete(webhook_secret(id))

    def secrets(self, id: str, now: float | None = None) -> list[str]:
        """Return the secrets that messages are signed with now, the current one first; raises UnknownWebhook."""
        at = time.time() if now is None else now
        return [one.secret for one in self._secrets(id) if one.until is None or _seconds(one.until) > at]

    def rotate(self, id: str, *, keep: float = ROTATION_SECONDS) -> str:
        """Return a new secret; messages are signed with the earlier one too for `keep` seconds."""
        now = time.time()
        before: tuple[_Secret, ...] = ()
        with suppress(UnknownWebhook):  # it is lost or damaged, and this makes another
            before = self._secrets(id)
        earlier = [
            one if one.until is not None else one.model_copy(update={"until": iso(now + keep)})
            for one in before
            if one.until is None or _seconds(one.until) > now
        ]
        made = _Secrets(secrets=(_Secret(secret=new_secret()), *earlier)[:_MOST_SECRETS])
        self._store.put(webhook_secret(id), made.to_json())
        return made.secrets[0].secret

    def _secrets(self, id: str) -> tuple[_Secret, ...]:
        try:
            return _Secrets.model_validate_json(self._store.get(webhook_secret(id))).secrets
        except (ObjectNotFound, ValidationError):
            raise UnknownWebhook(
                f"The webhook {id} has no secret; `imagemill webhooks rotate {id}` makes one."
            ) from None

    # Disabled

    def disabled(self, id: str) -> Disabled | None:
        """Return why a webhook is told nothing, None if it is told."""
        try:
            return Disabled.model_validate_json(self._store.get(webhook_disabled(id)))
        except ObjectNotFound:
            return None

    def disable(self, id: str, reason: str) -> None:
        """Tell a webhook nothing more."""
        self._store.put(webhook_disabled(id), Disabled(at=iso(time.time()) or "", reason=reason).to_json())

    def enable(self, id: str) -> None:
        """Tell a webhook again what happens from now on."""
        self._store.delete(webhook_disabled(id))


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
