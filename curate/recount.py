"""What `curate verify` reads again, in the workers: files against the ledger, docs against sidecars, published rows.

Nothing here asks a stage or trusts a key: the wide table and the selected set are put together a second time from the
stored columns and compared. A fault is named with its file and row; memory is bounded by one part and its columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curate import spans
from curate.chosen import CHOSEN, copied
from curate.copies import Amount, Copies
from curate.corpus import Layout, Part
from curate.docs import DROP_REASON, DROP_STAGE, KEPT
from curate.documents import text_hashes
from curate.errors import CurateError, DataError
from curate.filescan import BLOCK_BYTES
from curate.stage import BYTES, IDENTITY, KEEP, REASON, TEXT, TEXT_HASH, WORDS, column_name
from curate.store import Sidecars, read_table

COUNTED = pa.schema(
    [("stage", pa.string()), ("reason", pa.string()), ("source", pa.string()), ("documents", pa.int64()), ("bytes", pa.int64()), ("words", pa.int64())]
)
PARQUET = ".parquet"
#: What a stage that changes text stores of the new text, by its field's name: what of the first pass it replaces.
CURRENT = {item.name: name for name, item in spans.CURRENT.items()}


@dataclass(frozen=True)
class Expected:
    """What a file should be; `hash` is the xxh3-128 of its bytes, `sha256` is asked for in a publication's manifest."""

    path: Path
    bytes: int
    hash: str
    rows: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class FilesTask:
    """Some files to compare with what they should be."""

    files: list[Expected]

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the hashing of {self.files[0].path} and {len(self.files) - 1} more"


def check_files(task: FilesTask) -> list[str]:
    """For each file what is wrong with it, empty where it is what it should be."""
    pa.set_cpu_count(1)
    return [_wrong_with(expected) for expected in task.files]


def check_inputs(task: FilesTask) -> list[str]:
    """The same for files of the user's: their size and hash, whatever is in them."""
    return [_wrong_with(expected, decode=False) for expected in task.files]


def _wrong_with(expected: Expected, *, decode: bool = True) -> str:
    path = expected.path
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"has {size:,} bytes instead of {expected.bytes:,}"
        found, sha256 = _hashes(path, expected.sha256 is not None)
        if found != expected.hash:
            return f"has other bytes than were recorded (xxh3-128 {found} instead of {expected.hash})"
        if expected.sha256 is not None and sha256 != expected.sha256:
            return f"has the SHA-256 {sha256}, its manifest says {expected.sha256}"
        if decode and path.suffix == PARQUET:
            rows = _read_all(path)
            if expected.rows is not None and rows != expected.rows:
                return f"has {rows:,} rows instead of {expected.rows:,}"
    except FileNotFoundError:
        return "is missing"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read ({error})"
    return ""


def _hashes(path: Path, both: bool) -> tuple[str, str]:
    """xxh3-128, and SHA-256 where wanted, of one reading."""
    fast, slow = xxhash.xxh3_128(), hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            fast.update(buffer[:size])
            if both:
                slow.update(buffer[:size])
    return fast.hexdigest(), slow.hexdigest()


def _read_all(path: Path) -> int:
    """Decode every page with its checksum; the rows."""
    rows = 0
    with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            rows += file.read_row_group(group, use_threads=False).num_rows
    return rows


@dataclass(frozen=True)
class StageRecord:
    """A row of stages.parquet: where a stage's columns lie in the store, None for what it does not have."""

    label: str
    named: bool  # False: its fields are called as they are
    decides: bool
    measures: Path | None
    verdicts: Path | None
    finished: Path | None

    def stored(self, name: str, wanted: Sequence[str]) -> dict[str, pa.Array]:
        """The stored columns of a part that the wide table has too, with `keep` and `reason`, by field name."""
        found: dict[str, pa.Array] = {}
        if self.measures is not None:
            first = next(iter(sorted(self.measures.glob(f"{name}-*{PARQUET}"))), None)
            if first is None:
                raise DataError(f"{self.measures}: the sidecar of part {name} is missing")
            schema = pq.read_schema(first)
            hidden = CURRENT if self.rewrites(name) else {TEXT_HASH}
            fields = [item for item in schema if self.column(item.name) in wanted or item.name in hidden]
            pair = Sidecars(self.measures, pa.schema(fields)).read(name)
            assert pair is not None
            found |= {item.name: pair[0][item.name].combine_chunks() for item in fields}
        for folder in (self.verdicts, self.finished):
            if folder is not None:
                file = folder / f"{name}{PARQUET}"
                names = [n for n in pq.read_schema(file).names if self.column(n) in wanted or n in (KEEP, REASON)]
                table = read_table(file, names)
                found |= {n: table[n].combine_chunks() for n in names}
        return found

    def rewrites(self, name: str) -> bool:
        """Whether the stage changed texts of a part: its sidecar has spans."""
        first = None if self.measures is None else next(iter(sorted(self.measures.glob(f"{name}-*{PARQUET}"))), None)
        return first is not None and spans.FIELD in (schema := pq.read_schema(first)).names and schema.field(spans.FIELD).type == spans.SPANS

    def column(self, field_name: str) -> str:
        """The wide table's name of a field."""
        return column_name(self.label, field_name) if self.named or field_name in (KEEP, REASON) else field_name


