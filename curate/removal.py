"""`curate takedown`: find what is named and what equals it, say what it touched, run again without it, prove that it is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import documents, ledger, nearby, recipe, takedown
from curate.catalog import OpenRun
from curate.corpus import TEXT, Part, read_part
from curate.engine import LocalEngine, available_cpus
from curate.errors import ConfigError, DataError, InternalError
from curate.events import Events, Listener
from curate.params import Problems, did_you_mean
from curate.plan import part_name, twins
from curate.runner import Run
from curate.stage import IDENTITY, TEXT_HASH
from curate.store import Sidecars, read_table, write_table
from curate.takedown import Fitted, Listed
from curate.targets import load_targets

#: The Jaccard index from which a document is listed as a near-duplicate.
NEAR = 0.8
#: How many unknown ids an error names.
SHOWN = 10
_TAKEN = pa.schema([("doc", pa.int64()), ("identity", pa.string()), ("hash", pa.binary(16)), ("named", pa.bool_())])


@dataclass
class Taken:
    """What a takedown did, or would do.

    documents      doc, identity, hash, named: those in the pool that are out from now on
    publications   those that held some, and how many; removed ones where it was no dry run
    near           identity, jaccard, of (an identity), keep, drop_stage: near-duplicates, which stay
    fitted         states that were fitted on some
    """

    named: int
    missing: list[str]
    documents: pa.Table
    publications: dict[str, int]
    fitted: tuple[Fitted, ...]
    targets: dict[str, int] = field(default_factory=dict)
    near: pa.Table | None = None
    unread: int = 0  # named documents without a text in the pool: near-duplicates of these were not looked for
    published: Path | None = None
    dry_run: bool = False


def take_down(
    folder: Path | str, ids: Sequence[str], *, dry_run: bool = False, allow_missing: bool = False, workers: int | None = None,
    wait: float = 0.0, listener: Listener | None = None,
) -> Taken:  # fmt: skip
    """Take documents down by identity, with every document of equal text; see docs/takedown.md for what that covers.

    Raises DataError for ids that neither the run, its publications nor its list of takedowns knows.
    """
    opened = _Opened(Path(folder).resolve())
    what, missing = opened.resolve(list(dict.fromkeys(ids)), allow_missing=allow_missing)
    before = opened.documents(what)
    fitted = opened.fitted(before)
    what = takedown.listed([*what.rows(), *zip(*(before[n].to_pylist() for n in takedown.SCHEMA.names), strict=True)])
    fitted = (*fitted, *takedown.trained(opened.folder, what, takedown.read(opened.folder)))
    held = {path.name: count for path in takedown.publications(opened.folder) if (count := takedown.held(path, what))}
    result = Taken(len(set(ids)), missing, before, held, fitted, dry_run=dry_run)
    if not dry_run:
        run = opened.run(Listed(what.table, fitted), workers, wait, listener)
        result.published = run.execute().published
        opened = _Opened(opened.folder)
        assert run.listed is not None
        result.documents, result.fitted = opened.documents(run.listed), run.listed.fitted
        left = takedown.remains(opened.folder, run.listed, opened.own())
        if left:
            raise InternalError(f"documents that were taken down are still there: {left}; nothing else was left out, run the same command again")
    result.targets = opened.in_targets(what)
    result.near, result.unread = opened.near(result.documents, what, workers or available_cpus())
    return result


class _Opened:
    """A finished run, as a takedown needs it: the first pass's columns, part by part, and the recipe."""

    def __init__(self, folder: Path) -> None:
        self.opened, self.folder = OpenRun(folder), folder
        found = ledger.read(folder)
        if found is None:
            raise ConfigError(f"expected a finished run, got {folder}, which has no {ledger.NAME}; run its recipe first")
        self.ledger = found
        self.stages = read_table(folder / "stages.parquet").sort_by("position").to_pylist()
        self.parts = self.opened.parts()
        names = [part_name(part, twin) for part, twin in zip(self.parts, twins(self.parts), strict=True)]
        self.names = {part.number: name for part, name in zip(self.parts, names, strict=True)}
        self.lock = self.opened.lock()

    def own(self) -> tuple[str | None, ...]:
        """The user's columns that the wide table keeps of a document that was taken down."""
        corpus = self.lock["corpus"]
        return corpus["id"], corpus["source"], corpus.get("license")

    def first_pass(self) -> Iterator[tuple[Part, pa.Table]]:
        """Identity and text hash of every document, part by part."""
        schema = pa.schema([(IDENTITY, pa.string()), (TEXT_HASH, pa.binary(16))])
        sidecars = Sidecars(self.ledger.store / self.stages[0]["measures"], schema)
        for part in self.parts:
            pair = sidecars.read(self.names[part.number])
            if pair is None:
                raise DataError(f"the columns of part {part.number} ({part.file}) are missing in {sidecars.folder}; run the recipe again")
            yield part, pair[0]

    def resolve(self, ids: list[str], *, allow_missing: bool) -> tuple[Listed, list[str]]:
        """The list of what is named, with the hashes of its texts; unknown ids are an error unless they may be."""
        rows: list[takedown.Row] = []
        before = takedown.read(self.folder)
        if before is not None:
            wanted = set(ids)
            rows += [(identity, hash, True) for identity, hash, _ in before.rows() if identity in wanted]
        rows += _named(((t[IDENTITY], t[TEXT_HASH]) for _, t in self.first_pass()), ids)
        if set(ids) - {row[0] for row in rows}:  # of an earlier state of the pool, perhaps
            for path in takedown.publications(self.folder):
                rows += _named(takedown.published_documents(path), ids)
        missing = sorted(set(ids) - {row[0] for row in rows})
        if missing and not allow_missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise DataError(
                f"{len(missing)} of {len(ids)} ids are in no document of {self.folder}: {', '.join(map(repr, missing[:SHOWN]))}{more}; "
                "an id is the value of the recipe's id column, otherwise curate_identity; --allow-missing keeps them out for the future"
            )
        return takedown.listed([*rows, *((identity, None, True) for identity in missing)]), missing

    def documents(self, what: Listed) -> pa.Table:
        """Every document of the pool that a list takes down: doc, identity, hash, named."""
        found = [_TAKEN.empty_table()]
        for part, table in self.first_pass():
            identity, hashes = table[IDENTITY].combine_chunks(), table[TEXT_HASH].combine_chunks()
            named, equal = documents.taken(what.table, identity, hashes)
            rows = np.flatnonzero(pc.or_(named, equal).to_numpy(zero_copy_only=False))
            at = pa.array(rows)
            columns = [pa.array((part.number << 32) + rows), identity.take(at), hashes.take(at), named.take(at)]
            found.append(pa.table(columns, schema=_TAKEN))
        return pa.concat_tables(found)

    def fitted(self, taken: pa.Table) -> tuple[Fitted, ...]:
        """The states of this run that were fitted on these documents: a fit sees what no earlier stage had dropped."""
        places = {stage["label"]: stage["position"] for stage in self.stages}
        with self.opened.connection() as con:
            con.register("taken", taken.select(["doc"]))
            rows = con.sql("SELECT doc, curate_drop_stage FROM docs JOIN taken USING (doc)").fetchall()
        files = {part.number: part.file for part in self.parts}
        found = []
        for stage in self.stages:
            partials = [e.path.rpartition("/")[2] for e in self.ledger.entries if e.kind == "fit" and e.path.startswith(f"{stage['key']}/fit/")]
            of = {name.rpartition("-")[0] for name in partials}
            shown = [doc for doc, dropped in rows if self.names[doc >> 32] in of and places.get(dropped, len(places)) >= stage["position"]]
            if "sample" in of:  # a listing of a drawn sample, document by document
                listed = {pair for name in partials for pair in self._listed(stage["key"], name)}
                shown = [doc for doc, _ in rows if (self.names[doc >> 32], doc & 0xFFFFFFFF) in listed]
            if shown:
                frozen = msgspec.json.decode(stage["settings"]).get("state") == "frozen"
                state = Path(stage["state"] or "").stem
                found.append(Fitted(stage["label"], state, len(shown), tuple(sorted({files[doc >> 32] for doc in shown})), frozen))
        return tuple(found)

    def _listed(self, key: str, name: str) -> list[tuple[str, int]]:
        """The documents of a drawn sample: a part's name in the store, and a row of it."""
        table = read_table(self.ledger.store / key / "fit" / name, ["part", "row"])
        return list(zip(table["part"].to_pylist(), table["row"].to_pylist(), strict=True))

    def recipe(self) -> recipe.Recipe:
        """The recipe that this folder was made by."""
        import yaml

        raw = yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        return recipe.from_mapping(raw, base=Path(self.lock["base"]), name=self.lock["name"], title=str(self.folder / "recipe.yaml"))

    def run(self, what: Listed, workers: int | None, wait: float, listener: Listener | None) -> Run:
        """The run that does it."""
        publish = bool(takedown.publications(self.folder))
        return Run(self.recipe(), self.folder, store=self.ledger.store, workers=workers, events=Events(listener), wait=wait, publish=publish, taking=what)

    def in_targets(self, what: Listed) -> dict[str, int]:
        """How many texts of the targets' files are among those taken down: a run does not change these files."""
        problems = Problems()
        targets = load_targets(self.recipe(), set(), problems)
        problems.raise_if_any("targets")
        held = targets.documents.filter(pc.is_in(targets.documents["hash"], what.table["hash"].combine_chunks().drop_null()))
        return {row["values"]: row["counts"] for row in pc.value_counts(held["place"]).to_pylist()}

    def near(self, taken: pa.Table, what: Listed, workers: int) -> tuple[pa.Table, int]:
        """Documents of the pool that are near one that was taken down, nearest first; and how many texts were not to be had."""
        layout = self.opened.layout()
        numbers = taken["doc"].to_numpy()
        texts = []
        for part in self.parts:
            rows = numbers[(numbers >> 32) == part.number] & 0xFFFFFFFF
            if len(rows):
                texts += [batch.column(TEXT).cast(pa.large_string()) for batch in read_part(layout, part, rows=rows)]
        names = taken["identity"].to_pylist()
        wanted = pc.unique(what.table["hash"].combine_chunks().drop_null())
        unread = len(set(wanted.to_pylist()) - set(taken["hash"].to_pylist()))
        schema = pa.schema([("identity", pa.string()), ("jaccard", pa.float64()), ("of", pa.string()), ("keep", pa.bool_()), ("drop_stage", pa.string())])
        if not texts:
            return schema.empty_table(), unread
        with tempfile.TemporaryDirectory(prefix="curate-takedown-") as scratch, LocalEngine(workers) as engine:
            file = Path(scratch) / "texts.parquet"
            write_table(file, pa.table({"text": pa.chunked_array(texts)}), Path(scratch))
            tasks = [nearby.NearTask(layout.of([part]), part, file, NEAR) for part in self.parts]
            found = pa.concat_tables([nearby.FOUND.empty_table(), *engine.map("curate.nearby:near_part", tasks)])
        found = found.filter(pc.invert(pc.is_in(found["doc"], taken["doc"].combine_chunks())))
        found = found.set_column(1, "of", pa.array([names[i] for i in found["of"].to_pylist()], pa.string()))
        with self.opened.connection() as con:
            con.register("found", found)
            query = f"""SELECT {IDENTITY} AS identity, jaccard, "of", curate_keep AS keep, curate_drop_stage AS drop_stage
                        FROM found JOIN docs USING (doc) ORDER BY jaccard DESC, identity, doc"""
            return con.sql(query).to_arrow_table().cast(schema), unread


