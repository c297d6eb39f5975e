"""Samples of the pool that stages train on: drawn by identity and seed, bounded in rows and bytes, the same for any cut.

A stage with `fit_sample` names its samples and their bounds (docs/stages.md). The documents that are still kept when the
stage is reached are ordered by a random number of (seed, stage's name, sample, identity); each sample is the longest
beginning of that order that its bounds allow. A beginning of a beginning is a sample too, so a stage may take less.

    draw    columns alone, part by part, no text: the listing store/<S>/fit/sample-<inputs>.parquet
    read    the listed rows, in the workers, in the order of the draw
    fit     fit_sample, once, in the leader: the state, named by the listed texts and the targets
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import xxhash

from curate import finishing, randomness, spans
from curate.corpus import Layout, Part
from curate.errors import ConfigError, InternalError, StageError
from curate.frame import DOC
from curate.plan import Node, rewriters, stored_columns, wide_columns
from curate.stage import BASE_COLUMNS, BYTES, IDENTITY, KEY, TEXT, TEXT_HASH
from curate.store import digest, read_table, write_table, writing

if TYPE_CHECKING:
    from curate.runner import Run

#: A document of more than this share of a sample's bytes is not drawn: one of them would end the sample.
LARGEST = 64
LISTING = pa.schema(
    [("sample", pa.string()), ("part", pa.string()), ("row", pa.int64()), (IDENTITY, pa.string()), (TEXT_HASH, pa.binary(16)), (BYTES, pa.int64())]
)
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """How much a sample holds at most: documents, and bytes of their current text (None: any number)."""

    rows: int
    bytes: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or (self.bytes is not None and self.bytes < 1):
            raise ConfigError(f"expected a sample of at least 1 row and 1 byte, got {self.rows} rows and {self.bytes} bytes")

    @property
    def largest(self) -> int:
        """Bytes of the largest document that is drawn."""
        return 2**62 if self.bytes is None else max(1, self.bytes // LARGEST)


def folds(hashes: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """0 or 1 for each text hash (binary(16), no nulls), by its last bit: uint8[n].

    Copies of a text share a fold. A document is scored by the model that was trained on the other fold, so by none that saw
    it or a copy of it, whether it was in the sample or not.
    """
    whole = hashes.combine_chunks() if isinstance(hashes, pa.ChunkedArray) else hashes
    if not len(whole):
        return np.empty(0, np.uint8)
    data = np.frombuffer(whole.buffers()[1], np.uint8)[whole.offset * 16 : (whole.offset + len(whole)) * 16]
    return np.ascontiguousarray(data.reshape(-1, 16)[:, 15] & 1)


class Drawn:
    """One sample as it is drawn: what may still be in it, part by part."""

    def __init__(self, bounds: Bounds, stream: int) -> None:
        self.bounds = bounds
        self._stream = stream
        self.draw = np.empty(0, np.uint64)
        self.size = np.empty(0, np.int64)
        self.doc = np.empty(0, np.int64)
        self.too_large = 0

    def add(self, doc: Int64, key: npt.NDArray[np.uint64], size: Int64) -> None:
        """Show it some documents: place, key, bytes."""
        fits = size <= self.bounds.largest
        self.too_large += int((~fits).sum())
        draw = randomness.bits(key[fits], self._stream)
        self.draw = np.concatenate([self.draw, draw])
        self.size = np.concatenate([self.size, size[fits]])
        self.doc = np.concatenate([self.doc, doc[fits]])
        if len(self.draw) > 2 * self.bounds.rows + 65536:
            self._cut()

    def _cut(self) -> None:
        """Leave out what no order of ties can bring into the sample."""
        order = np.argsort(self.draw, kind="stable")
        held = self._held(self.size[order])
        if held < len(order):
            order = order[: np.searchsorted(self.draw[order], self.draw[order][held], side="right")]
        self.draw, self.size, self.doc = self.draw[order], self.size[order], self.doc[order]

    def _held(self, sizes: Int64) -> int:
        """How many of the first rows the bounds allow."""
        within = len(sizes) if self.bounds.bytes is None else int(np.searchsorted(np.cumsum(sizes), self.bounds.bytes, side="right"))
        return min(self.bounds.rows, within)

    def tied(self) -> Int64:
        """The documents whose draw is another's too."""
        self._cut()
        same = np.zeros(len(self.draw), bool)
        same[1:] = self.draw[1:] == self.draw[:-1]
        same[:-1] |= same[1:]
        return np.asarray(self.doc[same])

    def chosen(self, ties: Mapping[int, tuple[str, str]]) -> Int64:
        """The sample's documents in the order of their draw; equal draws by what `ties` says of them."""
        self._cut()
        none = ("", "")
        order = sorted(range(len(self.draw)), key=lambda i: (int(self.draw[i]), ties.get(int(self.doc[i]), none))) if ties else np.arange(len(self.draw))
        order = np.asarray(order, np.int64)
        return np.asarray(self.doc[order[: self._held(self.size[order])]])