@dataclass(frozen=True)
class DocsTask:
    """A file of the wide table, to be compared with the sidecars of its parts.

    `layout` has the inputs that are still what they were; of those the texts of kept documents are read and hashed.
    The kept documents' identities, text hashes and places go to `out`, a row for each copy.
    """

    file: Path
    parts: list[tuple[Part, str]]
    stages: list[StageRecord]
    layout: Layout | None
    source: str | None
    copies: Copies | None
    out: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the recount of {self.file}"


@dataclass
class Recounted:
    """What a file of the wide table said; `faults` are pairs of a check's name and a sentence."""

    rows: int = 0
    kept: int = 0
    texts: int = 0
    text_bytes: int = 0
    held: list[Amount] = field(default_factory=list)  # part by part, what a publication of the kept documents has
    funnel: pa.Table = field(default_factory=COUNTED.empty_table)
    faults: list[tuple[str, str]] = field(default_factory=list)


def recount(task: DocsTask) -> Recounted:
    """Compare a file of the wide table with what is stored, part by part, and count it anew."""
    pa.set_cpu_count(1)
    result = Recounted()
    funnels = []
    with pq.ParquetWriter(task.out, CHOSEN) as out, pq.ParquetFile(task.file, page_checksum_verification=True, pre_buffer=False) as file:
        pieces = _pieces(file, [part.rows for part, _ in task.parts])
        for (part, name), table in zip(task.parts, pieces, strict=True):
            result.rows += table.num_rows
            if table.num_rows != part.rows:
                result.faults.append(("rows", f"{task.file}: part {part.number} has {table.num_rows:,} rows instead of {part.rows:,}"))
                break
            funnels.append(_counted(table, task.source))
            again = _Again(part, name, table)
            try:
                hashes = again.against(task.stages)
            except CurateError as error:
                again.faults.append(("verdicts", str(error)))
                hashes = None
            result.faults += [(check, f"{task.file}: {what}") for check, what in again.faults]
            kept = np.flatnonzero(np.asarray(pc.fill_null(table[KEPT], False)))
            result.kept += len(kept)
            if hashes is None:
                continue
            chosen = hashes.take(pa.array(kept))
            rows, held, wrong = copied(table.take(pa.array(kept)), chosen, task.copies)
            out.write_table(rows)
            result.held.append(held)
            result.faults += [("verdicts", f"{task.file}: {what}") for what in wrong]
            if task.layout is not None and part.file in task.layout.files:
                changed = [Sidecars(s.measures, pa.schema([(spans.FIELD, spans.SPANS)])) for s in task.stages if s.measures and s.rewrites(name)]
                _read_source(task.layout, part, name, changed, kept, chosen, result)
    result.funnel = pa.concat_tables(funnels) if funnels else result.funnel
    return result


def _pieces(file: pq.ParquetFile, rows: Sequence[int]) -> Iterator[pa.Table]:
    """The file's rows in tables of these lengths; the row groups of one at a time are held."""
    waiting = file.schema_arrow.empty_table()
    group = 0
    for wanted in rows:
        while waiting.num_rows < wanted and group < file.num_row_groups:
            waiting = pa.concat_tables([waiting, file.read_row_group(group, use_threads=False)])
            group += 1
        yield waiting.slice(0, wanted).combine_chunks()
        waiting = waiting.slice(wanted)