def _named(batches: Iterable[tuple[Any, Any]], ids: list[str]) -> list[takedown.Row]:
    """Identity and text hash of every document whose identity is among `ids`."""
    wanted = pa.array(ids, pa.string())
    rows: list[takedown.Row] = []
    for identity, hashes in batches:
        where = pc.is_in(identity, wanted)
        rows += [(name, hash, True) for name, hash in zip(identity.filter(where).to_pylist(), hashes.filter(where).to_pylist(), strict=True)]
    return rows


def read_ids(file: Path, column: str | None, own: str | None) -> list[str]:
    """The ids of a file: one a line, or a column of parquet, csv, tsv or jsonl.

    The column is the one named, else `curate_identity`, else `own` (the recipe's id), else `id`, else the only one.
    """
    if not file.is_file():
        raise ConfigError(f"expected a file of ids, got nothing at {file}")
    if file.suffix.lower() not in (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson"):
        if column is not None:
            raise ConfigError(f"--column names a column, and {file} is read as one id a line; its name must end in .parquet, .csv, .tsv or .jsonl")
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: expected UTF-8, one id a line, got {error}") from error
        return _some([line.removesuffix("\r") for line in lines if line.strip()], file)
    table = _table(file)
    names = table.schema.names
    known = [n for n in (IDENTITY, own, "id") if n in names]
    chosen = column or (known[0] if known else names[0] if len(names) == 1 else None)
    if chosen is None or chosen not in names:
        raise ConfigError(f"{file}: expected a column of ids{f' {chosen!r}' if chosen else ''}; name it with --column{did_you_mean(chosen or 'id', names)}")
    try:
        values = table[chosen].cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"{file}: expected ids as text or whole numbers in the column {chosen!r}, got {table[chosen].type}") from error
    if values.null_count:
        raise DataError(f"{file}: expected an id in every row of the column {chosen!r}, got {values.null_count} without")
    return _some(values.to_pylist(), file)


def _some(ids: list[str], file: Path) -> list[str]:
    if not ids:
        raise DataError(f"{file}: expected at least one id, got none")
    return ids


def _table(file: Path) -> pa.Table:
    """All columns of a small file; those of csv as text, so that `007` stays what it is."""
    import pyarrow.csv as csv
    import pyarrow.json as json
    import pyarrow.parquet as pq

    kind = file.suffix.lower()
    try:
        if kind == ".parquet":
            return pq.read_table(file, partitioning=None)
        if kind in (".jsonl", ".ndjson"):
            return json.read_json(file)
        parse = csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",")
        names = csv.open_csv(file, parse_options=parse).schema.names
        convert = csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
        return csv.read_csv(file, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected a file of ids: {error}") from error
