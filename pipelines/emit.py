"""Emission: the chosen documents, whole, in a shuffled, immutable publication with its manifest and data card.

A row of a publication is the user's row plus our columns under `curate_`. No place (file, row, doc), no time and no
path of the run is in it, so its bytes do not depend on how the input was cut or where it stood. Documents are spread
over shards by random bits keyed by identity and sorted inside each: a global shuffle that holds one shard in memory.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import randomness
from curate.corpus import Layout, Part, read_part
from curate.docs import Wide
from curate.errors import InternalError, StageError
from curate.plan import Node, kept_rows, part_name, stored_column
from curate.recipe import EmitSpec
from curate.rowhash import of_rows, plain_type
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS
from curate.store import digest, point, sync

if TYPE_CHECKING:
    from curate.runner import Run

ORDER = "__order__"
ROW_GROUP = 8192
#: Bytes of Arrow data that a worker holds before it writes them apart by shard.
SPILL_BYTES = 64_000_000
#: Where a piece of a shard lies: a spill file and the number of a batch in it.
Piece = tuple[Path, int]


@dataclass(frozen=True)
class SpillTask:
    """Some parts whose kept rows go to a spill file, apart by shard."""

    layout: Layout
    parts: list[tuple[Part, int]]
    nodes: list[Node]
    shards: int
    stream: int
    folder: Path
    number: int

    def described(self) -> str:
        """What to call this task in an error."""
        return f"the emission of part {self.parts[0][0].number} ({self.parts[0][0].file})"


@dataclass(frozen=True)
class ShardTask:
    """The pieces of one shard, to become one published file."""

    pieces: list[Piece]
    schema: pa.Schema
    out: Path
    format: str


def publish(run: Run, wide: Wide) -> Path:
    """Publish what the run kept, unless that publication exists; point `mixture` at it."""
    from curate.pipelines import card

    spec = run.recipe.emit or EmitSpec()
    key = digest(wide.key, spec, run.recipe.seed, run.recipe.name, [list(s.files("test")) for s in run.recipe.targets.values()])
    folder = run.folder / "mixtures" / key
    if not folder.exists():
        making = run.folder / "mixtures" / f".making-{key}"
        shutil.rmtree(making, ignore_errors=True)
        (making / "data").mkdir(parents=True)
        with run.events.phase("emit"):
            files = _write_data(run, wide, spec, making)
        card.write(run, wide, spec, files, making)
        for path in sorted(making.rglob("*")):
            sync(path)
        making.rename(folder)
        sync(folder.parent)
    point(run.folder / "mixture", f"mixtures/{key}")
    return folder


def _write_data(run: Run, wide: Wide, spec: EmitSpec, making: Path) -> list[dict[str, Any]]:
    kept_bytes = sum(row["bytes"] for row in wide.funnel.to_pylist() if row["stage"] == "kept")
    shards = max(1, min(wide.kept, -(-kept_bytes // spec.shard_bytes)))
    spill = run.scratch / "spill"
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir(parents=True)
    stream = randomness.stream(run.recipe.seed, "emit", "shuffle")
    tasks = [
        SpillTask(run.corpus.layout.of(p for p, _ in parts), parts, run.nodes, shards, stream, spill, i) for i, parts in enumerate(run.tasks())
    ]
    pieces: dict[int, list[Piece]] = {}
    for written_pieces in run.engine.map("curate.pipelines.emit:spill", tasks):
        for shard, path, number in written_pieces:
            pieces.setdefault(shard, []).append((path, number))
    ending = "parquet" if spec.format == "parquet" else "jsonl.zst"
    schema = published_schema(run.corpus.layout, run.nodes)
    filled = [pieces[i] for i in sorted(pieces)] or [[]]  # a file without rows only where nothing was kept
    shard_tasks = [
        ShardTask(found, schema, making / "data" / f"{spec.name}-{i:05d}-of-{len(filled):05d}.{ending}", spec.format)
        for i, found in enumerate(filled)
    ]
    files: list[dict[str, Any]] = run.engine.map("curate.pipelines.emit:write_shard", shard_tasks)
    shutil.rmtree(spill, ignore_errors=True)
    written = sum(f["rows"] for f in files)
    if written != wide.kept:
        raise InternalError(f"rows do not balance: {wide.kept} kept, {written} written; nothing was published")
    return files


def our_columns(nodes: Sequence[Node]) -> dict[str, tuple[Node, str]]:
    """Our columns of a publication, by name: measures, not verdicts."""
    base = nodes[0]
    found = {name: (base, name) for name in (IDENTITY, BYTES, WORDS)}
    for node in nodes[1:]:
        hidden = (KEEP, REASON, *getattr(node.stage, "unpublished", ()))
        for item in (*node.fields(), *node.finish_fields()):
            if item.name not in hidden:
                found[f"curate_{node.column(item.name)}"] = (node, item.name)
    return found


def published_schema(layout: Layout, nodes: Sequence[Node]) -> pa.Schema:
    """The user's columns, then ours."""
    ours = []
    for name, (node, item) in our_columns(nodes).items():
        schema = node.fields() if item in node.fields().names else node.finish_fields()
        ours.append(schema.field(item).with_name(name))
    return pa.schema([*layout.schema, *ours])


