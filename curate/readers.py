"""parquet and Arrow files: their columns, the ranges that become parts, and reading them in little memory."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import DataError
from curate.filescan import Chunk, Places, Range, chosen, reading
from curate.textview import taken

# Small batches cost calls, large ones leave the cache: 8,192 rows were read as fast as 65,536 within a row
# group, and faster across row groups. 16,384 rows of 500 bytes are 8 MB.
MOST_ROWS = 16_384
FEWEST_ROWS = 8
# Enough rows to see how long values are where the file stores each distinct value once.
PEEK_ROWS = 256
# What a look for damage holds at a time.
BATCH_BYTES = 4_000_000
# Read a column's pages through a window, instead of the whole column of a row group at once.
WINDOW_BYTES = 1 << 20

_STREAM_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class TableScan(NamedTuple):
    """A file's columns, its ranges, and of each range the uncompressed bytes of each column.

    `packed` says that the record batches of an Arrow file are compressed, so that mapping it gives no arrays.
    """

    schema: pa.Schema
    ranges: list[Range]
    column_bytes: list[dict[str, int]]
    packed: bool = False


class _Unit(NamedTuple):
    """What cannot be cut: a row group or a record batch."""

    rows: int
    bytes: int
    columns: dict[str, int]


def _cut(units: Sequence[_Unit], part_bytes: int) -> tuple[list[Range], list[dict[str, int]]]:
    """Put neighbours together until a part has `part_bytes`; a larger unit is a part of its own."""
    ranges: list[Range] = []
    columns: list[dict[str, int]] = []
    start = first_row = rows = size = 0
    held: dict[str, int] = {}

    def close(stop: int) -> None:
        nonlocal start, first_row, rows, size, held
        if rows:
            ranges.append(Range(start, stop, first_row, rows, size))
            columns.append(held)
        start, first_row, rows, size, held = stop, first_row + rows, 0, 0, {}

    for place, unit in enumerate(units):
        if rows and size + unit.bytes > part_bytes:
            close(place)
        rows += unit.rows
        size += unit.bytes
        for name, more in unit.columns.items():
            held[name] = held.get(name, 0) + more
    close(len(units))
    return ranges, columns


def _one_of_each(path: str, schema: pa.Schema) -> pa.Schema:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"expected each column once, got {twice[0]!r} twice: {path}; rename one of them")
    return schema


# -- parquet ------------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    with pq.ParquetFile(
        path, pre_buffer=False, buffer_size=WINDOW_BYTES, page_checksum_verification=True
    ) as file:
        yield file


def scan_parquet(path: str, part_bytes: int) -> TableScan:
    """Read a parquet file's footer."""
    with reading(path, "parquet file"), _parquet(path) as file:
        schema = _one_of_each(path, file.schema_arrow)
        units = []
        promised = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        if min(promised, default=0) < 0 or sum(promised) != file.metadata.num_rows:
            raise OSError(f"a footer that promises {file.metadata.num_rows} rows, in row groups of {promised[:9]}")
        for number in range(file.metadata.num_row_groups):
            _check_columns(file, number)
            group = file.metadata.row_group(number)
            columns: dict[str, int] = {}
            for place in range(group.num_columns):
                column = group.column(place)
                # Leaves of nested columns are named with dots; a top-level name may hold dots itself.
                top = column.path_in_schema
                top = top if top in schema.names else top.split(".")[0]
                columns[top] = columns.get(top, 0) + column.total_uncompressed_size
            units.append(_Unit(group.num_rows, sum(columns.values()), columns))
    return TableScan(schema, *_cut(units, part_bytes))


def _check_columns(file: pq.ParquetFile, number: int) -> None:
    """Have a row group's footer looked at where what is wrong with it can be told.

    `row_group(n).column(m)` throws a C++ exception over damaged size statistics, which nothing in pyarrow
    catches: the process is gone. Opening a reader of no rows goes over the same metadata, and raises.
    """
    if not file.metadata.num_columns:  # then there is nothing to look at, and that reader divides by the columns' width
        return
    for _ in file.reader.iter_batches(0, row_groups=[number], use_threads=False):
        raise OSError(f"row group {number} has rows where none were asked for")


def damaged_groups(path: str) -> dict[int, str]:
    """Read a whole parquet file, all columns; return why the row groups that cannot be read cannot."""
    found: dict[int, str] = {}
    with reading(path, "parquet file"), _parquet(path) as file:
        names = file.schema_arrow.names
        for number in range(file.metadata.num_row_groups):
            promised = file.metadata.row_group(number).num_rows
            try:
                rows = 0
                if promised and names:
                    at_once = _rows_at_once(file, number, names, BATCH_BYTES)
                    for batch in file.iter_batches(at_once, row_groups=[number], use_threads=False):
                        rows += batch.num_rows
                if rows != promised:
                    raise OSError(f"{rows} rows where the footer promises {promised}")
            except (OSError, EOFError, pa.ArrowException) as error:
                why = (str(error).strip().splitlines() or [type(error).__name__])[0]
                found[number] = f"damaged row group {number} ({promised} rows): {why}"
    return found


