"""A corpus: an ordered list of files, cut into parts, whose rows are read as record batches with their text.

    corpus = open_corpus(CorpusSpec(paths=["pool/*.parquet"], id="id"), Path("."))
    for part in corpus.parts:
        for batch in read_part(corpus.layout, part, columns=["id"]):
            batch.schema.names        # ["id", "__text__", "__bad__"]

Opening reads footers, hashes the files, and goes once through text files (jsonl, csv) for their columns
and rows.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.decompress import Break
from curate.delimited import Reading, read_delimited, scan_delimited
from curate.errors import ConfigError, DataError, InternalError
from curate.filenames import Format, list_files
from curate.filescan import Chunk, Places, Range, chosen, hash_file, reading
from curate.jsonl import JsonColumn, line_number, read_jsonl, scan_jsonl
from curate.jsonshape import Shape
from curate.readers import TableScan, damaged_groups, read_arrow, read_parquet, scan_arrow, scan_parquet
from curate.textview import (
    BAD,
    TEXT,
    Kind,
    TextPlan,
    View,
    checked_utf8,
    did_you_mean,
    is_text,
    merge_bad,
    plan_text,
    reasons,
    render,
)
from curate.unify import FileColumns, column_names, conform, turn_columns, unify

__all__ = [
    "BAD",
    "TEXT",
    "Corpus",
    "CorpusSpec",
    "Layout",
    "Part",
    "SourceFile",
    "file_location",
    "load_table",
    "open_corpus",
    "read_part",
]

OnError = Literal["fail", "quarantine"]

# Hashing is bound by the disk and releases the interpreter; more threads than this were not faster.
HASH_THREADS = 4
#: A file changed this recently, in ns, may change again under the same modification time: file systems and kernels
#: keep times of 2 s (FAT) down to some ms, whatever their unit.
IN_DOUBT_NS = 2_000_000_000


class CorpusSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe says of a corpus.

    `paths` are files, folders and globs, relative to the recipe's folder; `text` a column, a template, or
    the name of instruction data; `format` None means: by each file's name; `part_bytes` is about how many
    uncompressed bytes of all columns a part holds. `licenses` are the only values of the column `license` whose
    documents are used (None: of documents without one); without the list they are only counted.
    """

    paths: list[str]
    text: str = "text"
    view: View = "all"
    id: str | None = None
    source: str | None = None
    license: str | None = None
    licenses: list[str | None] | None = None
    on_error: OnError = "fail"
    format: Format | None = None
    part_bytes: int = 64_000_000

    def __post_init__(self) -> None:
        if self.licenses is not None and self.license is None:
            raise ConfigError("licenses is a list of what may stand in a column: name the column with license: COLUMN")
        if self.licenses is not None and not self.licenses:
            raise ConfigError("expected licenses to name at least one value (null: documents without a license), got an empty list; nothing could pass")


class SourceFile(msgspec.Struct, frozen=True):
    """A file as it was when the corpus was opened.

    `path` is absolute, `content` the xxh3-128 of its bytes as 32 hex digits. `detail` is what opening it
    found (columns, ranges), for the next time that it is opened unchanged. `ctime_ns` changes with every write
    and cannot be set back, as `mtime_ns` can; 0 where it was not recorded. `doubt`: it was changed so shortly
    before that neither can say whether it is the same; the next opening hashes it. `damage` is why rows of a
    parquet file cannot be read, by row group; None where nobody has looked, which only a quarantine does.
    """

    path: str
    size: int
    mtime_ns: int
    content: str
    detail: str = ""
    ctime_ns: int = 0
    doubt: bool = False
    damage: dict[int, str] | None = None


