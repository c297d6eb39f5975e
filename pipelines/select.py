"""Selection: a score and a budget in, a decision out. Every document not chosen says why.

Larger is better for every score, unless the score is one whose own word has a direction (perplexity, loss): then
`order` must say it. Ties are broken by identity, then by a hash of the whole row, never by place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa

from curate import budget, randomness
from curate.errors import ConfigError, DataError
from curate.frame import literal, quote
from curate.params import did_you_mean
from curate.pipelines import allocation
from curate.registry import register
from curate.sqlcolumns import columns_in
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS, Context, meaning

if TYPE_CHECKING:
    from curate.frame import Frame

_DIRECTED = re.compile(r"perplexity|ppl|loss|nll", re.IGNORECASE)
_MEASURE = {"documents": "1", "bytes": BYTES, "words": WORDS}
SHOWN_SHARE = 0.95  # an overlap with top-k above this is called nearly top-k


class ByFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A score that stands in a file of its own (parquet, csv, jsonl), joined by id."""

    file: str
    column: str
    id: str = "id"


class SelectParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/select.md for every setting with an example."""

    how: Literal["top_k", "threshold", "resample", "random", "random_balanced"] = "top_k"
    by: str | ByFile | None = None
    budget: int | str | None = None
    where: str | None = None
    order: Literal["asc", "desc"] | None = None
    temperature: float | None = None
    min: float | None = None
    max: float | None = None
    combine: Literal["max", "mean", "round_robin", "quota"] | None = None
    group_by: str | None = None
    share: dict[str, float] | None = None
    floor: int | str | dict[str, int | str] | None = None
    ceiling: int | str | dict[str, int | str] | None = None

    def __post_init__(self) -> None:
        scored = self.how in ("top_k", "threshold", "resample")
        if scored and self.by is None:
            raise ConfigError(f"how: {self.how} needs by: a score's name, a column, or an SQL expression over docs")
        if not scored and self.by is not None:
            raise ConfigError(f"how: {self.how} ignores scores; leave by out, or choose top_k, threshold or resample")
        if self.how == "threshold":
            if self.min is None and self.max is None:
                raise ConfigError("how: threshold needs min, max or both")
        elif self.min is not None or self.max is not None:
            raise ConfigError(f"min and max belong to how: threshold, not to {self.how}")
        elif self.budget is None:
            raise ConfigError(f"how: {self.how} needs a budget, such as 500, 5%, 200MB or 2Mwords")
        if self.temperature is not None and (self.how != "resample" or not self.temperature > 0):
            raise ConfigError(f"temperature belongs to how: resample and is above 0, got {self.temperature} with how: {self.how}")
        if (self.share or self.floor or self.ceiling) and self.group_by is None:
            raise ConfigError("share, floor and ceiling need group_by: the column whose values they are for")
        if self.share and (self.floor or self.ceiling):
            raise ConfigError("share fixes every group's part of the budget; floor and ceiling cannot be given with it")
        if self.share and (sum(self.share.values()) > 1 + 1e-9 or min(self.share.values()) < 0):
            raise ConfigError(f"expected shares of 0 or more that add up to at most 1, got {self.share}")
        if self.combine in ("round_robin", "quota") and self.group_by:
            raise ConfigError(f"combine: {self.combine} and group_by cannot be given together")
        for written in (self.budget, *_amounts(self.floor), *_amounts(self.ceiling)):
            if written is not None:
                budget.parse(written)


def _amounts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


@register("select")
class Select:
    """Adds keep, reason, rank (1 is best) and value (what was ranked by; the noise of a resample included)."""

    version = 1
    Params = SelectParams
    uses_seed = True
    uses_targets = True

    def __init__(self, params: SelectParams, context: Context) -> None:
        self.params = params
        self.context = context
        self._notes: list[str] = []
        self._columns = self._by_columns()
        self._check_meaning()
        if params.how == "random_balanced" and params.group_by is None and context.source is None:
            raise ConfigError("how: random_balanced needs a source: corpus: {source: COLUMN}, or group_by: COLUMN here")

    # -- what is read ---------------------------------------------------------------------------------------------

    def _by_columns(self) -> list[str]:
        """The SQL expressions to rank by: several where a score has one column per target."""
        by = self.params.by
        if by is None:
            return []
        if isinstance(by, ByFile):
            return ["joined_score"]
        if by in self.context.columns.names:
            return [quote(by)]
        several = [f"{by}_{t.name}" for t in self.context.targets]
        if several and all(name in self.context.columns.names for name in several):
            if self.params.combine is None:
                raise ConfigError(f"by: {by} has a score per target ({', '.join(several)}); say how they combine: max, mean, round_robin or quota, or name one of them")
            return [quote(name) for name in several]
        if re.fullmatch(r"\w+", by):
            raise ConfigError(f"by: there is no column {by!r} at this point{did_you_mean(by, self._visible())}")
        return [f"({by})"]

    def _visible(self) -> list[str]:
        return [n for n in self.context.columns.names if not n.startswith("__")]

    def _named_column(self) -> pa.Field | None:
        """The column ranked by, where it is a column and not an expression or a file."""
        for expression in self._columns[:1]:
            name = expression[1:-1].replace('""', '"')
            if expression.startswith('"') and name in self.context.columns.names:
                return self.context.columns.field(name)
        return None

    def _check_meaning(self) -> None:
        column = self._named_column()
        self.kind, larger = meaning(column) if column is not None else ("", None)
        word = self.params.by if isinstance(self.params.by, str) else self.params.by.column if self.params.by else ""
        if self.params.order is None and (larger is False or (larger is None and _DIRECTED.search(word))):
            raise ConfigError(f"by: {word}: smaller is better for a score of this name, or larger? say it: order: asc takes the smallest first, order: desc the largest")
        if self.params.how == "resample" and self.params.temperature is None and self.kind != "log_weight":
            raise ConfigError(f"by: {word} is not a log weight, so a resample needs a temperature: the score is standardised (mean 0, sd 1) and divided by it; 1 is mild, 0.1 is nearly top-k")

    def finish_reads(self) -> list[str]:
        texts = [*self._columns, self.params.where, self.params.group_by and quote(self.params.group_by)]
        named: list[str] = []
        for text in texts:
            if text:
                named += columns_in(text)
        if self.params.how == "random_balanced" and self.params.group_by is None and self.context.source:
            named.append(self.context.source)
        named = [n for n in named if n != "joined_score"]
        for name in named:
            if name not in self.context.columns.names:
                raise ConfigError(f"there is no column {name!r} at this point{did_you_mean(name, self._visible())}")
        return list(dict.fromkeys([IDENTITY, KEY, BYTES, WORDS, *named]))

    def finish_fields(self) -> pa.Schema:
        fields = [(KEEP, pa.bool_()), (REASON, pa.string()), ("rank", pa.int64()), ("value", pa.float64())]
        if self.params.combine in ("round_robin", "quota"):
            fields.append(("target", pa.string()))
        return pa.schema([("score" if n == "value" else n, t) for n, t in fields])

    def extra_key(self) -> str:
        by = self.params.by
        if not isinstance(by, ByFile):
            return ""
        return hashlib.blake2b(self._joined_file(by).read_bytes(), digest_size=16).hexdigest()

    def _joined_file(self, by: ByFile) -> Path:
        file = Path(self.context.base) / by.file
        if not file.is_file():
            raise ConfigError(f"by.file: expected a file, got nothing at {file}")
        return file

    # -- noise, added before DuckDB sees the rows --------------------------------------------------------------------

    def prepared(self, schema: pa.Schema) -> pa.Schema:
        """The schema after `prepare`: one column of noise per column ranked by, or one draw."""
        return pa.schema([*schema, *[pa.field(f"draw_{i}", pa.float64()) for i in range(self._draws())]])

    def _draws(self) -> int:
        if self.params.how in ("random", "random_balanced"):
            return 1
        if self.params.how != "resample":
            return 0
        return len(self._columns) if self.params.combine in ("round_robin", "quota") else 1

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Gumbel noise for a resample, a uniform number for a random draw, keyed by (seed, label, identity)."""
        keys = batch.column(KEY).to_numpy()
        draw = randomness.gumbel if self.params.how == "resample" else randomness.uniform
        for i in range(self._draws()):
            stream = randomness.stream(self.context.seed, "select", self.context.label, str(i))
            batch = batch.append_column(f"draw_{i}", pa.array(draw(keys, stream)))
        return batch

    # -- the decision ---------------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """What the user should hear about the last selection."""
        return list(self._notes)

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        self._notes = []
        self._make_eligible(frame)
        count = frame.scalar("SELECT count(*) FROM eligible")
        limit = self._limit(frame, count)
        self._choose(frame, limit)
        tied = self._tied(frame)
        if frame.scalar(f"SELECT count(*) FROM ({tied})"):
            frame.add_row_hashes(f"SELECT doc FROM ({tied}) ORDER BY doc", "hashes")
            frame.con.execute("UPDATE eligible SET row_hash = hashes.row_hash FROM hashes WHERE eligible.doc = hashes.doc")
            self._choose(frame, limit)
        self._tell(frame, count, limit)
        target = ", chosen.target AS target" if self.params.combine in ("round_robin", "quota") else ""
        value = "coalesce(chosen.value, eligible.value)" if target else "eligible.value"
        return frame.reader(
            f"""SELECT pool.doc, chosen.doc IS NOT NULL AS keep, {value} AS score, chosen.rank AS rank,
                       CASE WHEN chosen.doc IS NOT NULL THEN NULL ELSE coalesce(unfit.reason, 'below the cut') END AS reason{target}
                FROM pool LEFT JOIN eligible ON pool.doc = eligible.doc LEFT JOIN chosen ON pool.doc = chosen.doc
                LEFT JOIN unfit ON pool.doc = unfit.doc ORDER BY pool.doc"""
        )

    def _make_eligible(self, frame: Frame) -> None:
        """Tables `unfit(doc, reason)` and `eligible(doc, identity, size, grp, score_i, value...)`."""
        if isinstance(self.params.by, ByFile):
            self._join(frame, self.params.by)
        where = f"coalesce(({self.params.where}), false)" if self.params.where else "true"
        scores = [f"CAST({expression} AS DOUBLE)" for expression in self._columns]
        if self.params.combine in ("max", "mean"):
            scores = [_combined(self.params.combine, scores)]
        missing = " OR ".join(f"({s} IS NULL OR isnan({s}))" for s in scores) or "false"
        outside = " OR ".join(
            f"({scores[0]} {sign} {bound!r})" for sign, bound in (("<", self.params.min), (">", self.params.max)) if bound is not None
        )
        frame.con.execute(
            f"""CREATE TABLE unfit AS SELECT doc, reason FROM (SELECT doc, CASE WHEN NOT {where} THEN 'not where'
                WHEN {missing} THEN 'no score' WHEN {outside or 'false'} THEN 'outside the threshold' END AS reason FROM pool)
                WHERE reason IS NOT NULL"""
        )
        group = self.params.group_by or (self.context.source if self.params.how == "random_balanced" else None)
        size = _MEASURE[self._unit()]
        draws = "".join(f", draw_{i}" for i in range(self._draws()))
        columns = "".join(f", {s} AS score_{i}" for i, s in enumerate(scores))
        frame.con.execute(
            f"""CREATE TABLE eligible AS SELECT doc, {IDENTITY} AS identity, CAST({size} AS BIGINT) AS size,
                CAST({quote(group) if group else 'NULL'} AS VARCHAR) AS grp, CAST(NULL AS VARCHAR) AS row_hash{columns}{draws}
                FROM pool WHERE doc NOT IN (SELECT doc FROM unfit)"""
        )
        self._scores = len(scores)
        for i in range(max(1, self._scores)):
            frame.con.execute(f"ALTER TABLE eligible ADD COLUMN value{'' if i == 0 else f'_{i}'} DOUBLE")
            frame.con.execute(f"UPDATE eligible SET value{'' if i == 0 else f'_{i}'} = {self._value(frame, i)}")

    def _join(self, frame: Frame, by: ByFile) -> None:
        file = self._joined_file(by)
        reader = {"parquet": "read_parquet", "csv": "read_csv", "tsv": "read_csv", "jsonl": "read_json_auto", "json": "read_json_auto"}
        kind = reader.get(file.suffix.lstrip("."))
        if kind is None:
            raise ConfigError(f"by.file: expected a parquet, csv, tsv or jsonl file, got {file.name}")
        import duckdb

        try:
            frame.con.execute(f"CREATE TABLE joined AS SELECT CAST({quote(by.id)} AS VARCHAR) AS joined_id, CAST({quote(by.column)} AS DOUBLE) AS joined_score FROM {kind}({literal(str(file))})")
        except duckdb.Error as error:
            raise DataError(f"by.file: {file}: expected columns {by.id!r} and {by.column!r} (a number): {error}") from error
        twice = frame.sql("SELECT joined_id FROM joined GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1")
        if twice:
            raise DataError(f"by.file: {file}: the id {twice[0][0]!r} stands more than once")
        frame.con.execute(f"CREATE OR REPLACE TABLE pool AS SELECT pool.*, joined_score FROM pool LEFT JOIN joined ON joined_id = {IDENTITY}")

    def _unit(self) -> budget.Unit:
        return budget.parse(self.params.budget).unit if self.params.budget is not None else "documents"

    def _value(self, frame: Frame, i: int) -> str:
        """What to rank by, larger first, as an SQL expression over `eligible`."""
        if not self._columns:
            return "draw_0"
        sign = "-" if self.params.order == "asc" else ""
        if self.params.how != "resample":
            return f"{sign}score_{i}"
        temperature = self.params.temperature or 1.0
        draw = f"draw_{i if self._draws() > 1 else 0}"
        if self.kind == "log_weight":
            return f"{sign}score_{i} / {temperature!r} + {draw}"
        mean, deviation = _moments(frame, f"score_{i}")
        if deviation == 0:
            return draw
        return f"{sign}((score_{i} - {mean!r}) / {deviation!r}) / {temperature!r} + {draw}"

    def _limit(self, frame: Frame, eligible: int) -> int | None:
        """The budget in its unit; None: everything that passed the threshold."""
        if self.params.budget is None:
            return None
        asked = budget.parse(self.params.budget)
        limit = asked.of(eligible)
        there = int(frame.scalar("SELECT coalesce(sum(size), 0) FROM eligible"))
        if asked.share is None and limit > there:
            self._notes.append(f"the budget {self.params.budget} is larger than what is eligible ({there} {asked.unit}): everything is taken")
        return limit

    def _choose(self, frame: Frame, limit: int | None) -> None:
        """Table `chosen(doc, rank[, value, target])`."""
        frame.con.execute("DROP TABLE IF EXISTS chosen")
        frame.con.execute("DROP TABLE IF EXISTS ranked")
        if self.params.combine in ("round_robin", "quota"):
            self._choose_by_targets(frame, limit)
            return
        frame.con.execute("CREATE TABLE ranked AS SELECT doc, size, grp, row_number() OVER (ORDER BY value DESC, identity, row_hash, doc) AS r FROM eligible")
        taken = self._taken(frame, limit)
        frame.con.execute(f"CREATE TABLE chosen AS SELECT doc, row_number() OVER (ORDER BY r) AS rank FROM ({taken})")

    def _taken(self, frame: Frame, limit: int | None) -> str:
        """A query of (doc, r): filling goes down the ranks and stops before the document that would exceed."""
        prefix = "SELECT doc, r FROM (SELECT *, sum(size) OVER ({over} ORDER BY r) AS filled FROM {table}) WHERE filled <= {limit}"
        sizes = {g: int(s) for g, s in frame.sql("SELECT grp, sum(size) FROM ranked GROUP BY grp ORDER BY grp")}
        if self.params.how == "random_balanced" and limit is not None:
            limits: Mapping[str | None, int] = allocation.balanced(sizes, limit)
        elif self.params.share and limit is not None:
            limits = {g: int(Fraction(str(self._share(g))) * limit) for g in sizes}
            self._check_groups(self.params.share, sizes)
        elif self.params.floor is not None or self.params.ceiling is not None:
            return self._bounded(frame, sizes, limit, prefix)
        else:
            return "SELECT doc, r FROM ranked" if limit is None else prefix.format(over="", table="ranked", limit=limit)
        _put_limits(frame, "limits", limits)
        return "SELECT doc, r FROM (SELECT ranked.*, most, sum(size) OVER (PARTITION BY ranked.grp ORDER BY r) AS filled FROM ranked JOIN limits ON ranked.grp IS NOT DISTINCT FROM limits.grp) WHERE filled <= most"

    def _share(self, group: str | None) -> float:
        assert self.params.share is not None
        return self.params.share.get(str(group), 0.0)

    def _check_groups(self, named: Mapping[str, Any], sizes: Mapping[str | None, int]) -> None:
        for name in named:
            if name not in sizes:
                self._notes.append(f"warning: the group {name!r} of group_by {self.params.group_by} has no eligible document")

    def _bounded(self, frame: Frame, sizes: Mapping[str | None, int], limit: int | None, prefix: str) -> str:
        """Each group's floor first, then down the ranks, no group above its ceiling."""
        floors = self._amount_per_group(self.params.floor, sizes, 0)
        ceilings = self._amount_per_group(self.params.ceiling, sizes, None)
        if limit is not None and sum(min(f, sizes[g]) for g, f in floors.items()) > limit:
            raise ConfigError(f"the floors add up to {sum(floors.values())}, more than the budget {self.params.budget}")
        _put_limits(frame, "floors", floors)
        _put_limits(frame, "ceilings", ceilings)
        frame.con.execute(
            """CREATE OR REPLACE TABLE bounded AS SELECT doc, r, size, filled <= floors.most AS first FROM
               (SELECT *, sum(size) OVER (PARTITION BY grp ORDER BY r) AS filled FROM ranked) AS x
               JOIN floors ON x.grp IS NOT DISTINCT FROM floors.grp JOIN ceilings ON x.grp IS NOT DISTINCT FROM ceilings.grp
               WHERE filled <= ceilings.most OR filled <= floors.most"""
        )
        if limit is None:
            return "SELECT doc, r FROM bounded"
        used = int(frame.scalar("SELECT coalesce(sum(size), 0) FROM bounded WHERE first"))
        rest = prefix.format(over="", table="(SELECT * FROM bounded WHERE NOT first)", limit=limit - used)
        return f"SELECT doc, r FROM bounded WHERE first UNION ALL ({rest})"

    def _amount_per_group(self, value: Any, sizes: Mapping[str | None, int], default: int | None) -> dict[str | None, int]:
        amounts: dict[str | None, int] = {}
        everything = sum(sizes.values())
        if isinstance(value, Mapping):
            self._check_groups(value, sizes)
        for group in sizes:
            written = value.get(str(group)) if isinstance(value, Mapping) else value
            if written is None:
                amounts[group] = everything if default is None else default
                continue
            asked = budget.parse(written)
            if asked.unit != self._unit():
                raise ConfigError(f"floor and ceiling are in the budget's unit, {self._unit()}; got {written!r}")
            amounts[group] = asked.of(sizes[group])
        return amounts

    def _choose_by_targets(self, frame: Frame, limit: int | None) -> None:
        targets = self.context.targets
        assert limit is not None
        lists = []
        for i in range(len(targets)):
            value = "value" if i == 0 else f"value_{i}"
            most = f"LIMIT {limit * len(targets)}" if self._unit() == "documents" else ""
            lists.append(frame.sql(f"SELECT doc, size, {value} FROM eligible ORDER BY {value} DESC, identity, row_hash, doc {most}"))
        weights = [t.weight for t in targets]
        picks = allocation.round_robin(lists, limit) if self.params.combine == "round_robin" else allocation.quota(lists, limit, weights)
        table = pa.table(
            {
                "doc": pa.array([p[0] for p in picks], pa.int64()),
                "rank": pa.array(range(1, len(picks) + 1), pa.int64()),
                "value": pa.array([p[1] for p in picks], pa.float64()),
                "target": pa.array([targets[p[2]].name for p in picks], pa.string()),
            }
        )
        frame.con.register("picked", table)
        frame.con.execute("CREATE TABLE chosen AS SELECT * FROM picked")
        frame.con.unregister("picked")

    def _tied(self, frame: Frame) -> str:
        """Documents of one identity of which some were chosen: only their whole rows tell them apart."""
        return "SELECT eligible.doc FROM eligible LEFT JOIN chosen ON eligible.doc = chosen.doc QUALIFY count(*) OVER (PARTITION BY identity) > 1 AND count(chosen.doc) OVER (PARTITION BY identity) > 0"

    def _tell(self, frame: Frame, eligible: int, limit: int | None) -> None:
        """Say what was taken; for a resample, how far it is from top-k and from chance."""
        kept = frame.scalar("SELECT count(*) FROM chosen")
        self._notes.append(f"{kept} of {eligible} eligible documents chosen")
        if self.params.how != "resample" or self._scores != 1 or not kept:
            return
        sign = "" if self.params.order == "asc" else "DESC"
        overlap = frame.scalar(
            f"SELECT count(*) FROM (SELECT doc FROM eligible ORDER BY score_0 {sign}, identity, row_hash, doc LIMIT {int(kept)}) JOIN chosen USING (doc)"
        ) / kept
        best = frame.scalar("SELECT max(value - draw_0) FROM eligible")
        scaled = f"SELECT CAST(sum(CAST(round(exp({{k}} * (value - draw_0 - {best!r})) * {float(2**60)!r}) AS HUGEINT)) AS VARCHAR) FROM eligible"
        first, second = (int(frame.scalar(scaled.format(k=k))) / 2**60 for k in (1, 2))
        effective = first * first / second
        self._notes.append(f"effective sample size of the weights {effective:.1f} of {eligible}; overlap with top-k {overlap:.1%}")
        if overlap > SHOWN_SHARE and kept < eligible:
            self._notes.append(f"warning: this resample is nearly top-k (overlap {overlap:.1%}): summed log weights dwarf the noise; a temperature above 1 makes it draw more widely")
        elif overlap < 1.1 * kept / eligible and kept < 0.9 * eligible:
            self._notes.append(f"warning: this resample is nearly a random draw (overlap with top-k {overlap:.1%}, chance {kept / eligible:.1%}); a lower temperature makes it follow the scores")


