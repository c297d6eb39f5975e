"""The wide table `docs/`: one row per document with everything that was decided about it, and the funnel.

Sidecars are zipped together by row, part by part. Columns of a stage are null where an earlier stage had dropped the
document, whatever an earlier run may have computed for it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import records, spans
from curate.corpus import Layout, Part, read_part
from curate.documents import QUARANTINED, TAKEDOWN
from curate.engine import in_order
from curate.errors import InternalError
from curate.plan import Node, part_name, stored_column
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, TEXT_HASH, WORDS
from curate.store import (
    Written,
    digest,
    note,
    point,
    read_stored,
    read_table,
    row_count,
    sync,
    write_table,
    writing,
)

if TYPE_CHECKING:
    from curate.runner import Run

#: Text whose documents share one file of `docs/`: a sixteenth of the corpus, so that workers have files to share,
#: but not so little that files are many, nor so much that one is large (2 GB of text have some 128 MB of columns).
GROUP_SHARE, GROUP_LEAST, GROUP_MOST = 16, 128_000_000, 2_000_000_000
KEPT, DROP_STAGE, DROP_REASON = "curate_keep", "curate_drop_stage", "curate_drop_reason"
#: What the funnel is counted from, and of about how many rows at a time.
COUNTED, COUNTED_ROWS = (DROP_STAGE, DROP_REASON, BYTES, WORDS), 65536
_HIDDEN = (KEY, TEXT_HASH, QUARANTINED)
FUNNEL = pa.schema(
    [("position", pa.int64()), ("stage", pa.string()), ("reason", pa.string()), ("source", pa.string()),
     ("documents", pa.int64()), ("bytes", pa.int64()), ("words", pa.int64())]
)  # fmt: skip


@dataclass(frozen=True)
class Wide:
    """The wide table as it stands: its folder and key, and the counts that balance."""

    folder: Path
    key: str
    documents: int
    kept: int
    text_bytes: int
    funnel: pa.Table


@dataclass(frozen=True)
class DocsTask:
    """Some parts, to become one file."""

    layout: Layout
    parts: list[tuple[Part, int]]
    nodes: list[Node]
    source: str | None
    out: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"{self.out.name} (from part {self.parts[0][0].number} on)"


def columns_of(layout: Layout, nodes: Sequence[Node]) -> pa.Schema:
    """The wide table's schema; kinds and directions of scores travel in the fields' metadata."""
    user = [layout.schema.field(name) for name in _users(layout)]
    fields = [pa.field("doc", pa.int64()), pa.field(IDENTITY, pa.string()), pa.field("file", pa.string()), pa.field("row", pa.int64()), *user]
    for node in nodes:
        fields += [item for name, item in node.listed().items() if name not in _HIDDEN and name != IDENTITY]
    fields += [pa.field(KEPT, pa.bool_()), pa.field(DROP_STAGE, pa.string()), pa.field(DROP_REASON, pa.string())]
    return pa.schema(fields)


def _users(layout: Layout) -> list[str]:
    """The user's columns that the wide table has: all but the text; the id and the source also where a template names them."""
    named = (layout.spec.id, layout.spec.source)
    return [name for name in layout.schema.names if name not in layout.text_columns or name in named]


def write(run: Run) -> Wide:
    """Write the wide table if it is not there, switch `docs` to it, and check that the rows balance."""
    key = digest(
        run.inputs, [[p.number, p.file] for p in run.parts],
        [[n.label, n.key, *(str(f.relative_to(run.store)) if f else "" for f in (n.measures, n.state, n.verdicts, n.finished))] for n in run.nodes],
        str(columns_of(run.corpus.layout, run.nodes)), run.recipe.corpus.source,
    )  # fmt: skip
    folder = run.folder / ".docs" / key
    if not folder.exists() or (run.before is not None and run.before.lacks(folder)):
        _build(run, folder)
    funnel = read_table(folder / "_funnel.parquet")
    parts = read_table(folder / "_parts.parquet")
    counts = dict(zip(parts["part"].to_pylist(), parts["rows"].to_pylist(), strict=True))
    wide = _balanced(run, folder, key, funnel, counts)
    records.write_lock(run)
    write_table(run.folder / "parts.parquet", parts, run.staging)
    write_table(run.folder / "funnel.parquet", funnel, run.staging)
    point(run.folder / "docs", f".docs/{key}", run.staging)
    for old in (run.folder / ".docs").iterdir():
        if old.name != key:
            gone = run.staging / f"old-{old.name}"
            old.rename(gone)  # one who lost the lease finds no staging folder, and removes nothing of its successor's
            shutil.rmtree(gone, ignore_errors=True)
    return wide