class _Again:
    """The columns of one part, put together a second time."""

    def __init__(self, part: Part, name: str, table: pa.Table) -> None:
        self.part, self.name, self.table = part, name, table
        self.faults: list[tuple[str, str]] = []

    def against(self, stages: Sequence[StageRecord]) -> pa.Array:
        """Compare all columns and verdicts; returns the text hashes of the first pass."""
        rows = self.table.num_rows
        alive = np.ones(rows, bool)
        stage_of: np.ndarray = np.full(rows, None, object)
        reason: pa.Array = pa.nulls(rows, pa.string())
        hashes: pa.Array = pa.nulls(rows, pa.binary(16))
        expected: dict[str, pa.Array] = {}
        for stage in stages:
            stored = stage.stored(self.name, self.table.schema.names)
            short = [f for f, values in stored.items() if len(values) != rows]
            if short:
                raise DataError(f"part {self.part.number}: the stored column {short[0]!r} of {stage.label!r} has {len(stored[short[0]]):,} rows instead of {rows:,}")
            hashes = stored.pop(TEXT_HASH, hashes)
            if stage.rewrites(self.name):  # hash and sizes are those of the text when it was dropped, or of the last
                current = {CURRENT[item]: stored.pop(item) for item in CURRENT}
                hashes = pc.if_else(pa.array(alive), current[TEXT_HASH], hashes)
                expected |= {size: pc.if_else(pa.array(alive), current[size], expected[size]) for size in (BYTES, WORDS)}
            for item, values in stored.items():
                shown = values if alive.all() or not stage.named else pc.if_else(pa.array(alive), values, pa.scalar(None, values.type))
                expected[stage.column(item)] = shown
            if stage.decides:
                keep = np.asarray(pc.fill_null(stored[KEEP], False)).astype(bool)
                gone = alive & ~keep
                stage_of[gone] = stage.label
                reason = pc.if_else(pa.array(gone), stored[REASON], reason)
                alive &= keep
        places = np.arange(rows, dtype=np.int64)
        expected |= {
            "doc": pa.array((self.part.number << 32) + places), "file": pa.array([self.part.file] * rows, pa.string()),
            "row": pa.array(self.part.first_row + places), KEPT: pa.array(alive), DROP_STAGE: pa.array(stage_of, pa.string()), DROP_REASON: reason,
        }  # fmt: skip
        for column, values in expected.items():
            self._same(column, values)
        return hashes

    def _same(self, column: str, expected: pa.Array) -> None:
        """Compare a column of the wide table, where it is listed there."""
        if column not in self.table.schema.names:
            return
        found = self.table[column].combine_chunks()
        if found.equals(expected.cast(found.type)):
            return
        at = next((i for i, (a, b) in enumerate(zip(found.to_pylist(), expected.to_pylist(), strict=True)) if a != b and not (a != a and b != b)), None)
        if at is not None:
            said, stored = found[at].as_py(), expected[at].as_py()
            where = f"{self.table[IDENTITY][at].as_py()!r} ({self.part.file}, row {self.part.first_row + at})"
            self.faults.append(("verdicts", f"{column!r} of {where} is {said!r}, the store says {stored!r}"))


def _counted(table: pa.Table, source: str | None) -> pa.Table:
    """Documents, bytes and words by what the wide table says became of them."""
    sources = table[source].cast(pa.string()) if source else pa.nulls(table.num_rows, pa.string())
    flat = pa.table(
        {"stage": pc.if_else(table[KEPT], "kept", table[DROP_STAGE]), "reason": table[DROP_REASON], "source": sources,
         "bytes": pc.fill_null(table[BYTES], 0), "words": pc.fill_null(table[WORDS], 0)}
    )  # fmt: skip
    found = flat.group_by(["stage", "reason", "source"]).aggregate([([], "count_all"), ("bytes", "sum"), ("words", "sum")])
    return found.rename_columns([{"count_all": "documents"}.get(n, n.removesuffix("_sum")) for n in found.schema.names]).select(COUNTED.names).cast(COUNTED)


def _read_source(
    layout: Layout, part: Part, name: str, changed: Sequence[Sidecars], kept: np.ndarray, chosen: pa.Array, result: Recounted
) -> None:
    """Hash the kept documents' texts as they stand in the input, spans carried out, and compare with what was recorded."""
    at = 0
    try:
        for batch in spans.read_current(layout, part, name, changed, rows=kept):
            texts = batch.column(TEXT)
            if not text_hashes(texts).equals(chosen[at : at + len(texts)]):
                row = next(i for i, (a, b) in enumerate(zip(text_hashes(texts).to_pylist(), chosen[at:].to_pylist(), strict=False)) if a != b)
                result.faults.append(("texts", f"{part.file}: the text of row {part.first_row + int(kept[at + row])} is not the one that was read"))
                return
            at += len(texts)
            result.text_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
    except CurateError as error:
        result.faults.append(("texts", str(error)))
    result.texts += at