class Part(msgspec.Struct, frozen=True):
    """A contiguous range of one file.

    `file` is absolute. start..stop are row groups (parquet), record batches (arrow), bytes (plain jsonl),
    or 0..0 for a whole file. `first_row` is the number in the file, from 0, of the part's first row;
    `bytes` estimates the uncompressed bytes of what the text is made of; `fingerprint` (32 hex digits) is
    the hash of the file's content, the format and the range.
    """

    number: int
    file: str
    format: str
    start: int
    stop: int
    first_row: int
    rows: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class Layout:
    """What a worker needs to read any part; it pickles.

    `schema` has the user's columns, unified over all files; `text_columns` are those that the text is
    made of.
    `hints` are by path what reading needs besides: of csv the block size, negative where the file must be
    recoded; of Arrow 1 where it is compressed. `damage` is by path why rows cannot be read, by place: in
    compressed text the number of its bytes that are sound, in parquet the row group. A text with damage has
    a last row that stands for all that is lost; one whose reason is "" is whole, but must be read so far only.
    """

    spec: CorpusSpec
    schema: pa.Schema
    plan: TextPlan
    files: dict[str, SourceFile]
    json: dict[str, JsonColumn]
    hints: dict[str, int]
    damage: dict[str, dict[int, str]]

    def of(self, parts: Iterable[Part]) -> Layout:
        """The same for some parts only: a task carries what it reads, not the whole corpus."""
        files = {part.file: self.files[part.file] for part in parts}
        hints = {file: self.hints[file] for file in files if file in self.hints}
        damage = {file: self.damage[file] for file in files if file in self.damage}
        return replace(self, files=files, hints=hints, damage=damage)

    @property
    def text_columns(self) -> tuple[str, ...]:
        return self.plan.columns

    @property
    def text_kind(self) -> Kind:
        return self.plan.kind

    @property
    def text_type(self) -> pa.DataType:
        """string, or large_string where the text is a column of that width: the same for all parts."""
        if self.plan.kind != "column":
            return pa.string()
        kind = self.schema.field(self.plan.columns[0]).type
        large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
        return pa.large_string() if large else pa.string()


@dataclass(frozen=True)
class Corpus:
    """An opened corpus: how to read it, its files, and its parts in order of reading.

    `warnings` name what a quarantine sets aside because it cannot be read.
    """

    layout: Layout
    files: list[SourceFile]
    parts: list[Part]
    warnings: list[str] = field(default_factory=list)


