"""csv and tsv: a header row, then rows; plain, gzip or zstd; read by pyarrow, with the row numbers kept.

An empty field is null, a quoted empty field is the empty string. A column's type is found from all of its
values; columns that the text, the id or the source is made of stay strings, as they were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from curate.errors import DataError
from curate.filescan import Chunk, Places, chosen, open_bytes, reading
from curate.jsonshape import BOOL, FLOAT, INT, STR, WIDE
from curate.textview import checked_utf8

DELIMITERS = {"csv": ",", "tsv": "\t"}

# pyarrow parses by blocks and refuses a row that does not fit: then the next size is tried. It reads 32
# blocks ahead, so that the first size costs about 40 MB and the second about 250 MB.
BLOCKS = (1 << 20, 8 << 20, 64 << 20, 512 << 20)

# Only what reads back as it was written is a number: 007, +1 and 1_000 stay strings. Sixteen digits may not
# fit a double exactly, nineteen may not fit an int64.
_KINDS: tuple[tuple[int, str], ...] = (
    (INT, r"^-?(0|[1-9][0-9]{0,14})$"),
    (WIDE, r"^-?[1-9][0-9]{15,17}$"),
    (FLOAT, r"^-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)$"),
    (BOOL, r"^(true|false|True|False|TRUE|FALSE)$"),
)


class DelimitedScan(NamedTuple):
    """The kinds of value of each column, in order; rows; uncompressed bytes; a block size that does."""

    kinds: dict[str, int]
    rows: int
    bytes: int
    block: int


class _Faulty(NamedTuple):
    row: int
    reason: str


def column_type(kinds: int) -> pa.DataType:
    """Return the Arrow type of a column whose values were of these kinds; null where there were none."""
    if kinds == 0:
        return pa.null()
    if kinds == BOOL:
        return pa.bool_()
    if not kinds & ~(INT | WIDE):
        return pa.int64()
    return pa.float64() if not kinds & ~(INT | FLOAT) else pa.string()


class _Counted:
    """A file with a last row appended, so that a quote that never closes is noticed: it swallows that row."""

    def __init__(self, stream: Any, tail: bytes) -> None:
        self.stream = stream
        self.tail = tail
        self.bytes = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(size)
        if data or not self.tail:
            self.bytes += len(data)
            return data
        tail, self.tail = self.tail, b""
        return tail

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def _open(stream: Any, format: str, names: list[str] | None, block: int, faulty: list[_Faulty]) -> Any:
    def refuse(row: Any) -> str:
        # `number` counts rows with the header as 1, and not blank lines.
        reason = f"expected {row.expected_columns} fields, got {row.actual_columns}"
        faulty.append(_Faulty(row.number - 2, reason))
        return "skip"

    types = {name: pa.binary() for name in names or ()}
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(use_threads=False, block_size=block),
        parse_options=csv.ParseOptions(
            delimiter=DELIMITERS[format], newlines_in_values=True, invalid_row_handler=refuse
        ),
        convert_options=csv.ConvertOptions(
            column_types=types,
            check_utf8=False,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def _header(path: str, format: str, block: int) -> list[str]:
    with open_bytes(path) as stream, _open(stream, format, None, block, []) as reader:
        names: list[str] = list(reader.schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"expected each column once, got {twice[0]!r} twice in the header: {path}; rename one"
        )
    return names


@contextmanager
def _blocks(path: str) -> Iterator[None]:
    """Explain pyarrow's complaint about a row that is longer than any block."""
    try:
        with reading(path):
            yield
    except DataError as error:
        if "straddl" not in str(error):
            raise
        raise DataError(
            f"expected rows of less than {BLOCKS[-1] >> 20} MiB, got a longer one: {path}; a quote that is "
            "opened and not closed looks like that too"
        ) from error


def scan_delimited(path: str, format: str, *, strict: bool) -> DelimitedScan:
    """Read a whole file once for its columns, the kinds of their values and its rows.

    With `strict` the first row with too many or too few fields raises DataError; without, such rows are
    reported when they are read. A file that ends within a quoted field raises always: its end is missing.
    """
    with _blocks(path):
        for block in BLOCKS:
            try:
                return _scan(path, format, block, strict)
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or block == BLOCKS[-1]:
                    raise
    raise AssertionError("the last block size either returns or raises")


