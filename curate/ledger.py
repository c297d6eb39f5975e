"""The ledger of a run: every file that the finished run refers to, with its size, rows and hash.

    ledger = read(Path("runs/demo"))
    for entry in ledger.entries:
        ledger.path(entry), entry.kind, entry.bytes, entry.hash

`RUN/ledger.parquet` is written last, when everything is published. A hash is taken when the file is written, by the
process that writes it; from then on the ledger carries it from run to run, so that damage is never taken for content.
A file that stood there already and is in no ledger (a killed run's, another run's of a shared store) is read whole,
its pages' checksums compared, and hashed once.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate import takedown
from curate.filescan import hash_file
from curate.store import Written, damaged, read_table, write_table

if TYPE_CHECKING:
    from curate.docs import Wide
    from curate.runner import Run

NAME = "ledger.parquet"
Root = Literal["store", "run"]
Kind = Literal["measures", "fit", "state", "verdict", "finish", "reference", "unique", "docs", "mixture", "record"]
#: The records in the ledger: those that are written once, with the results, and frozen/<label>.json of each stage that
#: has a frozen state. files.json, compare.json, the catalog and the events are not: they are caches, or change by themselves.
RECORDS = ("recipe.yaml", "recipe.lock.json", "parts.parquet", "stages.parquet", "funnel.parquet")
SCHEMA = pa.schema(
    [("root", pa.string()), ("path", pa.string()), ("kind", pa.string()), ("bytes", pa.int64()), ("rows", pa.int64()), ("hash", pa.string())]
)
_META = b"curate.ledger"


class Entry(msgspec.Struct, frozen=True):
    """One file: `path` is relative to its root, with /; `rows` None where it is no table; `hash` xxh3-128, 32 hex digits."""

    root: Root
    path: str
    kind: Kind
    bytes: int
    rows: int | None
    hash: str


class Meta(msgspec.Struct, frozen=True):
    """What the ledger says besides, of the run that wrote it.

    `store`: where it is, relative if inside the run. `plan`: the key of all that the results depend on. `docs` and
    `mixture`: what the two links point at (mixture None where nothing was published). `frozen`: the hashes of the
    records in frozen/, by label; who removes one wants a new fit. `rows`: of the publication, which a mixture may have more of
    than documents were kept; None where nothing was published, or by an older version. The rest is the outcome's.
    """

    curate: str
    store: str
    plan: str
    docs: str
    mixture: str | None
    documents: int
    kept: int
    text_bytes: int
    warnings: list[str]
    frozen: dict[str, str] = {}
    rows: int | None = None


@dataclass(frozen=True)
class Ledger:
    """A ledger as it was read: entries sorted by root and path."""

    folder: Path
    entries: list[Entry]
    meta: Meta

    @property
    def store(self) -> Path:
        """The store that entries of the root `store` are relative to, absolute."""
        return self.folder / self.meta.store

    def path(self, entry: Entry) -> Path:
        """The absolute path of an entry."""
        return (self.store if entry.root == "store" else self.folder) / entry.path

    def whole(self) -> bool:
        """Whether each file is there with its size, and the links point where they did; reads none of them.

        Raises DataError for a file of another size. A record of another size is what a run that did not finish left:
        the next one writes it again.
        """
        whole = self._linked("docs", self.meta.docs) and self._linked("mixture", self.meta.mixture)
        folders = {"store": f"{self.store}{os.sep}", "run": f"{self.folder}{os.sep}"}
        for entry in self.entries:
            path = folders[entry.root] + entry.path
            try:
                size = os.stat(path).st_size
            except (FileNotFoundError, NotADirectoryError):
                whole = False
                continue
            if size != entry.bytes and entry.kind != "record":
                raise damaged(path, f"expected {entry.bytes} bytes, got {size}")
            whole = whole and size == entry.bytes
        return whole

    def lacks(self, folder: Path) -> bool:
        """Whether a file that belongs into this folder is not there."""
        inside = [self.path(e) for e in self.entries if e.kind in ("docs", "mixture")]
        return any(not path.exists() for path in inside if path.is_relative_to(folder))

    def _linked(self, name: str, to: str | None) -> bool:
        try:
            return os.readlink(self.folder / name) == to
        except OSError:
            return to is None


def read(folder: Path) -> Ledger | None:
    """The ledger of a run folder; None where there is none (no run has finished), DataError where it is damaged."""
    folder = Path(folder).resolve()
    file = folder / NAME
    try:
        table = read_table(file, SCHEMA.names)
    except FileNotFoundError:
        return None
    try:
        meta = msgspec.json.decode((table.schema.metadata or {})[_META], type=Meta)
        entries = msgspec.convert(table.to_pylist(), list[Entry])
    except (KeyError, msgspec.MsgspecError) as error:
        raise damaged(file, str(error)) from error
    return Ledger(folder, entries, meta)


def write(run: Run, wide: Wide, published: Path | None, before: Ledger | None) -> Ledger:
    """Write the ledger of a run that has published; `before` is the one it replaces."""
    known = {str(before.path(entry)): entry for entry in before.entries} if before else {}
    _keep_fits(run, before)
    entries = []
    for path, kind in referred(run, wide, published):
        root, base = _root(run, path)
        # a record may be a killed run's, of the same name and even size: it was read by its own checksums, and is hashed anew
        before_it = None if kind == "record" else known.get(str(path))
        found = run.written.get(str(path)) or _carried(before_it, path) or _adopted(path)
        entries.append(Entry(root, path.relative_to(base).as_posix(), kind, found.bytes, found.rows, found.hash))
    entries.sort(key=lambda entry: (entry.root, entry.path))
    inside = run.store.is_relative_to(run.folder)
    meta = Meta(
        run.version, str(run.store.relative_to(run.folder) if inside else run.store), run.key, os.readlink(run.folder / "docs"),
        os.readlink(run.folder / "mixture") if published else None, wide.documents, wide.kept, wide.text_bytes, run.warnings,
        frozen_records(run.folder), _rows_of(published) if published else None,
    )  # fmt: skip
    rows = [msgspec.to_builtins(entry) for entry in entries]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({_META: msgspec.json.encode(meta)}))
    write_table(run.folder / NAME, table, run.staging)
    return Ledger(run.folder, entries, meta)


def _rows_of(publication: Path) -> int:
    return int(msgspec.json.decode((publication / "manifest.json").read_bytes())["rows"])


def frozen_records(folder: Path) -> dict[str, str]:
    """The hash of each record of a frozen state, by the stage's label."""
    return {file.stem: hash_file(str(file)) for file in sorted((folder / "frozen").glob("*.json"))}