class _Detail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What opening a file found; a change of meaning changes `version`.

    Of text files `columns` and `block`; of parquet and Arrow `schema` (an IPC message, base64), the bytes of
    each column in each range, and whether an Arrow file is packed.
    """

    format: str
    part_bytes: int
    strict: bool
    columns: list[tuple[str, Any]]
    ranges: list[Range]
    block: int = 0
    version: int = 1
    schema: str = ""
    column_bytes: list[dict[str, int]] | None = None
    packed: bool = False
    broken: Break | None = None


@dataclass
class _Opened:
    path: str
    format: Format
    size: int
    mtime_ns: int
    columns: FileColumns
    ranges: list[Range]
    column_bytes: list[dict[str, int]] | None = None
    content: str = ""
    detail: str = ""
    hint: int = 0
    ctime_ns: int = 0
    doubt: bool = False
    broken: Break | None = None
    damage: dict[int, str] | None = None


def open_corpus(
    spec: CorpusSpec, base: Path, *, known: Iterable[SourceFile] = (), verify: bool = False
) -> Corpus:
    """List, check and hash the files of a corpus and cut them into parts.

    `known` is what an earlier opening recorded: hashes, columns and ranges are taken from it, and the file
    stays closed, where path, size and modification time are equal; with `verify`, and where the time is in
    doubt, the bytes are hashed again. Raises
    ConfigError for paths and columns that are not there, DataError for files that cannot be read, types
    that do not fit together, and a corpus without rows.
    """
    listed = list_files(spec.paths, base, spec.format)
    before = {file.path: file for file in known}
    opened: list[_Opened] = []
    for path, format in listed:
        looked = time.time_ns()
        with reading(path):
            status = os.stat(path)
        old = before.get(path)
        if old is not None and (old.size, old.mtime_ns) != (status.st_size, status.st_mtime_ns):
            old = None
        doubtful = verify or (old is not None and (old.doubt or old.ctime_ns not in (0, status.st_ctime_ns)))
        if old is not None and doubtful and hash_file(path) != old.content:
            old = None
        file = _scan(spec, path, format, status.st_size, status.st_mtime_ns, old)
        file.ctime_ns = status.st_ctime_ns
        file.doubt = any(abs(looked - then) < IN_DOUBT_NS for then in (status.st_mtime_ns, status.st_ctime_ns))
        opened.append(file)
    columns = [file.columns for file in opened]
    names = column_names(columns)
    lost = next((file for file in opened if file.broken is not None and file.broken.reason), None)
    if lost is not None and lost.broken is not None and not names:
        raise DataError(f"expected a row that can be read, got {lost.broken.reason}: {lost.path}; fetch or write it again")
    if not any(file.ranges for file in opened):
        raise DataError(f"expected at least one row, got none in {_shown(listed)}; check `paths`")
    plan = plan_text(spec.text, spec.view, names, turn_columns(columns))
    _check_columns(spec, names, plan, opened)
    labels = frozenset(name for name in (spec.id, spec.source, spec.license) if name is not None)
    unified = unify(columns, plan, labels, strict=spec.on_error == "fail")
    _hash_all(opened, check=spec.on_error == "quarantine")
    files = [SourceFile(f.path, f.size, f.mtime_ns, f.content, f.detail, f.ctime_ns, f.doubt, f.damage) for f in opened]
    bare = {file.path: msgspec.structs.replace(file, detail="", damage=None) for file in files}
    hints = {file.path: file.hint for file in opened if file.hint}
    damage = {} if spec.on_error == "fail" else {f.path: f.damage for f in opened if f.damage}
    damage |= {file.path: dict([file.broken]) for file in opened if file.broken is not None}
    layout = Layout(spec, unified.schema, plan, bare, unified.json, hints, damage)
    return Corpus(layout, files, _parts(opened, plan), _warnings(damage, bare))


def _warnings(damage: Mapping[str, Mapping[int, str]], files: Mapping[str, SourceFile]) -> list[str]:
    return [
        f"warning: {path}: {reason}; what cannot be read is set aside and counted: fetch or write the file again"
        for path, places in damage.items()
        for reason in places.values()
        if reason and path in files
    ]


def _shown(listed: Sequence[tuple[str, Format]]) -> str:
    first = listed[0][0]
    return first if len(listed) == 1 else f"{len(listed)} files, the first {first}"


def _scan(
    spec: CorpusSpec, path: str, format: Format, size: int, mtime_ns: int, old: SourceFile | None
) -> _Opened:
    content = old.content if old is not None else ""
    strict = spec.on_error == "fail"
    detail = _remembered(old, format, spec.part_bytes, strict)
    if detail is None:
        go = _footer if format in ("parquet", "arrow") else _go_through
        detail = go(path, format, spec.part_bytes, strict)
    if format in ("parquet", "arrow"):
        columns = FileColumns(path, arrow=_schema(detail.schema))
    elif format == "jsonl":
        shapes = {name: Shape.unpack(packed) for name, packed in detail.columns}
        columns = FileColumns(path, json=shapes)
    else:
        columns = FileColumns(path, delimited={name: int(kinds) for name, kinds in detail.columns})
    text = msgspec.json.encode(detail).decode()
    hint = detail.block or int(detail.packed)
    return _Opened(
        path, format, size, mtime_ns, columns, detail.ranges, detail.column_bytes, content, text, hint, broken=detail.broken,
        damage=old.damage if old is not None else None,
    )  # fmt: skip


def _remembered(old: SourceFile | None, format: Format, part_bytes: int, strict: bool) -> _Detail | None:
    if old is None or not old.detail:
        return None
    try:
        detail = msgspec.json.decode(old.detail, type=_Detail)
    except msgspec.ValidationError:
        return None
    same = (detail.version, detail.format, detail.part_bytes) == (1, format, part_bytes)
    return detail if same and (detail.strict or not strict) else None


def _footer(path: str, format: Format, part_bytes: int, strict: bool) -> _Detail:
    table: TableScan = (scan_parquet if format == "parquet" else scan_arrow)(path, part_bytes)
    schema = base64.b64encode(table.schema.remove_metadata().serialize()).decode()
    return _Detail(format, part_bytes, strict, [], table.ranges, 0, 1, schema, table.column_bytes, table.packed)


@lru_cache(maxsize=64)
def _schema(packed: str) -> pa.Schema:
    """A schema as `_footer` keeps it; the files of a corpus mostly share one."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