def _scan(path: str, format: str, block: int, strict: bool) -> DelimitedScan:
    names = _header(path, format, block)
    kinds = dict.fromkeys(names, 0)
    faulty: list[_Faulty] = []
    mark = b"\x01the last row\x01"
    delimiter = DELIMITERS[format].encode()
    rows = 0
    last = b""
    with open_bytes(path) as stream:
        counted = _Counted(stream, b"\n" + delimiter.join([mark] * len(names)) + b"\n")
        with _open(counted, format, names, block, faulty) as reader:
            for batch in reader:
                if strict and faulty:
                    break
                size = batch.num_rows
                if not size:
                    continue
                last = batch.column(0)[size - 1].as_py() or b""
                rows += size
                body = batch.slice(0, size - 1) if last == mark else batch
                for name in names:
                    kinds[name] |= _kinds(body.column(name), kinds[name])
    if strict and faulty:
        fault = min(faulty)
        raise DataError(
            f"{fault.reason}: {path}, row {fault.row} (0-based, after the header); "
            "fix the row, or set `on_error: quarantine` to set such rows aside and count them"
        )
    if last != mark:
        raise DataError(
            f"expected every quoted field to be closed, got the end of the file within one: {path}; "
            "it may be truncated: fetch or write it again"
        )
    return DelimitedScan(kinds, rows - 1 + len(faulty), counted.bytes, block)


def _kinds(values: pa.Array, known: int) -> int:
    """Return the kinds in `values`; once a column is known to hold strings, nothing more is looked at."""
    if known & STR or values.null_count == len(values):
        return known
    values = values.drop_null()
    left, _ = checked_utf8(values.view(pa.string()))
    if left.null_count:
        return known | STR
    for bit, pattern in _KINDS:
        match = pc.match_substring_regex(left, pattern)
        if pc.any(match).as_py():
            known |= bit
            left = left.filter(pc.invert(match))
        if not len(left):
            return known
    return known | STR


def read_delimited(
    path: str, format: str, block: int, names: Sequence[str], rows: Places | None
) -> Iterator[Chunk]:
    """Yield all rows of a file, or the sorted `rows`, as chunks of about a block; every column as binary."""
    last = None if rows is None else int(rows[-1]) if len(rows) else -1
    with _blocks(path):
        header = _header(path, format, block)
        faulty: list[_Faulty] = []
        with open_bytes(path) as stream, _open(stream, format, header, block, faulty) as reader:
            start = 0
            for batch in reader:
                chunk = _chunk(batch, start, faulty, names)
                start += len(chunk.rows)
                yield from _picked(chunk, rows)
                if last is not None and start > last:
                    return
            if faulty:
                empty = pa.RecordBatch.from_arrays([pa.array([], pa.binary()) for _ in header], header)
                yield from _picked(_chunk(empty, start, faulty, names), rows)


def _chunk(batch: pa.RecordBatch, start: int, faulty: list[_Faulty], names: Sequence[str]) -> Chunk:
    """Put the faulty rows back among those that the reader kept; `start` is the row of the first.

    The reader may be a block ahead: faults after the batch stay in `faulty`.
    """
    faulty.sort()
    taken = 0
    while taken < len(faulty) and faulty[taken].row <= start + batch.num_rows + taken:
        taken += 1
    mine = faulty[:taken]
    del faulty[:taken]
    rows = np.arange(start, start + batch.num_rows + taken, dtype=np.int64)
    made = {name: batch.column(name) for name in names if name in batch.schema.names}
    if not mine:
        return Chunk(rows, made, made, None)
    missing = np.zeros(len(rows), dtype=np.bool_)
    missing[[fault.row - start for fault in mine]] = True
    places = pa.array(np.cumsum(~missing) - 1, mask=missing)
    made = {name: array.take(places) for name, array in made.items()}
    reason = {fault.row: fault.reason for fault in mine}
    return Chunk(rows, made, made, pa.array([reason.get(row) for row in rows.tolist()], pa.string()))


def _picked(chunk: Chunk, rows: Places | None) -> Iterator[Chunk]:
    if len(chunk.rows) == 0:
        return
    first = int(chunk.rows[0])
    mine = chosen(first, first + len(chunk.rows), rows)
    if len(mine) == len(chunk.rows):
        yield chunk
    elif len(mine):
        index = pa.array(mine - first)
        made = {name: array.take(index) for name, array in chunk.columns.items()}
        yield Chunk(mine, made, made, None if chunk.bad is None else chunk.bad.take(index))
