"""All settings, read from `IMAGEMILL_*` variables; the only place that reads the environment.

Where no `IMAGEMILL_REDIS_URL` or `IMAGEMILL_S3_ENDPOINT` is given, the address comes from the stack
file that `imagemill up` writes into the data folder, so that the same commands drive a local stack
and a cluster.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import InvalidSettings, ServiceUnavailable

STACK_FILE = "stack.json"


class Settings(BaseSettings):
    """One field a setting; the variable is `IMAGEMILL_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="IMAGEMILL_", frozen=True, extra="ignore")

    data: Path = Field(Path("./.imagemill"), description="Folder of the embedded stack.")
    redis_url: str = Field("", description="Redis of queue and ledger; empty: the embedded one.")
    s3_endpoint: str = Field("", description="host:port or URL of the store; empty: the embedded one.")
    s3_access_key: str = Field("", description="Access key of the store.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the store.")
    s3_region: str = Field("us-east-1", description="Region used in signatures.")
    bucket: str = Field("imagemill", min_length=3, description="Bucket of jobs, models and outputs.")
    namespace: str = Field("imagemill", pattern=r"^[a-z0-9-]+$", description="Prefix of every Redis key.")

    shard_size: int = Field(512, ge=1, le=4096, description="Items a shard, unless the job says.")
    window: int = Field(256, ge=1, description="Shards of one job that wait or run at a time, at most.")
    lease_seconds: float = Field(30.0, gt=0, description="A shard is free again this long after its worker died.")
    reconcile_seconds: float = Field(10.0, gt=0, description="Time between two ticks of the reconciler.")
    max_attempts: int = Field(3, ge=1, description="Workers a shard may kill before it is bisected.")
    checkpoint_seconds: float = Field(60.0, gt=0, description="Time between two checkpoints of a training, at most.")
    worker_wait_seconds: float = Field(
        60.0, ge=0, description="Seconds a job waits for a worker with the device and precision it needs, then fails."
    )
    stall_seconds: float = Field(300.0, gt=0, description="A worker without progress for so long exits.")
    visibility_timeout: int = Field(3600, ge=1, description="Seconds until Redis hands a task out again.")
    store_patience_seconds: float = Field(120.0, ge=0, description="How long a silent store is waited for.")
    ledger_days: float = Field(7.0, gt=0, description="Days that a finished job stays in Redis.")

    max_image_bytes: int = Field(64 * 2**20, ge=1, description="Larger files become error rows.")
    max_image_pixels: int = Field(100_000_000, ge=1, description="Larger images become error rows.")

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    native_bf16: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the hardware has bf16; on and off pretend, so that tests see other machines."
    )
    runtime: str = Field("auto", pattern="^(auto|openvino|torch)$", description="What runs the model.")
    threads: int = Field(0, ge=0, description="Cores a worker uses; 0: all that it may.")
    batch_size: int = Field(0, ge=0, description="Images a forward pass; 0: the runtime's best.")
    cache_dir: Path = Field(Path("~/.cache/imagemill"), description="Weights and compiled models on this machine.")


def stack_file(data: Path) -> Path:
    """Where `imagemill up` writes the addresses and credentials of its servers."""
    return data / STACK_FILE


def load(**overrides: Any) -> Settings:
    """Settings from the environment and, for addresses that it does not give, the stack file.

    Raises InvalidSettings with the names of the settings that cannot be read.
    """
    try:
        settings = Settings(**overrides)
        path = stack_file(settings.data)
        if path.is_file():
            stack = json.loads(path.read_text())
            found = {k: v for k, v in stack.items() if k in _ADDRESSES and k not in settings.model_fields_set}
            settings = Settings(**{**found, **overrides})
    except ValidationError as error:
        bad = "; ".join(f"IMAGEMILL_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidSettings(f"Settings cannot be read ({bad}); correct the variable and try again.") from error
    return settings


_ADDRESSES = frozenset({"redis_url", "s3_endpoint", "s3_access_key", "s3_secret_key"})


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings of this process, read once; raises ServiceUnavailable where no servers are known."""
    settings = load()
    if not settings.redis_url or not settings.s3_endpoint:
        raise ServiceUnavailable(
            f"No stack runs in {settings.data}; run `imagemill up --detach`, or set IMAGEMILL_REDIS_URL and "
            "IMAGEMILL_S3_ENDPOINT."
        )
    return settings


def addresses_given() -> list[str]:
    """The variables among `IMAGEMILL_REDIS_URL` and `IMAGEMILL_S3_ENDPOINT` that are set."""
    return [name for name in ("IMAGEMILL_REDIS_URL", "IMAGEMILL_S3_ENDPOINT") if os.environ.get(name)]


def use_data(folder: Path) -> None:
    """Point this process and its children to another data folder (`--data`)."""
    os.environ["IMAGEMILL_DATA"] = str(folder)
    current.cache_clear()
