"""What was taken down from a run: the list that every later run of the folder obeys, and the places that may hold it.

    RUN/takedown.parquet   identity, hash of the text (null where the document was never seen), named: false for a
                           document that was not named itself, but had the text of one that was
    RUN/takedown.json      which older publications were read and hold none of it

The list is written first, before anything is removed: whatever is killed after that, the next run of the folder, or
the same command again, leaves the documents out, publishes without them, and removes the publications that held them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import documents, shards
from curate.corpus import CorpusSpec, open_corpus, read_part
from curate.errors import CurateError, DataError
from curate.stage import IDENTITY, TEXT
from curate.store import damaged, digest, read_table, write_bytes, write_table

if TYPE_CHECKING:
    from curate.runner import Run

NAME, CLEAN = "takedown.parquet", "takedown.json"
#: Beside a trained model: the identities of the documents that it learned, written before its first step.
LEARNED = "documents.parquet"
MODELS = "models/"
SCHEMA = pa.schema([("identity", pa.string()), ("hash", pa.binary(16)), ("named", pa.bool_())])
Row = tuple[str, bytes | None, bool]
_FITTED = b"curate.fitted"


class Fitted(msgspec.Struct, frozen=True, order=True):
    """A state that was fitted on documents that were taken down: the stage's label, how many of them, from which files."""

    label: str
    state: str
    documents: int
    files: tuple[str, ...]
    frozen: bool


@dataclass(frozen=True)
class Listed:
    """All that was taken down: a row per document (and text that it had), sorted; and what had been fitted on them."""

    table: pa.Table
    fitted: tuple[Fitted, ...] = ()

    @property
    def key(self) -> str:
        """Names the list by its content."""
        return digest([[row[0], row[1].hex() if row[1] else None, row[2]] for row in self.rows()])

    def rows(self) -> list[Row]:
        """The list's rows: identity, hash, named."""
        return list(zip(*(self.table[name].to_pylist() for name in SCHEMA.names), strict=True))


def listed(rows: Iterable[Row], fitted: Iterable[Fitted] = ()) -> Listed:
    """A list from its rows, sorted, each identity and hash once; one that is named anywhere is named."""
    found: dict[tuple[str, bytes | None], bool] = {}
    for identity, hash, named in rows:
        found[identity, hash] = found.get((identity, hash), False) or named
    ordered = sorted(found, key=lambda row: (row[0], row[1] or b""))
    columns = [[row[0] for row in ordered], [row[1] for row in ordered], [found[row] for row in ordered]]
    arrays = [pa.array(column, item.type) for column, item in zip(columns, SCHEMA, strict=True)]
    return Listed(pa.table(arrays, schema=SCHEMA), tuple(sorted(set(fitted))))


def read(folder: Path) -> Listed | None:
    """The list of a run folder; None where nothing was ever taken down."""
    try:
        table = read_table(folder / NAME, SCHEMA.names)
    except FileNotFoundError:
        return None
    try:
        fitted = msgspec.json.decode((table.schema.metadata or {})[_FITTED], type=tuple[Fitted, ...])
    except (KeyError, msgspec.MsgspecError) as error:
        raise damaged(folder / NAME, str(error)) from error
    return Listed(table.cast(SCHEMA).replace_schema_metadata(None), fitted)


def record(folder: Path, more: Listed, staging: Path) -> None:
    """Add to the folder's list; a list that has it all already is not written again."""
    before = read(folder)
    both = [more] if before is None else [before, more]
    models = {item.label for item in more.fitted if item.label.startswith(MODELS)}
    old = (item for part in both[:-1] for item in part.fitted if item.label not in models)  # of a model the last count has all
    merged = listed((row for part in both for row in part.rows()), (*old, *more.fitted))
    if before is None or merged.key != before.key or merged.fitted != before.fitted:
        meta = {_FITTED: msgspec.json.encode(merged.fitted)}
        write_table(folder / NAME, merged.table.replace_schema_metadata(meta), staging)


