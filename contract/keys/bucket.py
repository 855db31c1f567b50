"""The folders at the top of the bucket."""

from __future__ import annotations

JOBS = "jobs/"
ACTIVE = "active/"
MODELS = "models/"
SCHEDULES = "schedules/"
WATCHES = "watches/"
DATASETS = "datasets/"
SERVED = "served/"
TABLES = "tables/"
"""The rows of each watch as one partitioned table, for other tools."""
FEEDS = "feeds/"
"""Images that producers upload for watches which follow no other prefix; any watch may follow them."""
INDEX = "index/"
TOKENS = "tokens/"
"""Who may use the HTTP API: the hash of each token."""
UPLOADS = "uploads/"
"""What clients of the HTTP API put here with presigned addresses, for jobs to read."""
WEBHOOKS = "webhooks/"
"""Who is told of the ends of jobs, and the messages to them (`contract.web.webhooks`)."""
PROBES = "probes/"

RESERVED = (
    JOBS,
    ACTIVE,
    MODELS,
    SCHEDULES,
    WATCHES,
    DATASETS,
    TABLES,
    SERVED,
    INDEX,
    TOKENS,
    UPLOADS,
    WEBHOOKS,
    PROBES,
    "inputs/",
)
"""Prefixes of the own bucket that no job may write its results to."""


def probe_object(name: str) -> str:
    """Written and read by `imagemill doctor` to see whether the store works."""
    return f"{PROBES}{name}"
