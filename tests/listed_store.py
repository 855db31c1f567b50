"""An S3 server in memory with as many images under `in/` as one likes, which answers a listing as fast as it is read.

Pages are made up as they are asked for. The shard manifests of one job are counted, and all but the first are dropped,
so that only what plans it is measured. Run it as `python -m tests.listed_store --keys 10000000`; it prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass

from contract.jobs.specs import Classify, Source
from contract.keys.jobs import JobKeys
from contract.keys.shards import parse_shard
from tests.slow_store import BUCKET, Store, serve

JOB = "planned"
KEYS = JobKeys(JOB)
PREFIX = "in/"
SEEN = "seen"
"""An object that says what was planned: shards, items, and whether they are all keys in their order."""
_PAGE = 1000
_KEPT = 100
"""Shard manifests that can be read again, for a worker that begins while the rest is listed."""
_STAMP = "<LastModified>2026-11-26T02:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag><Size>100000</Size>"


def key(number: int) -> str:
    return f"{PREFIX}folder-{number // 10_000:05d}/photo-{number:09d}.jpg"


def spec(bucket: str) -> Classify:
    """Return the job that labels all of them."""
    return Classify(
        id=JOB,
        source=Source(kind="prefix", uri=f"s3://{bucket}/{PREFIX}", label="many keys"),
        model="parity@1",
        weights_sha256="0" * 64,
        output=f"s3://{bucket}/{KEYS.root}out/",
    )


@dataclass
class Listed(Store):
    """Keys that are made up, and what was planned of them."""

    keys: int = 0
    shards: int = 0
    planned: int = 0
    ordered: bool = True

    def read(self, name: str) -> bytes | None:
        if name == SEEN:
            told = {"shards": self.shards, "items": self.planned, "ordered": self.ordered, "calls": self.calls}
            return json.dumps(told).encode()
        return super().read(name)

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if method == "PUT" and "/plan/shard-" in target:
            return self._manifest(target, body)
        return super().answer(method, target, headers, body)

    def _manifest(self, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = parse_shard(target.partition("?")[0])
        assert found is not None
        if found[0] < self.shards:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>"
        if body:
            lines = body.count(b"\n")
            first, last = body.partition(b"\n")[0], body.rstrip().rpartition(b"\n")[2]
            wanted = (key(self.planned), key(self.planned + lines - 1))
            self.ordered &= (json.loads(first)["key"], json.loads(last)["key"]) == wanted
            self.shards, self.planned = self.shards + 1, self.planned + lines
            if found[0] < _KEPT:
                self.written[KEYS.manifest(found[0])] = body
        return 200, {"ETag": '"0"'}, b""

    def _listing(self, query: dict[str, str]) -> bytes:
        if query.get("prefix") != PREFIX:
            return super()._listing(query)
        after = query.get("start-after", "")
        start = int(after[-13:-4]) + 1 if after else 0
        end = min(start + _PAGE, self.keys)
        entries = "".join(f"<Contents><Key>{key(n)}</Key>{_STAMP}</Contents>" for n in range(start, end))
        more = str(end < self.keys).lower()
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>{more}</IsTruncated>{entries}</ListBucketResult>"
        ).encode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="Seconds that each call takes.")
    told = parser.parse_args()
    asyncio.run(serve(Listed(0, 0, 0, told.delay, keys=told.keys)))
