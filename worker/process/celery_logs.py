"""Has Celery's own log lines, and what is printed in its processes, be JSON like all others (`IMAGEMILL_LOG=json`)."""

from __future__ import annotations

import logging
from typing import Any

import celery.apps.worker
from celery import Celery
from celery.signals import after_setup_task_logger

from contract.telemetry import logs


def log_as_json(app: Celery) -> None:
    """Log to stderr as JSON, before Celery sets up logging: it keeps a handler that is there, and sets its level."""
    logs.set_up("json", logging.INFO, "")
    after_setup_task_logger.connect(_format)
    # Said in a handler of signals, past logging; what follows is logged.
    celery.apps.worker.safe_say = lambda *_: None
    # The banner of the clock is printed; that of a worker goes to the real stdout, and is left out.
    app.log.redirect_stdouts("WARNING")


def _format(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(logs.JsonFormatter())
