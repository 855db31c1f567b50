"""Where the embedded S3 server posts what is written: to the controller of its stack, with a token of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.settings import Settings
from deploy.local import metrics

PATH = "/v1/events"
"""As in `worker.control.watching.events`."""


@dataclass(frozen=True)
class EventsHook:
    """The port at which a controller takes events, `127.0.0.1:11234`, and the token that it asks for."""

    address: str
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.address}{PATH}"

    def environment(self) -> Mapping[str, str]:
        """Return the variables that have a controller take events."""
        return {**metrics.environment(self.address), "IMAGEMILL_EVENTS_TOKEN": self.token}


def hook_of(settings: Settings, address: str, token: str) -> EventsHook | None:
    """Return the hook, with the user's token if there is one.

    Return None if `IMAGEMILL_METRICS_PORT` decides about ports: it may be a range, and nobody knows which of them the
    controller gets. Watches are swept all the same.
    """
    if settings.metrics_port not in ("", "0"):
        return None
    return EventsHook(address, settings.events_token.get_secret_value() or token)