# -- where text, or the user's columns, stand in a run folder ----------------------------------------------------------


def publications(folder: Path) -> list[Path]:
    """Every publication of a run folder, the current one included."""
    root = folder / "mixtures"
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")) if root.is_dir() else []


def published_documents(publication: Path) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Identities and text hashes of a publication's rows, batch by batch, made from what stands in it."""
    try:
        manifest = msgspec.json.decode((publication / "manifest.json").read_bytes())
        rows, recipe = int(manifest["rows"]), manifest["recipe"]
        text, view = recipe["text"], recipe["view"]
    except (OSError, KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise damaged(publication / "manifest.json", str(error)) from error
    if rows == 0:
        return
    corpus = open_corpus(CorpusSpec(paths=[str(publication / "data")], text=text, view=view, on_error="quarantine"), publication)
    seen = 0
    for part in corpus.parts:
        for batch in read_part(corpus.layout, part, columns=[IDENTITY]):
            seen += batch.num_rows
            hashes = documents.text_hashes(batch.column(TEXT))
            fine = pc.is_valid(batch.column(TEXT))
            yield batch.column(IDENTITY).cast(pa.string()), pc.if_else(fine, hashes, pa.scalar(None, hashes.type))
    if seen != rows:
        raise DataError(f"expected {rows} rows in {publication}, as its manifest says, got {seen}; remove that publication")


def held(publication: Path, what: Listed) -> int:
    """How many documents of a publication are taken down, by identity or by text."""
    count = 0
    for identity, hashes in published_documents(publication):
        named, equal = documents.taken(what.table, identity, hashes)
        count += int(pc.sum(pc.or_(named, equal)).as_py() or 0)
    return count


def told_of(wide: Path, what: Listed, own: tuple[str | None, ...]) -> int:
    """How many taken-down documents still have values in columns of the user's in a wide table; `own` names those that stay."""
    count = 0
    for file in sorted(wide.glob("docs-*.parquet")):
        with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as source:
            names = source.schema_arrow.names
            user = [n for n in names[names.index("row") + 1 : names.index("curate_bytes")] if n not in own]
            for batch in source.iter_batches(65536, columns=[IDENTITY, "curate_drop_stage", *user], use_threads=False):
                gone = pc.fill_null(pc.equal(batch.column("curate_drop_stage"), documents.TAKEDOWN), False)
                gone = pc.or_(gone, pc.is_in(batch.column(IDENTITY), what.table["identity"].combine_chunks()))
                filled = np.zeros(batch.num_rows, bool)
                for name in user:
                    filled |= np.asarray(pc.is_valid(batch.column(name)).to_numpy(zero_copy_only=False))
                count += int((filled & np.asarray(gone.to_numpy(zero_copy_only=False))).sum())
    return count


def trained(folder: Path, what: Listed, before: Listed | None) -> list[Fitted]:
    """The models of a run folder that learned documents of the list, by the record that each has of its documents.

    What was taken down `before` is counted with it: a model has one count, of all.
    """
    both = listed(row for part in (what, before) if part is not None for row in part.rows()).table["identity"].combine_chunks()
    found = []
    for file in sorted((folder / "models").glob(f"*/{LEARNED}")):
        learned = read_table(file, [IDENTITY])[IDENTITY]
        count = int(pc.sum(pc.is_in(learned, both)).as_py() or 0)
        if count:
            found.append(Fitted(f"{MODELS}{file.parent.name}", file.parent.name, count, (), True))
    return found


# What a run makes that holds text of documents is its publications and token shards; docs holds the user's other columns.
# Whoever adds another kind adds it to `remains`, which proves a takedown, and to `sweep`, which removes.


def tokenized(folder: Path) -> list[Path]:
    """Every folder of token shards in a run folder; what a killed tokenization left there (its name begins with a dot) is one too."""
    root = folder / "tokens"
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def held_in_tokens(path: Path, what: Listed) -> int:
    """How many documents of a folder of token shards are taken down, by identity: the list has those of equal text too."""
    return 1 if path.name.startswith(".") else shards.held_identities(path, what.table["identity"].combine_chunks())


def remains(folder: Path, what: Listed, own: tuple[str | None, ...]) -> dict[str, int]:
    """Where in a run folder documents that were taken down still stand, and how many: {} is the proof of a takedown."""
    found = {f"mixtures/{path.name}": held(path, what) for path in publications(folder)}
    found |= {f"tokens/{path.name}": held_in_tokens(path, what) for path in tokenized(folder)}
    found |= {str(path.relative_to(folder)): told_of(path, what, own) for path in (folder / "docs", *wide_of_arms(folder)) if path.exists()}
    return {place: count for place, count in found.items() if count}


def wide_of_arms(folder: Path) -> list[Path]:
    """The wide tables of the arms of a comparison, runs of their own (pipelines/compare.py)."""
    return sorted((folder / "arms").glob("*/docs"))


# -- removal ----------------------------------------------------------------------------------------------------------


def sweep(run: Run, current: Path) -> None:
    """After a publication: remove the older ones that hold what was taken down; each is read once for a list."""
    what = run.listed
    if what is None:
        return
    clean = _known_clean(run.folder, what)
    for path in publications(run.folder):
        if path == current or path.name in clean:
            continue
        try:
            count = held(path, what)
        except CurateError as error:
            text = f"the publication {path.name} cannot be read, so it may hold what was taken down: {error}"
            run.warnings.append(text)
            run.events.emit("warning", text=text)
            continue
        if not count:
            clean.add(path.name)
            continue
        gone = run.staging / f"old-{path.name}"
        path.rename(gone)  # one who lost the lease finds no staging folder, and removes nothing of its successor's
        shutil.rmtree(gone, ignore_errors=True)
        run.events.emit("note", text=f"removed the publication {path.name}: {count} of its documents were taken down")
    _sweep_tokens(run, what)
    _sweep_arms(run, what)
    clean.add(current.name)
    there = sorted(clean & {path.name for path in publications(run.folder)})
    record: dict[str, Any] = {"list": what.key, "clean": there}
    write_bytes(run.folder / CLEAN, msgspec.json.encode(record), run.staging)


def _sweep_tokens(run: Run, what: Listed) -> None:
    """Remove the token shards that hold what was taken down."""
    for path in tokenized(run.folder):
        try:
            count = held_in_tokens(path, what)
        except (CurateError, pa.ArrowException, OSError):
            count = 1  # it cannot be read, so it may hold some; it can be made again
        if count:
            gone = run.staging / f"old-tokens-{path.name.lstrip('.')}"
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            run.events.emit("note", text=f"removed the token shards {path.name}: they hold documents that were taken down, or cannot be read")


def _sweep_arms(run: Run, what: Listed) -> None:
    """Remove the arms of an earlier comparison whose wide tables tell of what was taken down; the next comparison makes them again."""
    from curate import sharing  # it reads ledgers, and a ledger lists the file of this module

    corpus = run.recipe.corpus
    for wide in wide_of_arms(run.folder):
        try:
            count = told_of(wide, what, (corpus.id, corpus.source, corpus.license))
        except (CurateError, pa.ArrowException, OSError):
            count = 1  # it cannot be read, so it may tell of some
        if count:
            arm = wide.parent
            arm.rename(run.staging / f"old-arm-{arm.name}")
            shutil.rmtree(run.staging / f"old-arm-{arm.name}", ignore_errors=True)
            sharing.forget(run.store, arm)
            run.events.emit("note", text=f"removed the arm {arm.name} of an earlier comparison: its table tells of documents that were taken down")


def _known_clean(folder: Path, what: Listed) -> set[str]:
    try:
        record = msgspec.json.decode((folder / CLEAN).read_bytes())
    except (OSError, ValueError, msgspec.MsgspecError):
        return set()
    return set(record["clean"]) if isinstance(record, dict) and record.get("list") == what.key else set()
