"""Probes: whether a process lives, and whether it is ready, each decided by named checks.

A process that waits for a server lives: whoever restarts it makes the outage worse. So `/livez` asks for progress
alone, and `/readyz` also for servers that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contract.telemetry.routes import Answer, text

Check = Callable[[], str]
"""Returns why it fails, or an empty text."""


class Probe:
    """A page that answers 200 if all checks pass, and else 503 with the reasons, one a line."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def reasons(self) -> list[str]:
        """Return why the probe fails; nothing if it passes."""
        return [f"{name}: {why}" for name, check in self._checks.items() if (why := check())]

    def page(self) -> Answer:
        """Answer `/livez` or `/readyz`."""
        reasons = self.reasons()
        return text(503, "\n".join(reasons)) if reasons else text(200, "ok")