# -- drawing ------------------------------------------------------------------------------------------------------


def listing_of(run: Run, node: Node) -> Path:
    """Where the listing of a node's samples lies: by all parts and by what decides which of their rows are kept."""
    inputs = digest("sample", run.inputs, [p.number for p in run.parts], run.verdict_keys(node))
    return run.store / node.key / "fit" / f"sample-{inputs}.parquet"


def draw(run: Run, node: Node, listing: Path) -> None:
    """Draw a node's samples from the columns that are stored, and write the listing."""
    stage = node.stage
    bounds: Mapping[str, Bounds] = stage.samples()
    drawn = {name: Drawn(b, randomness.stream(node.spec.context.seed, stage.name, "sample", name)) for name, b in bounds.items()}
    asks = list(getattr(stage, "sample_from", list)())
    wide = wide_columns(run.nodes[: node.position + 1])
    for part, name in zip(run.parts, run.names, strict=True):
        table = finishing.part_columns(run, part, name, list(dict.fromkeys([KEY, BYTES, *asks])), node.position, wide).combine_chunks()
        doc, key, size = (np.asarray(table[n].to_numpy()) for n in (DOC, KEY, BYTES))
        of = _samples_of(node, table.select(asks)) if asks else None
        for sample, own in drawn.items():
            rows = slice(None) if of is None else np.asarray(pc.fill_null(pc.equal(of, sample), False).to_numpy(zero_copy_only=False))
            own.add(doc[rows], key[rows], size[rows])
    ties = _ties(run, node, np.concatenate([own.tied() for own in drawn.values()]))
    chosen = {sample: own.chosen(ties) for sample, own in drawn.items()}
    for sample, own in drawn.items():
        if own.too_large:
            run.say(node, f"{own.too_large:,} documents of more than {own.bounds.largest:,} bytes are not drawn into the sample {sample!r}")
    write_table(listing, _listed(run, node, chosen), run.scratch)


def _samples_of(node: Node, table: pa.Table) -> pa.Array:
    """Which sample each row may be drawn into, by the stage."""
    batch = pa.RecordBatch.from_arrays([c.combine_chunks() for c in table.columns], names=table.schema.names)
    of = node.stage.sample_of(batch)
    if len(of) != table.num_rows:
        raise StageError(f"stage {node.label!r}: sample_of was given {table.num_rows} rows and returned {len(of)}")
    return of


def _ties(run: Run, node: Node, docs: Int64) -> dict[int, tuple[str, str]]:
    """Identity and hash of the whole row for documents with equal draws: copies of one text, where no ids are named.

    Nothing where the stage is shown the text and its measures alone, which copies have in common.
    """
    if not len(docs) or not _reads_more(node):
        return {}
    found = {}
    hashes = finishing.row_hashes(run, pa.chunked_array([pa.array(docs)]))
    by_doc = dict(zip(hashes[DOC].to_pylist(), hashes["row_hash"].to_pylist(), strict=True))
    for row in _columns_of(run, node, docs, [IDENTITY]).to_pylist():
        found[row[DOC]] = (row[IDENTITY], by_doc[row[DOC]])
    return found


def _reads_more(node: Node) -> bool:
    """Whether a stage's samples have columns beside the text and what the first pass says of it."""
    return any(n != TEXT and n not in BASE_COLUMNS for n in node.stage.sample_reads())


def _columns_of(run: Run, node: Node, docs: Int64, names: list[str]) -> pa.Table:
    """Stored columns of some documents, in order of doc."""
    docs = np.unique(docs)
    wide = wide_columns(run.nodes[: node.position + 1])
    tables = []
    for part, name in zip(run.parts, run.names, strict=True):
        low, high = np.searchsorted(docs, [part.number << 32, (part.number + 1) << 32])
        if high > low:
            table = finishing.part_columns(run, part, name, names, node.position, wide)
            tables.append(table.take(pa.array(np.searchsorted(table[DOC].to_numpy(), docs[low:high]))))
    return pa.concat_tables(tables)


def _listed(run: Run, node: Node, chosen: Mapping[str, Int64]) -> pa.Table:
    everything = np.concatenate(list(chosen.values()))
    if not len(everything):
        return LISTING.empty_table()
    columns = _columns_of(run, node, everything, [IDENTITY, TEXT_HASH, BYTES])
    order = pa.array(np.searchsorted(columns[DOC].to_numpy(), everything))
    rows = columns.take(order)
    names = {part.number: name for part, name in zip(run.parts, run.names, strict=True)}
    return pa.table(
        [pa.array([s for s, docs in chosen.items() for _ in docs], pa.string()), pa.array([names[d >> 32] for d in everything.tolist()], pa.string()),
         pa.array(everything & 0xFFFFFFFF), rows[IDENTITY], rows[TEXT_HASH], rows[BYTES]], schema=LISTING,
    )  # fmt: skip