def _go_through(path: str, format: Format, part_bytes: int, strict: bool) -> _Detail:
    if format == "jsonl":
        lines = scan_jsonl(path, part_bytes, strict=strict)
        packed = [(name, shape.pack()) for name, shape in lines.columns.items()]
        return _Detail(format, part_bytes, strict, packed, lines.ranges, broken=lines.broken)
    rows = scan_delimited(path, format, strict=strict)
    ranges = [Range(0, 0, 0, rows.rows, rows.bytes)] if rows.rows else []
    block = -rows.block if rows.recoded else rows.block
    return _Detail(format, part_bytes, strict, list(rows.kinds.items()), ranges, block, broken=rows.broken)


def _check_columns(spec: CorpusSpec, names: Sequence[str], plan: TextPlan, opened: Sequence[_Opened]) -> None:
    missing = [
        f"expected a column {name!r} for corpus.{key}, and found none; {did_you_mean(name, names)}"
        for key, name in (("id", spec.id), ("source", spec.source), ("license", spec.license))
        if name is not None and name not in names
    ]
    missing += [
        f"expected no column named {name!r}, which the program uses itself; rename it in the data"
        for name in (TEXT, BAD)
        if name in names
    ]
    if missing:
        raise ConfigError("\n".join(missing))
    if spec.on_error == "quarantine":
        return
    needed = plan.columns[:2] if plan.kind == "alpaca" else plan.columns
    for file in opened:
        for name in (*needed, *(() if spec.id is None else (spec.id,))):
            # In jsonl a key may be missing from some rows: reading says which.
            if file.ranges and file.format != "jsonl" and name not in file.columns.names():
                raise DataError(
                    f"expected a column {name!r} in every file, got none in {file.path}, row 0; "
                    f"{did_you_mean(name, file.columns.names())}"
                )
        arrow = file.columns.arrow
        if plan.kind == "column" and file.ranges and arrow is not None:
            kind = arrow.field(plan.columns[0]).type
            if not is_text(kind):
                raise DataError(
                    f"expected strings in column {plan.columns[0]!r}, got {kind}: {file.path}, row 0; "
                    "set `text:` to another column, or cast it in the data"
                )


def _hash_all(opened: Sequence[_Opened], *, check: bool) -> None:
    """Hash the files whose content is not known; with `check` look for row groups that cannot be read too."""

    def look(file: _Opened) -> None:
        file.content = file.content or hash_file(file.path)
        if check and file.format == "parquet" and file.damage is None:
            file.damage = damaged_groups(file.path)

    todo = [f for f in opened if not f.content or (check and f.format == "parquet" and f.damage is None)]
    if len(todo) < 2:
        for file in todo:
            look(file)
        return
    # Largest first, so that the last thread is not left with the largest.
    todo.sort(key=lambda file: -file.size)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for _ in pool.map(look, todo):
            pass


def _parts(opened: Sequence[_Opened], plan: TextPlan) -> list[Part]:
    parts: list[Part] = []
    for file in opened:
        for place, (start, stop, first_row, rows, size) in enumerate(file.ranges):
            if file.column_bytes is not None:
                size = sum(file.column_bytes[place].get(name, 0) for name in plan.columns)
            what = f"{file.content}:{file.format}:{start}:{stop}"
            fingerprint = xxhash.xxh3_128_hexdigest(what.encode())
            parts.append(
                Part(len(parts), file.path, file.format, start, stop, first_row, rows, size, fingerprint)
            )
    return parts


# -- reading
# ----------------------------------------------------------------------------------------------------