def spill(task: SpillTask) -> list[tuple[int, Path, int]]:
    """Write the kept rows of some parts into one file, its batches apart by shard; return (shard, file, batch)."""
    pa.set_cpu_count(1)
    schema = published_schema(task.layout, task.nodes).append(pa.field(ORDER, pa.uint64()))
    path = task.folder / f"{task.number:06d}.arrow"
    pieces: list[tuple[int, Path, int]] = []
    held: list[pa.RecordBatch] = []
    held_bytes = 0
    with pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        for part, twin in task.parts:
            for batch in _kept_batches(task, part, twin):
                held.append(batch)
                held_bytes += batch.nbytes
                if held_bytes >= SPILL_BYTES:
                    _write_pieces(held, task.shards, file, path, pieces)
                    held, held_bytes = [], 0
        _write_pieces(held, task.shards, file, path, pieces)
    return pieces


def _write_pieces(held: list[pa.RecordBatch], shards: int, file: Any, path: Path, pieces: list[tuple[int, Path, int]]) -> None:
    if not held:
        return
    table = pa.Table.from_batches(held)
    shard = _shard_of(table[ORDER].to_numpy(), shards)
    for number in np.unique(shard).tolist():
        for batch in table.take(pa.array(np.flatnonzero(shard == number))).to_batches():
            pieces.append((number, path, len(pieces)))
            file.write_batch(batch)


def _shard_of(order: np.ndarray, shards: int) -> np.ndarray:
    """Shard i holds the i-th of `shards` equal ranges of the 64-bit order."""
    return ((order >> np.uint64(32)) * np.uint64(shards) >> np.uint64(32)).astype(np.int64)


def _kept_batches(task: SpillTask, part: Part, twin: int) -> Iterator[pa.RecordBatch]:
    name = part_name(part, twin)
    index = np.flatnonzero(kept_rows(task.nodes, name))
    if not len(index):
        return
    chosen = pa.array(index)
    ours = {n: stored_column(node, name, item).take(chosen).combine_chunks() for n, (node, item) in our_columns(task.nodes).items()}
    keys = stored_column(task.nodes[0], name, KEY).take(chosen).to_numpy()
    order = pa.array(randomness.bits(keys, task.stream))
    schema = published_schema(task.layout, task.nodes).append(pa.field(ORDER, pa.uint64()))
    at = 0
    for batch in read_part(task.layout, part, columns=task.layout.schema.names, text=False, rows=index):
        rows = slice(at, at + batch.num_rows)
        columns = [batch.column(n) for n in task.layout.schema.names]
        columns += [values[rows] for values in ours.values()]
        yield pa.record_batch([*columns, order[rows]], schema=schema)
        at += batch.num_rows


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Sort one shard and write it; return its name, rows, bytes and SHA-256."""
    pa.set_cpu_count(1)
    files: dict[Path, Any] = {}
    batches = []
    for path, number in task.pieces:
        if path not in files:
            files[path] = pa.ipc.open_file(pa.memory_map(str(path)))
        batches.append(files[path].get_batch(number))
    table = pa.Table.from_batches(batches, task.schema.append(pa.field(ORDER, pa.uint64())))
    table = table.take(_sorted(table)).drop_columns([ORDER]).combine_chunks()
    table = table.replace_schema_metadata(None)
    if task.format == "parquet":
        plain = [f.name for f in table.schema if pa.types.is_floating(f.type)]
        coded = [n for n in table.schema.names if n not in plain]
        with pq.ParquetWriter(task.out, table.schema, compression="zstd", use_dictionary=coded) as file:
            if table.num_rows:  # some readers stumble over a row group without rows
                file.write_table(table, row_group_size=ROW_GROUP)
    else:
        _write_jsonl(table, task.out)
    return {"file": f"data/{task.out.name}", "rows": table.num_rows, "bytes": task.out.stat().st_size, "sha256": _sha256(task.out)}


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


def _write_jsonl(table: pa.Table, out: Path) -> None:
    import orjson
    import zstandard

    schema = pa.schema([item.with_type(plain_type(item.type)) for item in table.schema])
    with open(out, "wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
        for batch in table.cast(schema).to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                try:
                    file.write(orjson.dumps(row, default=json_value, option=orjson.OPT_APPEND_NEWLINE))
                except TypeError as error:
                    raise StageError(f"emit: a column cannot be written as JSON ({error}); use emit: {{format: parquet}}") from error


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
