"""What was published before, for stages that drop a document because it was (`against`).

A stage with the parameter `against` names references: run folders (their current publication), publications, or any
files of documents. Its `reference(batch)` turns texts into the columns that it compares by, `reference_fields()`; they
are computed once for a reference's content and kept beside the stage's measures, so that a later run that shares the
store does not read the same texts again:

    store/<S>/against/<content>/<part>.parquet   identity and reference_fields, one row for each document

A document of a reference is named by number << 32 | row, its part's number counted over all references of the stage.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import documents, randomness
from curate.corpus import BAD, TEXT, Corpus, CorpusSpec, Layout, Part, SourceFile, open_corpus, read_part
from curate.errors import ConfigError, DataError
from curate.frame import DOC
from curate.gather import gather_parts
from curate.stage import IDENTITY, KEY
from curate.store import Written, digest, noting, read_sealed, read_table, write_sealed, write_table

if TYPE_CHECKING:
    from curate.plan import Node
    from curate.runner import Run

#: Where a store remembers the files of references, by how they are read: a cache, so that they are not opened again.
KNOWN = "against"
#: The number of the reference in the order of `against`.
NUMBER = "reference"


@dataclass(frozen=True)
class Reference:
    """One reference: `name` as the recipe has it (of a pattern, what it matched), and the documents it stands for."""

    name: str
    corpus: Corpus
    identity: str | None  # the column that names a document; None: the hash of its text
    known: Path  # where the store remembers the files

    @property
    def key(self) -> str:
        """The content: what was published, wherever it stands."""
        layout = self.corpus.layout
        text = [layout.spec.text, layout.spec.view, list(layout.text_columns), self.identity]
        return digest([part.fingerprint for part in self.corpus.parts], text)


# -- from words to documents --------------------------------------------------------------------------------------


def resolve(run: Run, words: Sequence[str]) -> list[Reference]:
    """Open what `against` names. Raises ConfigError for what is not there, or is this run itself."""
    found: list[Reference] = []
    for word in words:
        for name, path in _matches(word, run.recipe.base):
            own = path.resolve() == run.folder
            if own and not glob.has_magic(word):
                raise ConfigError(
                    f"against: {word!r} is this run's own folder: what it publishes would depend on what it published, and the same "
                    "command twice would publish something else; give each increment a run folder of its own, or name a publication in mixtures/"
                )
            if own or (glob.has_magic(word) and (path / "recipe.lock.json").exists() and not (path / "mixture").exists()):
                continue  # a pattern over run folders: this one, and those that have published nothing
            found.append(_opened(run, name, path))
    return found


def _matches(word: str, base: Path) -> list[tuple[str, Path]]:
    path = base / Path(word).expanduser()
    if path.exists():
        return [(word, path)]
    if not glob.has_magic(word):
        raise ConfigError(f"against: expected a run folder, a publication or files, got {word!r}, and there is nothing at {path}")
    return [(_named(match, word, base), Path(match)) for match in sorted(glob.glob(str(path), recursive=True))]


def _named(match: str, word: str, base: Path) -> str:
    """A match as the pattern would write it."""
    inside = not Path(word).expanduser().is_absolute() and Path(match).is_relative_to(base)
    return str(Path(match).relative_to(base)) if inside else match


def _opened(run: Run, name: str, path: Path) -> Reference:
    spec, identity = _spec(run, name, path)
    known = run.store / KNOWN / f"{digest(spec)}.json"
    try:
        before = read_sealed(known, list[SourceFile])
    except (FileNotFoundError, DataError):
        before = []
    try:
        corpus = open_corpus(spec, run.recipe.base, known=before, verify=run.verify_input)
        if identity is not None and identity not in corpus.layout.schema.names:
            identity = None
    except (ConfigError, DataError) as error:
        raise type(error)(f"against: {name}: {error}") from error
    return Reference(name, corpus, identity, known)


def _spec(run: Run, name: str, path: Path) -> tuple[CorpusSpec, str | None]:
    """How to read a reference: a publication as the run that made it read its pool, anything else as this pool is read."""
    own = run.recipe.corpus
    if (path / "recipe.lock.json").exists() and not (path / "mixture").exists():
        raise ConfigError(f"against: the run {name!r} has published nothing yet; let it finish, or leave it out")
    folder = (path / "mixture" if (path / "mixture").exists() else path).resolve()
    if not (folder / "manifest.json").exists():
        return CorpusSpec(paths=[str(folder)], text=own.text, view=own.view, on_error=own.on_error), own.id
    try:
        recipe = msgspec.json.decode((folder / "manifest.json").read_bytes())["recipe"]
        text, view = recipe["text"], recipe["view"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise DataError(f"against: {folder / 'manifest.json'} is no manifest of a publication ({error})") from error
    return CorpusSpec(paths=[str(folder / "data")], text=text, view=view), IDENTITY


# -- what a stage compares by -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReferenceTask:
    """A part of a reference whose columns are not in the store yet."""

    layout: Layout
    part: Part
    node: Node
    identity: str | None
    out: Path
    scratch: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"a part of what it is held against ({self.part.file})"


def read_reference(task: ReferenceTask) -> list[Written]:
    """Read a part of a reference and store what its stage compares by; bad rows of a pool that sets them aside are left out."""
    schema = pa.schema([pa.field("row", pa.int64()), pa.field(IDENTITY, pa.string()), *task.node.stage.reference_fields()])
    batches, at = [], 0
    for batch in read_part(task.layout, task.part, columns=[task.identity] if task.identity else []):
        row = pa.array(np.arange(at, at + batch.num_rows, dtype=np.int64))
        at += batch.num_rows
        good = batch.column(BAD).is_null()
        row, batch = row.filter(good), batch.filter(good)
        text = batch.column(TEXT)
        identity = batch.column(task.identity).cast(pa.string()) if task.identity else documents.hex_of(documents.text_hashes(text))
        made = task.node.stage.reference(batch.select([TEXT]))
        batches.append(pa.RecordBatch.from_arrays([row, identity, *made.columns], schema=schema))
    with noting() as written:
        write_table(task.out, pa.Table.from_batches(batches, schema), task.scratch)
    return list(written.values())


class References:
    """All references of a stage, as its `finish` sees them."""

    def __init__(self, run: Run, node: Node, references: Sequence[Reference]) -> None:
        self.names = [reference.name for reference in references]
        self._run, self._node = run, node
        self._pieces: list[tuple[int, Reference, Part, Path]] = []
        for number, reference in enumerate(references):
            folder = run.store / node.key / "against" / reference.key
            self._pieces += [(number, reference, part, folder / f"{i:05d}.parquet") for i, part in enumerate(reference.corpus.parts)]

    @property
    def files(self) -> list[Path]:
        """The files of the store that they are read from."""
        return list(dict.fromkeys(file for *_, file in self._pieces))

    def prepare(self) -> None:
        """Compute what the store does not have."""
        missing = {file: (reference, part) for _, reference, part, file in self._pieces if not file.exists()}
        tasks = [
            ReferenceTask(reference.corpus.layout.of([part]), part, self._node, reference.identity, file, self._run.scratch)
            for file, (reference, part) in missing.items()
        ]
        if tasks:
            with self._run.events.phase(f"read what {self._node.label} is held against"):
                for written in self._run.engine.map("curate.reference:read_reference", tasks):
                    self._run.written |= {w.path: w for w in written}
        for reference in {id(r): r for _, r, _, _ in self._pieces}.values():
            if not reference.known.exists() or missing:
                write_sealed(reference.known, reference.corpus.files, self._run.scratch)

    def batches(self, columns: Callable[[pa.RecordBatch], Sequence[pa.Array]], schema: pa.Schema) -> pa.RecordBatchReader:
        """Every document: doc, reference, curate_identity, curate_key, and `columns` of a batch of reference_fields.

        `schema` is of what `columns` gives.
        """
        whole = pa.schema([(DOC, pa.int64()), (NUMBER, pa.int32()), (IDENTITY, pa.string()), (KEY, pa.uint64()), *schema])

        def rows() -> Iterator[pa.RecordBatch]:
            for place, (number, _, _, file) in enumerate(self._pieces):
                for batch in read_table(file).combine_chunks().to_batches():
                    doc = pa.array((place << 32) + batch.column("row").to_numpy())
                    identity = batch.column(IDENTITY)
                    key = pa.array(randomness.keys_of(identity))
                    numbers = pa.array(np.full(batch.num_rows, number, np.int32))
                    yield pa.RecordBatch.from_arrays([doc, numbers, identity, key, *columns(batch)], schema=whole)

        return pa.RecordBatchReader.from_batches(whole, rows())

    def gather(self, docs: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """As Frame.gather, of documents of the references."""
        pieces: list[Any] = [(place, reference.corpus.layout, part, "", []) for place, (_, reference, part, _) in enumerate(self._pieces)]
        return gather_parts(self._run, self._node, docs, pieces, "against")