def read_part(
    layout: Layout,
    part: Part,
    *,
    columns: Sequence[str] = (),
    text: bool = True,
    rows: np.ndarray[Any, Any] | None = None,
    batch_bytes: int = 4_000_000,
) -> Iterator[pa.RecordBatch]:
    """Yield a part's rows in order, each exactly once, as batches of about `batch_bytes`.

    A batch has `columns` in the corpus' types, TEXT (string or large_string, valid UTF-8, null where the
    row is bad) if `text`, and BAD (string: why the row is bad, null where it is fine). `rows` are the
    only rows wanted: int64, numbers within the part, ascending. BAD says what this reading saw: faults of
    the text where `text`, a null id where the id is among `columns`, values of `columns`, and lines that
    could not be parsed, always.

    Raises DataError at the first bad row unless the corpus quarantines, and for a file that is damaged or has
    changed since it was opened.
    """
    unknown = [name for name in columns if name not in layout.schema.names]
    if unknown:
        known = did_you_mean(unknown[0], layout.schema.names)
        raise ConfigError(f"expected a column of the corpus, got {unknown[0]!r}; {known}")
    wanted = _wanted_rows(part, rows)
    source = layout.files[part.file]
    _check_unchanged(source)
    fields = [layout.schema.field(name) for name in columns]
    fields += [pa.field(TEXT, layout.text_type)] if text else []
    schema = pa.schema([*fields, pa.field(BAD, pa.string())])
    seen = 0
    for chunk in _chunks(layout, part, list(columns), text, wanted, batch_bytes):
        arrays, bad = _arrays(layout, part, chunk, columns, text)
        if bad is not None and layout.spec.on_error == "fail":
            raise _bad_row(layout, part, chunk, bad)
        arrays.append(pa.nulls(len(chunk.rows), pa.string()) if bad is None else bad)
        seen += len(chunk.rows)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    _check_unchanged(source)
    expected = part.rows if wanted is None else len(wanted)
    if expected >= 0 and seen != expected:
        raise DataError(
            f"expected {expected} rows, got {seen}: {part.file}, from row {part.first_row}; "
            "the file was changed after the corpus was opened: run again"
        )


def _wanted_rows(part: Part, rows: np.ndarray[Any, Any] | None) -> Places | None:
    if rows is None:
        return None
    wanted: Places = np.ascontiguousarray(rows, dtype=np.int64)
    inside = part.rows < 0 or not len(wanted) or (wanted[0] >= 0 and wanted[-1] < part.rows)
    if not inside or (len(wanted) > 1 and not (np.diff(wanted) > 0).all()):
        raise InternalError(
            f"rows to read from part {part.number} are not ascending within its {part.rows} rows"
        )
    return wanted


def _chunks(
    layout: Layout, part: Part, columns: list[str], text: bool, rows: Places | None, batch_bytes: int
) -> Iterator[Chunk]:
    if rows is not None and not len(rows):
        return iter(())
    names = list(dict.fromkeys([*columns, *(layout.plan.columns if text else ())]))
    damage = layout.damage.get(part.file, {})
    if part.format == "parquet":
        return read_parquet(part.file, part.start, part.stop, names, rows, batch_bytes, damage)
    if part.format == "arrow":
        packed = part.file in layout.hints
        return read_arrow(part.file, part.start, part.stop, names, rows, batch_bytes, packed=packed)
    sound, reason = next(iter(damage.items()), (None, ""))
    if part.format == "jsonl":
        carried = {name: layout.json[name] for name in columns if name in layout.json}
        plan = layout.plan if text else None
        chunks = read_jsonl(part.file, part.start, part.stop, carried, plan, rows, batch_bytes, sound, bool(reason))
    else:
        block = layout.hints[part.file]
        how = Reading(abs(block), block < 0, sound)
        chunks = read_delimited(part.file, part.format, how, names, rows)
    return _to_the_break(chunks, part.rows - 1, reason, rows) if reason else chunks


def _to_the_break(chunks: Iterator[Chunk], lost: int, reason: str, rows: Places | None) -> Iterator[Chunk]:
    """Yield the rows before `lost`, and that one, which stands for all that damage took, with the reason."""
    for chunk in chunks:
        fine = int(np.searchsorted(chunk.rows, lost))
        if fine < len(chunk.rows):
            chunk = Chunk(
                chunk.rows[:fine],
                {name: array.slice(0, fine) for name, array in chunk.columns.items()},
                {name: array.slice(0, fine) for name, array in chunk.inputs.items()},
                None if chunk.bad is None else chunk.bad.slice(0, fine),
            )
        if fine:
            yield chunk
    if len(chosen(lost, lost + 1, rows)):
        yield Chunk(np.array([lost], dtype=np.int64), {}, {}, pa.array([reason], pa.string()))


