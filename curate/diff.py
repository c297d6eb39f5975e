"""What two runs did otherwise: their recipes, the fate of every document, and what that did to sources, lengths, scores.

Documents are paired by identity. One that stands several times in a run (copies of a text without ids) is a multiset:
its first copy is paired with the other run's first, kept copies before dropped ones. Rows that were set aside before
they had an identity are paired by their number alone. DuckDB holds the tables and spills to disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog import OpenRun, plain
from curate.errors import ConfigError
from curate.frame import connect, literal, quote
from curate.stage import BYTES, IDENTITY, WORDS
from curate.store import read_table, sweep_beside, write_atomically

KEPT, ABSENT = "kept", "absent"  # a fate besides the labels of stages
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SIDES = ("a", "b")


class Diff:
    """Two runs, compared. Views: `diff` (a row per pair), `a_docs`, `b_docs`. Use as a context manager.

    `diff` has identity, copy (from 1), status (both, only a, only b, neither: by which the document is kept), and for
    each side fate (kept, absent, or the stage that dropped it), reason, source, bytes, words and each score of both.
    """

    def __init__(self, a: Path | str, b: Path | str, *, threads: int = 2, memory: str = "2GB") -> None:
        self.runs = {"a": OpenRun(a), "b": OpenRun(b)}
        self.locks = {side: run.lock() for side, run in self.runs.items()}
        self.docs = {side: (run.folder / "docs").resolve() for side, run in self.runs.items()}
        self.scores = [n for n in self._floats("a") if n in self._floats("b")]
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-diff-")
        self.con = connect(Path(self._scratch.name), threads, memory)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _floats(self, side: str) -> list[str]:
        """The columns of stages that hold numbers with a fraction: scores."""
        file = next(iter(sorted(self.docs[side].glob("docs-*.parquet"))), None)
        if file is None:
            raise ConfigError(f"expected a finished run, got {self.runs[side].folder}, which has no docs; run its recipe again")
        own = {name for stage in read_table(self.runs[side].folder / "stages.parquet").to_pylist() for name in stage["columns"]}
        return [item.name for item in pq.read_schema(file) if item.name in own and pa.types.is_floating(item.type)]

    def _build(self) -> None:
        for side in SIDES:
            self.con.execute(f"CREATE VIEW {side}_docs AS SELECT * FROM read_parquet({literal(plain(str(self.docs[side])) + '/docs-*.parquet')}, hive_partitioning = false)")
            self._side(side)
        scores = "".join(f", {side}.{quote(n)} AS {quote(f'{side}_{n}')}" for n in self.scores for side in SIDES)
        of = ", ".join(f"{side}.{n} AS {side}_{n}" for n in ("reason", "source", "bytes", "words") for side in SIDES)
        self.con.execute(
            f"""CREATE TABLE diff AS SELECT coalesce(a.identity, b.identity) AS identity, coalesce(a.copy, b.copy) AS copy,
                CASE WHEN a.fate = '{KEPT}' AND b.fate = '{KEPT}' THEN 'both' WHEN a.fate = '{KEPT}' THEN 'only a'
                     WHEN b.fate = '{KEPT}' THEN 'only b' ELSE 'neither' END AS status,
                coalesce(a.fate, '{ABSENT}') AS a_fate, coalesce(b.fate, '{ABSENT}') AS b_fate, {of}{scores}
                FROM a_side a FULL JOIN b_side b ON a.nameless = b.nameless AND a.name = b.name AND a.copy = b.copy"""
        )
        for side in SIDES:
            self.con.execute(f"DROP TABLE {side}_side")

    def _side(self, side: str) -> None:
        """One run's documents as they are paired: what repeats is numbered, what does not is no work."""
        source = self.locks[side]["corpus"]["source"]
        scores = "".join(f", {quote(n)}" for n in self.scores)
        chosen = f"""SELECT {IDENTITY} AS identity, {IDENTITY} IS NULL AS nameless, coalesce({IDENTITY}, '') AS name, doc,
                     CASE WHEN curate_keep THEN '{KEPT}' ELSE curate_drop_stage END AS fate, curate_drop_reason AS reason,
                     {f"CAST({quote(source)} AS VARCHAR)" if source else "NULL::VARCHAR"} AS source, {BYTES} AS bytes, {WORDS} AS words{scores}
                     FROM {side}_docs"""
        self.con.execute(f"CREATE TABLE {side}_repeated AS SELECT name, nameless FROM ({chosen}) GROUP BY ALL HAVING count(*) > 1")
        again = f"(name, nameless) IN (SELECT (name, nameless) FROM {side}_repeated)"
        if not self._value(f"SELECT count(*) FROM {side}_repeated"):
            again = "false"
        self.con.execute(
            f"""CREATE TABLE {side}_side AS
                SELECT *, 1 AS copy FROM ({chosen}) WHERE NOT ({again}) UNION ALL BY NAME
                SELECT *, row_number() OVER (PARTITION BY name, nameless ORDER BY fate = '{KEPT}' DESC, fate, reason, doc) AS copy
                FROM ({chosen}) WHERE {again}"""
        )

    # -- what it says -------------------------------------------------------------------------------------------------

    def sql(self, query: str) -> pa.Table:
        """A query over `diff`, `a_docs`, `b_docs`."""
        import duckdb

        try:
            found = self.con.sql(query)
            return pa.table({}) if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"SQL: {error}") from error

    def write(self, out: Path) -> None:
        """The view `diff` as a Parquet file, in order of identity and copy."""
        out = out.resolve()
        if not out.parent.is_dir():
            raise ConfigError(f"expected a folder for the result, got nothing at {out.parent}")
        sweep_beside(out)
        query = "COPY (SELECT * FROM diff ORDER BY identity, copy) TO {} (FORMAT parquet, COMPRESSION zstd)"

        def copy(temporary: Path) -> None:
            self.con.execute(query.format(literal(str(temporary))))

        write_atomically(out, copy, out.parent, name=f".{out.name}.{os.getpid()}.making")

    def summary(self) -> dict[str, Any]:
        """Everything that is printed, as plain values."""
        return {
            "runs": {side: str(run.folder) for side, run in self.runs.items()}, "recipe": self.recipe(), "inputs": self.inputs(),
            "documents": self._rows("SELECT status, count(*) AS documents, sum(coalesce(b_bytes, a_bytes))::BIGINT AS bytes FROM diff GROUP BY 1 ORDER BY 1"),
            "repeated": {side: self._value(f"SELECT count(*) FROM {side}_repeated") for side in SIDES},
            "in_common": self._value(f"SELECT count(*) FROM diff WHERE a_fate <> '{ABSENT}' AND b_fate <> '{ABSENT}'"),
            "moved": self.moved(), "sources": self.sources(), "lengths": self.lengths(), "scores": self.score_changes(),
        }  # fmt: skip

    def recipe(self) -> list[dict[str, Any]]:
        """What was asked otherwise: a row per setting that differs; None where a run does not have it."""
        flat = {side: _flat(self._asked(side)) for side in SIDES}
        names = [*flat["a"], *(n for n in flat["b"] if n not in flat["a"])]
        return [{"setting": n, "a": flat["a"].get(n), "b": flat["b"].get(n)} for n in names if flat["a"].get(n) != flat["b"].get(n)]

    def _asked(self, side: str) -> dict[str, Any]:
        lock = self.locks[side]
        stages = [{k: v for k, v in stage.items() if k != "as"} for stage in lock["stages"]]
        labels = [stage["as"] for stage in lock["stages"]]
        versions = {row["label"]: row["version"] for row in read_table(self.runs[side].folder / "stages.parquet").to_pylist()}
        return {
            **{name: lock[name] for name in ("name", "seed", "corpus", "targets", "emit", "guards") if name in lock},
            "targets_content": lock["targets_key"], "versions": lock["versions"], "order of stages": labels,
            "stages": {label: {**stage, "version": versions.get(label)} for label, stage in zip(labels, stages, strict=True)},
        }  # fmt: skip

    def inputs(self) -> dict[str, int]:
        """How many input files are in both, changed (same path), or only in one, by the hash of their content."""
        a, b = ({path: content for path, _, content in self.locks[side]["inputs"]} for side in SIDES)
        contents = {side: set(found.values()) for side, found in zip(SIDES, (a, b), strict=True)}
        changed = [p for p in a if p in b and a[p] != b[p]]
        return {
            "same": sum(a[p] == b.get(p) for p in a), "changed": len(changed), "renamed": sum(p not in a and b[p] in contents["a"] for p in b),
            "only_a": sum(p not in b and a[p] not in contents["b"] for p in a), "only_b": sum(p not in a and b[p] not in contents["a"] for p in b),
        }  # fmt: skip

    def moved(self) -> list[dict[str, Any]]:
        """Documents whose fate is another, by what became of them in each run."""
        return self._rows(
            """SELECT a_fate, a_reason, b_fate, b_reason, count(*) AS documents, sum(coalesce(b_bytes, a_bytes))::BIGINT AS bytes
               FROM diff WHERE a_fate <> b_fate OR a_reason IS DISTINCT FROM b_reason GROUP BY ALL ORDER BY documents DESC, a_fate, a_reason, b_fate, b_reason"""
        )

    def sources(self) -> list[dict[str, Any]]:
        """Read and kept documents, and kept bytes, of each source in each run."""
        parts = ", ".join(
            f"""count(*) FILTER (side = '{s}') AS {s}_read, count(*) FILTER (side = '{s}' AND fate = '{KEPT}') AS {s}_kept,
                coalesce(sum(bytes) FILTER (side = '{s}' AND fate = '{KEPT}'), 0)::BIGINT AS {s}_kept_bytes"""
            for s in SIDES
        )
        both = " UNION ALL ".join(f"SELECT '{s}' AS side, {s}_source AS source, {s}_fate AS fate, {s}_bytes AS bytes FROM diff WHERE {s}_fate <> '{ABSENT}'" for s in SIDES)
        return self._rows(f"SELECT source, {parts} FROM ({both}) GROUP BY source ORDER BY source NULLS LAST")

    def lengths(self) -> dict[str, dict[str, Any]]:
        """Kept documents of each run: how many, bytes, words, and quantiles of both over documents."""
        found = {}
        for side in SIDES:
            [totals] = self._rows(
                f"SELECT count(*) AS documents, coalesce(sum({side}_bytes), 0)::BIGINT AS bytes, coalesce(sum({side}_words), 0)::BIGINT AS words FROM diff WHERE {side}_fate = '{KEPT}'"
            )
            kept = f"{side}_fate = '{KEPT}'"
            found[side] = {**totals, "bytes_quantiles": self._quantiles(f"{side}_bytes", kept), "words_quantiles": self._quantiles(f"{side}_words", kept)}
        return found

    def score_changes(self) -> dict[str, dict[str, Any]]:
        """Of each score of both runs: for how many documents it is another, by how much at most; its quantiles over the kept."""
        found = {}
        for name in self.scores:
            a, b = quote(f"a_{name}"), quote(f"b_{name}")
            [row] = self._rows(
                f"""SELECT count(*) AS in_both, count(*) FILTER ({a} <> {b}) AS changed, max(abs({a} - {b})) AS most FROM diff
                    WHERE {a} IS NOT NULL AND {b} IS NOT NULL"""
            )
            kept = {side: self._quantiles(quote(f"{side}_{name}"), f"{side}_fate = '{KEPT}'") for side in SIDES}
            found[name] = {**row, "kept_quantiles": kept}
        return found

    def _quantiles(self, column: str, where: str) -> list[Any]:
        """The values at QUANTILES by nearest rank: exact, by a sort that spills, not by an aggregate held in memory."""
        chosen = f"FROM diff WHERE {where} AND {column} IS NOT NULL"
        count = self._value(f"SELECT count(*) {chosen}")
        if not count:
            return [None] * len(QUANTILES)
        ranks = [min(count, int(q * (count - 1) + 0.5) + 1) for q in QUANTILES]
        listed = ", ".join(map(str, sorted(set(ranks))))
        rows = self.con.execute(f"SELECT r, v FROM (SELECT row_number() OVER (ORDER BY {column}) AS r, {column} AS v {chosen}) WHERE r IN ({listed})").fetchall()
        values = dict(rows)
        return [values[rank] for rank in ranks]

    def _rows(self, query: str) -> list[dict[str, Any]]:
        return list(self.con.sql(query).to_arrow_table().to_pylist())

    def _value(self, query: str) -> Any:
        return self.con.execute(query).fetchall()[0][0]

    def close(self) -> None:
        """Close the database and remove what it spilled."""
        self.con.close()
        self._scratch.cleanup()

    def __enter__(self) -> Diff:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists are values."""
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


