"""The checks of `curate verify`, one after the other: files, names, inputs, targets, docs, funnel, publication.

Each may rely on those before it, and says so where a fault of an earlier one is in its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import xxhash

from curate import models, takedown
from curate.chosen import PublishedTask, apart
from curate.copies import Copies
from curate.corpus import CorpusSpec, Layout, Part, SourceFile, open_corpus
from curate.engine import LocalEngine, in_order
from curate.errors import CurateError, DataError
from curate.events import Events
from curate.ledger import Entry, Ledger
from curate.plan import part_name, twins
from curate.recipe import TargetSpec
from curate.recount import (
    COUNTED,
    DocsTask,
    Expected,
    FilesTask,
    Recounted,
    StageRecord,
)
from curate.shards import Shards
from curate.store import digest, read_sealed, read_table, sealed
from curate.targets import key_of, load_splits

#: Bytes of files that one task hashes; opening a small one costs as much as reading so many bytes.
TASK_BYTES, LEAST_BYTES = 64_000_000, 200_000
REPAIRED = "--repair removes it, and the next run makes it again"
AGAIN = "run the recipe again"


@dataclass(frozen=True)
class Fault:
    """What is wrong, with the check that found it, the remedy, and what --repair removes for it."""

    check: str
    what: str
    remedy: str
    remove: Path | None = None
    restore: bytes | None = None  # what --repair writes in its place, where that can be known


@dataclass(frozen=True)
class Check:
    """A thing that was looked at; `holds` None where other faults were in the way."""

    name: str
    holds: bool | None
    what: str


@dataclass
class Report:
    """All checks and faults of one verification, and what was removed."""

    folder: Path
    checks: list[Check] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    bytes: int = 0

    @property
    def holds(self) -> bool:
        """Whether there is no fault."""
        return not self.faults


class Verifying:
    """One verification, check by check; each adds a line to the report."""

    def __init__(self, book: Ledger, report: Report, engine: LocalEngine, events: Events, scratch: Path) -> None:
        self.book, self.report, self.engine, self.events, self.scratch = book, report, engine, events, scratch
        self.folder = book.folder
        self.bad: set[Path] = set()
        self.layout: Layout | None = None  # of the inputs that are still what they were
        self.manifest: dict[str, Any] | None = None
        self.recounted: list[Recounted] = []
        self.complete = True  # every file of docs was recounted

    def run(self) -> None:
        """All checks, in an order in which each may rely on those before it."""
        self._files()
        self._names()
        if not self._records():
            return
        self._inputs()
        self._targets()
        self._recount()
        self._funnel()
        self._publication()
        self._tokens()
        self._models()
        self._takedowns()

    # -- telling ---------------------------------------------------------------------------------------------------

    def _say(self, name: str, what: str, faults: Sequence[Fault] = (), *, checked: bool = True) -> None:
        """Add a check; it holds if it was made and found no fault."""
        self.report.faults += faults
        self.report.checks.append(Check(name, False if faults else True if checked else None, what))

    def _fault(self, check: str, what: str, path: Path | None, remedy: str = REPAIRED) -> Fault:
        """A fault in a file of the run; the whole wide table or publication goes where one of its files is wrong."""
        return Fault(check, what, remedy, self._whole(path) if path else None)

    def _whole(self, path: Path) -> Path:
        for parent in (self.folder / ".docs", self.folder / "mixtures"):
            if path.is_relative_to(parent) and path != parent:
                return parent / path.relative_to(parent).parts[0]
        return path

    # -- files and names -------------------------------------------------------------------------------------------

    def _files(self) -> None:
        """Every file of the ledger: there, of its size and hash, every page readable, of its rows."""
        promised = self._promised()
        expected = [Expected(self.book.path(e), e.bytes, e.hash, e.rows, promised.get(self.book.path(e))) for e in self.book.entries]
        groups = in_order(expected, [max(f.bytes, LEAST_BYTES) for f in expected], TASK_BYTES)
        with self.events.phase("files"):
            answers = self.engine.map("curate.recount:check_files", [FilesTask(group) for group in groups])
        faults = []
        for item, wrong in zip(expected, (wrong for found in answers for wrong in found), strict=True):
            if wrong:
                self.bad.add(item.path)
                faults.append(self._damaged(item, wrong))
        self.report.bytes += sum(e.bytes for e in self.book.entries)
        kinds: dict[str, int] = {}
        for entry in self.book.entries:
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
        self._say(
            "files", f"{len(expected):,} files, {sum(e.bytes for e in expected) / 1e6:,.1f} MB, have their size, hash, rows and page checksums "
            f"({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})", faults,
        )  # fmt: skip

    def _damaged(self, item: Expected, wrong: str) -> Fault:
        """The fault of a file of the ledger; a record that --repair can put back has its content."""
        fault = self._fault("files", f"{item.path} {wrong}", item.path)
        content: list[bytes]
        if item.path.name == takedown.NAME:
            remedy = "put it back from a copy; --repair leaves it, because without it the next run would bring back what was taken down"
            return Fault(fault.check, fault.what, remedy)
        if item.path.parent.name == "frozen":
            label = item.path.stem
            content, without = self._frozen(label), f"--repair removes it, and the next run fits {label} again"
        elif item.path.name == "parts.parquet":
            content, without = self._copy_of_parts(), "--repair removes it, and the next run numbers the parts anew"
        elif item.path.parent.name == "fit":
            content, without = [], "--repair removes it; the next run makes it again, unless its stage's state is frozen and its part is no longer as it was then"
        elif wrong == "is missing" and item.path == fault.remove:
            content, without = [], "the next run makes it again"
        else:
            return fault
        found = next((c for c in content if xxhash.xxh3_128_hexdigest(c) == item.hash), None)
        return Fault(fault.check, fault.what, without if found is None else "--repair puts it back", fault.remove, found)

    def _frozen(self, label: str) -> list[bytes]:
        """What the record of a frozen state may have been: with the targets in its key, or without."""
        try:
            rows = read_table(self.folder / "stages.parquet").to_pylist()
            targets = msgspec.json.decode((self.folder / "recipe.lock.json").read_bytes())["targets_key"]
            stage = next(row for row in rows if row["label"] == label)
            return [sealed([stage["key"], Path(stage["state"]).name, digest(key)]) for key in (targets, "")]
        except (CurateError, OSError, msgspec.MsgspecError, KeyError, TypeError, StopIteration):
            return []

    def _copy_of_parts(self) -> list[bytes]:
        """parts.parquet as the wide table has it too."""
        try:
            return [(self._home("docs") / "_parts.parquet").read_bytes()]
        except OSError:
            return []

    def _home(self, kind: str) -> Path:
        """The folder of the wide table, or of the publication."""
        return next((self._whole(self.book.path(e)) for e in self.book.entries if e.kind == kind), self.folder / kind)

    def _promised(self) -> dict[Path, str]:
        """The SHA-256 that the publication's manifest promises, by path."""
        found = next((self.book.path(e) for e in self.book.entries if e.kind == "mixture" and e.path.endswith("/manifest.json")), None)
        if found is None:
            return {}
        try:
            self.manifest = msgspec.json.decode(found.read_bytes(), type=dict[str, Any])
            return {found.parent / f["file"]: f["sha256"] for f in self.manifest["files"]}
        except (OSError, ValueError, msgspec.MsgspecError, KeyError, TypeError):  # ValueError: no UTF-8
            return {}  # its hash says that it is damaged

    def _names(self) -> None:
        """`docs` and `mixture` point at what the ledger lists, and nothing else lies there."""
        faults, counted = [], 0
        for kind, link in (("docs", self.folder / "docs"), ("mixture", self.folder / "mixture")):
            listed = {self.book.path(e) for e in self.book.entries if e.kind == kind}
            if not listed:
                continue
            home = self._home(kind)
            if not link.is_symlink() or link.resolve() != home.resolve():
                faults.append(self._fault("names", f"{link} does not point at {home}", None, AGAIN))
            for path in sorted(p for p in home.rglob("*") if not p.is_dir() or p.is_symlink()):
                counted += 1
                if path not in listed:
                    faults.append(self._fault("names", f"{path} is in no ledger", path, f"--repair removes {home.name} whole, and the next run makes it again; or delete the file"))
        self._say("names", f"docs and mixture point at what was published; all {counted:,} files there are in the ledger", faults)

    # -- records and inputs ----------------------------------------------------------------------------------------

    def _records(self) -> bool:
        """Read what the other checks go by; False where that cannot be."""
        needed = [self.folder / name for name in ("recipe.lock.json", "parts.parquet", "stages.parquet", "funnel.parquet")]
        broken = [path.name for path in needed if path in self.bad]
        if broken:
            self._say("recount", f"not checked, because of {', '.join(broken)}", checked=False)
            return False
        self.lock: dict[str, Any] = msgspec.json.decode(needed[0].read_bytes())
        self.copies = msgspec.convert(self.lock.get("copies"), Copies | None)
        rows = read_table(needed[1]).to_pylist()
        self.parts = [
            Part(number=r["part"], file=r["file"], format=r["format"], start=r["start"], stop=r["stop"], first_row=r["first_row"], rows=r["rows"],
                 bytes=r["bytes"], fingerprint=r["fingerprint"])
            for r in rows
        ]  # fmt: skip
        self.names = [part_name(p, t) for p, t in zip(self.parts, twins(self.parts), strict=True)]
        self.rows = sum(p.rows for p in self.parts)

        def place(found: str | None) -> Path | None:
            return self.book.store / found if found else None

        self.stages = [
            StageRecord(r["label"], r["position"] > 0, r["decides"], place(r["measures"]), place(r["verdicts"]), place(r["finished"]))
            for r in read_table(needed[2]).to_pylist()
        ]
        self.funnel = read_table(needed[3]).to_pylist()
        return True

    def _inputs(self) -> None:
        """The inputs are what they were, and every row of them stands in a part."""
        inputs = [Expected(Path(path), size, content) for path, size, content in self.lock["inputs"]]
        with self.events.phase("inputs"):
            answers = self.engine.map("curate.recount:check_inputs", [FilesTask([f]) for f in inputs])
        wrong = {item.path: found for item, (found,) in zip(inputs, answers, strict=True)}
        faults = [Fault("inputs", f"{path} {found}", f"put it back as it was when the run read it, or {AGAIN}") for path, found in wrong.items() if found]
        self.report.bytes += sum(f.bytes for f in inputs)
        intact = {str(path) for path, found in wrong.items() if not found}
        told = f"{len(inputs):,} files, {sum(f.bytes for f in inputs) / 1e6:,.1f} MB, are what they were"
        if intact:
            try:
                faults += self._rows_of_inputs(intact)
                told += f"; all their rows ({self.rows:,} with those of every part) are in the run"
            except CurateError as error:
                faults.append(Fault("inputs", str(error), AGAIN))
        self._say("inputs", told, faults)

    def _rows_of_inputs(self, intact: set[str]) -> list[Fault]:
        """Go through the inputs again; every part of them must be one of the run's, and the other way round."""
        spec = msgspec.structs.replace(msgspec.convert(self.lock["corpus"], CorpusSpec), paths=sorted(intact))
        hashed = [SourceFile(path, size, Path(path).stat().st_mtime_ns, content) for path, size, content in self.lock["inputs"] if path in intact]
        corpus = open_corpus(spec, Path(self.lock["base"]), known=hashed)
        self.layout = corpus.layout

        def key(part: Part) -> tuple[str, int, int, int, str]:
            return part.file, part.start, part.stop, part.first_row, part.fingerprint

        recorded = {key(p): p.rows for p in self.parts if p.file in intact}
        there = {key(p): p.rows for p in corpus.parts}
        faults = [Fault("inputs", f"{k[0]}: the part from row {k[3]} on is not in the run", AGAIN) for k in there.keys() - recorded.keys()]
        faults += [Fault("inputs", f"{k[0]}: the run has a part from row {k[3]} on that the file does not have", AGAIN) for k in recorded.keys() - there.keys()]
        faults += [
            Fault("inputs", f"{k[0]}: the part from row {k[3]} on has {there[k]:,} rows, the run read {recorded[k]:,}", AGAIN)
            for k in sorted(there.keys() & recorded.keys()) if there[k] >= 0 and there[k] != recorded[k]
        ]  # fmt: skip
        return sorted([*faults, *self._cache(corpus.files)], key=lambda f: f.what)

    def _cache(self, found: Sequence[SourceFile]) -> list[Fault]:
        """files.json is no result, but the next run believes what it says of a file of the same size and time.

        `found` is what the inputs were found to be now.
        """
        file = self.folder / "files.json"
        try:
            remembered = {(f.path, f.size, f.mtime_ns): f for f in read_sealed(file, list[SourceFile])}
        except FileNotFoundError:
            return []
        except DataError as error:
            return [self._fault("inputs", str(error).split(";")[0], file)]
        wrong = [f.path for f in found if (old := remembered.get((f.path, f.size, f.mtime_ns))) and (old.content != f.content or (old.detail and old.detail != f.detail))]
        return [self._fault("inputs", f"{file} remembers {path} otherwise than it is", file) for path in wrong]

    def _targets(self) -> None:
        """The targets' files hold the texts that they held."""
        specs = {name: msgspec.convert(found, TargetSpec) for name, found in self.lock["targets"].items()}
        if not specs:
            return
        corpus = self.lock["corpus"]
        try:
            splits = {name: load_splits(spec, Path(self.lock["base"]), corpus["text"], corpus["view"]) for name, spec in specs.items()}
            same = key_of(splits) == self.lock["targets_key"]
            why = "the texts of the targets' files are not those that the run was aimed at"
        except CurateError as error:
            same, why = False, str(error)
        faults = [] if same else [Fault("targets", why, f"put the files back, or {AGAIN}")]
        self._say("targets", f"{', '.join(specs)}: the files hold the texts that the run was aimed at", faults)

    # -- docs, funnel, publication -----------------------------------------------------------------------------------

    def _recount(self) -> None:
        """Put the wide table together again, part by part, and read the kept documents' texts in the inputs."""
        of_parts = [self.book.path(e) for e in self.book.entries if e.kind in ("measures", "verdict", "finish")]
        damaged = {path.stem.partition("-")[0] for path in of_parts if path in self.bad}
        files = [(e, self.book.path(e)) for e in self.book.entries if e.kind == "docs" and Path(e.path).name.startswith("docs-")]
        tasks, waiting = [], deque(zip(self.parts, self.names, strict=True))
        for number, (entry, path) in enumerate(files):
            parts = _next_parts(waiting, entry)
            layout = self.layout.of([p for p, _ in parts if p.file in self.layout.files]) if self.layout else None
            if path in self.bad or damaged & {name for _, name in parts}:
                self.complete = False
                continue
            tasks.append(DocsTask(path, parts, self.stages, layout, self.lock["corpus"]["source"], self.copies, self.scratch / f"chosen-{number}.parquet"))
        faults = [] if not waiting else [self._fault("rows", f"parts.parquet has {len(waiting)} parts more than the wide table", self._home("docs"))]
        with self.events.phase("docs") as phase:
            self.recounted = self.engine.map("curate.recount:recount", tasks, lambda found: phase.advance(found.rows, 0))
        broken = {check: [self._found(check, what, task.file) for task, r in zip(tasks, self.recounted, strict=True) for c, what in r.faults if c == check] for check in ("rows", "verdicts", "texts")}
        counted, read = sum(r.rows for r in self.recounted), sum(r.texts for r in self.recounted)
        missing = "" if self.complete else "; not where files are damaged"
        self._say("rows", f"{counted:,} documents in docs, as many as the parts and their sidecars have rows{missing}", [*faults, *broken["rows"]], checked=self.complete)
        self._say("verdicts", f"every column and verdict of {counted:,} documents in docs is the store's, and follows from it{missing}", broken["verdicts"], checked=self.complete)
        self._say("texts", f"{read:,} kept texts, {sum(r.text_bytes for r in self.recounted) / 1e6:,.1f} MB, stand in the inputs as they were read{missing}", broken["texts"], checked=self.complete)

    def _found(self, check: str, what: str, file: Path) -> Fault:
        if check == "texts":
            return Fault(check, what, f"the input is not what was read; {AGAIN} with --verify-input")
        return self._fault(check, what, file)

    def _funnel(self) -> None:
        """funnel.parquet is what a count of docs gives: read = kept + dropped by reason + quarantined, by source."""
        if not self.complete:
            self._say("funnel", "not checked, because files of docs or their sidecars are damaged", checked=False)
            return
        counted = pa.concat_tables([COUNTED.empty_table(), *(r.funnel for r in self.recounted)])
        summed = counted.group_by(["stage", "reason", "source"]).aggregate([("documents", "sum"), ("bytes", "sum"), ("words", "sum")]).to_pylist()
        again = {(r["stage"], r["reason"], r["source"]): (r["documents_sum"], r["bytes_sum"], r["words_sum"]) for r in summed}
        said = {(r["stage"], r["reason"], r["source"]): (r["documents"], r["bytes"], r["words"]) for r in self.funnel}
        faults = [
            self._fault("funnel", f"funnel.parquet says of {key} {said.get(key, (0, 0, 0))} documents, bytes and words; docs have {again.get(key, (0, 0, 0))}", self.folder / "funnel.parquet")
            for key in sorted(said.keys() | again.keys(), key=repr) if said.get(key) != again.get(key)
        ]  # fmt: skip
        total = sum(n for n, _, _ in said.values())
        kept = sum(n for (stage, _, _), (n, _, _) in said.items() if stage == "kept")
        if total != self.rows:
            faults.append(self._fault("funnel", f"{self.rows:,} documents were read, funnel.parquet counts {total:,}", self.folder / "funnel.parquet"))
        stages, sources = len({k[0] for k in said} - {"kept"}), len({k[2] for k in said})
        self._say("funnel", f"{total:,} read = {kept:,} kept + {total - kept:,} dropped, by {stages} stages and {sources} sources, as docs say", faults)

    def _publication(self) -> None:
        """The manifest's files, and what is in them: exactly the selected set, with the texts that were read."""
        listed = {self.book.path(e): e for e in self.book.entries if e.kind == "mixture"}
        if not listed:
            return
        home = self._home("mixture")
        if self.manifest is None or self.bad & listed.keys() or not self.complete:
            self._say("publication", "not checked, because files of it, of docs or of the store are damaged", checked=False)
            return
        files: list[dict[str, Any]] = self.manifest["files"]
        kept = {what: sum(r[what] for r in self.funnel if r["stage"] == "kept") for what in ("documents", "bytes", "words")}
        kept["rows"] = kept["documents"]
        if self.copies is not None:  # then it is more than the funnel counts
            held = [part for r in self.recounted for part in r.held]
            kept |= {"rows": sum(h.rows for h in held), "bytes": sum(h.bytes for h in held), "words": sum(h.words for h in held)}
        told = {"documents": self.manifest["documents"], "rows": self.manifest["rows"], "bytes": self.manifest["bytes_of_text"], "words": self.manifest["words"]}
        faults = [self._fault("manifest", f"manifest.json says {told[what]:,} {what}, of the kept documents it is {kept[what]:,}", home) for what in kept if kept[what] != told[what]]
        if {home / f["file"] for f in files} != {path for path in listed if path.parent == home / "data"}:
            faults.append(self._fault("manifest", "manifest.json names other files than lie in data/", home))
        if sum(f["rows"] for f in files) != self.manifest["rows"]:
            faults.append(self._fault("manifest", "manifest.json's files have other rows than it says in all", home))
        self._say("manifest", f"{len(files)} files have their rows and SHA-256, {told['documents']:,} documents in {told['rows']:,} rows", faults)
        with_text = self._texts_compare(home, files)
        text = {name: self.lock["corpus"][name] for name in ("text", "view")} if with_text else {"text": "curate_identity", "view": "all"}
        tasks = [
            PublishedTask(home / f["file"], f["rows"], CorpusSpec(paths=[str(home / f["file"])], **text), self.copies, self.scratch / f"published-{i}.parquet")
            for i, f in enumerate(files)
        ]
        with self.events.phase("publication") as phase:
            answers = self.engine.map("curate.chosen:read_published", tasks, lambda found: phase.advance(found.rows, 0))
        faults = [self._fault("publication", answer.wrong, home) for answer in answers if answer.wrong]
        ends = [answer.ends for answer in answers if answer.ends]
        faults += [self._fault("publication", f"{home}: a file begins at place {second[0]:,}, and the one before it ends at {first[1]:,}", home) for first, second in pairwise(ends) if second[0] <= first[1]]
        chosen = sorted(self.scratch.glob("chosen-*.parquet"))
        count, first = apart(chosen, [t.out for t in tasks], with_text, self.copies is not None, self.scratch, self.engine.workers)
        for identity, more in first:
            which = "selected and not published as it was read" if more > 0 else "published and not as it was selected"
            faults.append(self._fault("publication", f"{home}: document {identity!r} is {which} ({count:,} such)", home))
        what = "each with the text that was read" if with_text else "by identity (the text is made of columns whose form a publication changes)"
        exactly = "documents are exactly the selected ones" if self.copies is None else "rows are exactly the selected documents, each as often and where docs say"
        self._say("publication", f"{sum(answer.rows for answer in answers):,} {exactly}, {what}", faults)

    def _tokens(self) -> None:
        """Token shards have the sizes and hashes that their manifests say, and whose mixture they are of."""
        made = [path for path in takedown.tokenized(self.folder) if not path.name.startswith(".")]
        if not made:
            return
        faults, current = [], 0
        with self.events.phase("tokens"):
            for path in made:
                try:
                    found = Shards(path, check=True).manifest
                except CurateError as error:
                    faults.append(Fault("tokens", str(error).partition("; ")[0], f"--repair removes {path}; curate tokenize makes it again", path))
                    continue
                current += found.made_of == self._home("mixture").name
                self.report.bytes += sum(item.bytes for s in found.shards for item in (s.tokens, s.mask, s.segments))
        told = f"{len(made):,} folders of token shards have their sizes and hashes; {current:,} of the current mixture"
        self._say("tokens", told, faults)

    def _models(self) -> None:
        """Every trained model has the files that its manifest says; `model` points at one."""
        made = sorted(file.parent for file in (self.folder / "models").glob("*/model/manifest.json"))
        link, faults = self.folder / "model", []
        if link.is_symlink() and not link.exists():
            faults.append(Fault("models", f"{link} points at {link.readlink()}, which is not there", "curate train makes it again"))
        if not made and not faults:
            return
        with self.events.phase("models"):
            for path in made:
                if wrong := models.damage(path):
                    faults.append(Fault("models", wrong, f"--repair removes {path}; curate train makes it again of its last checkpoint", path))
        self._say("models", f"{len(made):,} trained models have the files that their manifests say", faults)

    def _takedowns(self) -> None:
        """What was taken down stands in no publication, and in docs by its id alone."""
        try:
            what = takedown.read(self.folder)
            if what is None:
                return
            corpus = self.lock["corpus"]
            left = takedown.remains(self.folder, what, (corpus["id"], corpus["source"], corpus.get("license")))
        except CurateError as error:
            self._say("takedowns", "not checked, because a file is damaged", [self._fault("takedowns", str(error), None, AGAIN)])
            return
        faults = [self._fault("takedowns", f"{self.folder / place}: {count:,} documents that were taken down are still there", None, AGAIN) for place, count in left.items()]
        self._say("takedowns", f"{what.table.num_rows:,} documents that were taken down are in no publication of the folder and no docs", faults)

    def _texts_compare(self, home: Path, files: list[dict[str, Any]]) -> bool:
        """Whether a published row gives its text again: not where numbers or times are put into a template, or bytes into JSON."""
        plain: bool = (self.lock.get("emit") or {}).get("format", "parquet") == "parquet"
        kind, columns = self.lock["text"]["kind"], self.lock["text"]["columns"]
        if self.layout is None:
            return plain and kind != "template"
        types = [self.layout.schema.field(name).type for name in columns if name in self.layout.schema.names]
        if kind == "template" and not all(pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_integer(t) for t in types):
            return False
        return plain or not any(pa.types.is_binary(t) or pa.types.is_large_binary(t) for t in types)


def _next_parts(waiting: deque[tuple[Part, str]], entry: Entry) -> list[tuple[Part, str]]:
    """Take from `waiting` the parts that the next file of docs has, by its rows."""
    taken, rows = [], 0
    while waiting and rows < (entry.rows or 0):
        taken.append(waiting.popleft())
        rows += taken[-1][0].rows
    return taken