def _arrays(
    layout: Layout, part: Part, chunk: Chunk, columns: Sequence[str], text: bool
) -> tuple[list[pa.Array], pa.Array | None]:
    size = len(chunk.rows)
    bad = chunk.bad
    arrays: list[pa.Array] = []
    rendered: pa.Array | None = None
    if text:
        inputs = {name: chunk.inputs.get(name) for name in layout.plan.columns}
        full = {name: pa.nulls(size) if array is None else array for name, array in inputs.items()}
        rendered, wrong = render(layout.plan, full, size)
        bad = merge_bad(bad, wrong)
    for name in columns:
        array, wrong = _column(layout, part, name, chunk.columns.get(name), size)
        bad = merge_bad(bad, wrong)
        if name == layout.spec.id and array.null_count:
            bad = merge_bad(bad, reasons(array.is_null(), "null id"))
        arrays.append(array)
    if rendered is not None:
        rendered = rendered if rendered.type.equals(layout.text_type) else rendered.cast(layout.text_type)
        if bad is not None:
            rendered = pc.if_else(bad.is_valid(), pa.scalar(None, rendered.type), rendered)
        arrays.append(rendered)
    return arrays, bad


def _column(
    layout: Layout, part: Part, name: str, array: pa.Array | None, size: int
) -> tuple[pa.Array, pa.Array | None]:
    kind = layout.schema.field(name).type
    if array is None:
        return pa.nulls(size, kind), None
    if part.format in ("csv", "tsv"):
        array = array.view(pa.string())
    if layout.plan.kind == "column" and name == layout.plan.columns[0] and not is_text(array.type):
        # A bad row's text, whatever it is; only a quarantine comes here.
        return pa.nulls(size, kind), None
    wrong = None
    if pa.types.is_nested(array.type) or is_text(array.type):
        reason = "invalid UTF-8" if name in layout.text_columns else f"invalid UTF-8 in column {name!r}"
        array, wrong = checked_utf8(array, reason)
    return conform(array, kind, part.file), wrong


def _bad_row(layout: Layout, part: Part, chunk: Chunk, bad: pa.Array) -> DataError:
    first = int(np.flatnonzero(bad.is_valid().to_numpy(zero_copy_only=False))[0])
    where = file_location(layout, part, int(chunk.rows[first]))
    return DataError(
        f"expected a text and an id, where one is named, in every row, got {bad[first].as_py()}: {where}; "
        "fix the row, or set `on_error: quarantine` to set such rows aside and count them"
    )


def _check_unchanged(source: SourceFile) -> None:
    """Compare a file with what was opened; another time on equal bytes (a copy, a touch) is no change."""
    with reading(source.path):
        status = os.stat(source.path)
    same = status.st_size == source.size
    times = (status.st_mtime_ns, status.st_ctime_ns if source.ctime_ns else 0)
    if same and times != (source.mtime_ns, source.ctime_ns):
        same = _content_now(source.path, status.st_size, times) == source.content
    if not same:
        raise DataError(
            f"expected the file as it was when the corpus was opened, got another: {source.path} has changed "
            f"(size {source.size} then, {status.st_size} now); run again, when nothing writes to it"
        )


@lru_cache(maxsize=256)
def _content_now(path: str, size: int, times: tuple[int, int]) -> str:
    return hash_file(path)


def file_location(layout: Layout, part: Part, row: int) -> str:
    """Say where row `row` of a part (from 0) stands, for messages: its file, row in it, and line of jsonl.

    Reads a jsonl file up to the row.
    """
    where = f"{part.file}, row {part.first_row + row} (0-based"
    if part.format == "jsonl":
        sound = next(iter(layout.damage.get(part.file, ())), None)
        where += f"; line {line_number(part.file, part.start, row, sound)}"
    return where + ")"


def load_table(
    paths: Sequence[str],
    *,
    base: Path = Path(),
    text: str = "text",
    view: View = "all",
    format: Format | None = None,
    on_error: OnError = "fail",
) -> pa.Table:
    """Read small files at once: all columns of the user's, then TEXT; with `on_error="quarantine"` then BAD.

    Raises ConfigError and DataError as `open_corpus` and `read_part` do.
    """
    spec = CorpusSpec(paths=list(paths), text=text, view=view, format=format, on_error=on_error)
    corpus = open_corpus(spec, base)
    names = corpus.layout.schema.names
    batches = [batch for part in corpus.parts for batch in read_part(corpus.layout, part, columns=names)]
    table = pa.Table.from_batches(batches)
    return table if on_error == "quarantine" else table.drop_columns([BAD])