def _combined(how: str, scores: Sequence[str]) -> str:
    """The largest, or the mean, of several scores; null where one is null."""
    if how == "max":
        total = f"greatest({', '.join(scores)})"
    else:
        total = f"(({' + '.join(scores)}) / {float(len(scores))!r})"
    missing = " OR ".join(f"{s} IS NULL" for s in scores)
    return f"CASE WHEN {missing} THEN NULL ELSE {total} END"


def _moments(frame: Frame, column: str) -> tuple[float, float]:
    """Mean and standard deviation over `eligible`, by integer sums, so that no order of rows changes a bit."""
    count = frame.scalar("SELECT count(*) FROM eligible")
    largest = frame.scalar(f"SELECT max(abs({column})) FROM eligible")
    if not count or not largest:
        return 0.0, 0.0
    scale = 2.0**40 / largest

    def total(expression: str) -> int:
        return int(frame.scalar(f"SELECT CAST(sum(CAST(round({expression}) AS HUGEINT)) AS VARCHAR) FROM eligible"))

    mean = total(f"{column} * {scale!r}") / count / scale
    spread = total(f"({column} - {mean!r}) * {scale!r} * (({column} - {mean!r}) / {largest!r}) * {float(2**20)!r}")
    return mean, (spread / 2**20 / scale * largest / count) ** 0.5


def _put_limits(frame: Frame, table: str, limits: Mapping[str | None, int]) -> None:
    values = pa.table({"grp": pa.array(list(limits), pa.string()), "most": pa.array([int(v) for v in limits.values()], pa.int64())})
    frame.con.register("incoming", values)
    frame.con.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM incoming")
    frame.con.unregister("incoming")
