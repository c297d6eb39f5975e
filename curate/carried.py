"""Files of a finish that need not be written again: what it says of most parts, when one was added, is what it said."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pyarrow as pa
import xxhash

from curate.errors import DataError
from curate.store import Written, noted, read_from


def carried(before: Written, table: pa.Table, path: Path) -> bool:
    """Give the file `before` a second name, `path`, if it is what writing `table` there would make; whether it was.

    A link needs no write and no sync. Files of a store are never written again, so two names of one do not disturb each other.
    """
    try:
        content = Path(before.path).read_bytes()
        if xxhash.xxh3_128_hexdigest(content) != before.hash or not _alike(read_from(path, pa.py_buffer(content)), table):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(before.path, path)
    except (OSError, DataError):  # it is gone, damaged, there already, or this file system has no links: then it is written
        return False
    noted(msgspec.structs.replace(before, path=str(path)))
    return True


def _alike(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables are equal bit by bit; -0.0 is not 0.0 then, and a NaN is equal to itself."""
    if not one.schema.equals(other.schema, check_metadata=True):
        return False
    bits = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}
    for a, b in zip(one.columns, other.columns, strict=True):
        if pa.types.is_nested(a.type):
            return False
        if pa.types.is_floating(a.type):
            a, b = (column.combine_chunks().view(bits[column.type.bit_width]) for column in (a, b))
        if not a.equals(b):
            return False
    return True