def state_name(node: Node, listing: pa.Table, guides: str) -> str:
    """The state's name: what is in the samples, in order, and the targets. The cut of files is not in it where text alone is read."""
    content = xxhash.xxh3_128()
    for row in listing.select(["sample", IDENTITY, TEXT_HASH, *(["part", "row"] if _reads_more(node) else [])]).to_pylist():
        content.update(repr(list(row.values())).encode())
    return digest("sample", content.hexdigest(), guides)


# -- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadTask:
    """Rows of one part, with the columns that a stage's samples are made of."""

    layout: Layout
    part: Part
    name: str  # the part's, in the store
    rows: Int64
    nodes: list[Node]  # the stage's, last, and all before it
    out: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"part {self.part.number} ({self.part.file})"


def read_part_rows(task: ReadTask) -> Path:
    """Write the columns of the rows, in their order, to a file; returns it."""
    node = task.nodes[-1]
    names = list(node.stage.sample_reads())
    wide = wide_columns(task.nodes[:-1])
    user = [n for n in names if n != TEXT and n not in wide]
    stored = stored_columns({n: wide[n] for n in names if n in wide}, task.name)
    at = 0
    writer = None
    with writing(task.out), open(task.out, "wb") as file:
        for batch in spans.read_current(task.layout, task.part, task.name, rewriters(task.nodes[:-1]), columns=user, text=TEXT in names, rows=task.rows):
            index = pa.array(task.rows[at : at + batch.num_rows])
            at += batch.num_rows
            arrays = [stored[n].combine_chunks().take(index) if n in stored else batch.column(n) for n in names]
            arrays = [a.cast(pa.large_string()) if pa.types.is_string(a.type) else a for a in arrays]
            out = pa.record_batch(arrays, names=names)
            writer = writer or ipc.new_file(file, out.schema)
            writer.write_batch(out)
        if writer:
            writer.close()
    if at != len(task.rows):
        raise InternalError(f"{task.part.file}: asked for {len(task.rows)} rows of part {task.part.number}, read {at}")
    return task.out


def read(run: Run, node: Node, listing: pa.Table) -> dict[str, pa.Table]:
    """The samples by name, each with the columns of `sample_reads`, strings as large_string, in the order of the draw."""
    parts = {name: part for part, name in zip(run.parts, run.names, strict=True)}
    names, rows = listing["part"].to_numpy(), listing["row"].to_numpy()
    nodes = run.nodes[: node.position + 1]
    run.scratch.mkdir(parents=True, exist_ok=True)
    tasks: list[ReadTask] = []
    places: list[tuple[Int64, Int64]] = []
    for name in sorted(set(names.tolist())):
        at = np.flatnonzero(names == name)
        wanted, inverse = np.unique(rows[at], return_inverse=True)
        out = run.scratch / f"sample-{node.position}-{len(tasks)}.arrow"
        tasks.append(ReadTask(run.corpus.layout.of([parts[name]]), parts[name], name, wanted, nodes, out))
        places.append((at, inverse))
    tables: list[pa.Table] = []
    order, seen = np.empty(len(rows), np.int64), 0
    for out, (at, inverse) in zip(run.engine.map("curate.sampling:read_part_rows", tasks), places, strict=True):
        with pa.OSFile(str(out)) as file:  # copied out of it: the file goes
            tables.append(ipc.open_file(file).read_all())
        out.unlink()
        order[at] = seen + inverse
        seen += tables[-1].num_rows
    if not tables:
        return {sample: _empty(run, node) for sample in node.stage.samples()}
    table = pa.concat_tables(tables).take(pa.array(order))
    return {sample: table.filter(pc.equal(listing["sample"], sample)) for sample in node.stage.samples()}


def _empty(run: Run, node: Node) -> pa.Table:
    known: dict[str, Any] = {**{f.name: f.type for f in run.corpus.layout.schema}, TEXT: pa.large_string()}
    for earlier in run.nodes[: node.position]:
        known |= {n: f.type for n, f in earlier.columns().items()}
    kinds: Sequence[Any] = [known[n] for n in node.stage.sample_reads()]
    return pa.schema([(n, pa.large_string() if pa.types.is_string(k) else k) for n, k in zip(node.stage.sample_reads(), kinds, strict=True)]).empty_table()


def complete(run: Run, listing: Path) -> bool:
    """Whether all rows of a listing are in this run's parts."""
    return listing.exists() and set(pc.unique(read_table(listing, ["part"])["part"]).to_pylist()) <= set(run.names)
