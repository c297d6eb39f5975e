"""What stands around a stage's `finish`: all documents' columns brought together, and its answer taken apart again.

Columns pass through here part by part, so that no more than one part's rows are held however large the corpus is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.carried import carried
from curate.corpus import Part, file_location, read_part
from curate.errors import DataError, InternalError, StageError
from curate.frame import DOC, Frame
from curate.gather import gathered
from curate.plan import Node, kept_by, stored_columns, wide_columns
from curate.rowhash import HashTask
from curate.stage import IDENTITY
from curate.store import Written, digest, write_bytes, write_table
from curate.vectors import SLOT, VectorFile

if TYPE_CHECKING:
    from curate.runner import Run


def finish(run: Run, node: Node) -> None:
    """Show a stage all documents' columns at once and scatter what it says over the parts."""
    reads = list(dict.fromkeys(node.stage.finish_reads()))
    schema = _read_schema(run, node, reads)
    vectors = _vector_files(run, node, schema)
    frame = Frame(
        _frame_schema(node, schema, vectors),
        _frame_batches(run, node, reads, vectors),
        lambda docs: row_hashes(run, docs),
        gather=lambda docs: gathered(run, node, docs),
        references=run.references.get(node.position),
        vectors=vectors,
        scratch=run.scratch,
        threads=run.workers,
    )
    try:
        _scatter(run, node, node.stage.finish(frame))
    finally:
        frame.close()


def _read_schema(run: Run, node: Node, reads: Sequence[str]) -> pa.Schema:
    """`doc` and the columns that a finish reads, as they are stored."""
    wide = {
        n: item for earlier in run.nodes[: node.position + 1] for n, item in earlier.columns().items()
    }
    fields = [pa.field(DOC, pa.int64())]
    for name in reads:
        item = wide[name] if name in wide else run.corpus.layout.schema.field(name)
        fields.append(pa.field(name, item.type))
    return pa.schema(fields)


def _vector_files(run: Run, node: Node, schema: pa.Schema) -> list[VectorFile]:
    """Where the vectors go of a stage that says which columns they are."""
    files: list[VectorFile] = []
    run.scratch.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(getattr(node.stage, "vector_columns", ())):
        path = run.scratch / f"vectors-{node.position}-{i}"
        directions = getattr(node.stage, "directions", True)
        files.append(VectorFile(path, schema.field(name).type, name, slot=SLOT if not i else f"{SLOT}_{i}", directions=directions))
    return files


def _frame_schema(node: Node, schema: pa.Schema, vectors: Sequence[VectorFile]) -> pa.Schema:
    for file in vectors:
        schema = file.spooled_schema(schema)
    return getattr(node.stage, "prepared", lambda schema: schema)(schema)


def _frame_batches(run: Run, node: Node, reads: Sequence[str], vectors: Sequence[VectorFile]) -> Iterator[pa.RecordBatch]:
    """For each part, the columns of the rows that earlier stages kept."""
    prepare = getattr(node.stage, "prepare", None)
    wide = wide_columns(run.nodes[: node.position + 1])
    for part, name in zip(run.parts, run.names, strict=True):
        table = part_columns(run, part, name, reads, node.position, wide)
        for batch in table.combine_chunks().to_batches():
            for file in vectors:
                batch = file.spooled(batch)
            yield prepare(batch) if prepare else batch


def part_columns(run: Run, part: Part, name: str, reads: Sequence[str], position: int, wide: Mapping[str, tuple[Node, str]]) -> pa.Table:
    """`doc` and some columns of the wide table for the rows of a part that nodes before `position` kept.

    `wide`: the columns that there are up to the node at `position`.
    """
    rows = rows_of(run, part, name)
    keep = np.ones(rows, bool)
    for earlier in run.nodes[:position]:
        keep &= kept_by(earlier, name, rows)
    index = np.flatnonzero(keep)
    columns: dict[str, Any] = {DOC: pa.array((part.number << 32) + index)}
    user = [n for n in reads if n not in wide]
    if user:
        batches = list(read_part(run.corpus.layout, part, columns=user, text=False))
        table = pa.Table.from_batches(batches) if batches else None
    stored = stored_columns({column: wide[column] for column in reads if column in wide}, name)
    for column in reads:
        if column in wide:
            values = stored[column]
        else:
            values = (
                table[column]
                if table is not None
                else pa.chunked_array([], run.corpus.layout.schema.field(column).type)
            )
        columns[column] = values if len(index) == rows else values.take(pa.array(index))
    return pa.table(columns)


def rows_of(run: Run, part: Part, name: str) -> int:
    """How many rows a part has: known once the first pass has been over it."""
    if part.number not in run.rows:
        found = run.nodes[0].sidecars().read(name, [])
        if found is None:
            raise InternalError(f"part {part.number} has not been read")
        run.rows[part.number] = len(found[1])
    return int(run.rows[part.number])