def read_parquet(
    path: str,
    start: int,
    stop: int,
    names: Sequence[str],
    rows: Places | None,
    batch_bytes: int,
    damage: Mapping[int, str] | None = None,
) -> Iterator[Chunk]:
    """Yield the rows of the row groups start..stop, or the sorted `rows` of them, some MB at a time.

    Row groups without a wanted row are not read. A row group of any size is read through small windows. Of
    those in `damage` nothing is read: each of their rows has the reason.
    """
    damage = damage or {}
    with reading(path, "parquet file"), _parquet(path) as file:
        have = [name for name in names if name in file.schema_arrow.names]
        sizes = [file.metadata.row_group(number).num_rows for number in range(start, stop)]
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        at_once = 0
        for groups in _runs(sizes, firsts, rows, {number - start for number in damage}):
            numbers = [start + group for group in groups]
            row, end = int(firsts[groups[0]]), int(firsts[groups[-1] + 1])
            if not have or numbers[0] in damage:
                yield from _rows_only(end - row, rows, row, damage.get(numbers[0]))
                continue
            at_once = at_once or _rows_at_once(file, numbers[0], have, batch_bytes)
            for batch in file.iter_batches(at_once, row_groups=numbers, columns=have, use_threads=False):
                yield from _picked(batch, row, have, rows)
                row += batch.num_rows
            if row != end:
                raise OSError(f"row groups {numbers[0]} to {numbers[-1]} hold {row - end:+} rows more than the footer promises")


def _runs(
    sizes: Sequence[int], firsts: Places, rows: Places | None, alone: Container[int] = ()
) -> Iterator[list[int]]:
    """Group the row groups that are read by one iterator: large ones singly, small neighbours together.

    An iterator over many row groups joins their chunks, which costs more than it saves for large ones. Those
    in `alone` share with none.
    """
    run: list[int] = []
    held = 0
    for group, size in enumerate(sizes):
        wanted = size > 0 and len(chosen(int(firsts[group]), int(firsts[group + 1]), rows)) > 0
        if run and (not wanted or group in alone or held + size > MOST_ROWS):
            yield run
            run, held = [], 0
        if wanted and group in alone:
            yield [group]
        elif wanted:
            run.append(group)
            held += size
    if run:
        yield run


def _rows_at_once(file: pq.ParquetFile, number: int, names: Sequence[str], batch_bytes: int) -> int:
    """Choose the rows of a batch so that it holds about `batch_bytes`."""
    group = file.metadata.row_group(number)
    size = 0
    coded = False
    for place in range(group.num_columns):
        column = group.column(place)
        path = column.path_in_schema
        if path in names or path.split(".")[0] in names:
            size += column.total_uncompressed_size
            coded = coded or (column.has_dictionary_page and column.physical_type == "BYTE_ARRAY")
    each = size / max(group.num_rows, 1)
    if coded and each * MOST_ROWS < batch_bytes:
        # Values stored once and repeated are longer in memory than the footer says.
        for batch in file.iter_batches(
            PEEK_ROWS, row_groups=[number], columns=list(names), use_threads=False
        ):
            each = max(each, batch.nbytes / batch.num_rows)
            break
    return int(min(MOST_ROWS, max(FEWEST_ROWS, batch_bytes / max(each, 1))))


def _rows_only(count: int, rows: Places | None, start: int = 0, reason: str | None = None) -> Iterator[Chunk]:
    """Yield chunks without columns for the rows start..start+count: the file has none, or `reason` says why."""
    for first in range(start, start + count, MOST_ROWS):
        mine = chosen(first, min(first + MOST_ROWS, start + count), rows)
        if len(mine):
            bad = None if reason is None else pa.repeat(pa.scalar(reason), len(mine))
            yield Chunk(mine, {}, {}, bad)


def _picked(batch: pa.RecordBatch, row: int, names: Sequence[str], rows: Places | None) -> Iterator[Chunk]:
    mine = chosen(row, row + batch.num_rows, rows)
    if not len(mine):
        return
    columns = {name: batch.column(name) for name in names}
    if len(mine) < batch.num_rows:
        columns = {name: taken(array, mine - row) for name, array in columns.items()}
    yield Chunk(mine, columns, columns, None)


# -- Arrow --------------------------------------------------------------------------------------------


