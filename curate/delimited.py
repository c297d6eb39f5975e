"""csv and tsv: a header row, then rows; plain, gzip or zstd; read by pyarrow, with the row numbers kept.

An empty field is null, a quoted empty field is the empty string. A column's type is found from all of its
values; columns that the text, the id or the source is made of stay strings, as they were written.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from curate.decompress import Break, find_break
from curate.errors import DataError
from curate.filenames import compression_of
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
    """The kinds of value of each column, in order; rows; uncompressed bytes; a block size that does.

    `recoded` says that the file holds bytes that are no UTF-8, `broken` where it stops being sound; then the
    last row stands for all that is lost.
    """

    kinds: dict[str, int]
    rows: int
    bytes: int
    block: int
    recoded: bool = False
    broken: Break | None = None


class Reading(NamedTuple):
    """How a file must be read: the size of a block, recoded or not, and how many bytes of its text are sound."""

    block: int
    recoded: bool = False
    sound: int | None = None


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


class _NotUtf8Error(Exception):
    """The file holds bytes that are no UTF-8: it must be read recoded."""


class _Fed:
    """A file as pyarrow is given it: with a last row appended, and checked or recoded.

    A quote that never closes is noticed by the last row, which it swallows. pyarrow makes a string of every
    row that does not fit, and where it cannot, it loses the row without a word; so a file that is not all
    UTF-8 is given to it as Latin-1, byte for byte a character, and its values are turned back afterwards.
    """

    def __init__(self, stream: Any, tail: bytes, recoded: bool) -> None:
        self.stream = stream
        self.tail = tail
        self.bytes = 0
        self.last = b""
        self.closed = False
        self._recoded = recoded
        self._mark = codecs.BOM_UTF8
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read(self, size: int = -1) -> bytes:
        # Recoded bytes may be twice as many, and pyarrow takes no more than it asked for.
        data: bytes = bytes(self.stream.read(max(1, size // 2) if self._recoded and size > 0 else size))
        if data or not self.tail:
            self.bytes += len(data)
            self.last = data[-1:] or self.last
            if self._recoded:
                data, self._mark = data.removeprefix(self._mark), b""
                return data.decode("latin-1").encode()
            self._check(data, final=not data)
            return data
        self._check(b"", final=True)
        tail, self.tail = self.tail, b""
        return tail

    def _check(self, data: bytes, final: bool) -> None:
        if self._recoded:
            return
        try:
            self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise _NotUtf8Error from error

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


def _turned_back(values: pa.Array) -> pa.Array:
    """Return the bytes of values that were recoded."""
    return pa.array([v if v is None else v.decode().encode("latin-1") for v in values.to_pylist()], pa.binary())


class _Header(NamedTuple):
    """The columns as pyarrow names them and as the file does; they differ where the file is recoded."""

    given: list[str]
    names: list[str]


def _header(path: str, format: str, how: Reading) -> _Header:
    with open_bytes(path, sound=how.sound) as stream:
        fed = _Fed(stream, b"", how.recoded)
        with _open(fed, format, None, how.block, []) as reader:
            given: list[str] = list(reader.schema.names)
    try:
        names = [name.encode("latin-1").decode() for name in given] if how.recoded else given
    except UnicodeDecodeError as error:
        raise DataError(f"expected UTF-8 in the header, got byte {error.object[error.start]:#04x}: {path}; write it as UTF-8") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"expected each column once, got {twice[0]!r} twice in the header: {path}; rename one"
        )
    return _Header(given, names)


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

    With `strict` the first row with too many or too few fields raises DataError, and so does compressed data
    that is damaged; without, such rows are reported when they are read, and all that damage took counts as
    one row more, the last. A file that ends within a quoted field raises always: its end is missing.
    """
    how = Reading(BLOCKS[0])
    broken: Break | None = None
    with _blocks(path):
        while True:
            try:
                return _scan(path, format, how, strict, broken)
            except _NotUtf8Error:
                how = how._replace(recoded=True)
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or how.block == BLOCKS[-1]:
                    raise
                how = how._replace(block=BLOCKS[BLOCKS.index(how.block) + 1])
            except (OSError, EOFError):
                compression = compression_of(path)
                if compression is None or broken is not None:
                    raise
                broken = find_break(path, compression)
                how = how._replace(sound=broken.sound)


