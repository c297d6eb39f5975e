"""A run: a recipe carried out in a run folder. Reads from top to bottom: plan, passes, wide table, publication.

Nothing here knows a stage by name. Each step looks at what the store has and does what is missing, so resuming is
running again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate import docs, documents
from curate.corpus import TEXT as TEXT_COLUMN
from curate.corpus import Corpus, Part, SourceFile, load_table, open_corpus
from curate.engine import LocalEngine, available_cpus, in_order
from curate.errors import ConfigError, CurateError, DataError, InternalError, StageError, interrupted
from curate.events import Events
from curate.filenames import list_files
from curate.frame import DOC, Frame
from curate.params import Problems
from curate.passes import PassTask
from curate.plan import (
    Node,
    NodeSpec,
    check_reads,
    kept_by,
    part_name,
    settled,
    stage_key,
    stored_column,
    twins,
    wide_columns,
)
from curate.recipe import Recipe, StageSpec
from curate.rowhash import HashTask
from curate.stage import BASE_COLUMNS, BYTES, IDENTITY, KEEP, KEY, TEXT, TEXT_HASH, WORDS, Context
from curate.store import digest, empty, held, read_table, sweep, sync, write_bytes, write_table

#: About how many bytes of text one task holds: enough to hide the cost of a message, few enough to balance workers.
TASK_BYTES = 48_000_000
#: Bytes of input files that keep a further worker busy for longer than its start takes.
WORTH_A_WORKER = 4_000_000
#: Columns of ours in the wide table that are a place, not something a user may have a column for.
PLACES = ("doc", "part", "file", "row")


@dataclass
class Outcome:
    """What a run did; `published` is None where nothing was emitted."""

    folder: Path
    documents: int
    kept: int
    text_bytes: int
    computed_parts: int
    published: Path | None
    warnings: list[str]
    seconds: float


class Run:
    """One execution of one recipe, and the folder that holds all it produced."""

    def __init__(
        self, recipe: Recipe, folder: Path, *, store: Path | None = None, workers: int | None = None, events: Events | None = None,
        publish: bool = True, verify_input: bool = False,
    ) -> None:  # fmt: skip
        self.recipe = recipe
        self.folder = folder.resolve()
        self.store = (store or self.folder / "store").resolve()
        self.workers = workers or available_cpus()
        self.events = events or Events()
        self.publish = publish
        self.verify_input = verify_input
        self.scratch = self.store / "tmp" / digest(str(self.folder))[:12]
        self.nodes: list[Node] = []
        self.warnings: list[str] = []
        self.computed: set[int] = set()

    # -- the whole of it ------------------------------------------------------------------------------------------

    def execute(self) -> Outcome:
        """Carry the recipe out; raises a CurateError with nothing half-written where that cannot be."""
        try:
            return self._execute()
        except Exception as error:
            if interrupted(error):
                raise KeyboardInterrupt from error
            raise

    def _execute(self) -> Outcome:
        started = time.perf_counter()
        with held(self.folder), LocalEngine(self.workers) as self.engine:
            empty(self.scratch)
            sweep(self.folder)
            self.engine.warm(self._likely_tasks())
            self.plan()
            self._write_lock()
            self._passes()
            wide = docs.write(self)
            published = None
            if self.publish:
                from curate.pipelines import emit

                published = emit.publish(self, wide)
            self._write_catalog()
            empty(self.scratch)
        outcome = Outcome(
            self.folder, wide.documents, wide.kept, wide.text_bytes, len(self.computed), published, self.warnings,
            time.perf_counter() - started,
        )  # fmt: skip
        self.events.emit("finished", documents=outcome.documents, kept=outcome.kept, seconds=round(outcome.seconds, 3),
                         computed_parts=outcome.computed_parts, worker_peak_bytes=self.engine.peak_bytes)  # fmt: skip
        return outcome

    # -- plan -----------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Open the corpus and the targets, build the nodes, and check all that can be checked before text is read.

        All problems of the recipe are raised together, those of the corpus and of each stage with them.
        """
        recipe = self.recipe
        problems = Problems(recipe.problems.found)
        try:
            self.corpus: Corpus = settled(
                open_corpus(
                    recipe.corpus, recipe.base, known=self._known_files(), verify=self.verify_input
                )
            )
        except ConfigError as error:
            problems.add("corpus", str(error))
        self._load_targets(problems)
        if hasattr(self, "corpus"):
            self._check_user_columns(problems)
            self._build_nodes(problems)
        problems.raise_if_any(recipe.title)
        self.parts = self._numbered(self.corpus.parts)
        self.twins = twins(self.parts)
        self.names = [part_name(p, t) for p, t in zip(self.parts, self.twins, strict=True)]
        self.inputs = digest([p.fingerprint for p in self.parts])

    def _likely_tasks(self) -> int:
        """How many tasks there may be, from the sizes of the files alone: the workers import while we plan."""
        try:
            sizes = [
                Path(path).stat().st_size
                for path, _ in list_files(
                    self.recipe.corpus.paths, self.recipe.base, self.recipe.corpus.format
                )
            ]
        except (ConfigError, OSError):
            return 0  # planning says what is wrong
        return sum(sizes) // WORTH_A_WORKER

    def _known_files(self) -> list[SourceFile]:
        file = self.folder / "files.json"
        return msgspec.json.decode(file.read_bytes(), type=list[SourceFile]) if file.exists() else []

    def _numbered(self, parts: Sequence[Part]) -> list[Part]:
        """Part numbers are append-only within a run folder: a part keeps the number it had."""
        before: dict[tuple[Any, ...], list[int]] = {}
        taken = -1
        if (self.folder / "parts.parquet").exists():
            for row in read_table(self.folder / "parts.parquet").to_pylist():
                before.setdefault((row["file"], row["start"], row["stop"], row["fingerprint"]), []).append(
                    row["part"]
                )
                taken = max(taken, row["next"] - 1)
        numbered = []
        for part in parts:
            olds = before.get((part.file, part.start, part.stop, part.fingerprint))
            if olds:
                number = olds.pop(0)
            else:
                taken += 1
                number = taken
            numbered.append(msgspec.structs.replace(part, number=number))
        self.next_part = max([taken, *[p.number for p in numbered]], default=-1) + 1
        return numbered

    def _check_user_columns(self, problems: Problems) -> None:
        for name in self.corpus.layout.schema.names:
            if name.startswith("curate_") or name in PLACES:
                problems.add(
                    "corpus",
                    f"the pool has a column {name!r}, a name that the wide table needs for itself; rename it in the pool",
                )

    def _load_targets(self, problems: Problems) -> None:
        """Read the targets' files; guide and test must share no document, and neither may be a pool file."""
        self.targets: dict[str, dict[str, pa.Table]] = {}
        pool = {Path(f.path).resolve() for f in self.corpus.files} if hasattr(self, "corpus") else set()
        rows: list[tuple[bytes, str]] = []
        for name, spec in self.recipe.targets.items():
            splits: dict[str, pa.Table] = {}
            for split in ("guide", "tuning", "test"):
                files = spec.files(split)
                both = [file for file in files if self._stands_in(file, pool)]
                for file in both:
                    problems.add(
                        f"targets.{name}.{split}",
                        f"{file} is a file of the pool too; a target's files must lie outside it",
                    )
                if files and not both:
                    self._load_split(name, split, files, splits, problems)
            for split, table in splits.items():
                hashes = set(documents.text_hashes(table[TEXT_COLUMN].combine_chunks()).to_pylist())
                rows += [(h, f"{split} of {name}") for h in sorted(hashes)]
            self.targets[name] = splits
        if not problems.found:
            self._check_splits(rows)
        held_first = sorted(rows, key=lambda row: (row[1].startswith("guide"), row[1], row[0]))
        first: dict[bytes, str] = {}
        for value, place in held_first:
            first.setdefault(value, place)
        self.target_documents = pa.table(
            {
                "hash": pa.array(list(first), pa.binary(16)),
                "place": pa.array(list(first.values()), pa.string()),
            }
        )
        self.targets_key = digest([[value.hex(), place] for value, place in rows])

    def _stands_in(self, path: str, pool: set[Path]) -> bool:
        """Whether a target's file, or one of its folder or glob, is one of the pool's."""
        try:
            return any(Path(file).resolve() in pool for file, _ in list_files([path], self.recipe.base, None))
        except (ConfigError, DataError):
            return False  # loading says what is wrong with it

    def _load_split(
        self, name: str, split: str, files: list[str], splits: dict[str, pa.Table], problems: Problems
    ) -> None:
        spec, corpus = self.recipe.targets[name], self.recipe.corpus
        try:
            splits[split] = load_table(
                files, base=self.recipe.base, text=spec.text or corpus.text, view=corpus.view
            )
        except ConfigError as error:
            problems.add(f"targets.{name}.{split}", str(error))

    def _check_splits(self, rows: list[tuple[bytes, str]]) -> None:
        """A document that steers must not judge: guide, tuning and test of all targets share none."""
        places: dict[bytes, list[str]] = {}
        for value, place in rows:
            places.setdefault(value, []).append(place)
        mixed: dict[str, int] = {}
        for found in places.values():
            kinds = {place.split(" ")[0] for place in found}
            if len(kinds) > 1:
                mixed[" and ".join(found)] = mixed.get(" and ".join(found), 0) + 1
        if mixed:
            lines = "; ".join(f"{count} in {where}" for where, count in sorted(mixed.items()))
            raise DataError(
                f"targets: documents stand in more than one split: {lines}; a document that steers a selection cannot judge it: remove them from one (curate split makes disjoint files)"
            )

    def guides(self) -> dict[str, pa.ChunkedArray]:
        """Each target's guide texts."""
        return {name: splits["guide"][TEXT_COLUMN] for name, splits in self.targets.items()}

    def _build_nodes(self, problems: Problems) -> None:
        layout, recipe = self.corpus.layout, self.recipe
        aside = recipe.corpus.on_error == "quarantine"
        strings = [f.name for f in layout.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        base = documents.DocumentsParams(
            text=recipe.corpus.text, view=recipe.corpus.view, text_columns=list(layout.text_columns), id=recipe.corpus.id,
            quarantine=aside, checked=strings if aside else [],
        )  # fmt: skip
        self._add_node(StageSpec("documents", documents.QUARANTINE, base, "corpus"), named=False)
        if self.targets:
            overlap = documents.OverlapParams(targets=self.targets_key)
            self._add_node(StageSpec(documents.OVERLAP, documents.OVERLAP, overlap, "targets"))
        for spec in recipe.stages:
            try:
                self._add_node(spec)
            except ConfigError as error:
                problems.add(spec.where, str(error))

    def _add_node(self, spec: StageSpec, *, named: bool = True) -> None:
        user = self.corpus.layout.schema
        before = [item for node in self.nodes for item in node.columns().values()]
        context = Context(
            spec.label, self.recipe.seed, self.recipe.stage_targets(), str(self.recipe.base), self.recipe.corpus.source,
            pa.schema([*before, *user]),
        )  # fmt: skip
        node_spec = NodeSpec(spec.stage, self.recipe.base, msgspec.to_builtins(spec.params), context)
        node = Node(len(self.nodes), spec.label, node_spec, named=named)
        own = [node.column(f) for f in node.fields().names]
        check_reads(spec.label, [n for n in node.reads() if n not in own], self.nodes, user)
        taken = {*user.names, *wide_columns(self.nodes)}
        for column in node.columns():
            if named and (column in PLACES or column.startswith("curate_")):
                raise ConfigError(
                    f"its column {column!r} is a name that the wide table needs for itself; give the stage another label: as: {spec.label}_2"
                )
            if column in taken:
                whose = "the corpus" if column in user.names else "an earlier stage"
                raise ConfigError(
                    f"its column {column!r} clashes with one of {whose}; give the stage another label: as: {spec.label}_2"
                )
        self.nodes.append(node)

    # -- passes ---------------------------------------------------------------------------------------------------

    def _passes(self) -> None:
        """Walk the stages; run what has gathered whenever one needs to have seen all parts."""
        pending: list[tuple[str, int]] = []
        for node in self.nodes:
            node.key = stage_key(node, self._input_keys(node))
            if "fit" in node.verbs:
                self._fit(node, pending)
                pending = []
            elif hasattr(node.stage, "close") and not hasattr(node.stage, "fit_part"):
                self._close(node)
            elif node.label == documents.OVERLAP:
                node.state = self.store / node.key / "state" / "targets.parquet"
                if not node.state.exists():
                    write_table(node.state, self.target_documents, self.scratch)
            if "apply" in node.verbs:
                node.measures = self.store / node.key / (node.state.stem if node.state else "measures")
                pending.append(("apply", node.position))
            if "judge" in node.verbs:
                node.verdicts = (
                    self.store / digest(node.key, node.spec.params, self._verdict_keys(node)) / "verdict"
                )
                pending.append(("judge", node.position))
            if "finish" in node.verbs:
                self._run_pass(pending)
                pending = []
                self._finish(node)
        self._run_pass(pending)
        self._check_ids()
        self._warn_of_guides()

    def _input_keys(self, node: Node) -> dict[str, str]:
        """The keys of the columns a stage reads: for a user's column its type, since part fingerprints hold its content."""
        wide = wide_columns(self.nodes[: node.position])
        layout = self.corpus.layout
        keys: dict[str, str] = {}
        for name in node.reads():
            if name in wide:
                source = wide[name][0]
                keys[name] = digest(source.key, source.state.stem if source.state else "")
            elif name in layout.schema.names:
                keys[name] = str(layout.schema.field(name).type)
            elif name == TEXT:
                keys[name] = digest([layout.spec.text, layout.spec.view, list(layout.text_columns)])
        return keys

    def _verdict_keys(self, node: Node) -> list[str]:
        """What decides which rows a stage is shown, and with what: the earlier verdicts, and its own measures' state."""
        folders = [n.verdicts or n.finished for n in self.nodes[: node.position] if n.decides()]
        keys = [str(f.relative_to(self.store)) for f in folders if f is not None]
        return [*keys, node.state.stem if node.state else ""]

    def tasks(self) -> list[list[tuple[Part, int]]]:
        """The parts in tasks: large parts alone, small ones together."""
        pairs = list(zip(self.parts, self.twins, strict=True))
        share = max(1, sum(p.bytes for p in self.parts) // (4 * self.workers))
        return list(in_order(pairs, [max(p.bytes, 50_000) for p in self.parts], min(TASK_BYTES, share)))

    def _run_pass(self, steps: list[tuple[str, int]]) -> list[Any]:
        if not steps:
            return []
        nodes = self.nodes[: max(at for _, at in steps) + 1]
        tasks = [PassTask(self.corpus.layout.of(p for p, _ in parts), parts, nodes, steps, self.scratch) for parts in self.tasks()]
        names = list(dict.fromkeys(f"fit {self.nodes[at].label}" if verb == "fit" else self.nodes[at].label for verb, at in steps))
        results = []
        with self.events.phase(" + ".join(names), total=sum(p.bytes for p in self.parts)) as phase:
            for group in self.engine.map(
                "curate.passes:run_pass", tasks, partial(_advance, phase, self._part_bytes())
            ):
                results += group
        self.computed |= {r.number for r in results if r.documents}
        self.rows = {r.number: r.rows for r in results}
        return results

    def _part_bytes(self) -> dict[int, int]:
        return {p.number: p.bytes for p in self.parts}

    def _fit(self, node: Node, pending: list[tuple[str, int]]) -> None:
        """Fit on the parts, merge, close; the state is named by what it was fitted on."""
        frozen = self._frozen(node)
        if frozen is not None:
            node.state = frozen
            self._run_pass(pending)
            return
        node.partials = self.store / node.key / "fit"
        results = self._run_pass([*pending, ("fit", node.position)])
        fitted = sorted(r.partials[node.position] for r in results)
        guides = digest(self.targets_key if getattr(node.stage, "uses_targets", False) else "")
        state = self.store / node.key / "state" / f"{digest(fitted, guides)}.parquet"
        if not state.exists():
            with self.events.phase(f"merge {node.label}"):
                merged: pa.Table | None = None
                for name in fitted:
                    table = read_table(node.partials / f"{name}.parquet")
                    merged = table if merged is None else _merged(node, merged, table)
                if merged is None:
                    raise DataError("the corpus has no parts to fit on")
                counted = merged
                closed = _guarded(node, "close", lambda: node.stage.close(counted, self.guides()))
                write_table(state, closed, self.scratch)
            self._say_notes(node)
        node.state = state
        if getattr(node.stage, "frozen", False):
            write_bytes(
                self.folder / "frozen" / f"{node.label}.json",
                msgspec.json.encode([node.key, state.name, guides]),
                self.scratch,
            )

    def _close(self, node: Node) -> None:
        """The state of a stage that learns from the targets alone: no pass, no barrier."""
        node.state = self.store / node.key / "state" / f"{digest(self.targets_key)}.parquet"
        if not node.state.exists():
            write_table(node.state, _guarded(node, "close", lambda: node.stage.close(None, self.guides())), self.scratch)

    def _frozen(self, node: Node) -> Path | None:
        """The state that an earlier run of this folder froze, where its settings and targets are still the same."""
        record = self.folder / "frozen" / f"{node.label}.json"
        if not getattr(node.stage, "frozen", False) or not record.exists():
            return None
        key, name, guides = msgspec.json.decode(record.read_bytes(), type=tuple[str, str, str])
        state = self.store / key / "state" / name
        same = key == node.key and guides == digest(
            self.targets_key if getattr(node.stage, "uses_targets", False) else ""
        )
        if same and state.exists():
            self.events.emit(
                "note", text=f"{node.label}: the frozen state {name[:8]} is used; nothing is fitted"
            )
            return state
        return None

    def _finish(self, node: Node) -> None:
        """Show a stage all documents' columns at once and scatter what it says over the parts."""
        inputs = digest(
            self.inputs, [p.number for p in self.parts], self._verdict_keys(node), node.spec.params
        )
        node.finished = self.store / node.key / "finish" / inputs
        if all((node.finished / f"{name}.parquet").exists() for name in self.names):
            return
        reads = list(dict.fromkeys([*node.stage.finish_reads()]))
        with self.events.phase(f"finish {node.label}"):
            frame = Frame(
                self._frame_schema(node, reads), self._frame_batches(node, reads), self._row_hashes,
                scratch=self.scratch, threads=self.workers,
            )  # fmt: skip
            try:
                _guarded(node, "finish", lambda: self._scatter(node, node.stage.finish(frame)))
            finally:
                frame.close()
        self._say_notes(node)

    def _say_notes(self, node: Node) -> None:
        for note in getattr(node.stage, "notes", list)():
            self.warnings.append(f"{node.label}: {note}")
            self.events.emit("warning" if note.startswith("warning") else "note", text=f"{node.label}: {note}")

    def _frame_schema(self, node: Node, reads: Sequence[str]) -> pa.Schema:
        wide = {
            n: item for earlier in self.nodes[: node.position + 1] for n, item in earlier.columns().items()
        }
        fields = [pa.field(DOC, pa.int64())]
        for name in reads:
            item = wide[name] if name in wide else self.corpus.layout.schema.field(name)
            fields.append(pa.field(name, item.type))
        return getattr(node.stage, "prepared", lambda schema: schema)(pa.schema(fields))

    def _frame_batches(self, node: Node, reads: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """For each part, the columns of the rows that earlier stages kept."""
        prepare = getattr(node.stage, "prepare", None)
        for part, name in zip(self.parts, self.names, strict=True):
            table = self.part_columns(part, name, reads, node.position)
            for batch in table.combine_chunks().to_batches():
                yield prepare(batch) if prepare else batch

    def part_columns(self, part: Part, name: str, reads: Sequence[str], position: int) -> pa.Table:
        """`doc` and some columns of the wide table for the rows of a part that nodes before `position` kept."""
        wide = wide_columns(self.nodes[: position + 1])
        rows = self.rows_of(part, name)
        keep = np.ones(rows, bool)
        for earlier in self.nodes[:position]:
            keep &= kept_by(earlier, name, rows)
        index = np.flatnonzero(keep)
        columns: dict[str, Any] = {DOC: pa.array((part.number << 32) + index)}
        user = [n for n in reads if n not in wide]
        if user:
            from curate.corpus import read_part

            batches = list(read_part(self.corpus.layout, part, columns=user, text=False))
            table = pa.Table.from_batches(batches) if batches else None
        for column in reads:
            if column in wide:
                values = stored_column(*_swap(wide[column], name))
            else:
                values = (
                    table[column]
                    if table is not None
                    else pa.chunked_array([], self.corpus.layout.schema.field(column).type)
                )
            columns[column] = values if len(index) == rows else values.take(pa.array(index))
        return pa.table(columns)

    def rows_of(self, part: Part, name: str) -> int:
        """How many rows a part has: known once the first pass has been over it."""
        if part.number not in getattr(self, "rows", {}):
            found = self.nodes[0].sidecars().read(name, [])
            if found is None:
                raise InternalError(f"part {part.number} has not been read")
            self.rows[part.number] = len(found[1])
        return int(self.rows[part.number])

    def _scatter(self, node: Node, reader: pa.RecordBatchReader) -> None:
        """Write a finish's rows, which come in order of doc, as one file for each part, aligned with its rows.

        One part's rows are held at a time, however many documents there are.
        """
        schema = node.finish_fields()
        if set(reader.schema.names) != {DOC, *schema.names}:
            raise StageError(
                f"stage {node.label!r}: finish must return {[DOC, *schema.names]}, got {reader.schema.names}"
            )
        names = {part.number: name for part, name in zip(self.parts, self.names, strict=True)}
        waiting = iter(sorted(self.parts, key=lambda part: part.number))
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
                    self._write_finished(node, current, names[current.number], held_rows, schema)
                    held_rows, current = [], next(waiting, None)
            last = int(docs_column[-1]) if len(docs_column) else last
        while current is not None:
            self._write_finished(node, current, names[current.number], held_rows, schema)
            held_rows, current = [], next(waiting, None)

    def _write_finished(
        self, node: Node, part: Part, name: str, batches: list[pa.RecordBatch], schema: pa.Schema
    ) -> None:
        """One part's rows of a finish, at their places; null where the stage was not shown the row."""
        assert node.finished is not None
        wanted = pa.schema([pa.field(DOC, pa.int64()), *schema])
        rows = [b.select(wanted.names).cast(wanted) for b in batches]
        table = pa.Table.from_batches(rows, wanted).combine_chunks()
        place = np.full(self.rows_of(part, name), -1)
        place[table[DOC].to_numpy() & 0xFFFFFFFF] = np.arange(table.num_rows)
        aligned = table.select(schema.names).take(pa.array(place, mask=place < 0))
        write_table(node.finished / f"{name}.parquet", aligned, self.scratch)

    def _row_hashes(self, docs_column: pa.ChunkedArray) -> pa.Table:
        """Hash the whole rows of some documents, part by part, in the workers."""
        wanted = np.sort(docs_column.to_numpy())
        tasks = []
        for part in self.parts:
            low, high = np.searchsorted(wanted, [part.number << 32, (part.number + 1) << 32])
            if high > low:
                tasks.append(HashTask(self.corpus.layout.of([part]), part, wanted[low:high] & 0xFFFFFFFF))
        tables = self.engine.map("curate.rowhash:hash_rows", tasks)
        return (
            pa.concat_tables(tables)
            if tables
            else pa.table({DOC: pa.array([], pa.int64()), "row_hash": pa.array([], pa.string())})
        )

    def _check_ids(self) -> None:
        """A named id that repeats is an error: two documents under one name would share one fate."""
        if self.recipe.corpus.id is None:
            return
        marker = self.store / self.nodes[0].key / "unique" / digest(self.inputs)
        if marker.exists():
            return
        schema = pa.schema([(DOC, pa.int64()), (IDENTITY, pa.string())])
        batches = (
            batch
            for part, name in zip(self.parts, self.names, strict=True)
            for batch in self.part_columns(part, name, [IDENTITY], 1).combine_chunks().to_batches()
        )
        frame = Frame(schema, batches, self._row_hashes, scratch=self.scratch, threads=self.workers)
        try:
            twice = frame.sql(
                f"SELECT {IDENTITY}, min(doc), max(doc), count(*) FROM pool WHERE hash({IDENTITY}) IN (SELECT hash({IDENTITY}) FROM pool GROUP BY 1 HAVING count(*) > 1) GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 LIMIT 3"
            )
        finally:
            frame.close()
        if twice:
            value, first, last, count = twice[0]
            raise DataError(
                f"the id {value!r} (column {self.recipe.corpus.id!r}) stands {count} times: {self.place(first)} and {self.place(last)}; ids must be unique: name another column, or leave corpus.id out and the text's hash is the identity"
            )
        write_bytes(marker, b"", self.scratch)

    def place(self, doc: int) -> str:
        """Where a document is, for a message."""
        from curate.corpus import file_location

        part = next(p for p in self.parts if p.number == doc >> 32)
        return file_location(self.corpus.layout, part, doc & 0xFFFFFFFF)

    def _warn_of_guides(self) -> None:
        """Say how many pool documents a guide holds too: they score high because they are the guide."""
        node = next((n for n in self.nodes if n.label == documents.OVERLAP), None)
        if node is None or self.target_documents.num_rows == 0:
            return
        counts: dict[str, int] = {}
        for name in self.names:
            for value in stored_column(node, name, "place").drop_null().to_pylist():
                counts[value] = counts.get(value, 0) + 1
        for place, count in sorted(counts.items()):
            if place.startswith("guide "):
                note = f"{count} pool documents stand in the {place} too; they will score high for that alone"
            else:
                note = (
                    f"{count} pool documents equal a document of the {place}; the pool's copies are dropped"
                )
            self.warnings.append(note)
            self.events.emit("warning", text=note)

    # -- records --------------------------------------------------------------------------------------------------

    def _write_lock(self) -> None:
        """recipe.yaml, recipe.lock.json, parts.parquet, files.json: what was asked, and what it resolved to."""
        import yaml

        from curate import __version__
        from curate.catalog import readable

        recipe = self.recipe
        write_bytes(
            self.folder / "recipe.yaml",
            yaml.safe_dump(recipe.raw, sort_keys=False, allow_unicode=True).encode(),
            self.scratch,
        )
        lock = {
            "curate": __version__, "name": recipe.name, "base": str(recipe.base), "seed": recipe.seed,
            "corpus": msgspec.to_builtins(recipe.corpus),
            "targets": {n: msgspec.to_builtins(t) for n, t in recipe.targets.items()},
            "stages": [{"stage": s.stage, "as": s.label, **msgspec.to_builtins(s.params)} for s in recipe.stages],
            "emit": msgspec.to_builtins(recipe.emit), "compare": msgspec.to_builtins(recipe.compare),
            "text": {"kind": self.corpus.layout.text_kind, "readable": readable(self.corpus.layout), "columns": list(self.corpus.layout.text_columns)},
            "inputs": [[f.path, f.size, f.content] for f in self.corpus.files], "targets_key": self.targets_key,
            "versions": versions(), "store": str(self.store),
        }  # fmt: skip
        write_bytes(
            self.folder / "recipe.lock.json",
            msgspec.json.format(msgspec.json.encode(lock), indent=1),
            self.scratch,
        )
        write_bytes(self.folder / "files.json", msgspec.json.encode(self.corpus.files), self.scratch)
        self.events.open(self.folder / "events.jsonl")
        self.events.emit("started", recipe=recipe.name, workers=self.workers, parts=len(self.parts),
                         bytes=sum(p.bytes for p in self.parts))  # fmt: skip

    def write_parts(self, rows: Mapping[int, int]) -> None:
        """parts.parquet: every part with its place, its rows and its fingerprint."""
        table = pa.table(
            {
                "part": pa.array([p.number for p in self.parts], pa.int64()),
                "file": pa.array([p.file for p in self.parts], pa.string()),
                "format": pa.array([p.format for p in self.parts], pa.string()),
                "start": pa.array([p.start for p in self.parts], pa.int64()),
                "stop": pa.array([p.stop for p in self.parts], pa.int64()),
                "first_row": pa.array([p.first_row for p in self.parts], pa.int64()),
                "rows": pa.array([rows[p.number] for p in self.parts], pa.int64()),
                "bytes": pa.array([p.bytes for p in self.parts], pa.int64()),
                "fingerprint": pa.array([p.fingerprint for p in self.parts], pa.string()),
                "next": pa.array([self.next_part] * len(self.parts), pa.int64()),
            }
        )
        write_table(self.folder / "parts.parquet", table, self.scratch)

    def _write_catalog(self) -> None:
        from curate import catalog

        catalog.build(self)
        sync(self.folder)


def _advance(phase: Any, sizes: dict[int, int], group: list[Any]) -> None:
    phase.advance(sum(r.documents for r in group), sum(sizes[r.number] for r in group))


def _merged(node: Node, *partials: pa.Table) -> pa.Table:
    return _guarded(node, "merge", lambda: node.stage.merge(list(partials)))


def _guarded(node: Node, verb: str, call: Callable[[], Any]) -> Any:
    """Call a verb of a stage; what it raises says which stage and verb it was."""
    try:
        return call()
    except (CurateError, MemoryError):
        raise
    except Exception as error:
        raise StageError(f"stage {node.label!r} failed in {verb}: {type(error).__name__}: {error}") from error


def _swap(found: tuple[Node, str], name: str) -> tuple[Node, str, str]:
    return found[0], name, found[1]


def versions() -> dict[str, str]:
    """The versions that produced bytes depend on."""
    from importlib.metadata import version

    from curate import __version__

    return {
        "curate": __version__,
        **{name: version(name) for name in ("pyarrow", "duckdb", "numpy", "xxhash")},
    }


__all__ = ["BASE_COLUMNS", "BYTES", "KEEP", "KEY", "TEXT_HASH", "WORDS", "Callable", "Outcome", "Run", "sync"]
