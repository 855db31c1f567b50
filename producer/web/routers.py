"""The routers of the HTTP API, one a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web import about

ROUTERS: Sequence[Callable[[], APIRouter]] = (about.router,)
