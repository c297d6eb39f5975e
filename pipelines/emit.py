"""Emission: the chosen documents, whole, in a shuffled, immutable publication with its manifest and data card.

A row of a publication is the user's row plus our columns under `curate_`. No place (file, row, doc), no time and no
path of the run is in it, so its bytes do not depend on how the input was cut or where it stood. Documents are spread
over shards by random bits keyed by identity and sorted inside each: a global shuffle that holds one shard in memory.
Where a stage says how often and in which order documents are taken (curate/copies.py), each copy goes to its place instead.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import copies, randomness, spans
from curate.corpus import Layout, Part
from curate.docs import Wide, settle
from curate.errors import InternalError, StageError
from curate.plan import Node, kept_rows, part_name, rewriters, stored_columns, wide_columns
from curate.recipe import EmitSpec
from curate.rowhash import of_rows, plain_type
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, TEXT, WORDS
from curate.store import Written, digest, note, point, sync, writing

if TYPE_CHECKING:
    from curate.runner import Run

ORDER = "__order__"
ROW_GROUP = 8192
#: A shard is sorted in this many slices, one in memory at a time.
SLICES = 4
#: Bytes of Arrow data that a worker holds before it writes them apart by shard.
SPILL_BYTES = 64_000_000
#: Where a piece of a shard lies: a spill file and the number of a batch in it.
Piece = tuple[Path, int]
#: Where runs of places begin, and which slice each is.
Cuts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SpillTask:
    """Some parts whose kept rows go to a spill file, apart by shard."""

    layout: Layout
    parts: list[tuple[Part, int]]
    nodes: list[Node]
    slices: int
    stream: int
    cuts: Cuts | None  # where a stage says the order
    folder: Path
    number: int

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the emission of part {self.parts[0][0].number} ({self.parts[0][0].file})"


@dataclass(frozen=True)
class ShardTask:
    """The pieces of one shard, slice after slice, to become one published file."""

    slices: list[list[Piece]]
    schema: pa.Schema
    out: Path
    format: str


def publish(run: Run, wide: Wide) -> Path:
    """Publish what the run kept, unless that publication exists; point `mixture` at it."""
    from curate.pipelines import card

    spec = run.recipe.emit or EmitSpec()
    key = digest(wide.key, spec, card.told(run))
    folder = run.folder / "mixtures" / key
    if not folder.exists() or (run.before is not None and run.before.lacks(folder)):
        making = run.staging / f"mixture-{key}"
        making.mkdir()
        (making / "data").mkdir()
        with run.events.phase("emit"):
            held = _held(run, wide)
            files = _write_data(run, wide, spec, held, making)
        with writing(folder):
            card.write(run, wide, spec, files, held, making)
            for path in sorted(making.rglob("*")):
                sync(path)
                if path.is_file() and str(path) not in run.written:
                    note(path)
            settle(making, folder, run.written)
    point(run.folder / "mixture", f"mixtures/{key}", run.staging)
    return folder


def _held(run: Run, wide: Wide) -> copies.Amount:
    """What the publication is to hold: the kept documents, each once or as often as a stage says; counted before any is read."""
    kept = [row for row in wide.funnel.to_pylist() if row["stage"] == "kept"]
    documents, size, words = (sum(row[what] for row in kept) for what in ("documents", "bytes", "words"))
    said = copies.said_by(copies.arranging(run.nodes))
    found = copies.Amount(documents, documents, size, words) if said is None else copies.amount(wide.folder, said, run.scratch, run.workers)
    if not wide.kept == documents == found.documents:
        raise InternalError(f"rows do not balance: {wide.kept} kept, {documents} in the funnel, {found.documents} to be published; nothing was published")
    return found


def _write_data(run: Run, wide: Wide, spec: EmitSpec, held: copies.Amount, making: Path) -> list[dict[str, Any]]:
    shards = max(1, min(held.rows, -(-held.bytes // spec.shard_bytes)))
    spill = run.scratch / "spill"
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir(parents=True)
    stream = randomness.stream(run.recipe.seed, "emit", "shuffle")
    said = copies.said_by(copies.arranging(run.nodes))
    cuts = None if said is None else copies.slices(wide.folder, said, shards * SLICES, run.scratch, run.workers)
    tasks = [
        SpillTask(run.corpus.layout.of(p for p, _ in parts), parts, run.nodes, shards * SLICES, stream, cuts, spill, i)
        for i, parts in enumerate(run.tasks())
    ]
    shard_slices: dict[int, dict[int, list[Piece]]] = {}
    for written_pieces in run.engine.map("curate.pipelines.emit:spill", tasks):
        for number, path, batch in written_pieces:
            shard_slices.setdefault(number // SLICES, {}).setdefault(number, []).append((path, batch))
    ending = "parquet" if spec.format == "parquet" else "jsonl.zst"
    schema = published_schema(run.corpus.layout, run.nodes)
    filled = [[found[n] for n in sorted(found)] for _, found in sorted(shard_slices.items())]
    filled = filled or [[]]  # a file without rows only where nothing was kept
    shard_tasks = [
        ShardTask(found, schema, making / "data" / f"{spec.name}-{i:05d}-of-{len(filled):05d}.{ending}", spec.format)
        for i, found in enumerate(filled)
    ]
    shards_written: list[tuple[dict[str, Any], Written]] = run.engine.map("curate.pipelines.emit:write_shard", shard_tasks)
    files = [file for file, _ in shards_written]
    run.written |= {written.path: written for _, written in shards_written}
    shutil.rmtree(spill, ignore_errors=True)
    written = sum(f["rows"] for f in files)
    if written != held.rows:
        raise InternalError(f"rows do not balance: {held.documents} documents kept, {held.rows} rows of them to publish, {written} written; nothing was published")
    return files


def our_columns(nodes: Sequence[Node]) -> dict[str, tuple[Node, str]]:
    """Our columns of a publication, by name: measures, not verdicts. What docs list for all copies has the name of one's value."""
    wide = wide_columns(nodes)
    found = {name: wide[name] for name in (IDENTITY, BYTES, WORDS)}
    for node in nodes[1:]:
        hidden = (KEEP, REASON, *getattr(node.stage, "unpublished", ()), *(node.unlisted() if node.rewrites else ()))
        single: Mapping[str, str] = getattr(node.stage, "copies", {})
        for item in (*node.fields(), *node.finish_fields()):
            if item.name not in hidden:
                found[f"curate_{node.column(single.get(item.name, item.name))}"] = (node, item.name)
    return found


