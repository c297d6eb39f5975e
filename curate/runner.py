"""A run: a recipe carried out in a run folder. Reads from top to bottom: plan, passes, wide table, publication.

Nothing here knows a stage by name. Each step looks at what the store has and does what is missing, so resuming is
running again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from curate import (
    __version__,
    copies,
    docs,
    documents,
    finishing,
    fits,
    guards,
    ledger,
    licenses,
    records,
    reference,
    sampling,
    sharing,
    takedown,
)
from curate.corpus import Corpus, Part, open_corpus
from curate.engine import LocalEngine, available_cpus, in_order
from curate.errors import (
    ConfigError,
    CurateError,
    DataError,
    RunHeldError,
    StageError,
    machine_error,
    plainly,
)
from curate.events import Events
from curate.filenames import list_files
from curate.joining import TASKS, Crew, pass_key
from curate.lease import Holder, Lease, held
from curate.outcome import Outcome, PartChanges, part_changes, stage_work
from curate.params import Problems
from curate.passes import PassTask
from curate.plan import (
    Node,
    NodeSpec,
    check_reads,
    part_name,
    settled,
    stage_key,
    twins,
    wide_columns,
)
from curate.recipe import Recipe, StageSpec
from curate.stage import TEXT, Context
from curate.status import told
from curate.store import (
    Written,
    digest,
    emptied,
    noting,
    read_sealed,
    read_table,
    sync,
    write_sealed,
    write_table,
)
from curate.targets import Targets, load_targets, warn_of_overlaps

#: About how many bytes of text one task holds: enough to hide the cost of a message, few enough to balance workers.
TASK_BYTES = 48_000_000
#: Bytes of input files that keep a further worker busy for longer than its start takes.
WORTH_A_WORKER = 4_000_000
#: Columns of ours in the wide table that are a place, not something a user may have a column for.
PLACES = ("doc", "part", "file", "row")


class Run:
    """One execution of one recipe, and the folder that holds all it produced."""

    def __init__(
        self, recipe: Recipe, folder: Path, *, store: Path | None = None, workers: int | None = None, events: Events | None = None,
        publish: bool = True, verify_input: bool = False, wait: float = 0.0, taking: takedown.Listed | None = None,
        walk: bool = False, task_timeout: float | None = None,
    ) -> None:  # fmt: skip
        self.recipe = recipe
        self.folder = folder.resolve()
        self.store = (store or self.folder / "store").resolve()
        self.workers = workers or available_cpus()
        self.task_timeout = task_timeout  # seconds; a worker that needs longer for one task hangs
        self.events = events or Events()
        self.publish = publish
        self.verify_input = verify_input
        self.walk = walk  # visit the stages though nothing changed: the caller goes on to read what they hold
        self.wait = wait  # seconds, for another process that holds the folder
        self.taking = taking  # what is to be taken down from this run on
        self.listed: takedown.Listed | None = None  # all that was, this run's included
        self.scratch = self.store / "tmp" / digest(str(self.folder))[:12]
        self.lease: Lease
        self.crew: Crew | None = None  # those who work at this run together (--join)
        self.started = time.perf_counter()
        self.nodes: list[Node] = []
        self.warnings: list[str] = []
        self.guarded: list[str] = []  # of the warnings, those of the guards: they stand in the data card
        self.computed: set[int] = set()
        self.rows: dict[int, int] = {}  # by part number, known once the first pass has been over a part
        self.version = __version__
        self.written: dict[str, Written] = {}  # what this run wrote, its workers included
        self.fitted: dict[int, list[Path]] = {}  # node position -> the partials that its state is of
        self.before: ledger.Ledger | None = None  # of the last run that finished in this folder
        self.changes = PartChanges(0, 0, 0, 0, 0)
        self.against: dict[int, list[reference.Reference]] = {}  # node position -> what its `against` names
        self.references: dict[int, reference.References] = {}  # the same, as its finish sees it
        self.unique: Path | None = None  # the file that says that ids were found to be unique

    @property
    def staging(self) -> Path:
        """Where what is to stand in the run folder is made; gone when the lease is another's."""
        return self.lease.staging

    # -- the whole of it ------------------------------------------------------------------------------------------

    def execute(self) -> Outcome:
        """Carry the recipe out; raises a CurateError with nothing half-written where that cannot be."""
        with plainly(f"the run in {self.folder}"), held(self.folder, wait=self.wait) as self.lease, emptied(self.scratch):
            return self.carry_out()

    def carry_out(self) -> Outcome:
        """All of it, with the lease in hand."""
        with self.leading(self.lease), LocalEngine(self.workers, self.task_timeout) as self.engine, noting() as self.written:
            return self.work()

    @contextmanager
    def leading(self, lease: Lease) -> Iterator[None]:
        """Work as the one who holds the run folder: it keeps the status, and says from whom it took over."""
        self.lease = lease
        if lease.taken_from:
            self.events.emit("note", text=f"took over from {lease.taken_from.described()}, which died")
        with told(self.folder, lease, self.events):
            sharing.register(self.store, self.folder, self.scratch)
            yield

    def work(self) -> Outcome:
        """Plan, pass over the parts, publish."""
        if not (self.folder / ledger.NAME).exists():  # otherwise there may be nothing to do
            self.engine.warm(self._likely_tasks())
        if self.taking is not None:
            takedown.record(self.folder, self.taking, self.staging)
        self.plan()
        records.write_files(self)
        self.say_started()
        if self._nothing_changed():
            return self._nothing_to_do()
        for warning in self.corpus.warnings:
            self.warnings.append(f"corpus: {warning}")
            self.events.emit("warning", text=f"corpus: {warning}")
        if self.crew:
            self.crew.open(self)
        self.passes()
        return self.publish_all()

    def say_started(self) -> None:
        """Begin the events of this run."""
        self.events.open(self.folder / "events.jsonl")
        self.events.emit("started", recipe=self.recipe.name, workers=self.workers, parts=len(self.parts),
                         bytes=sum(p.bytes for p in self.parts))  # fmt: skip

    def publish_all(self) -> Outcome:
        """Write the wide table, the publication and the records, from what the passes have stored."""
        self.lease.check()
        wide = docs.write(self)
        self.guarded = guards.check(self, wide)
        for text in self.guarded:
            self.warnings.append(text)
            self.events.emit("warning", text=text)
        published = None
        if self.publish:
            from curate.pipelines import emit

            published = emit.publish(self, wide)
            takedown.sweep(self, published)
        self._write_catalog()
        meta = ledger.write(self, wide, published, self.before).meta
        sync(self.folder)
        if self.crew:
            self.events.emit("note", text=self.crew.share())
        return self._finished(Outcome(
            self.folder, wide.documents, wide.kept, wide.text_bytes, len(self.computed), published, self.warnings,
            time.perf_counter() - self.started, self.changes, stage_work(self), rows=meta.rows,
        ))  # fmt: skip

    def _finished(self, outcome: Outcome) -> Outcome:
        self.events.emit(
            "finished", documents=outcome.documents, kept=outcome.kept, seconds=round(outcome.seconds, 3),
            computed_parts=outcome.computed_parts, worker_peak_bytes=self.engine.peak_bytes, unchanged=outcome.unchanged,
            parts=msgspec.to_builtins(outcome.parts), stages=msgspec.to_builtins(outcome.stages),
        )  # fmt: skip
        return outcome

    def _nothing_changed(self) -> bool:
        """Whether the last run that finished had the same plan and all that it wrote is there; its files stay closed."""
        if self.before is None:
            return False
        whole = self.before.whole() and (self.folder / "catalog.duckdb").exists()
        same = self.before.meta.plan == self.key and self.before.meta.frozen == ledger.frozen_records(self.folder)
        return whole and same and not self.walk

    def _nothing_to_do(self) -> Outcome:
        """What the run that finished said, again."""
        assert self.before is not None
        meta = self.before.meta
        published = self.folder / meta.mixture if meta.mixture else None
        return self._finished(Outcome(
            self.folder, meta.documents, meta.kept, meta.text_bytes, 0, published, meta.warnings, time.perf_counter() - self.started,
            self.changes, stage_work(self), unchanged=True, rows=meta.rows,
        ))  # fmt: skip

    def joined(self, holder: Holder) -> Outcome:
        """What a member says of a run that another has published."""
        assert self.crew is not None
        self.events.emit("note", text=f"{self.crew.share()}; published by {holder.described()}")
        written = ledger.read(self.folder)
        if written is None:
            raise RunHeldError(f"{self.folder} was published by {holder.described()}, and is being worked in again; run the same command again")
        meta = written.meta
        return Outcome(
            self.folder, meta.documents, meta.kept, meta.text_bytes, len(self.computed), self.folder / meta.mixture if meta.mixture else None,
            self.warnings, time.perf_counter() - self.started, self.changes, stage_work(self), rows=meta.rows,
        )  # fmt: skip

    def once(self, there: Callable[[], bool], make: Callable[[], None]) -> None:
        """Make what all members need once, if it is not there: whoever leads makes it, the others wait."""
        while not there():
            if self.crew is None or self.crew.leads():
                make()
                return

    # -- plan -----------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Open the corpus and the targets, build the nodes, and check all that can be checked before text is read.

        All problems of the recipe are raised together, those of the corpus and of each stage with them.
        """
        recipe = self.recipe
        self.listed = takedown.read(self.folder)
        problems = Problems(recipe.problems.found)
        self.before = ledger.read(self.folder)
        self.files_known = records.known_files(self.folder)
        try:
            self.corpus: Corpus = settled(
                open_corpus(
                    recipe.corpus, recipe.base, known=self.files_known, verify=self.verify_input
                )
            )
        except ConfigError as error:
            problems.add("corpus", str(error))
        pool = {Path(f.path).resolve() for f in self.corpus.files} if hasattr(self, "corpus") else set()
        self.targets: Targets = load_targets(recipe, pool, problems)
        if hasattr(self, "corpus"):
            self._check_user_columns(problems)
            self._build_nodes(problems)
        problems.raise_if_any(recipe.title)
        rows = records.parts_before(self.folder)
        self.parts, self.next_part = records.numbered(self.corpus.parts, rows)
        self.changes = part_changes(self.parts, [(r["file"], r["start"], r["stop"], r["fingerprint"]) for r in rows])
        self.twins = twins(self.parts)
        self.names = [part_name(p, t) for p, t in zip(self.parts, self.twins, strict=True)]
        self.inputs = digest([p.fingerprint for p in self.parts])
        self.key = records.plan_key(self)

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

    def _check_user_columns(self, problems: Problems) -> None:
        for name in self.corpus.layout.schema.names:
            if name.startswith("curate_") or name in PLACES:
                problems.add(
                    "corpus",
                    f"the pool has a column {name!r}, a name that the wide table needs for itself; rename it in the pool",
                )

    def _build_nodes(self, problems: Problems) -> None:
        layout, recipe = self.corpus.layout, self.recipe
        aside = recipe.corpus.on_error == "quarantine"
        strings = [f.name for f in layout.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        base = documents.DocumentsParams(
            text=recipe.corpus.text, view=recipe.corpus.view, text_columns=list(layout.text_columns), id=recipe.corpus.id,
            quarantine=aside, checked=strings if aside else [],
        )  # fmt: skip
        self._add_node(StageSpec("documents", documents.QUARANTINE, base, "corpus"), named=False)
        for spec in [*self._given_stages(), *recipe.stages]:
            try:
                self._add_node(spec)
                against = self.nodes[-1].spec.params.get("against")
                if against:
                    self.against[self.nodes[-1].position] = reference.resolve(self, against)
            except ConfigError as error:
                problems.add(spec.where, str(error))
        try:
            copies.arranging(self.nodes)
        except ConfigError as error:
            problems.add("stages", str(error))

    def _given_stages(self) -> list[StageSpec]:
        """The stages that no recipe names: what the corpus, the targets and takedowns ask for."""
        corpus = self.recipe.corpus
        found: list[StageSpec] = []
        if self.listed is not None:
            found.append(StageSpec(documents.TAKEDOWN, documents.TAKEDOWN, documents.TakedownParams(listed=self.listed.key), "takedown"))
        if corpus.license is not None and corpus.licenses is not None:
            allowed = licenses.LicenseParams(column=corpus.license, allowed=corpus.licenses)
            found.append(StageSpec(licenses.LICENSE, licenses.LICENSE, allowed, "corpus.license"))
        if self.targets.splits:
            overlap = documents.OverlapParams(targets=self.targets.key)
            found.append(StageSpec(documents.OVERLAP, documents.OVERLAP, overlap, "targets"))
        return found

    def _add_node(self, spec: StageSpec, *, named: bool = True) -> None:
        user = self.corpus.layout.schema
        before = [item for node in self.nodes for item in node.columns().values()]
        context = Context(
            spec.label, self.recipe.seed, self.recipe.stage_targets(), str(self.recipe.base), self.recipe.corpus.source,
            pa.schema([*before, *user]),
        )  # fmt: skip
        node_spec = NodeSpec(spec.stage, self.recipe.base, msgspec.to_builtins(spec.params), context)
        node = Node(len(self.nodes), spec.label, node_spec, named=named)
        own = [node.column(f) for f in (*node.fields().names, *node.finish_fields().names)]
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
        if node.rewrites and self.publish and self.corpus.layout.text_kind != "column":
            columns = ", ".join(self.corpus.layout.text_columns)
            raise ConfigError(
                f"it changes text, and the pool's text is put together from its columns ({columns}), so a changed one cannot be published; name one column as corpus.text"
            )
        self.nodes.append(node)

    # -- passes ---------------------------------------------------------------------------------------------------

    def passes(self) -> None:
        """Walk the stages; run what has gathered whenever one needs to have seen all parts."""
        pending: list[tuple[str, int]] = []
        for node in self.nodes:
            node.key = stage_key(node, self._input_keys(node))
            if "fit" in node.verbs:
                self._fit(node, pending)
                pending = []
            elif "sample" in node.verbs:
                self._run_pass(pending)
                pending = []
                self._fit_sample(node)
            elif hasattr(node.stage, "close") and not hasattr(node.stage, "fit_part"):
                self._close(node)
            elif node.label in (documents.OVERLAP, documents.TAKEDOWN):
                self._give(node)
            if "apply" in node.verbs:
                node.measures = self.store / node.key / (node.state.stem if node.state else "measures")
                pending.append(("apply", node.position))
            if "finish" in node.verbs:
                self._run_pass(pending)
                pending = []
                self._finish(node)
            if "judge" in node.verbs:  # behind the finish: a verdict may be of what that found
                found = node.finished.name if node.finished else ""
                node.verdicts = self.store / digest(node.key, node.spec.params, self.verdict_keys(node), *([found] if found else [])) / "verdict"
                pending.append(("judge", node.position))
        self._run_pass(pending)
        warn_of_overlaps(self)

    def _input_keys(self, node: Node) -> dict[str, str]:
        """The keys of the columns a stage reads: for a user's column its type, since part fingerprints hold its content."""
        wide = wide_columns(self.nodes[: node.position])
        layout = self.corpus.layout
        keys: dict[str, str] = {}
        for name in node.reads():
            if name in wide:
                source, item = wide[name]
                # what a finish found hangs on settings and parts that are not in its stage's key
                found = source.finished.name if source.finished is not None and item in source.finish_fields().names else ""
                keys[name] = digest(source.key, source.state.stem if source.state else "", found)
            elif name in layout.schema.names:
                keys[name] = str(layout.schema.field(name).type)
            elif name == TEXT:
                changed = [[n.key, n.state.stem if n.state else ""] for n in self.nodes[: node.position] if n.rewrites]
                keys[name] = digest([layout.spec.text, layout.spec.view, list(layout.text_columns)], changed)
        return keys

    def verdict_keys(self, node: Node) -> list[str]:
        """What decides which rows a stage is shown, and with what: the earlier verdicts, and its own measures' state."""
        folders = [n.verdicts or n.finished for n in self.nodes[: node.position] if n.decides()]
        keys = [str(f.relative_to(self.store)) for f in folders if f is not None]
        return [*keys, node.state.stem if node.state else ""]

    def tasks(self) -> list[list[tuple[Part, int]]]:
        """The parts in tasks: large parts alone, small ones together."""
        pairs = list(zip(self.parts, self.twins, strict=True))
        share = max(1, sum(p.bytes for p in self.parts) // (TASKS if self.crew else 4 * self.workers))
        return list(in_order(pairs, [max(p.bytes, 50_000) for p in self.parts], min(TASK_BYTES, share)))

    def _run_pass(self, steps: list[tuple[str, int]]) -> list[Any]:
        if not steps:
            return []
        nodes = self.nodes[: max(at for _, at in steps) + 1]
        tasks = [PassTask(self.corpus.layout.of(p for p, _ in parts), parts, nodes, steps, self.scratch) for parts in self.tasks()]
        names = list(dict.fromkeys(f"fit {self.nodes[at].label}" if verb == "fit" else self.nodes[at].label for verb, at in steps))
        results = []
        with self.events.phase(" + ".join(names), total=sum(p.bytes for p in self.parts)) as phase:
            advance = partial(_advance, phase, self._part_bytes())
            if self.crew:
                groups = self.crew.run_pass(self.engine, pass_key(self, steps), tasks, advance)
            else:
                groups = self.engine.map("curate.passes:run_pass", tasks, advance)
            for group in groups:
                results += group
        self.computed |= {r.number for r in results if r.documents}
        self.rows = {r.number: r.rows for r in results}
        self.written |= {w.path: w for r in results for w in r.written}
        self.once(lambda: finishing.ids_checked(self), lambda: finishing.check_ids(self))
        return results

    def _part_bytes(self) -> dict[int, int]:
        return {p.number: p.bytes for p in self.parts}

    def _fit(self, node: Node, pending: list[tuple[str, int]]) -> None:
        """Fit on the parts, merge, close; the state is named by what it was fitted on."""
        if self._recorded(node) is not None:
            self._run_pass(pending)
            pending = []
            fits.remake(self, node)
            node.state = self._frozen(node)
            if node.state is not None:
                return
        node.partials = self.store / node.key / "fit"
        results = self._run_pass([*pending, ("fit", node.position)])
        fitted = sorted(r.partials[node.position] for r in results)
        self.fitted[node.position] = [node.partials / f"{name}.parquet" for name in fitted]
        state = self.store / node.key / "state" / f"{digest(fitted, self._guides_key(node))}.parquet"
        self.once(state.exists, lambda: self._merge(node, fitted, state))
        self._keep_state(node, state)

    def _fit_sample(self, node: Node) -> None:
        """Draw the stage's samples, and let it train on them; the state is named by what it was trained on."""
        if self._recorded(node) is not None:
            fits.redraw(self, node)
            node.state = self._frozen(node)
            if node.state is not None:
                return
        node.partials = self.store / node.key / "fit"
        listing = sampling.listing_of(self, node)
        self.once(listing.exists, lambda: self.draw(node, listing))
        self.fitted[node.position] = [listing]
        state = self.store / node.key / "state" / f"{sampling.state_name(node, read_table(listing), self._guides_key(node))}.parquet"
        self.once(state.exists, lambda: self._train(node, listing, state))
        self._keep_state(node, state)

    def draw(self, node: Node, listing: Path) -> None:
        with self.events.phase(f"sample {node.label}"):
            _guarded(node, "samples", lambda: sampling.draw(self, node, listing))

    def _train(self, node: Node, listing: Path, state: Path) -> None:
        """Make a state of the samples that a listing names."""
        with self.events.phase(f"fit {node.label}"):
            samples = sampling.read(self, node, read_table(listing))
            write_table(state, _guarded(node, "fit_sample", lambda: node.stage.fit_sample(samples, self.targets.guides())), self.scratch)
        self._say_notes(node)

    def _guides_key(self, node: Node) -> str:
        """What a state depends on beside the pool: the targets, where the stage uses them."""
        return digest(self.targets.key if getattr(node.stage, "uses_targets", False) else "")

    def _keep_state(self, node: Node, state: Path) -> None:
        """Take a state that has been fitted; where it is to be frozen, record that it is this one."""
        node.state = state
        if getattr(node.stage, "frozen", False) and (self.crew is None or self.crew.lease):
            write_sealed(self.folder / "frozen" / f"{node.label}.json", [node.key, state.name, self._guides_key(node)], self.staging)

    def _merge(self, node: Node, fitted: list[str], state: Path) -> None:
        """Make a state of the partials it is named after."""
        with self.events.phase(f"merge {node.label}"):
            merged: pa.Table | None = None
            for name in fitted:
                table = read_table(self.store / node.key / "fit" / f"{name}.parquet")
                merged = table if merged is None else _merged(node, merged, table)
            if merged is None:
                raise DataError("the corpus has no parts to fit on")
            counted = merged
            closed = _guarded(node, "close", lambda: node.stage.close(counted, self.targets.guides()))
            write_table(state, closed, self.scratch)
        self._say_notes(node)

    def _close(self, node: Node) -> None:
        """The state of a stage that learns from the targets alone: no pass, no barrier."""
        node.state = state = self.store / node.key / "state" / f"{digest(self.targets.key)}.parquet"
        if not state.exists():
            write_table(state, _guarded(node, "close", lambda: node.stage.close(None, self.targets.guides())), self.scratch)

    def _give(self, node: Node) -> None:
        """The state of a stage whose state is given: documents of the targets, or what was taken down."""
        name, table = "targets", self.targets.documents
        if node.label == documents.TAKEDOWN:
            assert self.listed is not None
            name, table = "listed", self.listed.table
        node.state = self.store / node.key / "state" / f"{name}.parquet"
        if not node.state.exists():
            write_table(node.state, table, self.scratch)

    def _recorded(self, node: Node) -> Path | None:
        """Where the state is, or was, that an earlier run of this folder froze, if its settings and targets are still the same."""
        record = self.folder / "frozen" / f"{node.label}.json"
        if not getattr(node.stage, "frozen", False) or not record.exists():
            return None
        key, name, guides = read_sealed(record, tuple[str, str, str])
        return self.store / key / "state" / name if key == node.key and guides == self._guides_key(node) else None

    def _frozen(self, node: Node) -> Path | None:
        """The frozen state, there or made again; None where it has to be fitted anew."""
        state = self._recorded(node)
        if state is not None and (state.exists() or self._merge_again(node, state, self._guides_key(node))):
            self.events.emit("note", text=f"{node.label}: the frozen state {state.name[:8]} is used; nothing is fitted")
            return state
        return None

    def _merge_again(self, node: Node, state: Path, guides: str) -> bool:
        """Make a frozen state that is gone of the partials it was made of, where the ledger knows them; else say so."""
        folder = f"{node.key}/fit/"
        entries = self.before.entries if self.before is not None else []
        fitted = sorted(Path(e.path).stem for e in entries if e.kind == "fit" and e.path.startswith(folder))
        if "sample" in node.verbs:
            listings = [self.store / folder / f"{name}.parquet" for name in fitted]
            of = next((f for f in listings if sampling.complete(self, f) and sampling.state_name(node, read_table(f), guides) == state.stem), None)
            if of is not None:
                self.once(state.exists, lambda: self._train(node, of, state))
                return True
        there = all((self.store / folder / f"{name}.parquet").exists() for name in fitted)
        if there and state.stem == digest(fitted, guides):
            self.once(state.exists, lambda: self._merge(node, fitted, state))
            return True
        note = f"warning: the frozen state {state.stem[:8]} is gone, and so is what it was fitted on; it is fitted anew on what is there now"
        self.say(node, note)
        return False

    def _finish(self, node: Node) -> None:
        """Show a stage all documents' columns at once and scatter what it says over the parts."""
        against = self.against.get(node.position, [])
        params = {k: v for k, v in node.spec.params.items() if k not in getattr(node.stage, "judge_params", ())}
        inputs = digest(self.inputs, [p.number for p in self.parts], self.verdict_keys(node), params, [[r.name, r.key] for r in against])
        if node.position in self.against:
            self.references[node.position] = reference.References(self, node, against)
        node.finished = self.store / node.key / "finish" / inputs
        folder = node.finished
        self.once(lambda: all((folder / f"{name}.parquet").exists() for name in reversed(self.names)), lambda: self._make_finish(node))

    def _make_finish(self, node: Node) -> None:
        if node.position in self.references:
            self.references[node.position].prepare()
        with self.events.phase(f"finish {node.label}"):
            _guarded(node, "finish", lambda: finishing.finish(self, node))
        self._say_notes(node)

    def _say_notes(self, node: Node) -> None:
        for note in getattr(node.stage, "notes", list)():
            self.say(node, note)

    def say(self, node: Node, note: str) -> None:
        """Tell whoever listens, and the outcome, something about a stage."""
        self.warnings.append(f"{node.label}: {note}")
        self.events.emit("warning" if note.startswith("warning") else "note", text=f"{node.label}: {note}")

    def _write_catalog(self) -> None:
        from curate import catalog

        catalog.build(self)


def _advance(phase: Any, sizes: dict[int, int], group: list[Any]) -> None:
    phase.advance(sum(r.documents for r in group), sum(sizes[r.number] for r in group))


def _merged(node: Node, *partials: pa.Table) -> pa.Table:
    return _guarded(node, "merge", lambda: node.stage.merge(list(partials)))


def _guarded(node: Node, verb: str, call: Callable[[], Any]) -> Any:
    """Call a verb of a stage; what it raises says which stage and verb it was."""
    try:
        return call()
    except CurateError:
        raise
    except Exception as error:
        doing = f"stage {node.label!r} failed in {verb}"
        raise machine_error(error, doing) or StageError(f"{doing}: {type(error).__name__}: {error}") from error
