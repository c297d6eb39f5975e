"""One pass over parts, as a worker runs it: measures, verdicts and partials, everything that is missing, in one read.

Stages that read text and have no barrier between them share the read. A batch goes through the steps in order; a
row that an earlier step dropped is not shown to a later one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import documents, ngrams, spans, textrules
from curate.corpus import BAD, Layout, Part, file_location
from curate.errors import CurateError, InternalError, StageError, machine_error
from curate.plan import VERDICT, Node, kept_by, part_name, rewriters, stored_column, wide_columns
from curate.stage import TEXT
from curate.store import Written, noting, read_table, write_table


@dataclass(frozen=True)
class PassTask:
    """The steps to run over some parts; `nodes` are all nodes up to the last step's."""

    layout: Layout
    parts: list[tuple[Part, int]]
    nodes: list[Node]
    steps: list[tuple[str, int]]  # (verb, index into nodes)
    scratch: Path

    @cached_property
    def wide(self) -> list[dict[str, tuple[Node, str]]]:
        """The columns that there are before each node, and behind the last."""
        return [wide_columns(self.nodes[:position]) for position in range(len(self.nodes) + 1)]

    def described(self) -> str:
        """What to call this task in an error."""
        first, last = self.parts[0][0], self.parts[-1][0]
        what = first.file if first.file == last.file else f"{first.file} .. {last.file}"
        return f"part {first.number} ({what})"


@dataclass
class PartResult:
    """What a pass found out about a part."""

    number: int
    rows: int
    documents: int  # rows whose text was read
    text_bytes: int
    partials: dict[int, str] = field(default_factory=dict)  # node position -> the partial's name
    written: list[Written] = field(default_factory=list)


def run_pass(task: PassTask) -> list[PartResult]:
    """Run a task; the one function that an engine calls for stages."""
    pa.set_cpu_count(1)
    return [_run_part(task, part, twin) for part, twin in task.parts]


def _run_part(task: PassTask, part: Part, twin: int) -> PartResult:
    with noting() as written:
        result = _PartRun(task, part, twin).run()
    result.written = list(written.values())
    return result


