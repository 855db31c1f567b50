"""`stack.json`: what a running stack tells those who want to use or stop it.

It is there while a stack runs, readable by its owner only. `contract.settings` reads the addresses in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from contract.settings import load, stack_file
from deploy.local.private import write_private


class StackInfo(BaseModel):
    """The content of `stack.json`. An address is missing if the server is not ours."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    state: str
    """`starting` or `running`."""
    data: Path
    pid: int
    workers: int
    most_workers: int | None = None
    """More than `workers` if their number follows the work."""
    bucket: str
    redis_url: str | None = Field(default=None, repr=False)
    online_redis_url: str | None = Field(default=None, repr=False)
    s3_endpoint: str | None = None
    s3_access_key: str | None = Field(default=None, repr=False)
    s3_secret_key: str | None = Field(default=None, repr=False)
    api_url: str | None = None
    """Address of the HTTP API, if it is served."""
    api_token: str | None = Field(default=None, repr=False)
    ports: dict[str, int] = {}
    metrics: dict[str, str] = {}
    """Address by process, of those that show metrics."""

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def public(self) -> dict[str, Any]:
        """Without secrets, for printing; addresses that are not ours come from the settings."""
        settings = load(data=self.data)
        return {
            "state": self.state,
            "data": str(self.data),
            "pid": self.pid,
            "workers": self.workers,
            "most_workers": self.workers if self.most_workers is None else self.most_workers,
            "redis_url": str(settings.redis_url),
            "online_redis_url": str(settings.online_redis_url),
            "s3_endpoint": settings.s3_endpoint,
            "bucket": self.bucket,
            "api_url": self.api_url,
            "logs": str(self.logs),
            "metrics": self.metrics,
        }

    def write(self) -> None:
        write_private(stack_file(self.data), self.model_dump_json(indent=2, exclude_none=True))