def _scatter(run: Run, node: Node, reader: pa.RecordBatchReader) -> None:
    """Write a finish's rows, which come in order of doc, as one file for each part, aligned with its rows.

    One part's rows are held at a time, however many documents there are.
    """
    schema = node.finish_fields()
    if set(reader.schema.names) != {DOC, *schema.names}:
        raise StageError(
            f"stage {node.label!r}: finish must return {[DOC, *schema.names]}, got {reader.schema.names}"
        )
    names = {part.number: name for part, name in zip(run.parts, run.names, strict=True)}
    before = said_before(run, node)
    waiting = iter(sorted(run.parts, key=lambda part: part.number))
    held_rows: list[pa.RecordBatch] = []
    current = next(waiting, None)
    last = -1
    for batch in reader:
        docs_column = batch.column(DOC).to_numpy()
        if len(docs_column) and (docs_column[0] <= last or not (np.diff(docs_column) > 0).all()):
            raise InternalError(f"stage {node.label!r}: finish must give each document once, in order of doc")
        at = 0
        while current is not None and at < len(docs_column):
            upto = int(np.searchsorted(docs_column, (current.number + 1) << 32))
            held_rows.append(batch.slice(at, upto - at))
            at = upto
            if upto < len(docs_column):
                _write_finished(run, node, current, names[current.number], held_rows, schema, before)
                held_rows, current = [], next(waiting, None)
        last = int(docs_column[-1]) if len(docs_column) else last
    while current is not None:
        _write_finished(run, node, current, names[current.number], held_rows, schema, before)
        held_rows, current = [], next(waiting, None)


def _write_finished(
    run: Run, node: Node, part: Part, name: str, batches: list[pa.RecordBatch], schema: pa.Schema, before: Mapping[str, Written]
) -> None:
    """One part's rows of a finish, at their places; null where the stage was not shown the row."""
    assert node.finished is not None
    wanted = pa.schema([pa.field(DOC, pa.int64()), *schema])
    rows = [b.select(wanted.names).cast(wanted) for b in batches]
    table = pa.Table.from_batches(rows, wanted).combine_chunks()
    place = np.full(rows_of(run, part, name), -1)
    place[table[DOC].to_numpy() & 0xFFFFFFFF] = np.arange(table.num_rows)
    aligned = table.select(schema.names).take(pa.array(place, mask=place < 0))
    path = node.finished / f"{name}.parquet"
    if name not in before or not carried(before[name], aligned, path):
        write_table(path, aligned, run.scratch)


def said_before(run: Run, node: Node) -> dict[str, Written]:
    """What the last run's finish of this stage says of each part, by the part's name in the store."""
    if run.before is None:
        return {}
    entries = [e for e in run.before.entries if e.kind == "finish" and e.path.startswith(f"{node.key}/finish/")]
    return {Path(e.path).stem: Written(str(run.before.path(e)), e.bytes, e.rows, e.hash) for e in entries}


def row_hashes(run: Run, docs_column: pa.ChunkedArray) -> pa.Table:
    """doc, row_hash: hash the whole rows of some documents, part by part, in the workers."""
    wanted = np.sort(docs_column.to_numpy())
    tasks = []
    for part in run.parts:
        low, high = np.searchsorted(wanted, [part.number << 32, (part.number + 1) << 32])
        if high > low:
            tasks.append(HashTask(run.corpus.layout.of([part]), part, wanted[low:high] & 0xFFFFFFFF))
    tables = run.engine.map("curate.rowhash:hash_rows", tasks)
    return (
        pa.concat_tables(tables)
        if tables
        else pa.table({DOC: pa.array([], pa.int64()), "row_hash": pa.array([], pa.string())})
    )


def ids_checked(run: Run) -> bool:
    """Whether there is nothing to check, or these parts' ids were found to be unique."""
    if run.recipe.corpus.id is None:
        return True
    run.unique = run.store / run.nodes[0].key / "unique" / digest(run.inputs)
    return run.unique.exists()


def check_ids(run: Run) -> None:
    """A named id that repeats is an error: two documents under one name would share one fate."""
    assert run.unique is not None
    schema = pa.schema([(DOC, pa.int64()), (IDENTITY, pa.string())])
    wide = wide_columns(run.nodes[:2])
    batches = (
        batch
        for part, name in zip(run.parts, run.names, strict=True)
        for batch in part_columns(run, part, name, [IDENTITY], 1, wide).combine_chunks().to_batches()
    )
    frame = Frame(schema, batches, lambda docs: row_hashes(run, docs), scratch=run.scratch, threads=run.workers)
    try:
        twice = frame.sql(
            f"SELECT {IDENTITY}, min(doc), max(doc), count(*) FROM pool WHERE hash({IDENTITY}) IN (SELECT hash({IDENTITY}) FROM pool GROUP BY 1 HAVING count(*) > 1) GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 LIMIT 3"
        )
    finally:
        frame.close()
    if twice:
        value, first, last, count = twice[0]
        raise DataError(
            f"the id {value!r} (column {run.recipe.corpus.id!r}) stands {count} times: {place(run, first)} and {place(run, last)}; ids must be unique: name another column, or leave corpus.id out and the text's hash is the identity"
        )
    write_bytes(run.unique, b"", run.scratch)


def place(run: Run, doc: int) -> str:
    """Where a document is, for a message."""
    part = next(p for p in run.parts if p.number == doc >> 32)
    return file_location(run.corpus.layout, part, doc & 0xFFFFFFFF)
