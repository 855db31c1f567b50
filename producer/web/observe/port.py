"""The port of the web process for probes and Prometheus, apart from that of clients (`IMAGEMILL_METRICS_PORT`).

It asks for no token and has no TLS, so that neither a proxy nor an ingress leads to it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from contract import instruments
from contract.errors import InvalidSettings
from contract.models.registry import imagemill_version
from contract.settings import Settings
from contract.telemetry import meters
from contract.telemetry.probes import Probe
from contract.telemetry.prometheus import Metrics
from contract.telemetry.routes import Routes
from contract.telemetry.server import Server, parse_ports
from producer.web.observe.health import Readiness
from producer.web.observe.traffic import Traffic

log = logging.getLogger(__name__)

_TURN_SECONDS = 1.0
_STILL_SECONDS = 60.0
"""The event loop hangs when it has not turned for so long."""
_LOOK_SECONDS = 5.0
"""Between two looks at the servers behind this one."""


class Port:
    """The port, what its probes know, and the thread that looks at servers for them.

    `answered` gives for each server when it last answered, by the monotonic clock. Raises InvalidSettings for a port
    that is none.
    """

    def __init__(
        self, settings: Settings, ready: Readiness, answered: Mapping[str, Callable[[], float | None]], traffic: Traffic
    ) -> None:
        self._ports, self._host = parse_ports(settings.metrics_port), settings.metrics_host
        self._answered, self._traffic, self._ready = answered, traffic, ready
        self._live = Probe({"loop": self._turns})
        self._serves = Probe({"servers": lambda: ", ".join(ready.last())})
        self._begun_at = self._turned_at = time.monotonic()
        self._stop = threading.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """Serve the port while the block runs, if there is to be one; yield its address, or an empty text.

        Requests are answered without it all the same, and the log says why there is none.
        """
        server = self._open() if self._ports else None
        if server is None:
            yield ""
            return
        turning = asyncio.create_task(self._turn())
        looking = threading.Thread(target=self._look, name="observer", daemon=True)
        looking.start()
        try:
            yield server.address
        finally:
            turning.cancel()
            self._stop.set()
            meters.record_with(None)
            await asyncio.to_thread(server.close)

    def _open(self) -> Server | None:
        routes = Routes()
        routes.add("/livez", self._live.page)
        routes.add("/readyz", self._serves.page)
        server = Server(routes, self._host, self._ports)
        try:
            log.info("Probes and metrics are at http://%s", server.open())
        except InvalidSettings as error:
            log.error("There are no probes and no metrics: %s", error)
            return None
        try:
            metrics = Metrics(["web"])
        except InvalidSettings as error:
            log.error("There are no metrics: %s", error)
            return server
        metrics.before_each_scrape(self._refresh)
        meters.record_with(metrics)
        instruments.BUILD_INFO.set(1, imagemill_version(), "web", "")
        routes.add("/metrics", metrics.page)
        return server

    async def _turn(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(_TURN_SECONDS)

    def _turns(self) -> str:
        idle = time.monotonic() - self._turned_at
        return f"it has not turned for {idle:.0f} s" if idle > _STILL_SECONDS else ""

    def _look(self) -> None:
        """Look at the servers now and then, so that a probe or a scrape need not wait for them."""
        while True:
            try:
                self._ready.reasons()
            except Exception:
                log.exception("The servers behind this one cannot be looked at")
            if self._stop.wait(_LOOK_SECONDS):
                return

    def _refresh(self) -> None:
        """Set the gauges that are read off this process."""
        self._traffic.show()
        instruments.LIVE.set(not self._live.reasons())
        instruments.READY.set(not self._serves.reasons())
        for service, answered_at in self._answered.items():
            at = answered_at()
            instruments.ANSWERED_AGE_SECONDS.set(time.monotonic() - (self._begun_at if at is None else at), service)
