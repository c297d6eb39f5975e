"""The catalog of a run: views over all that it decided, for DuckDB; and what a document's life was.

`catalog.duckdb` holds views with absolute paths, so the plain `duckdb` client opens it from any folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from curate import spans
from curate.corpus import TEXT, CorpusSpec, Layout, Part, open_corpus
from curate.errors import ConfigError, DataError, uninterrupted
from curate.filenames import MAGIC
from curate.frame import connect, literal, quote
from curate.plan import Node, part_name, twins
from curate.records import known_files
from curate.store import Sidecars, damaged, read_table, sync, write_table, writing

if TYPE_CHECKING:
    import duckdb

    from curate.runner import Run

_PARQUET = ("docs", "parts", "stages", "funnel")
#: What a comparison left in the run folder: its arms with their verdicts, and every model that was trained for it.
ARMS, TRIALS = "arms.parquet", "trials.parquet"
_STAGES = pa.schema(
    [("position", pa.int64()), ("label", pa.string()), ("stage", pa.string()), ("version", pa.int64()), ("key", pa.string()),
     ("settings", pa.string()), ("columns", pa.list_(pa.string())), ("decides", pa.bool_()),
     *((what, pa.string()) for what in ("measures", "state", "verdicts", "finished")), ("rewrites", pa.bool_())]
)  # fmt: skip


def build(run: Run) -> Path:
    """Write the catalog under another name and rename it; readers of the old one keep what they have."""
    with uninterrupted():
        import duckdb

    _write_stages(run)
    making = run.staging / "catalog.duckdb"
    making.unlink(missing_ok=True)
    with writing(run.folder / "catalog.duckdb"), duckdb.connect(str(making)) as con:
        layout = run.corpus.layout
        _make(con, _views(run.folder, readable(layout, run.nodes), layout.text_columns, [f.path for f in run.corpus.files]))
    sync(making)
    os.replace(making, run.folder / "catalog.duckdb")
    return run.folder / "catalog.duckdb"


def rebuild(folder: Path, staging: Path) -> None:
    """Make the catalog of a finished run anew, with what has come since: the trainings of its models."""
    with uninterrupted():
        import duckdb

    opened = OpenRun(folder)
    making = staging / "catalog.duckdb"
    making.unlink(missing_ok=True)
    with writing(opened.folder / "catalog.duckdb"), duckdb.connect(str(making)) as con:
        _make(con, opened.views())
    sync(making)
    os.replace(making, opened.folder / "catalog.duckdb")


def _write_stages(run: Run) -> None:
    rows = [
        {"position": n.position, "label": n.label, "stage": n.stage.name, "version": n.stage.version, "key": n.key,
         "settings": msgspec.json.encode(n.spec.params).decode(), "columns": list(n.listed()), "decides": n.decides(),
         **{what: place.relative_to(run.store).as_posix() if place else None
            for what, place in (("measures", n.measures), ("state", n.state), ("verdicts", n.verdicts), ("finished", n.finished))},
         "rewrites": n.rewrites}
        for n in run.nodes
    ]  # fmt: skip
    write_table(run.folder / "stages.parquet", pa.Table.from_pylist(rows, _STAGES), run.staging)


def readable(layout: Layout, nodes: Sequence[Node]) -> bool:
    """Whether the text is a plain column of rows that are all fine and no stage changes it: then DuckDB may read it by itself."""
    fine = layout.text_kind == "column" and layout.spec.on_error == "fail" and not layout.damage
    return fine and not any(node.rewrites for node in nodes)


def _views(folder: Path, readable: bool, columns: Sequence[str], files: list[str]) -> dict[str, str]:
    names = {"docs": "docs/docs-*.parquet", **{n: f"{n}.parquet" for n in _PARQUET[1:]}}
    views = {
        name: f"SELECT * FROM read_parquet({literal(plain(str(folder)) + '/' + file)}, hive_partitioning = false)"
        for name, file in names.items()
    }
    if any(folder.glob("models/*/metrics.parquet")):
        views["training"] = (
            f"SELECT regexp_extract(filename, 'models/([^/]+)/metrics', 1) AS model, * EXCLUDE (filename) FROM "
            f"read_parquet({literal(plain(str(folder)) + '/models/*/metrics.parquet')}, filename = true, union_by_name = true, hive_partitioning = false)"
        )
    for file in (ARMS, TRIALS):
        if (folder / file).exists():
            views[file.partition(".")[0]] = f"SELECT * FROM read_parquet({literal(plain(str(folder)) + '/' + file)}, hive_partitioning = false)"
    views["selected"] = f"{views['docs']} WHERE curate_keep"
    texts = _texts_view(columns, files, views["docs"]) if readable else None
    if texts:
        views["texts"] = texts
    return views


def _make(con: duckdb.DuckDBPyConnection, views: dict[str, str]) -> list[str]:
    """Make the views and return their names; `texts` is left out where DuckDB refuses a file that we could read."""
    import duckdb

    made = []
    for name, query in views.items():
        try:
            con.execute(f"CREATE VIEW {name} AS {query}")
        except duckdb.Error:
            if name != "texts":
                raise
        else:
            made.append(name)
    return made


def _texts_view(columns: Sequence[str], files: list[str], docs: str) -> str | None:
    """doc, curate_identity, text, where DuckDB itself can read it: a plain column of parquet, jsonl or csv."""
    column = quote(columns[0])
    if any(_kind(file) != "parquet" and _is_unlike_its_name(file) for file in files):
        return None
    branches = []
    for kind in sorted({_kind(f) for f in files}):
        paths = [f for f in files if _kind(f) == kind]
        if kind == "parquet":
            listed = ", ".join(literal(plain(p)) for p in paths)
            branches.append(
                f"SELECT filename AS file, file_row_number AS row, {column} AS text FROM read_parquet([{listed}], filename = true, file_row_number = true, union_by_name = true, hive_partitioning = false)"
            )
        elif kind == "jsonl":
            key = literal("$." + '"' + columns[0] + '"')
            branches += [
                f"SELECT {literal(p)} AS file, row_number() OVER () - 1 AS row, json_extract_string(json, {key}) AS text FROM read_ndjson_objects({literal(plain(p))})"
                for p in paths
            ]
        elif kind in ("csv", "tsv"):
            delimiter = literal("\t" if kind == "tsv" else ",")
            branches += [
                f"SELECT {literal(p)} AS file, row_number() OVER () - 1 AS row, {column} AS text FROM read_csv({literal(plain(p))}, header = true, all_varchar = true, delim = {delimiter}, quote = '\"', escape = '\"', allow_quoted_nulls = false, parallel = false)"
                for p in paths
            ]
        else:
            return None
    return f"SELECT d.doc, d.curate_identity, t.text FROM ({' UNION ALL '.join(branches)}) t JOIN ({docs}) d ON t.file = d.file AND t.row = d.row"


def _is_unlike_its_name(file: str) -> bool:
    """Whether text begins as DuckDB does not expect: JSON with a byte order mark, or compressed under a plain name."""
    try:
        with open(file, "rb") as stream:
            begin = stream.read(4)
    except OSError:
        return False  # whoever asks for its text is told that it is gone
    marked = begin.startswith(b"\xef\xbb\xbf") and _kind(file) == "jsonl"
    return marked or (not file.lower().endswith(".gz") and begin.startswith(tuple(MAGIC)))


def plain(path: str) -> str:
    """A path whose own characters DuckDB does not take for a pattern's."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _kind(file: str) -> str:
    name = file.lower()
    for ending, kind in (
        (".parquet", "parquet"),
        (".jsonl", "jsonl"),
        (".jsonl.gz", "jsonl"),
        (".csv", "csv"),
        (".tsv", "tsv"),
    ):
        if name.endswith(ending):
            return kind
    return "other"