def published_schema(layout: Layout, nodes: Sequence[Node]) -> pa.Schema:
    """The user's columns, then ours."""
    ours = []
    for name, (node, item) in our_columns(nodes).items():
        schema = node.fields() if item in node.fields().names else node.finish_fields()
        found = schema.field(item)
        ours.append(pa.field(name, found.type.value_type) if item in getattr(node.stage, "copies", ()) else found.with_name(name))
    return pa.schema([*layout.schema, *ours])


def spill(task: SpillTask) -> list[tuple[int, Path, int]]:
    """Write the kept rows of some parts into one file, its batches apart by shard; return (shard, file, batch)."""
    pa.set_cpu_count(1)
    ours = our_columns(task.nodes)
    schema = published_schema(task.layout, task.nodes).append(pa.field(ORDER, pa.uint64()))
    path = task.folder / f"{task.number:06d}.arrow"
    pieces: list[tuple[int, Path, int]] = []
    held: list[pa.RecordBatch] = []
    held_bytes = 0
    with writing(path), pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        for part, twin in task.parts:
            for batch in _kept_batches(task, part, twin, ours, schema):
                held.append(batch)
                held_bytes += batch.nbytes
                if held_bytes >= SPILL_BYTES:
                    _write_pieces(held, task, file, path, pieces)
                    held, held_bytes = [], 0
        _write_pieces(held, task, file, path, pieces)
    return pieces


def _write_pieces(held: list[pa.RecordBatch], task: SpillTask, file: Any, path: Path, pieces: list[tuple[int, Path, int]]) -> None:
    if not held:
        return
    table = pa.Table.from_batches(held)
    order = table[ORDER].to_numpy()
    places = _slice_of(order, task.slices) if task.cuts is None else task.cuts[1][np.searchsorted(task.cuts[0], order, side="right") - 1]
    for number in np.unique(places).tolist():
        for batch in table.take(pa.array(np.flatnonzero(places == number))).to_batches():
            pieces.append((number, path, len(pieces)))
            file.write_batch(batch)


def _slice_of(order: np.ndarray, slices: int) -> np.ndarray:
    """Slice i holds the i-th of `slices` equal ranges of the 64-bit order; SLICES of them make a shard."""
    return ((order >> np.uint64(32)) * np.uint64(slices) >> np.uint64(32)).astype(np.int64)


