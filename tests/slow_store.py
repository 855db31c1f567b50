"""An S3 server in memory that takes its time for each call, and holds the commits of a job as large as one likes.

Commits are made up as they are read, so that 10^8 images take no room. Signatures are not checked. Run it as
`python -m tests.slow_store --commits 24415 --items 4096`; it prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import random
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import parse_shard, shard_stem
from deploy.local.ports import LOOPBACK

JOB, BUCKET = "large", "mill"
KEYS = JobKeys(JOB)
LABELS = 600
"""Distinct labels in each commit: about 15 kB."""
_PAGE = 1000


@dataclass
class Store:
    """What was written, over the commits that are made up."""

    commits: int
    items: int
    retried: int
    """Every how many shards one was run again; 0 for none."""
    delay: float
    written: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    calls: int = 0

    def __post_init__(self) -> None:
        names = [f"{KEYS.commit_prefix}{shard_stem(n)}.json" for n in range(self.commits)]
        if self.retried:
            names += [f"{KEYS.commit_prefix}{shard_stem(n, 1)}.json" for n in range(0, self.commits, self.retried)]
        self.names = sorted(names)
        rng = random.Random(0)
        labels = [f"label number {n:05d}" for n in range(2000)]
        self.labels = [rng.sample(labels, LABELS) for _ in range(8)]

    def read(self, key: str) -> bytes | None:
        if key in self.written:
            return self.written[key]
        place = bisect.bisect_left(self.names, key)
        found = parse_shard(key)
        if key in self.deleted or found is None or place == len(self.names) or self.names[place] != key:
            return None
        shard, retry = found
        errors = 1 if self.retried and not retry and shard % self.retried == 0 else 0
        ok = self.items - errors
        labels = dict.fromkeys(self.labels[shard % 8], ok // LABELS)
        labels[self.labels[shard % 8][0]] += ok % LABELS
        return ShardCommit(
            shard=shard,
            retry=retry,
            items=self.items,
            ok=ok,
            errors=errors,
            error_codes={"not_an_image": errors} if errors else {},
            labels=labels,
            output=f"s3://{BUCKET}/{KEYS.root}out/{shard_stem(shard, retry)}.parquet",
            sha256="0" * 64,
        ).to_json()

    def page(self, prefix: str, after: str) -> tuple[list[str], bool]:
        own = sorted(key for key in self.written if key.startswith(prefix) and key > after)
        if KEYS.commit_prefix.startswith(prefix):
            start = bisect.bisect_right(self.names, after)
            made = [key for key in self.names[start : start + _PAGE + 1] if key not in self.deleted]
            own = sorted({*own, *made})
        return own[:_PAGE], len(own) > _PAGE

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        address = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        _, _, key = unquote(address.path).lstrip("/").partition("/")
        if not key:
            if "list-type" in query:
                return 200, {}, self._listing(query)
            if "location" in query:
                return 200, {}, b"<LocationConstraint></LocationConstraint>"
            return 200, {}, b""
        if method in ("GET", "HEAD"):
            rows = f"{KEYS.commit_prefix}{shard_stem(*found)}.json" if (found := parse_shard(key)) else ""
            # It keeps no rows; those of a commit that is there exist.
            data = self.read(key) or (b"rows" if key.endswith(".parquet") and rows and self.read(rows) else None)
            if data is None:
                return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
            stamp = {"ETag": '"0"', "Last-Modified": "Thu, 26 Nov 2026 02:00:00 GMT"}
            if (wanted := headers.get("range")) and method == "GET":
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                end = min(int(last) + 1 if last else len(data), len(data))
                stamp["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
                return 206, stamp, data[int(first) : end]
            return 200, stamp, data
        if method == "PUT":
            if headers.get("if-none-match") == "*" and self.read(key) is not None:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>"
            self.written[key] = body
            self.deleted.discard(key)
            return 200, {"ETag": '"0"'}, b""
        self.written.pop(key, None)
        self.deleted.add(key)
        return 204, {}, b""

    def _listing(self, query: dict[str, str]) -> bytes:
        names, more = self.page(query.get("prefix", ""), query.get("start-after", ""))
        stamp = "<LastModified>2026-11-26T02:00:00.000Z</LastModified><ETag>0</ETag><Size>1</Size>"
        entries = "".join(f"<Contents><Key>{escape(quote(name))}</Key>{stamp}</Contents>" for name in names)
        # The client asks anew after its last key; it never comes back with the token.
        rest = "<NextContinuationToken>more</NextContinuationToken>" if more else ""
        truncated = str(more).lower()
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>{truncated}</IsTruncated>{rest}{entries}</ListBucketResult>"
        ).encode()


async def serve(store: Store) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers = {}
                while (line := await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                store.calls += 1
                await asyncio.sleep(store.delay)
                status, more, data = store.answer(method, target, headers, body)
                lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Content-Type: application/xml"]
                lines += [f"{name}: {value}" for name, value in more.items()]
                head = ("\r\n".join(lines) + "\r\n\r\n").encode()
                writer.write(head if method == "HEAD" else head + data)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, LOOPBACK, 0, limit=2**20)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", type=int, required=True)
    parser.add_argument("--items", type=int, default=4096)
    parser.add_argument("--retried", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.02)
    told = parser.parse_args()
    asyncio.run(serve(Store(told.commits, told.items, told.retried, told.delay)))