class OpenRun:
    """A run folder, to ask questions of."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        if not (self.folder / "catalog.duckdb").exists():
            raise ConfigError(
                f"expected a run folder with a catalog.duckdb, got {self.folder}; curate run makes one"
            )

    def connection(self, *, texts: bool = False) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with the run's views; with `texts` also where DuckDB cannot read the text itself."""
        views = self.views()
        con = connect(self.folder / ".sql", 2, "2GB")
        made = _make(con, views)
        if texts and "texts" not in made:
            con.register("texts_as_read", pa.RecordBatchReader.from_batches(_TEXTS, self._texts()))
            con.execute("CREATE VIEW texts AS SELECT doc, curate_identity, text FROM texts_as_read JOIN docs USING (doc)")
        return con

    def views(self) -> dict[str, str]:
        """The run's views, as queries by name."""
        lock = self.lock()
        if "readable" not in lock.get("text", {}):
            raise ConfigError(f"{self.folder} was made by another version of curate ({lock.get('curate')}); run its recipe again")
        return _views(self.folder, lock["text"]["readable"], lock["text"]["columns"], [f[0] for f in lock["inputs"]])

    def sql(self, query: str) -> Any:
        """Run a query over docs, parts, stages, funnel, selected, texts, training, arms, trials; a polars DataFrame, which shows well in a notebook."""
        import polars as pl

        return pl.from_arrow(self.arrow(query))

    def arrow(self, query: str) -> pa.Table:
        """The same, as an Arrow table."""
        import duckdb

        with self.connection(texts="texts" in query) as con:
            try:
                return _arrow(con.sql(query))
            except duckdb.Error as error:
                raise ConfigError(f"SQL: {error}") from error

    def layout(self) -> Layout:
        """How the run's corpus is read; opens it again, so its files must be there, unchanged."""
        lock = self.lock()
        known = known_files(self.folder)
        corpus = open_corpus(msgspec.convert(lock["corpus"], CorpusSpec), Path(lock["base"]), known=known)
        if {(f.path, f.content) for f in corpus.files} != {(path, content) for path, _, content in lock["inputs"]}:
            raise DataError(
                f"the corpus of {self.folder} has changed since the run; run it again to read its text"
            )
        return corpus.layout

    def lock(self) -> dict[str, Any]:
        """recipe.lock.json."""
        file = self.folder / "recipe.lock.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise damaged(file, str(error)) from error

    def parts(self) -> list[Part]:
        """The parts of the run."""
        rows = read_table(self.folder / "parts.parquet").to_pylist()
        return [
            Part(number=r["part"], file=r["file"], format=r["format"], start=r["start"], stop=r["stop"], first_row=r["first_row"],
                 rows=r["rows"], bytes=r["bytes"], fingerprint=r["fingerprint"])
            for r in rows
        ]  # fmt: skip

    def _texts(self) -> Iterator[pa.RecordBatch]:
        layout, rewriters = self.layout(), self.rewriters()
        for part, name in self._named_parts():
            at = part.number << 32
            for batch in spans.read_current(layout, part, name, rewriters):
                docs = pa.array(range(at, at + batch.num_rows), pa.int64())
                at += batch.num_rows
                yield pa.record_batch([docs, batch.column(TEXT).cast(pa.large_string())], schema=_TEXTS)

    def texts(self, docs: Sequence[int]) -> dict[int, str | None]:
        """The texts of some documents, by doc, as the run's stages left them; None where the row was bad."""
        import numpy as np

        found: dict[int, str | None] = {}
        layout, rewriters = self.layout(), self.rewriters()
        wanted = np.unique(np.array(docs, np.int64))
        for part, name in self._named_parts():
            own = wanted[np.searchsorted(wanted, part.number << 32) : np.searchsorted(wanted, (part.number + 1) << 32)]
            if not len(own):
                continue
            batches = spans.read_current(layout, part, name, rewriters, rows=own & 0xFFFFFFFF)
            found |= zip(own.tolist(), (text for batch in batches for text in batch.column(TEXT).to_pylist()), strict=True)
        return found

    def rewriters(self) -> list[Sidecars]:
        """The spans of the stages that change text, in order."""
        stages = read_table(self.folder / "stages.parquet", ["measures", "rewrites"]).to_pylist()
        store = Path(self.lock()["store"])
        return [Sidecars(store / row["measures"], pa.schema([(spans.FIELD, spans.SPANS)])) for row in stages if row["rewrites"]]

    def _named_parts(self) -> list[tuple[Part, str]]:
        """The parts with their names in the store."""
        parts = self.parts()
        return [(part, part_name(part, twin)) for part, twin in zip(parts, twins(parts), strict=True)]

    def explain(self, identity: str) -> list[dict[str, Any]]:
        """Everything that was decided about the documents of one identity: a dict per document.

        `place`, `text` (its head), `stages`: in order, each with `label`, `columns`, and `verdict` (kept, dropped, or
        None where the stage only measures or never saw it).
        """
        with self.connection() as con:
            docs = (
                con.sql("SELECT * FROM docs WHERE curate_identity = ?", params=[identity])
                .to_arrow_table()
                .to_pylist()
            )
            stages = con.sql("SELECT * FROM stages ORDER BY position").to_arrow_table().to_pylist()
        found = []
        texts = self.texts([row["doc"] for row in docs]) if docs else {}
        for row in docs:
            told = []
            for stage in stages:
                own = {name: row[name] for name in stage["columns"] if name in row}
                verdict = None
                if stage["decides"]:
                    keep = row.get(f"{stage['label']}_keep")
                    verdict = None if keep is None else "kept" if keep else "dropped"
                told.append(
                    {"label": stage["label"], "stage": stage["stage"], "columns": own, "verdict": verdict}
                )
            found.append({"row": row, "stages": told, "text": texts[row["doc"]]})
        return found


def _arrow(relation: duckdb.DuckDBPyRelation | None) -> pa.Table:
    """A query's rows; a statement without rows (SET, COPY) has none."""
    return pa.table({}) if relation is None else relation.to_arrow_table()


_TEXTS = pa.schema([("doc", pa.int64()), ("text", pa.large_string())])
