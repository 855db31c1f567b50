"""Makes the table of a watch a Delta table too: each segment is one transaction that names the files it has written.

Nothing is copied; `_delta_log/` lies beside the partitions. A transaction carries an app id, the segment, and a
version, the run of its job. Whoever finds them in the log has nothing to commit, so a segment is there once.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from contract.backend.credentials import credentials_of
from contract.backend.wire import authorities, store_address
from contract.errors import ImagemillError, InvalidSettings, StoreUnavailable
from contract.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DeltaFile:
    """A file as the log names it."""

    key: str
    rows: int
    bytes: int


class DeltaLog:
    """The Delta log of the table at an s3:// prefix. Raises StoreUnavailable if the log cannot be read or written."""

    def __init__(self, settings: Settings, table: str) -> None:
        """Raise InvalidSettings if `deltalake` is not installed."""
        try:
            import deltalake
        except ImportError as error:
            raise InvalidSettings(
                "A watch was added with --delta and `deltalake` is not installed here; run "
                "pip install 'imagemill[delta]' for the controllers."
            ) from error
        self._lake: Any = deltalake
        self._uri = table.rstrip("/")
        self._options = _storage(settings)
        self._trusted = _trusted(settings)

    def committed(self, segment: int) -> int | None:
        """Return the newest run of a segment's job that is in the table, or None."""
        table = self._open()
        found = table.transaction_version(_app(self._uri, segment)) if table else None
        return None if found is None else int(found)

    def files(self, segment: int) -> list[DeltaFile]:
        """Return the files of a segment that the newest version of the table names, in the order of their keys."""
        table = self._open()
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        mine = [one for one in actions if f"/part-{segment:06d}-" in one["path"]]
        found = [DeltaFile(one["path"], one["num_records"], one["size_bytes"]) for one in mine]
        return sorted(found, key=lambda file: file.key)

    def commit(self, segment: int, run: int, files: Sequence[DeltaFile], schema: pa.Schema, now: float) -> None:
        """Add the files of a segment in one transaction, in place of those of an earlier run."""
        lake, millis = self._lake, int(now * 1000)
        table = self._open() or self._created(_schema(schema))
        transactions = [lake.Transaction(_app(self._uri, segment), run, millis)]
        actions: list[Any] = [lake.transaction.RemoveAction(file.key, True, millis) for file in self.files(segment)]
        actions += [
            lake.transaction.AddAction(
                file.key, file.bytes, _partition(file.key), millis, True, json.dumps({"numRecords": file.rows})
            )
            for file in files
        ]
        try:
            known = {field.name for field in table.schema().fields}
            if fresh := [one for one in lake.Schema.from_arrow(_schema(schema)).fields if one.name not in known]:
                table.alter.add_columns(fresh)
            table.create_write_transaction(
                actions,
                "append",
                table.schema(),
                partition_by=["dt", "hour"],
                commit_properties=lake.CommitProperties(app_transactions=transactions),
            )
        except (lake.exceptions.DeltaError, OSError, ValueError) as error:  # a conflict may be a plain ValueError
            raise _unavailable(self._uri, error) from error

    def _open(self) -> DeltaTable | None:
        try:
            found: DeltaTable = self._lake.DeltaTable(self._uri, storage_options=self._options)
        except self._lake.exceptions.TableNotFoundError:
            return None
        except (self._lake.exceptions.DeltaError, OSError, ValueError) as error:
            raise _unavailable(self._uri, error) from error
        return found

    def _created(self, schema: pa.Schema) -> DeltaTable:
        try:
            made: DeltaTable = self._lake.DeltaTable.create(
                self._uri,
                self._lake.Schema.from_arrow(schema),
                mode="ignore",
                partition_by=["dt", "hour"],
                storage_options=self._options,
            )
        except (self._lake.exceptions.DeltaError, OSError, ValueError) as error:
            raise _unavailable(self._uri, error) from error
        return made


def _app(uri: str, segment: int) -> str:
    return f"imagemill/{uri.rpartition('/')[2]}/{segment:06d}"


def _schema(rows: pa.Schema) -> pa.Schema:
    """Return the columns of the table. Delta knows microseconds only, which readers make of milliseconds."""
    fields = [
        pa.field(one.name, pa.timestamp("us", one.type.tz) if pa.types.is_timestamp(one.type) else one.type)
        for one in rows
    ]
    return pa.schema([*fields, pa.field("dt", pa.date32()), pa.field("hour", pa.int32())])


def _partition(key: str) -> dict[str, str | None]:
    """Return the values of the partition that a key names: `dt=2026-11-26/hour=08/part-…`."""
    pairs = (part.partition("=") for part in key.split("/")[:-1])
    return {name: None if value == _NULL else str(int(value)) if name == "hour" else value for name, _, value in pairs}


def _trusted(settings: Settings) -> IO[bytes] | None:
    """Have the library trust the authorities of `IMAGEMILL_CA_FILE` beside those of the system.

    It takes no option for them, only a file that the environment names, which then stands for all. Return the file; it
    must live as long as the library is used. A segment has a process of its own, so nobody else's environment changes.
    """
    own = authorities(settings)
    if own is None:
        return None
    system = (ssl.DER_cert_to_PEM_cert(one) for one in ssl.create_default_context().get_ca_certs(binary_form=True))
    bundle = NamedTemporaryFile(prefix="imagemill-authorities-", suffix=".pem")  # noqa: SIM115, it outlives this call
    bundle.write("".join([*system, own]).encode())
    bundle.flush()
    os.environ["SSL_CERT_FILE"] = bundle.name
    return bundle


def _storage(settings: Settings) -> dict[str, str]:
    address, credentials = store_address(settings), credentials_of(settings).retrieve()
    options = {
        "aws_endpoint_url": address.url,
        "aws_region": settings.s3_region or "us-east-1",
        "aws_access_key_id": credentials.access_key,
        "aws_secret_access_key": credentials.secret_key,
        "aws_conditional_put": "etag",
        "allow_http": str(not address.secure).lower(),
    }
    return options | ({"aws_session_token": credentials.session_token} if credentials.session_token else {})


def _unavailable(uri: str, error: Exception) -> ImagemillError:
    return StoreUnavailable(f"The Delta log of {uri} cannot be read or written: {str(error)[:300]}")
