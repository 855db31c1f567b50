"""The columns of a labelled row, as the workers write them to Parquet and producers read them."""

from __future__ import annotations

import pyarrow as pa

OK = "ok"
ERROR = "error"


def schema(*, embedding: bool = False) -> pa.Schema:
    """The Arrow schema of the rows; with `embedding` a list of float32 is added, the model's features.

    `sha256` is of the file's bytes; `width` and `height` are pixels as shown, EXIF rotation applied. Of a sequence of
    files they are of the frames that were looked at, one behind the other, and of the first. `score` is the softmax
    probability of `label`; `top_k` begins with `label` itself. A row with `status=error` has `error_code` and
    `error_message` and no label.
    """
    label = pa.struct([("label", pa.string()), ("label_index", pa.int32()), ("score", pa.float32())])
    columns: list[tuple[str, pa.DataType]] = [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("sha256", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("label", pa.string()),
        ("label_index", pa.int32()),
        ("score", pa.float32()),
        ("top_k", pa.list_(label)),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
    ]
    if embedding:
        columns.append(("embedding", pa.list_(pa.float32())))
    return pa.schema(columns)