class _Apply:
    """The measures of one node for one part, as they come in."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.schema = node.fields()
        found = node.sidecars().read(name)
        self.cached: pa.Table | None = found[0] if found else None
        self.done: np.ndarray | None = found[1] if found else None
        self.rows: list[np.ndarray] = []
        self.batches: list[pa.RecordBatch] = []

    @cached_property
    def state(self) -> pa.Table | None:
        """The node's state: a part that has everything already does without it."""
        return read_table(self.node.state) if self.node.state else None

    def missing(self, index: np.ndarray) -> np.ndarray:
        return np.ones(len(index), bool) if self.done is None else ~self.done[index]

    def add(self, index: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        out = self.node.stage.apply(self.state, batch)
        wanted = self.node.stage.fields()
        if not isinstance(out, pa.RecordBatch) or out.num_rows != batch.num_rows or out.schema.names != wanted.names:
            got = f"{out.num_rows} rows of {out.schema.names}" if isinstance(out, pa.RecordBatch) else type(out).__name__
            raise StageError(f"stage {self.node.label!r}: apply was given {batch.num_rows} rows and must return as many of {wanted.names}, got {got}")
        out = out.cast(wanted)
        if self.node.rewrites:
            out = self._with_current(out, batch.column(TEXT))
        self.rows.append(index)
        self.batches.append(out)
        return out

    def _with_current(self, out: pa.RecordBatch, text: pa.Array) -> pa.RecordBatch:
        """Its columns with the hash and the sizes of the text that the spans make."""
        spans.check(self.node.label, text, out.column(spans.FIELD))
        current = spans.applied(text, out.column(spans.FIELD))
        sizes, words = ngrams.text_stats(current)
        return pa.record_batch([*out.columns, documents.text_hashes(current), pa.array(sizes), pa.array(words)], schema=self.schema)

    def column(self, name: str, index: np.ndarray, fresh: np.ndarray, out: pa.RecordBatch | None) -> pa.Array:
        """One column for the rows `index`: `out` where `fresh`, what was stored elsewhere."""
        if out is not None and fresh.all():
            return out.column(name)
        if out is None and self.cached is None:  # no earlier step let one of these rows through, now or before
            return pa.nulls(len(index), self.schema.field(name).type)
        stored = self.cached[name].combine_chunks() if self.cached is not None else pa.nulls(0, self.schema.field(name).type)
        if out is None:
            return stored.take(pa.array(index))
        both = pa.chunked_array([stored, out.column(name)]).combine_chunks()
        place = np.full(len(index), -1)
        place[fresh] = len(stored) + np.arange(int(fresh.sum()))
        place[~fresh] = index[~fresh] if len(stored) else -1
        return both.take(pa.array(place, mask=place < 0))

    def write(self, name: str, rows: int, scratch: Path) -> None:
        """Store what was computed; where nothing ever was, a file that says so, for a missing one is an error."""
        if not self.rows and self.done is not None:
            return
        place = np.full(rows, -1)
        got = np.concatenate(self.rows) if self.rows else np.empty(0, np.int64)
        place[got] = np.arange(len(got))
        table = pa.Table.from_batches(self.batches, self.schema)
        if len(got) != rows or (place != np.arange(rows)).any():
            table = table.combine_chunks().take(pa.array(place, mask=place < 0))
        self.node.sidecars().write(name, table, place >= 0, scratch)


class _PartRun:
    """One part going through the steps of a task."""

    def __init__(self, task: PassTask, part: Part, twin: int) -> None:
        self.task, self.part = task, part
        self.name = part_name(part, twin)
        self.wide = task.wide
        self.known: dict[tuple[int, str], pa.Array] = {}
        self.applies: dict[int, _Apply] = {}
        self.verdicts: dict[int, list[tuple[np.ndarray, pa.Array, pa.Array]]] = {}
        self.result = PartResult(part.number, 0, 0, 0)
        self._at = 0
        self._alive = np.empty(0, bool)

    def run(self) -> PartResult:
        task = self.task
        rows = self._rows()
        live = list(task.steps)
        alive: np.ndarray | None = None
        if rows is not None:
            alive = self._kept_before(task.steps[0][1], rows)
            while live and (self._settle(live[0], alive, rows) or self._top_up(live[0], alive)):
                live.pop(0)
            self.result.rows = rows
        if live:
            self._read(live, alive)
        return self.result

    def _rows(self) -> int | None:
        """How many rows the part has, where the first pass has been over it."""
        base = self.task.nodes[0]
        if base.measures is not None:
            found = base.sidecars().read(self.name, [])
            if found is not None:
                return len(found[1])
        return None

    def _kept_before(self, position: int, rows: int) -> np.ndarray:
        alive = np.ones(rows, bool)
        for node in self.task.nodes[:position]:
            alive &= kept_by(node, self.name, rows)
        return alive

    def _settle(self, step: tuple[str, int], alive: np.ndarray, rows: int) -> bool:
        """Whether a step needs no reading; does it from columns where that is enough. Narrows `alive`."""
        verb, position = step
        node = self.task.nodes[position]
        if verb == "apply":
            apply = self.applies[position] = _Apply(node, self.name)
            if (alive & apply.missing(np.arange(rows))).any():
                return False
            apply.write(self.name, rows, self.task.scratch)
            return True
        if verb == "fit":
            assert node.partials is not None
            self.result.partials[position] = name = self._partial_name(alive)
            return (node.partials / f"{name}.parquet").exists()
        assert node.verdicts is not None
        if (node.verdicts / f"{self.name}.parquet").exists():
            alive &= kept_by(node, self.name, rows)
            return True
        if not all(name in self.wide[position + 1] for name in node.stage.judge_reads()):
            return False
        index = np.flatnonzero(alive)
        batch = pa.record_batch([self._stored(n, position + 1).take(pa.array(index)) for n in node.stage.judge_reads()], names=list(node.stage.judge_reads()))
        keep = self._guarded(node, partial(self._judge, position, index, batch))
        alive[index] = keep
        self._write_verdict(position, rows)
        return True

    def _top_up(self, step: tuple[str, int], alive: np.ndarray) -> bool:
        """Compute the rows newly needed of measures that the part has for others; reads no other row."""
        verb, position = step
        if verb != "apply" or self.applies[position].done is None:
            return False
        self._read([step], alive & self.applies[position].missing(np.arange(len(alive))))
        return True

    def _partial_name(self, alive: np.ndarray) -> str:
        """A partial is named by the part and by which of its rows were still kept: nothing else goes into it."""
        return partial_name(self.name, alive)

    def _stored(self, name: str, before: int) -> pa.Array:
        """A column as it stands before the node at a position, for all rows of the part."""
        node, item = self.wide[before][name]
        if (node.position, item) not in self.known:
            self.known[node.position, item] = stored_column(node, self.name, item).combine_chunks()
        return self.known[node.position, item]

    def _judge(self, position: int, index: np.ndarray, batch: pa.RecordBatch) -> np.ndarray:
        node = self.task.nodes[position]
        keep, reason = node.stage.judge(batch)
        if len(keep) != batch.num_rows or len(reason) != batch.num_rows:
            raise StageError(f"stage {node.label!r}: judge was given {batch.num_rows} rows and returned {len(keep)} verdicts and {len(reason)} reasons")
        keep = pc.fill_null(keep, False)
        self.verdicts.setdefault(position, []).append((index, keep, reason))
        return np.asarray(keep.to_numpy(zero_copy_only=False))

    def _write_verdict(self, position: int, rows: int) -> None:
        node = self.task.nodes[position]
        assert node.verdicts is not None
        chunks = self.verdicts.get(position, [])
        index = np.concatenate([c[0] for c in chunks]) if chunks else np.empty(0, np.int64)
        place = np.full(rows, -1)
        place[index] = np.arange(len(index))
        table = pa.table(
            [pa.chunked_array([c[1] for c in chunks], pa.bool_()), pa.chunked_array([c[2] for c in chunks], pa.string())], VERDICT
        )
        table = table.combine_chunks().take(pa.array(place, mask=place < 0))
        write_table(node.verdicts / f"{self.name}.parquet", table, self.task.scratch)

    def _read(self, live: list[tuple[str, int]], alive: np.ndarray | None) -> None:
        """Read what the steps need, batch by batch; a fit, always last, pulls the batches through."""
        task = self.task
        for verb, position in live:
            if verb == "apply" and position not in self.applies:
                self.applies[position] = _Apply(task.nodes[position], self.name)
        batches = self._batches(live, alive)
        verb, position = live[-1]
        if verb == "fit":
            node = task.nodes[position]
            counted = self._guarded(node, lambda: node.stage.fit_part(batches))
        for _ in batches:  # nothing is left of it after a fit that read everything
            if verb == "fit":
                raise StageError(f"stage {task.nodes[position].label!r}: fit_part stopped before the last batch")
        for step, at in live:
            if step == "apply":
                self.applies[at].write(self.name, self.result.rows, task.scratch)
            elif step == "judge":
                self._write_verdict(at, self.result.rows)
        if verb == "fit":
            assert node.partials is not None
            name = self.result.partials[position] = self._partial_name(self._alive)
            write_table(node.partials / f"{name}.parquet", counted, task.scratch)

    def _guarded(self, node: Node, call):  # type: ignore[no-untyped-def]
        try:
            return call()
        except CurateError:
            raise
        except Exception as error:
            if short := machine_error(error, f"stage {node.label!r} in part {self.part.number} ({self.part.file})"):
                raise short from error
            where = file_location(self.task.layout, self.part, self._at)
            raise StageError(f"stage {node.label!r} failed at or after {where}: {type(error).__name__}: {error}") from error

    def _batches(self, live: list[tuple[str, int]], alive: np.ndarray | None) -> Iterator[pa.RecordBatch]:
        """Yield, for a fit, the batches of rows still kept after all steps; run the steps on the way."""
        task = self.task
        user = {name for verb, at in live for name in _reads(task.nodes[at], verb) if name not in self.wide[-1] and name not in (TEXT, BAD)}
        wants_text = any(TEXT in _reads(task.nodes[at], verb) for verb, at in live)
        rows = None if alive is None or alive.all() else np.flatnonzero(alive)
        ends: list[np.ndarray] = []
        seen = 0
        earlier = rewriters(task.nodes[: live[0][1]]) if wants_text else []
        scanning = [at for verb, at in live if verb == "apply" and hasattr(task.nodes[at].stage, "rule_scan")]
        ahead = {at: [task.nodes[other].stage.rule_scan() for other in scanning if at <= other] if at in scanning else [] for _, at in live}
        for batch in spans.read_current(task.layout, self.part, self.name, earlier, columns=sorted(user), text=wants_text, rows=rows):
            index = np.arange(seen, seen + batch.num_rows) if rows is None else rows[seen : seen + batch.num_rows]
            seen += batch.num_rows
            self._at = int(index[0]) if len(index) else self._at
            if wants_text:
                self.result.documents += batch.num_rows
                self.result.text_bytes += batch.column(TEXT).nbytes
            still = np.ones(batch.num_rows, bool)
            fresh: dict[str, pa.Array] = {name: batch.column(name) for name in batch.schema.names}
            shared = textrules.Shared(batch.num_rows)
            for verb, at in live:
                node = task.nodes[at]
                if verb == "fit":
                    yield self._sub(fresh, node.stage.fit_reads(), index, still, at)
                elif verb == "apply":
                    self._apply(at, fresh, index, still, shared, ahead[at])
                else:
                    shown = np.flatnonzero(still)
                    sub = self._sub(fresh, node.stage.judge_reads(), index, still, at + 1)
                    still[shown] = self._guarded(node, partial(self._judge, at, index[shown], sub))
            ends.append(index[still])
        total = seen if rows is None else len(alive)  # type: ignore[arg-type]
        if rows is not None and seen != len(rows):
            raise InternalError(f"{self.part.file}: asked for {len(rows)} rows of part {self.part.number}, read {seen}")
        self.result.rows = total
        self._alive = np.zeros(total, bool)
        if ends:
            self._alive[np.concatenate(ends)] = True

    def _apply(
        self, at: int, fresh: dict[str, pa.Array], index: np.ndarray, still: np.ndarray, shared: textrules.Shared, scans: list[textrules.Scan]
    ) -> None:
        """Compute a node's measures for the rows that need them; add its columns to `fresh`."""
        apply = self.applies[at]
        node = self.task.nodes[at]
        need = still & apply.missing(index)
        out = None
        if need.any() or not len(index):
            sub = self._sub(fresh, node.stage.reads(), index, need, at)

            def add() -> pa.RecordBatch:
                found = sub.append_column(textrules.FOUND, shared.of(fresh[TEXT], need, scans)) if scans else sub
                return apply.add(index[need], found)

            out = self._guarded(node, add)
        for item in apply.schema.names:
            fresh[node.column(item)] = apply.column(item, index, need, out)
        if node.rewrites:
            changes = fresh[node.column(spans.FIELD)]
            fresh[TEXT] = spans.applied(fresh[TEXT], changes)
            shared.forget(pc.fill_null(pc.greater(pc.list_value_length(changes), 0), False).to_numpy(zero_copy_only=False))
            fresh |= {name: fresh[node.column(item.name)] for name, item in spans.CURRENT.items()}

    def _sub(self, fresh: dict[str, pa.Array], names: list[str], index: np.ndarray, where: np.ndarray, before: int) -> pa.RecordBatch:
        """The columns `names`, as they stand before the node at a position, for the batch's rows `where`."""
        arrays = [fresh[n] if n in fresh else self._stored(n, before).take(pa.array(index)) for n in names]
        if not names:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * int(where.sum()), pa.struct([])))
        batch = pa.record_batch(arrays, names=list(names))
        return batch if where.all() else batch.filter(pa.array(where))


def partial_name(name: str, alive: np.ndarray) -> str:
    """What the partial of a part is called, of which the rows `alive` were still kept."""
    return f"{name}-{hashlib.blake2b(np.packbits(alive).tobytes() + str(len(alive)).encode(), digest_size=8).hexdigest()}"


def _reads(node: Node, verb: str) -> list[str]:
    method = {"apply": "reads", "judge": "judge_reads", "fit": "fit_reads"}[verb]
    return list(getattr(node.stage, method)())