def _build(run: Run, folder: Path) -> None:
    making = run.staging / f"docs-{folder.name}"
    making.mkdir()
    pairs = list(zip(run.parts, run.twins, strict=True))
    sizes = [p.bytes for p in run.parts]
    limit = min(max(sum(sizes) // GROUP_SHARE, GROUP_LEAST), GROUP_MOST)
    groups = list(in_order(pairs, sizes, limit))
    tasks = [
        DocsTask(run.corpus.layout.of(p for p, _ in group), group, run.nodes, run.recipe.corpus.source, making / f"docs-{i:05d}.parquet")
        for i, group in enumerate(groups)
    ]
    with run.events.phase("docs"):
        results = run.engine.map("curate.docs:write_file", tasks)
    run.written |= {written.path: written for _, _, written in results}
    rows = {number: count for counts, _, _ in results for number, count in counts.items()}
    funnel = _merged([table for _, table, _ in results])
    write_table(making / "_funnel.parquet", funnel, run.staging)
    write_table(making / "_parts.parquet", records.parts_table(run, rows), run.staging)  # doc has its part's number: they stay together
    sync(making)
    settle(making, folder, run.written)


def settle(making: Path, folder: Path, written: dict[str, Written]) -> None:
    """Give a folder that is complete its final name, and what was noted of its files theirs.

    Where the folder is there and lacks a file, someone took it away: all are put in their places again, one by one.
    """
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        for made in sorted(making.rglob("*")):
            place = folder / made.relative_to(making)
            if made.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(made, place)
        shutil.rmtree(making)
        for inside in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
            sync(inside)
    else:
        making.rename(folder)
    sync(folder.parent)
    for path in [path for path in written if Path(path).is_relative_to(making)]:
        moved = str(folder / Path(path).relative_to(making))
        written[moved] = msgspec.structs.replace(written.pop(path), path=moved)


def _merged(tables: list[pa.Table]) -> pa.Table:
    """Add up the counts of all files; sorted, so that neither files nor workers show."""
    everything = pa.concat_tables(tables)
    summed = everything.group_by(["position", "stage", "reason", "source"]).aggregate(
        [("documents", "sum"), ("bytes", "sum"), ("words", "sum")]
    )
    summed = summed.rename_columns([n.removesuffix("_sum") for n in summed.schema.names]).select(FUNNEL.names).cast(FUNNEL)
    order = [("position", "ascending"), ("stage", "ascending"), ("reason", "ascending"), ("source", "ascending")]
    return summed.sort_by(order)


def _balanced(run: Run, folder: Path, key: str, funnel: pa.Table, counts: dict[int, int]) -> Wide:
    """read = kept + dropped by reason + quarantined, each side counted on its own; otherwise the run fails."""
    files = sorted(folder.glob("docs-*.parquet"))
    written = sum(row_count(file) for file in files)
    by_stage = {row["stage"]: 0 for row in funnel.to_pylist()}
    for row in funnel.to_pylist():
        by_stage[row["stage"]] += row["documents"]
    read, kept = sum(counts.values()), by_stage.get("kept", 0)
    dropped = sum(n for stage, n in by_stage.items() if stage != "kept")
    known = sum(p.rows for p in run.parts if p.rows >= 0)
    if not (read == written == kept + dropped) or (all(p.rows >= 0 for p in run.parts) and known != read):
        raise InternalError(f"rows do not balance: {read} read, {written} in docs, {kept} kept + {dropped} dropped; nothing was published")
    kept_bytes = sum(row["bytes"] for row in funnel.to_pylist())
    return Wide(folder, key, read, kept, kept_bytes, funnel)


def write_file(task: DocsTask) -> tuple[dict[int, int], pa.Table, Written]:
    """Write one file of the wide table; return each part's rows, the file's funnel, and what the file is."""
    schema = columns_of(task.layout, task.nodes)
    counts: dict[int, int] = {}
    funnels: list[pa.Table] = []
    waiting: list[pa.Table] = []  # to be counted together: the parts may be small and many
    plain = [f.name for f in schema if pa.types.is_floating(f.type)]
    unique = (IDENTITY, "doc", "row", task.layout.spec.id)  # a dictionary of what never repeats costs and gains nothing
    coded = [n for n in schema.names if n not in plain and n not in unique]
    with (
        writing(task.out),
        pq.ParquetWriter(task.out, schema, compression="lz4", use_dictionary=coded, write_page_checksum=True) as writer,
    ):
        for part, twin in task.parts:
            table = part_table(task.layout, part, twin, task.nodes, schema)
            counts[part.number] = table.num_rows
            writer.write_table(table, row_group_size=65536)
            waiting.append(table.select(list(dict.fromkeys([*COUNTED, *([task.source] if task.source else [])]))))
            if sum(map(len, waiting)) >= COUNTED_ROWS:
                funnels.append(_funnel(pa.concat_tables(waiting), task.nodes, task.source))
                waiting = []
        if waiting:
            funnels.append(_funnel(pa.concat_tables(waiting), task.nodes, task.source))
    sync(task.out)
    written = note(task.out, rows=sum(counts.values()))
    return counts, pa.concat_tables(funnels), written


def part_table(layout: Layout, part: Part, twin: int, nodes: Sequence[Node], schema: pa.Schema) -> pa.Table:
    """All columns of the wide table for one part."""
    name = part_name(part, twin)
    user = _users(layout)
    columns: dict[str, Any] = {}
    rows, alive = None, np.empty(0, bool)
    drop_stage: np.ndarray = np.empty(0, object)
    reasons: list[tuple[np.ndarray, pa.Array]] = []
    for node in nodes:
        stored = _stored(node, name)
        if rows is None:
            rows = len(next(iter(stored.values())))
            alive, drop_stage = np.ones(rows, bool), np.full(rows, None, object)
        shown = alive.copy()
        for item, values in stored.items():
            values = values.combine_chunks()
            if not shown.all() and node.named:
                values = pc.if_else(pa.array(shown), values, pa.scalar(None, values.type))
            columns[node.column(item)] = values
        if node.rewrites:  # the sizes of a text are those that it had when it was dropped, or has now
            for size in (BYTES, WORDS):
                changed = stored_column(node, name, spans.CURRENT[size].name).combine_chunks()
                columns[size] = pc.if_else(pa.array(shown), changed, columns[size])
        if node.decides():
            keep = np.asarray(pc.fill_null(stored[KEEP], False).to_numpy()).astype(bool)
            gone = shown & ~keep
            drop_stage[gone] = node.label
            reasons.append((gone, stored[REASON].combine_chunks()))
            alive &= keep
    assert rows is not None
    columns |= {
        "doc": pa.array((part.number << 32) + np.arange(rows, dtype=np.int64)),
        "file": pa.array([part.file], pa.string()).take(pa.array(np.zeros(rows, np.int32))),
        "row": pa.array(part.first_row + np.arange(rows, dtype=np.int64)),
        KEPT: pa.array(alive), DROP_STAGE: pa.array(drop_stage, pa.string()), DROP_REASON: _reason(rows, reasons),
    }  # fmt: skip
    if user:
        batches = list(read_part(layout, part, columns=user, text=False))
        own = pa.Table.from_batches(batches) if batches else pa.table([pa.array([], layout.schema.field(n).type) for n in user], user)
        if own.num_rows != rows:
            raise InternalError(f"{part.file}: part {part.number} had {rows} rows in the first pass and has {own.num_rows} now")
        columns |= {n: own[n] for n in user}
        _take_down(layout, columns, user, drop_stage == TAKEDOWN)
    return pa.table([columns[n] for n in schema.names], schema)


def _take_down(layout: Layout, columns: dict[str, Any], user: list[str], gone: np.ndarray) -> None:
    """Blank the user's columns of documents that were taken down, but for what tells which they are and counts them."""
    if not gone.any():
        return
    kept = (layout.spec.id, layout.spec.source, layout.spec.license)
    index = pa.array(np.arange(len(gone)), mask=gone)
    columns |= {n: columns[n].take(index) for n in user if n not in kept}


def _stored(node: Node, name: str) -> dict[str, pa.ChunkedArray]:
    """All stored columns of a node for a part, by field name."""
    found: dict[str, pa.ChunkedArray] = {}
    if node.measures is not None:
        pair = node.sidecars().read(name, [n for n in node.fields().names if n not in node.unlisted()])
        if pair is None:
            raise InternalError(f"the sidecar of {node.label!r} for part {name} is missing")
        found |= {n: pair[0][n] for n in pair[0].schema.names}
    for folder in (node.verdicts, node.finished):
        if folder is not None:
            table = read_stored(folder / f"{name}.parquet")
            found |= {n: table[n] for n in table.schema.names}
    return found


def _reason(rows: int, reasons: list[tuple[np.ndarray, pa.Array]]) -> pa.Array:
    result = pa.nulls(rows, pa.string())
    for gone, reason in reasons:
        if gone.any():
            result = pc.if_else(pa.array(gone), reason, result)
    return result


def _funnel(table: pa.Table, nodes: Sequence[Node], source: str | None) -> pa.Table:
    """Documents, bytes and words of one part by what became of them."""
    stage = pc.fill_null(table[DROP_STAGE], "kept")
    places = {n.label: n.position for n in nodes} | {"kept": len(nodes)}
    labels = pa.array(list(places))
    position = pa.array(list(places.values()), pa.int64()).take(pc.index_in(stage, labels).combine_chunks())
    sources = table[source].cast(pa.string()) if source else pa.nulls(table.num_rows, pa.string())
    flat = pa.table(
        {"position": position, "stage": stage, "reason": table[DROP_REASON], "source": sources, "bytes": pc.fill_null(table[BYTES], 0),
         "words": pc.fill_null(table[WORDS], 0)}
    )  # fmt: skip
    counted = flat.group_by(["position", "stage", "reason", "source"]).aggregate([([], "count_all"), ("bytes", "sum"), ("words", "sum")])
    counted = counted.rename_columns([{"count_all": "documents"}.get(n, n.removesuffix("_sum")) for n in counted.schema.names])
    return counted.select(FUNNEL.names).cast(FUNNEL)
