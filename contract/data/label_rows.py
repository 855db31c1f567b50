"""The columns of a labelled row, as the workers write them to Parquet and producers read them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

OK = "ok"
ERROR = "error"

_LABEL = pa.struct([("label", pa.string()), ("label_index", pa.int32()), ("score", pa.float32())])
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "key": (
        pa.string(),
        "Name of the image: its path or its key. For a sequence, its folder (`walks/7/`) or row (`list.jsonl#7`).",
    ),
    "uri": (pa.string(), "Where the image is."),
    "sha256": (pa.string(), "Hash of the file's bytes. For a sequence, of the frames the model saw, concatenated."),
    "status": (pa.string(), "`ok` or `error`."),
    "error_code": (pa.string(), "Why the image failed, as a stable code; null if `status` is `ok`."),
    "error_message": (pa.string(), "What failed, why, and what to do; null if `status` is `ok`."),
    "width": (pa.int32(), "Width in pixels after EXIF rotation. For a sequence, of its first frame."),
    "height": (pa.int32(), "Height in pixels, likewise."),
    "label": (pa.string(), "The most likely class; null if `status` is `error`."),
    "label_index": (pa.int32(), "Index of that class in the model's labels."),
    "score": (pa.float32(), "Softmax probability of that class, 0 to 1."),
    "top_k": (pa.list_(_LABEL), "The most likely classes, best first; the first is `label` itself."),
    "model": (pa.string(), "The model, as `name@version`."),
    "weights_sha256": (pa.string(), "Hash of the model's weights file."),
    "etag": (pa.string(), "Version of the object, if the watch labels overwritten ones again; only of a watch."),
    "event_time": (pa.timestamp("ms", "UTC"), "When the object was last modified; only of a watch."),
    "planned_at": (pa.timestamp("ms", "UTC"), "When the object was put into a shard; only of a watch."),
    "archive": (
        pa.string(),
        "Where the object is moved to once its segment has ended; only of a watch with `--archive`.",
    ),
    "embedding": (pa.list_(pa.float32()), "The model's features; only with `--embed`."),
}

DESCRIPTIONS = {name: description for name, (_, description) in _COLUMNS.items()}
"""What each column holds, in the order of the schema; the reference prints it."""


WATCHED = ("etag", "event_time", "planned_at")
"""The columns that only the rows of a watch have."""


def schema(*, embedding: bool = False, watched: bool = False, archived: bool = False) -> pa.Schema:
    """Return the Arrow schema of the rows.

    `embedding` adds the column of that name, `watched` those of a watch, and `archived` the one for its archive.
    """
    absent = {
        *(() if embedding else ("embedding",)),
        *(() if watched else WATCHED),
        *(() if archived else ("archive",)),
    }
    return pa.schema([(name, type) for name, (type, _) in _COLUMNS.items() if name not in absent])


def failures(rows: pa.Table) -> pa.Table:
    """Return the rows whose status is `error`."""
    return rows.filter(pc.equal(rows["status"], ERROR))
