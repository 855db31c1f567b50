"""All settings, read from `IMAGEMILL_*` variables; the only place that reads the environment.

A variable that is not set may be a file instead: `imagemill_s3_secret_key` in the folder `IMAGEMILL_SECRETS_DIR`, where
containers mount their secrets. If `IMAGEMILL_REDIS_URL` or `IMAGEMILL_S3_ENDPOINT` is given in neither way, the address
comes from the stack file that `imagemill up` writes to the data folder, so the same commands drive a local stack and a
cluster.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from contract.backend.secret_url import SecretUrl
from contract.errors import InvalidSettings, ServiceUnavailable
from contract.records import MOST_IMAGES

STACK_FILE = "stack.json"
_SECRETS_DIR = "IMAGEMILL_SECRETS_DIR"


class Settings(BaseSettings):
    """One field a setting; the variable is `IMAGEMILL_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="IMAGEMILL_", frozen=True, extra="ignore", hide_input_in_errors=True)

    data: Path = Field(Path("./.imagemill"), description="Data folder of the embedded stack.")
    secrets_dir: Path | None = Field(
        None,
        description="Folder with one file per setting, such as `imagemill_redis_url`; variables come first.",
    )
    redis_url: SecretUrl = Field(
        SecretUrl(""),
        description="URL of the Redis that holds queue and ledger, `redis://` or `rediss://` for TLS; empty: the "
        "embedded one.",
    )
    online_redis_url: SecretUrl = Field(
        SecretUrl(""),
        description="URL of the Redis that carries requests to served models and their answers; best one of its own "
        "without persistence, with a `maxmemory` and `noeviction`. Empty: the embedded one beside the embedded "
        "`IMAGEMILL_REDIS_URL`, else none, and no model is served.",
    )
    s3_endpoint: str = Field(
        "", description="`host:port` or URL of the object store, `https://` for TLS; empty: the embedded one."
    )
    s3_access_key: str = Field(
        "",
        repr=False,
        description="Access key of the object store; empty: the credentials of the machine, by the AWS chain.",
    )
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the object store.")
    s3_session_token: SecretStr = Field(
        SecretStr(""), description="Session token of temporary credentials, beside access key and secret key."
    )
    s3_region: str = Field("us-east-1", description="Region that requests are signed for.")
    ca_file: Path | None = Field(
        None,
        description="PEM file of further certificate authorities that may sign for Redis and the object store.",
    )
    bucket: str = Field("imagemill", min_length=3, description="Bucket that holds jobs, models and results.")
    namespace: str = Field("imagemill", pattern=r"^[a-z0-9-]+$", description="Prefix of every Redis key.")

    owner: str = Field(
        "",
        max_length=128,
        pattern=r"^[ -~]*$",
        description="Who owns the jobs, models and schedules that this producer makes; empty: `user@host`.",
    )

    owner_max_slots: int = Field(
        0,
        ge=0,
        description="Shards of one owner's jobs that run at once on a queue, at most; 0: any number. Set it alike on "
        "all workers.",
    )

    pool: str = Field(
        "default",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of the pool that a worker belongs to; workers of a pool are alike, and scaled together.",
    )
    pools: str = Field(
        "",
        description='Pools that the controller scales, as JSON: `{"gpu": {"queues": ["generate"], "min": 0, '
        '"max": 4, "target_seconds": 300, "cold_start_seconds": 120, "cool_down_seconds": 120}}`; empty: one pool '
        "`default` on all queues.",
    )
    shard_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | Literal["auto"] = Field(
        "auto",
        description="Images per shard of a classify job that names no size; auto: as many as the slowest live worker "
        "labels in about 10 s, 256 to 4,096.",
    )
    lease_seconds: float = Field(
        30.0, gt=0, description="Seconds after which another process may take the work of one that died."
    )
    speculation: Literal["on", "off"] = Field(
        "on",
        description="Whether a worker for which nothing else is left runs a second copy of a shard that takes another "
        "worker more than twice as long as the job's shards usually take. Read by workers and controller.",
    )
    reconcile_seconds: float = Field(10.0, gt=0, description="Seconds between two rounds of the reconciler.")
    max_attempts: int = Field(
        3,
        ge=1,
        description="Processes that must die of a shard, all but the first while it runs alone, before it is split in "
        "two; also the workers on which it must raise before its job fails.",
    )
    fault_seconds: float = Field(
        120.0,
        ge=0,
        description="Seconds for which a shard must raise, on several workers, before its job fails.",
    )
    grace_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds that the platform gives a process from SIGTERM to SIGKILL, as Kubernetes' "
        "`terminationGracePeriodSeconds`. 15 seconds before they are over, or halfway if they are fewer than 30, a "
        "worker hands back the shards that have not ended.",
    )
    plan_processes: int = Field(
        4, ge=1, le=64, description="Jobs that a controller plans at the same time, each in a process of its own."
    )
    plan_memory_mb: int = Field(
        128,
        ge=32,
        description="Megabytes (2^20 bytes) that planning one job may take beyond what a planner starts with.",
    )
    plan_stall_seconds: float = Field(
        60.0, gt=0, description="Seconds without progress after which the planner of a job is ended."
    )
    watch_segment_seconds: float = Field(
        3600.0, gt=0, description="Seconds after which a watch closes a segment, whose job then ends."
    )
    watch_segment_images: int = Field(
        100_000, ge=1, le=1_000_000, description="Images after which a watch closes a segment."
    )
    watch_sweep_seconds: float = Field(
        600.0,
        gt=0,
        description="Seconds between two full listings of a watched prefix, for keys that sort before what was found; "
        "longer where a listing takes more than a twentieth of that.",
    )
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="Longest time in seconds between two checkpoints of a training."
    )
    worker_wait_seconds: float = Field(
        60.0, ge=0, description="Seconds a job waits for a worker with the device and precision it needs, then fails."
    )
    stall_seconds: float = Field(
        300.0, gt=0, description="Seconds without progress on a shard after which its worker exits."
    )
    visibility_timeout: int = Field(3600, ge=1, description="Seconds before an unacknowledged task is redelivered.")
    store_patience_seconds: float = Field(
        120.0, ge=0, description="Seconds to wait for an object store that does not answer."
    )
    keep_days: float = Field(
        0.0, ge=0, description="Days after its end that a job without `--keep-days` is deleted; 0: never."
    )
    keep_uploads_days: float = Field(
        7.0,
        ge=0,
        description="Days after which an upload over HTTP that no job or schedule named is deleted; 0: never.",
    )
    ledger_days: float = Field(7.0, gt=0, description="Days before Redis forgets a finished job; the bucket keeps it.")

    fetch_seconds: float = Field(
        30.0, gt=0, description="Seconds for one image from the web, over all redirects and retries; then an error row."
    )
    fetch_host_lanes: int = Field(8, ge=1, description="Images fetched at once from one web host, beside slow ones.")
    fetch_lanes: int = Field(128, ge=4, description="Images that a worker fetches at once from the web, slow ones too.")
    fetch_allow: str = Field(
        "",
        description="Hosts (`img.corp`, `*.img.corp`) and networks (`10.1.0.0/16`) to fetch from although they are not "
        "public, with commas between.",
    )
    fetch_ports: str = Field(
        "", description="Ports to fetch from beside 80 and 443, as `8080, 9000-9010`, with commas between."
    )
    fetch_buckets: str = Field(
        "",
        description="Buckets that `s3://` items may name beside the own one and that of the job's source, with commas "
        "between.",
    )

    log: Literal["text", "json"] = Field(
        "text",
        description="How worker, controller, clock, HTTP API and embedded stack write their logs: as text, or as JSON, "
        "one object a line with time, level, logger and message, and with worker, job, shard, attempt, request and "
        "trace where they are known.",
    )
    traces: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of jobs, and of requests to the HTTP API, that are traced with OpenTelemetry, over "
        "OTLP/HTTP to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; errors are sent of all. Empty: no traces.",
    )
    metrics_port: str = Field(
        "",
        pattern=r"^(\d{1,5}(-\d{1,5})?)?$",
        description="Port of a worker, a controller or `imagemill web` for `/livez`, `/readyz` and `/metrics`, or a "
        "range such as `9464-9495`, of which each process takes the first free one; empty or 0: none.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address that the port for metrics listens on; `0.0.0.0` in a container. It asks for no password.",
    )

    events_token: SecretStr = Field(
        SecretStr(""),
        description="Token with which object stores post events to `/v1/events` on the controller's port, 16 "
        "characters or more; empty: no events are taken.",
    )

    webhook_url: SecretStr = Field(
        SecretStr(""),
        description="URL to which the controller posts the end of every job, whoever submitted it, and each tick of "
        "a schedule that starts a job or cannot; empty: only what `--webhook` names. Set it alike on all controllers.",
    )

    web_host: str = Field("127.0.0.1", description="Address that `imagemill web` listens on.")
    web_port: int = Field(8080, ge=0, le=65535, description="Port that `imagemill web` listens on; 0: a free one.")
    web_hosts: str = Field(
        "",
        description="Names under which clients reach the HTTP API, as their `Host` header says, with commas between; "
        "empty: localhost, 127.0.0.1 and the address that it listens on.",
    )
    web_s3_endpoint: str = Field(
        "",
        description="Address of the object store in the links for uploads that the HTTP API hands out, where clients "
        "reach it under another one than the server: `host:port` or URL; empty: `IMAGEMILL_S3_ENDPOINT`.",
    )
    api_url: str = Field(
        "", description="Address of the HTTP API for `HttpClient`, `http://` or `https://`; empty: the embedded one."
    )
    api_token: SecretStr = Field(
        SecretStr(""), description="Token of the HTTP API for `HttpClient`, as `imagemill tokens create` prints it."
    )

    max_image_bytes: int = Field(
        64 * 2**20, ge=1, description="Largest image file in bytes; a larger one becomes an error row."
    )
    max_image_pixels: int = Field(
        100_000_000, ge=1, description="Largest image in pixels; a larger one becomes an error row."
    )
    memory: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Memory for images of one worker process, such as 2GiB; 0: a quarter of what it may use, at most "
        "512 MiB and 512 MiB more for each core.",
    )

    decode_in: Literal["process", "thread"] = Field(
        "process", description="Decode images in processes without credentials, or in threads of the worker."
    )
    decoder: Literal["pillow", "nvimgcodec"] = Field(
        "pillow",
        description="Decoder of the JPEG files that classifiers label: pillow, or nvimgcodec, which decodes plain ones "
        "on the worker's GPU, to pixels that differ by a few levels; Pillow decodes what it does not.",
    )
    decode_seconds: float = Field(
        10.0,
        gt=0,
        description="CPU seconds that decoding one image may take in a process; then an error row.",
    )

    models: str = Field(
        "",
        description="Models that a worker loads: `NAME`, `NAME@VERSION` or a pattern with `*`, with commas between; "
        "empty: all. Jobs that load another go to other workers.",
    )
    programs: Literal["on", "confined", "off"] = Field(
        "on",
        description="Pushed programs that a worker takes beside those it trusts: on, all; confined, all if its machine "
        "has every layer of confinement, or else none; off, none.",
    )
    trusted_models: str = Field(
        "",
        description="Pushed programs that run inside the worker, not in a confined process: `NAME`, `NAME@VERSION` or "
        "a pattern with `*`, with commas between.",
    )
    device: str = Field("auto", description="Device that models run on: auto, cpu, cuda or cuda:N.")
    device_memory: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Memory of the device, such as 8GiB, that a worker offers to models; 0: all that the device has.",
    )
    resize: Literal["auto", "device", "cpu"] = Field(
        "auto",
        description="Where images are resized for classifiers, to the same pixels: cpu, while decoding; device, "
        "where torch runs the model; auto, on a GPU if Triton is installed, otherwise on the CPU.",
    )
    native_bf16: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the hardware has bf16; on and off pretend, so that tests see other machines."
    )
    runtime: str = Field(
        "auto", pattern="^(auto|openvino|torch)$", description="Runtime of classifiers: auto, openvino or torch."
    )
    threads: int = Field(0, ge=0, description="CPU cores that a worker uses; 0: all that it may use.")
    batch_size: int = Field(0, ge=0, description="Images per forward pass; 0: the best size for the runtime.")
    cache_dir: Path = Field(
        Path("~/.cache/imagemill"), description="Folder for downloaded weights and compiled models."
    )
    state_dir: Path = Field(
        Path("~/.local/state/imagemill"),
        description="Folder in which `imagemill watch upload` remembers what it has sent.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then variables, then the files of `IMAGEMILL_SECRETS_DIR`."""
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=_secrets_dir())

    @field_validator("traces", mode="before")
    @classmethod
    def _no_traces(cls, value: Any) -> Any:
        """Read an empty variable as no traces."""
        return None if value == "" else value

    @field_validator("events_token")
    @classmethod
    def _no_guess(cls, value: SecretStr) -> SecretStr:
        """Refuse a token that can be guessed, or that no header can hold."""
        text = value.get_secret_value()
        if text and not re.fullmatch(r"[!-~]{16,512}", text):
            raise ValueError("it must be 16 to 512 printable ASCII characters without spaces")
        return value

    @field_validator("ca_file", "secrets_dir", mode="before")
    @classmethod
    def _no_file(cls, value: Any) -> Any:
        """Read an empty variable as no file."""
        return value or None

    @property
    def owns_as(self) -> str:
        """What this producer calls itself: `owner`, or the user and the host."""
        if self.owner:
            return self.owner
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a container without a user of this number
            user = str(os.getuid())
        return f"{user}@{socket.gethostname()}"


