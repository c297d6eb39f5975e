"""A hash of the whole row, to tell apart documents that tie on everything else; never of its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from curate.corpus import Layout, Part, read_part
from curate.frame import DOC


@dataclass(frozen=True)
class HashTask:
    """Rows of one part."""

    layout: Layout
    part: Part
    rows: np.ndarray


def hash_rows(task: HashTask) -> pa.Table:
    """doc, row_hash (32 hex digits of xxh3-128 over the row's columns by name)."""
    hashes: list[str] = []
    for batch in read_part(
        task.layout, task.part, columns=task.layout.schema.names, text=False, rows=task.rows
    ):
        hashes += of_rows(batch)
    return pa.table(
        {
            DOC: pa.array((task.part.number << 32) + task.rows.astype(np.int64)),
            "row_hash": pa.array(hashes, pa.string()),
        }
    )


def of_rows(batch: pa.RecordBatch | pa.Table) -> list[str]:
    """One hash per row; columns in order of their names, values as Python prints them."""
    names = sorted(n for n in batch.schema.names if not n.startswith("__"))
    columns = [_plain(batch.column(n)).to_pylist() for n in names]
    if not columns:
        return [""] * batch.num_rows
    return [
        xxhash.xxh3_128_hexdigest(repr(row).encode("utf-8", "surrogatepass"))
        for row in zip(*columns, strict=True)
    ]


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    kind = plain_type(column.type)
    return column if kind == column.type else column.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What a column is cast to before Python holds its values: nanosecond times become text, durations counts."""
    if pa.types.is_duration(kind):
        return pa.int64()
    if (pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) and kind.unit == "ns":
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([item.with_type(plain_type(item.type)) for item in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    return kind