@contextmanager
def _arrow(path: str, names: Sequence[str] | None) -> Iterator[tuple[pa.Schema, Any]]:
    """Open an Arrow file: its schema, and a function that gives the record batches of a range, in order.

    The file is mapped, so that uncompressed columns cost no memory until they are looked at. With `names`
    only those columns are made, which copies them: worth it where they are compressed, a loss where they
    are mapped.
    """
    with pa.memory_map(path, "rb") as source:
        magic = source.read(6)
        source.seek(0)
        if magic[:4] == b"FEA1":
            raise OSError("Feather version 1, which is no longer read; write it again as version 2")
        is_file = magic == b"ARROW1"
        opener = pa.ipc.open_file if is_file else pa.ipc.open_stream
        schema = opener(source).schema
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if names is not None:
            wanted = [place for place, name in enumerate(schema.names) if name in names]
            # No field at all would mean every field; one is the least.
            options.included_fields = wanted or [0]
        source.seek(0)
        reader = opener(source, options=options)

        def batches(start: int, stop: int | None) -> Iterator[pa.RecordBatch]:
            if is_file:
                end = reader.num_record_batches if stop is None else stop
                yield from (reader.get_batch(number) for number in range(start, end))
                return
            for number, batch in enumerate(reader):
                if stop is not None and number >= stop:
                    return
                if number >= start:
                    yield batch
            if stop is None:
                _check_stream_end(source)

        yield schema, batches


def _check_stream_end(source: pa.NativeFile) -> None:
    """Refuse a stream that just stops: the end mark may be left out, but so does a writer that was killed."""
    end = source.tell()
    if end < source.size():
        raise OSError(f"{source.size() - end} bytes after the end of the stream")
    source.seek(max(0, end - len(_STREAM_END)))
    if source.read(len(_STREAM_END)) != _STREAM_END:
        raise OSError("a stream without its end mark")


def scan_arrow(path: str, part_bytes: int) -> TableScan:
    """Read through an Arrow file or stream for the rows and bytes of its record batches."""
    with reading(path, "Arrow file"):
        if os.path.getsize(path) == 0:
            raise EOFError("no bytes at all")
        with _arrow(path, None) as (schema, batches):
            _one_of_each(path, schema)
            units = []
            allocated = pa.total_allocated_bytes()
            packed = False
            for batch in batches(0, None):
                # Of whole buffers: `nbytes` follows offsets, which in a damaged file may point anywhere.
                columns = {name: batch.column(name).get_total_buffer_size() for name in schema.names}
                packed = packed or pa.total_allocated_bytes() - allocated > sum(columns.values()) // 2
                units.append(_Unit(batch.num_rows, sum(columns.values()), columns))
    return TableScan(schema, *_cut(units, part_bytes), packed)


def read_arrow(
    path: str,
    start: int,
    stop: int,
    names: Sequence[str],
    rows: Places | None,
    batch_bytes: int,
    *,
    packed: bool = False,
) -> Iterator[Chunk]:
    """Yield the rows of record batches start..stop, or the sorted `rows` of them, some MB at a time.

    `packed` is what `scan_arrow` found.
    """
    with reading(path, "Arrow file"), _arrow(path, names if packed else None) as (schema, batches):
        have = [name for name in names if name in schema.names]
        row = 0
        for batch in batches(start, stop):
            if not have:
                yield from _rows_only(batch.num_rows, rows, row)
            else:
                batch = batch.select(have)
                each = max(batch.get_total_buffer_size() / max(batch.num_rows, 1), 1)
                step = int(max(FEWEST_ROWS, min(batch_bytes / each, MOST_ROWS)))
                whole = [_bounded(column) for column in batch.columns]
                for first in range(0, batch.num_rows, step):
                    pieces = [_piece(column, first, step) for column in whole]
                    piece = pa.RecordBatch.from_arrays(pieces, have)
                    yield from _picked(piece, row + first, have, rows)
            row += batch.num_rows


def _is_flat(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind) and not pa.types.is_dictionary(kind)


def _bounded(column: pa.Array) -> pa.Array:
    """Refuse offsets and codes that point outside of what they index; their text is checked with the row."""
    if not _is_flat(column.type):
        _check_bounds(column)
    return column


def _check_bounds(column: pa.Array) -> None:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise


def _piece(column: pa.Array, first: int, rows: int) -> pa.Array:
    """Cut rows out of a column of a record batch that may be very large.

    Flat columns are sliced, and checked piece by piece, so that no more of a mapped file is touched at a
    time. Nested ones are copied: checking a slice of them would read the children of all rows each time.
    """
    if _is_flat(column.type):
        piece = column.slice(first, rows)
        _check_bounds(piece)
        return piece
    return taken(column, np.arange(first, min(first + rows, len(column))))