def _scan(path: str, format: str, how: Reading, strict: bool, broken: Break | None) -> DelimitedScan:
    lost = broken is not None and bool(broken.reason)
    if lost and not _has_header(path, how.sound):
        return _checked_break(path, DelimitedScan({}, 0, 0, how.block, how.recoded, broken), strict)
    header = _header(path, format, how)
    kinds = dict.fromkeys(header.names, 0)
    faulty: list[_Faulty] = []
    mark = b"\x01the last row\x01"
    delimiter = DELIMITERS[format].encode()
    rows = 0
    last = b""
    with open_bytes(path, sound=how.sound) as stream:
        fed = _Fed(stream, b"\n" + delimiter.join([mark] * len(header.names)) + b"\n", how.recoded)
        with _open(fed, format, header.given, how.block, faulty) as reader:
            for batch in reader:
                if strict and faulty and not lost:
                    break
                size = batch.num_rows
                if not size:
                    continue
                last = batch.column(0)[size - 1].as_py() or b""
                rows += size
                body = batch.slice(0, size - 1) if last == mark else batch
                for place, name in enumerate(header.names):
                    values = body.column(place)
                    kinds[name] |= _kinds(_turned_back(values) if how.recoded else values, kinds[name])
    if strict and faulty and not lost:
        raise _misfit(path, faulty)
    if last != mark and not lost:
        raise DataError(
            f"expected every quoted field to be closed, got the end of the file within one: {path}; "
            "it may be truncated: fetch or write it again"
        )
    rows += len(faulty) - (last == mark)
    # The row that the damage cut through is the last one, unless the text stops right after a row.
    cut = lost and not (last == mark and fed.last in (b"\n", b"\r"))
    found = DelimitedScan(kinds, max(rows - cut, 0), fed.bytes, how.block, how.recoded, broken)
    whole = [fault for fault in faulty if fault.row < found.rows]
    if strict and whole:
        raise _misfit(path, whole)
    return _checked_break(path, found, strict)


def _misfit(path: str, faulty: Sequence[_Faulty]) -> DataError:
    fault = min(faulty)
    return DataError(
        f"{fault.reason}: {path}, row {fault.row} (0-based, after the header); "
        "fix the row, or set `on_error: quarantine` to set such rows aside and count them"
    )


def _checked_break(path: str, found: DelimitedScan, strict: bool) -> DelimitedScan:
    """Count what damage took as one row, or refuse it."""
    if found.broken is None or not found.broken.reason:
        return found
    if strict:
        raise DataError(
            f"expected sound compressed data, got {found.broken.reason}: {path}, row {found.rows} (0-based, after the header; "
            f"after byte {found.broken.sound} of the text); fetch or write it again, leave it out of `paths`, or set "
            "`on_error: quarantine` to keep the rows before the damage and count the rest as one"
        )
    return found._replace(rows=found.rows + 1)


def _has_header(path: str, sound: int | None) -> bool:
    """Whether the sound text reaches beyond the first line; less is no header that one can trust."""
    with open_bytes(path, sound=sound) as stream:
        while data := stream.read(1 << 16):
            if b"\n" in data or b"\r" in data:
                return True
    return False


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
    path: str, format: str, how: Reading, names: Sequence[str], rows: Places | None
) -> Iterator[Chunk]:
    """Yield all rows of a file, or the sorted `rows`, as chunks of about a block; every column as binary."""
    last = None if rows is None else int(rows[-1]) if len(rows) else -1
    with _blocks(path):
        header = _header(path, format, how)
        faulty: list[_Faulty] = []
        with open_bytes(path, sound=how.sound) as stream, _open(_Fed(stream, b"", how.recoded), format, header.given, how.block, faulty) as reader:
            start = 0
            for batch in reader:
                chunk = _chunk(batch.rename_columns(header.names), start, faulty, names, how.recoded)
                start += len(chunk.rows)
                yield from _picked(chunk, rows)
                if last is not None and start > last:
                    return
            if faulty:
                empty = pa.RecordBatch.from_arrays([pa.array([], pa.binary()) for _ in header.names], header.names)
                yield from _picked(_chunk(empty, start, faulty, names, how.recoded), rows)


def _chunk(
    batch: pa.RecordBatch, start: int, faulty: list[_Faulty], names: Sequence[str], recoded: bool
) -> Chunk:
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
    if recoded:
        made = {name: _turned_back(array) for name, array in made.items()}
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
