"""Sources that were made to break whoever plans them; `size` scales those that are large."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from contract.backend.objects import ObjectStore
from contract.jobs.sources import SourceName

MB = 2**20


@dataclass(frozen=True)
class Poison:
    """A source: its kind and name in the bucket, what to put there, and what the job's reason then says."""

    kind: SourceName
    name: str
    put: Callable[[ObjectStore, str, int], None]
    """Called with the store, the name, and the megabytes that large ones have."""
    says: str = ""
    """A pattern; empty: the plan succeeds, and each image in it becomes an error row."""
    labelled: bool = False
    """Whether only a job that needs labels reads what is poisonous in it."""


def tar_of(*members: tuple[str, bytes], **changes: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in changes.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(name: str, **headers: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT)


def data(make: Callable[[int], bytes]) -> Callable[[ObjectStore, str, int], None]:
    return lambda store, name, size: store.put(name, make(size))


def parquet_of(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, compression="zstd")
    return made.getvalue()


def _idx(store: ObjectStore, name: str, size: int) -> None:
    """A header that declares 2^96 bytes before `size` megabytes of zeros: 305 kB of gzip unfold to 314 MB."""
    store.put(f"{name}x-images-idx3-ubyte.gz", gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(size * MB)))
    store.put(f"{name}x-labels-idx1-ubyte.gz", gzip.compress(bytes((0, 0, 8, 1)) + b"\xff" * 4 + bytes(1000)))


def _rows(size: int) -> bytes:
    """A thousand rows that share one address of a megabyte: 30 kB are a gigabyte of rows."""
    return parquet_of(pa.table({"uri": pa.array(["s3://b/" + "x" * MB] * 1000).dictionary_encode()}))


POISONS: dict[str, Poison] = {
    "a line without an end": Poison(
        "manifest",
        "line.jsonl",
        data(lambda size: b'{"uri": "s3://b/k"}\n{"uri": "' + b"x" * size * MB),
        r"Line 2 of .*line\.jsonl has more than 1,048,576 bytes",
    ),
    "an address of 100 kB": Poison(
        "manifest",
        "address.jsonl",
        data(lambda _: json.dumps({"uri": "s3://b/" + "x" * 100_000}).encode()),
        "has 100,007 characters, more than the 8,192 of an address",
    ),
    "brackets without an end": Poison(
        "manifest",
        "brackets.jsonl",
        data(lambda _: b"[" * 900_000),
        "cannot be read as a manifest: it is nested too deeply",
    ),
    "a number without an end": Poison(
        "manifest", "number.jsonl", data(lambda _: b'{"uri": ' + b"9" * 900_000), "cannot be read as a manifest"
    ),
    "bytes that are no text": Poison("manifest", "bytes.csv", data(lambda _: b"uri\n\xff\xfe\n"), "cannot be read"),
    "a quote that is never closed": Poison(
        "manifest",
        "quote.csv",
        data(lambda size: b'uri\n"\n' + b'","\n' * (size * MB // 4)),
        "a row has more than 1,048,576 characters; a quote may be missing",
    ),
    "half a million columns": Poison(
        "manifest", "columns.csv", data(lambda _: b"," * 500_000 + b"\n" + b"," * 500_000), "has neither `uri` nor"
    ),
    "Parquet that is none": Poison(
        "manifest", "none.parquet", data(lambda _: b"PAR1" + bytes(100) + b"PAR1"), "cannot be read as a manifest"
    ),
    "a gigabyte of rows in 30 kB": Poison(
        "manifest", "rows.parquet", data(_rows), r"reading rows\.parquet, took more than \d+ MB of memory"
    ),
    "a tar without an image": Poison(
        "tars", "texts.tar", data(lambda _: tar_of(("readme.txt", b"x"))), r"holds no images \(other files: 1\)"
    ),
    "a hundred thousand texts": Poison(
        "tars",
        "many.tar",
        data(lambda size: tar_of(("a.txt", b""))[:512] * (size * 2000) + bytes(1024)),
        r"holds no images \(other files: [\d,]+\)",
    ),
    "a negative size": Poison("tars", "negative.tar", data(lambda _: header("bad.png", tarfile.REGTYPE, -1024) * 3)),
    "a negative size in an extended header": Poison(
        "tars",
        "pax.tar",
        data(lambda _: extended("bad.png", size="-4096") + bytes(1024)),
    ),
    "a name as long as the tar": Poison(
        "tars",
        "name.tar",
        data(lambda size: header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size * MB) + b"x" * size * MB),
    ),
    "extended headers without an end": Poison(
        "tars", "chain.tar", data(lambda size: header("pax", tarfile.XHDTYPE, 0) * (size * 2000))
    ),
    "a tar that breaks off": Poison("tars", "broken.tar", data(lambda _: tar_of(("a.png", b"x" * 9000))[:700])),
    "an IDX header that lies": Poison(
        "idx", "idx/", _idx, "declares 79,228,162,458,924,105,385,300,197,375 bytes", labelled=True
    ),
    "a label file of many megabytes": Poison(
        "tars",
        "json.tar",
        data(lambda size: tar_of(("a.png", b"x"), ("a.json", b" " * size * MB))),
        "a.json in .* has [0-9,]+ bytes, more than the 1,048,576 of a file that holds a label",
        labelled=True,
    ),
    "a label file that is nested": Poison(
        "tars",
        "nested.tar",
        data(lambda _: tar_of(("a.png", b"x"), ("a.json", b"[" * 100_000))),
        "a.json in .* cannot be read as a label: it is nested too deeply",
        labelled=True,
    ),
    "a label file that is a list": Poison(
        "tars",
        "list.tar",
        data(lambda _: tar_of(("a.png", b"x"), ("a.json", b"[1]"))),
        "a.json in .* cannot be read as a label: it is no JSON object",
        labelled=True,
    ),
    "two thousand files of one sample": Poison(
        "tars",
        "sample.tar",
        data(lambda _: tar_of(*((f"a.{n}.png", b"") for n in range(2000)))),
        "The sample 'a' in .* has more than 1,000 files",
        labelled=True,
    ),
}
