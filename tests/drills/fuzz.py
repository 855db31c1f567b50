"""Feeds mutated files to the readers of the product: `python -m tests.drills.fuzz KIND FIRST COUNT STATE`.

Case n of a kind is the same bytes in every run. Before a case its number goes to the file STATE, so that whoever
started this process knows which case ended it or made it hang.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.data.children import parquet as parquet_child
from contract.errors import ImageError, ImagemillError
from contract.jobs.sources import SourceName
from contract.jobs.specs import Source
from worker.sources import manifest as worker_manifest
from worker.sources.lister import lister

Case = Callable[[random.Random], str]
"""Run one case, and return what came of it."""

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return `data` after one to eight changes of the kinds that break parsers."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Most formats keep their structure in front.
        at = min(int(rng.expovariate(1 / 64)), len(made)) if rng.random() < 0.5 else rng.randint(0, len(made))
        match rng.randrange(9):
            case 0 if made:
                made[at % len(made)] ^= 1 << rng.randrange(8)
            case 1 if made:
                made[at % len(made)] = rng.randrange(256)
            case 2:
                order, (size, code) = rng.choice("<>"), rng.choice(((1, "B"), (2, "H"), (4, "I")))
                value = rng.choice(INTERESTING) & (256**size - 1)
                made[at : at + size] = struct.pack(order + code, value)
            case 3:
                del made[at : at + rng.randint(1, 64)]
            case 4:
                made[at:at] = rng.randbytes(rng.randint(1, 16))
            case 5:
                start = rng.randint(0, len(made))
                made[at:at] = made[start : start + rng.randint(1, 256)]
            case 6:
                del made[at:]
            case 7:
                other = rng.choice(others)
                start = rng.randint(0, len(other))
                made[at : at + 64] = other[start : start + 64]
            case _:
                made[at : at + 8] = bytes(8)
    return bytes(made)


# Images


@cache
def images() -> list[bytes]:
    """Small files of every format that is decoded, in each of the ways that differ to a decoder."""
    from PIL import Image

    rng = random.Random(0)
    colour = Image.frombytes("RGB", (24, 16), rng.randbytes(24 * 16 * 3))
    frames = [colour.rotate(90 * n) for n in range(3)]
    found = []

    def add(image: Image.Image, format: str, **how: Any) -> None:
        file = io.BytesIO()
        image.save(file, format, **how)
        found.append(file.getvalue())

    for mode in ("RGB", "L", "CMYK"):
        add(colour.convert(mode), "JPEG")
        add(colour.convert(mode), "JPEG", progressive=True, quality=30)
    add(colour, "JPEG", exif=_exif(), subsampling=0, optimize=True)
    for mode in ("RGB", "L", "RGBA", "P", "1", "LA", "I;16"):
        add(colour.convert("L" if mode == "I;16" else mode).convert(mode), "PNG")
    add(frames[0], "PNG", save_all=True, append_images=frames[1:])
    for mode in ("RGB", "RGBA"):
        add(colour.convert(mode), "WEBP")
        add(colour.convert(mode), "WEBP", lossless=True)
    add(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    add(colour, "GIF")
    add(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
    for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        add(colour, "TIFF", compression=how)
    add(colour.convert("1"), "TIFF", compression="group4")
    add(colour.convert("1"), "TIFF", compression="group3")
    add(colour.convert("CMYK"), "TIFF", compression="tiff_lzw")
    add(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw")
    for mode in ("RGB", "L", "P", "1"):
        add(colour.convert(mode), "BMP")
    for mode in ("RGB", "L", "1"):
        add(colour.convert(mode), "PPM")
    add(frames[0], "MPO", save_all=True, append_images=frames[1:])
    add(colour, "ICO", sizes=[(16, 16)])
    add(colour.convert("RGBA"), "ICO", sizes=[(16, 16)], bitmap_format="bmp")
    add(colour, "AVIF", speed=10)
    return found


def _exif() -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 40
    return exif


def image(rng: random.Random) -> str:
    from worker.engine.images import decode

    data = mutated(rng.choice(images()), rng, images())
    try:
        if rng.random() < 0.1:
            decode.look(data)
            decode.decode_sequence(data, 8, crop=1.0, interpolation="bilinear", max_pixels=10**6, frames=4)
        found = decode.decode(data, 8, crop=0.875, interpolation="bicubic", max_pixels=10**6)
        assert found.pixels.shape == (8, 8, 3)
    except ImageError as error:
        return error.code
    return "decoded"


# Sources


class MemoryStore:
    """As much of a store as a lister reads."""

    bucket = "mill"

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def list(self, prefix: str, **_: Any) -> Iterator[Entry]:
        return (Entry(key, len(data)) for key, data in sorted(self.objects.items()) if key.startswith(prefix))

    def get(self, key: str, *, offset: int = 0, length: int | None = None, limit: int | None = None, **_: Any) -> bytes:
        end = (
            None if length is None and limit is None else offset + (length if length is not None else (limit or 0) + 1)
        )
        return self.objects[key][offset:end]

    def size(self, key: str, **_: Any) -> int:
        return len(self.objects[key])

    def pieces(self, key: str, *, size: int = 2**20, **_: Any) -> Iterator[bytes]:
        data = self.objects[key]
        return (data[start : start + size] for start in range(0, len(data), size))


@cache
def archives() -> list[bytes]:
    """Tars in each dialect: WebDataset with labels, long names, extended headers, links and folders."""
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"comment": "x"}) as tar:
            long = "cat/b.png" if form == tarfile.USTAR_FORMAT else f"cat/{'é' * 90}.png"
            for name, data in (("a.png", b"1"), ("a.cls", b"cat"), ("b.json", b'{"label": 1}'), (long, b"22")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, kind in (("link", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE), ("hard", tarfile.LNKTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "a.png"
                tar.addfile(info)
        # Without the padding at its end, which a mutation would mostly hit.
        found.append(file.getvalue().rstrip(b"\0") + bytes(1024))
    return found


def archive(rng: random.Random) -> str:
    data = bytearray(mutated(rng.choice(archives()), rng, archives()))
    if rng.random() < 0.8:  # else nearly every case would end at the sum of its first header
        for at in range(0, len(data) - 511, 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return _listed("tars", "x.tar", bytes(data), rng)


@cache
def manifests() -> list[tuple[SourceName, str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"uri": f"s3://b/{n}.png", "label": "cat", "frames": None} for n in range(4)]
    sequences = [{"frames": ["s3://b/1.png", "https://h/é.png"], "label": n} for n in range(3)]
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    packed = [{"key": "a", "uri": "file:///a", "size": 3, "tar": "s3://b/t", "offset": 512, "label": "x"}]
    idx = bytes((0, 0, 8, 3)) + struct.pack(">III", 4, 2, 2) + bytes(16)
    return [
        ("manifest", "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()),
        ("manifest", "m.jsonl", "".join(json.dumps(row) + "\n" for row in sequences).encode()),
        ("manifest", "m.csv", b'\xef\xbb\xbfuri,label\n"s3://b/1.png","a\nb"\nhttps://h/2.png,c\n'),
        ("manifest", "m.parquet", parquet.getvalue()),
        ("uploaded", "in/shard-000000.jsonl", "".join(json.dumps(row) + "\n" for row in packed).encode()),
        ("idx", "x-images-idx3-ubyte", idx),
        ("idx", "x-images-idx3-ubyte", gzip.compress(idx, mtime=0)),
    ]


class Forked:
    """A child of this process that runs what the product runs in a new interpreter, whose start takes 0.25 s."""

    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        out, into = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                faulthandler.disable()
                for source, target in ((file.fileno(), 0), (into, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
                    os.dup2(source, target)
                parquet_child.main(columns)
            finally:
                os._exit(1)
        os.close(into)
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = os.fdopen(out, "rb")
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if timeout == 0 and self.poll() is None:
            raise subprocess.TimeoutExpired("fork", 0)
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def manifest(rng: random.Random) -> str:
    vars(worker_manifest)["_confined"] = Forked
    kind, name, data = rng.choice(manifests())
    return _listed(kind, name, mutated(data, rng, [data for _, _, data in manifests()]), rng)


def _listed(kind: SourceName, name: str, data: bytes, rng: random.Random) -> str:
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 4) + bytes(4)
    store = cast("ObjectStore", MemoryStore({name: data, "x-labels-idx1-ubyte": labels}))
    uri = "s3://b/" + ("" if kind == "idx" else name)
    frames = 8 if kind == "manifest" and rng.random() < 0.5 else 0
    try:
        listing = lister(store, Source(kind=kind, uri=uri, label=uri), frames=frames, labels=rng.random() < 0.7)
        if kind == "idx":
            return f"{min(listing.count('train') or 0, 1)} or more"
        return f"{sum(1 for _ in listing.items())} items"
    except ImagemillError as error:
        return "a child ended" if "ended the process" in str(error) else type(error).__name__


KINDS: dict[str, Case] = {"images": image, "archives": archive, "manifests": manifest}


def main() -> None:
    kind, first, count, state = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    faulthandler.enable()
    run, found = KINDS[kind], Counter[str]()
    with state.open("r+b") as file, mmap.mmap(file.fileno(), 8) as number:
        for n in range(first, first + count):
            number[:] = struct.pack("<Q", n)
            found[run(random.Random(f"{kind} {n}"))] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main()