def _keep_fits(run: Run, before: Ledger | None) -> None:
    """A frozen state was fitted by an earlier run: what it was fitted on stays in the ledger for as long as it is used."""
    for node in run.nodes:
        if node.state is not None and node.position not in run.fitted and before is not None:
            folder = f"{node.key}/fit/"
            old = [before.path(e) for e in before.entries if e.kind == "fit" and e.path.startswith(folder)]
            run.fitted[node.position] = [path for path in old if path.exists()]


def _root(run: Run, path: Path) -> tuple[Root, Path]:
    return ("store", run.store) if path.is_relative_to(run.store) else ("run", run.folder)


def _carried(entry: Entry | None, path: Path) -> Written | None:
    """What an earlier ledger says of a file; a file of another size is damaged."""
    if entry is None:
        return None
    size = path.stat().st_size
    if size != entry.bytes:
        raise damaged(path, f"expected {entry.bytes} bytes, got {size}")
    return Written(str(path), entry.bytes, entry.rows, entry.hash)


def _adopted(path: Path) -> Written:
    """A file that no ledger knows: read whole once, for its rows, with its checksums compared."""
    hash = hash_file(str(path))
    rows = None
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
                rows = sum(batch.num_rows for batch in file.iter_batches(use_threads=False))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, str(error)) from error
    return Written(str(path), path.stat().st_size, rows, hash)


def referred(run: Run, wide: Wide, published: Path | None) -> Iterator[tuple[Path, Kind]]:
    """Every file that a finished run refers to, with its kind, each once."""
    seen: set[Path] = set()
    for path, kind in _all_referred(run, wide, published):
        if path not in seen:
            seen.add(path)
            yield path, kind


def _all_referred(run: Run, wide: Wide, published: Path | None) -> Iterator[tuple[Path, Kind]]:
    for node in run.nodes:
        if node.measures is not None:
            files = _by_part(node.measures)
            for name in run.names:
                yield from ((path, "measures") for path in files[name])
        if node.state is not None:
            yield node.state, "state"
        yield from ((path, "fit") for path in run.fitted.get(node.position, ()))
        for folder, kind in _of_parts(node):
            for name in run.names:
                yield folder / f"{name}.parquet", kind
    for references in run.references.values():
        yield from ((path, "reference") for path in references.files if path.exists())
    if run.unique is not None:
        yield run.unique, "unique"
    yield from ((path, "docs") for path in _files(wide.folder))
    if published is not None:
        yield from ((path, "mixture") for path in _files(published))
    yield from ((run.folder / name, "record") for name in RECORDS)
    if run.listed is not None:
        yield run.folder / takedown.NAME, "record"
    yield from ((run.folder / "frozen" / f"{n.label}.json", "record") for n in run.nodes if getattr(n.stage, "frozen", False))


def _of_parts(node: Any) -> Iterator[tuple[Path, Kind]]:
    if node.verdicts is not None:
        yield node.verdicts, "verdict"
    if node.finished is not None:
        yield node.finished, "finish"


def _by_part(folder: Path) -> Mapping[str, list[Path]]:
    """The sidecars of a folder by the part that they are of: a folder is listed once, however many parts there are."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in sorted(os.listdir(folder)):
        if name.endswith(".parquet"):
            found[name.partition("-")[0]].append(folder / name)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