def _kept_batches(task: SpillTask, part: Part, twin: int, columns_of: dict[str, tuple[Node, str]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    name = part_name(part, twin)
    index = np.flatnonzero(kept_rows(task.nodes, name))
    if not len(index):
        return
    chosen = pa.array(index)
    stored = stored_columns({**columns_of, ORDER: (task.nodes[0], KEY)}, name)
    ours = {n: stored[n].take(chosen).combine_chunks() for n in columns_of}
    order = pa.array(randomness.bits(stored[ORDER].take(chosen).to_numpy(), task.stream))
    said = copies.said_by(copies.arranging(task.nodes))
    at = 0
    changed = rewriters(task.nodes)
    for batch in spans.read_current(task.layout, part, name, changed, columns=task.layout.schema.names, text=bool(changed), rows=index):
        rows = slice(at, at + batch.num_rows)
        columns = [batch.column(n) for n in task.layout.schema.names]
        if changed:  # then the text is one column, which planning has checked
            place = task.layout.schema.get_field_index(task.layout.text_columns[0])
            columns[place] = batch.column(TEXT).cast(columns[place].type)
        at += batch.num_rows
        if said is None:
            yield pa.record_batch([*columns, *(values[rows] for values in ours.values()), order[rows]], schema=schema)
        else:
            yield from _copied(columns, {n: values[rows] for n, values in ours.items()}, said, schema)


def _copied(columns: list[pa.Array], ours: dict[str, pa.Array], said: copies.Copies, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A row for each copy of the rows, with that copy's values of the columns that list them; batches of about as many rows."""
    times = np.asarray(pc.fill_null(pc.list_value_length(ours[said.published[0]]), 0))
    rows, count = np.repeat(np.arange(len(times)), times), max(1, len(times))
    single = {n: pc.list_flatten(ours[n]) for n in said.published}
    for begin in range(0, len(rows), count):
        some = slice(begin, begin + count)
        take = pa.array(rows[some])
        own = [single[n][some] if n in single else values.take(take) for n, values in ours.items()]
        yield pa.record_batch([*(column.take(take) for column in columns), *own, single[said.published[0]][some].cast(pa.uint64())], schema=schema)


def write_shard(task: ShardTask) -> tuple[dict[str, Any], Written]:
    """Sort one shard, slice by slice, and write it; return its entry in the manifest, and what the file is."""
    pa.set_cpu_count(1)
    rows = 0
    write = _parquet if task.format == "parquet" else _jsonl
    with writing(task.out), write(task.out, task.schema) as put:
        for pieces in task.slices:
            table = _read_pieces(pieces, task.schema)
            order = _sorted(table)
            table = table.drop_columns([ORDER])
            rows += table.num_rows
            for at in range(0, table.num_rows, ROW_GROUP):
                put(table.take(order[at : at + ROW_GROUP]).combine_chunks())
    written = note(task.out, rows=rows)
    return {"file": f"data/{task.out.name}", "rows": rows, "bytes": written.bytes, "sha256": _sha256(task.out)}, written


def _read_pieces(pieces: list[Piece], schema: pa.Schema) -> pa.Table:
    files: dict[Path, Any] = {}
    batches = []
    for path, number in pieces:
        if path not in files:
            files[path] = pa.ipc.open_file(pa.memory_map(str(path)))
        batches.append(files[path].get_batch(number))
    return pa.Table.from_batches(batches, schema.append(pa.field(ORDER, pa.uint64())))


@contextmanager
def _parquet(out: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A writer of row groups; none where there are no rows, for some readers stumble over an empty one."""
    plain = schema.remove_metadata()
    coded = [item.name for item in plain if not pa.types.is_floating(item.type)]
    with pq.ParquetWriter(out, plain, compression="zstd", use_dictionary=coded, write_page_checksum=True) as file:
        yield lambda table: file.write_table(table.replace_schema_metadata(None))


def _sorted(table: pa.Table) -> pa.Array:
    """Row numbers by random bits, then identity; rows that tie on both are told apart by their whole content."""
    order = table[ORDER].to_numpy()
    rows = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.r_[True, order[rows][1:] != order[rows][:-1]]) if len(rows) else np.empty(0, np.int64)
    ends = np.r_[starts[1:], len(rows)]
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        tied = rows[start:end]
        some = table.take(pa.array(tied))
        names = some[IDENTITY].to_pylist()
        hashes = of_rows(some)
        rows[start:end] = tied[sorted(range(len(tied)), key=lambda i: (names[i], hashes[i]))]
    return pa.array(rows, pa.int64())


@contextmanager
def _jsonl(out: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A writer of JSON lines, compressed."""
    import orjson
    import zstandard

    cast = pa.schema([item.with_type(plain_type(item.type)) for item in schema.remove_metadata()])
    with open(out, "wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:

        def put(table: pa.Table) -> None:
            for batch in table.replace_schema_metadata(None).cast(cast).to_batches(max_chunksize=1024):
                for row in batch.to_pylist():
                    try:
                        file.write(orjson.dumps(row, default=json_value, option=orjson.OPT_APPEND_NEWLINE))
                    except TypeError as error:
                        raise StageError(
                            f"emit: a column cannot be written as JSON ({error}); use emit: {{format: parquet}}"
                        ) from error

        yield put


def json_value(value: Any) -> Any:
    """What JSON has no form for: decimals as their digits, bytes as base64."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"got {type(value).__name__} {value!r}")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