def stack_file(data: Path) -> Path:
    """Return the file to which `imagemill up` writes the addresses and credentials of its servers."""
    return data / STACK_FILE


def load(**overrides: Any) -> Settings:
    """Return the settings of the environment, with missing addresses from the stack file.

    Raises InvalidSettings, naming the variables that are invalid.
    """
    try:
        settings = Settings(**overrides)
        path = stack_file(settings.data)
        if path.is_file():
            stack = json.loads(path.read_text())
            found = {k: v for k, v in stack.items() if k in _ADDRESSES and k not in settings.model_fields_set}
            if "redis_url" in settings.model_fields_set:
                found.pop("online_redis_url", None)  # it belongs to the ledger of the stack
            settings = Settings(**{**found, **overrides})
        _check_authorities(settings)
        _check_fetches(settings)
    except ValidationError as error:
        bad = "; ".join(f"IMAGEMILL_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidSettings(f"Settings cannot be read ({bad}); correct the variable and try again.") from error
    except OSError as error:
        raise InvalidSettings(
            f"{error.filename} cannot be read ({error.strerror}); let the user of this process read it."
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidSettings(f"{path} is damaged ({error}); run `imagemill down`, then `imagemill up`.") from error
    return settings


def _secrets_dir() -> Path | None:
    """Return the folder of `IMAGEMILL_SECRETS_DIR`; raises InvalidSettings if it is not a folder."""
    folder = Path(named).expanduser() if (named := os.environ.get(_SECRETS_DIR)) else None
    if folder is not None and not folder.is_dir():
        raise InvalidSettings(
            f"{_SECRETS_DIR} names {folder}, which is no folder; mount the secrets there or unset it."
        )
    return folder


def _check_fetches(settings: Settings) -> None:
    """Refuse hosts and ports that open nothing, before this machine takes a job that needs them."""
    if settings.fetch_allow or settings.fetch_ports:
        from contract.web.addresses import AddressPolicy  # it needs this module

        AddressPolicy.of(settings)


def _check_authorities(settings: Settings) -> None:
    """Refuse authorities that vouch for nothing: whoever names them expects TLS."""
    given = settings.redis_url and settings.s3_endpoint
    redis_tls = settings.redis_url.get_secret_value().startswith("rediss://")
    if settings.ca_file and given and not redis_tls and not settings.s3_endpoint.lower().startswith("https://"):
        raise InvalidSettings(
            "IMAGEMILL_CA_FILE is set, but nothing is encrypted; write rediss://… in IMAGEMILL_REDIS_URL or https://… "
            "in IMAGEMILL_S3_ENDPOINT, or unset it."
        )


_ADDRESSES = frozenset(
    {"redis_url", "online_redis_url", "s3_endpoint", "s3_access_key", "s3_secret_key", "api_url", "api_token"}
)


@lru_cache(maxsize=1)
def current() -> Settings:
    """Return the settings of this process, read once; raises ServiceUnavailable if no servers are known."""
    settings = load()
    if not settings.redis_url or not settings.s3_endpoint:
        raise ServiceUnavailable(
            f"No stack runs in {settings.data}; run `imagemill up --detach`, or set IMAGEMILL_REDIS_URL and "
            "IMAGEMILL_S3_ENDPOINT."
        )
    return settings


def of_the_store() -> Settings:
    """Return the settings of this process for what needs no Redis; raises ServiceUnavailable if no store is known."""
    settings = load()
    if not settings.s3_endpoint:
        raise ServiceUnavailable(
            f"No stack runs in {settings.data}; run `imagemill up --detach`, or set IMAGEMILL_S3_ENDPOINT."
        )
    return settings


def addresses_given() -> list[str]:
    """Return where the addresses of Redis and of the object store are given: variables, or files of secrets."""
    folder = _secrets_dir()
    given = []
    for name in ("IMAGEMILL_REDIS_URL", "IMAGEMILL_S3_ENDPOINT"):
        if os.environ.get(name):
            given.append(name)
        elif folder is not None and (path := folder / name.lower()).is_file():
            given.append(str(path))
    return given


def use_data(folder: Path) -> None:
    """Point this process and its children to another data folder (`--data`)."""
    os.environ["IMAGEMILL_DATA"] = str(folder)
    current.cache_clear()
