"""Selection: a score and a budget in, a decision out. Every document not chosen says why.

Larger is better for every score, unless the score is one whose own word has a direction (perplexity, loss): then
`order` must say it. Ties are broken by identity, then by a hash of the whole row, never by place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa

from curate import budget, randomness
from curate.errors import ConfigError
from curate.frame import quote
from curate.params import did_you_mean
from curate.pipelines import allocation, cutting, scorefile
from curate.pipelines.scorefile import ByFile
from curate.registry import register
from curate.sqlcolumns import TABLE, check_expression, in_query, said_by
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS, Context, meaning

if TYPE_CHECKING:
    from curate.frame import Frame

#: Words that say for themselves that less is better; in any column's name, apart or run together (valLoss, eval_loss).
_DIRECTED = frozenset({"perplexity", "perplexities", "ppl", "loss", "losses", "nll", "bpb"})
_WORDS_OF_A_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
SHOWN_SHARE = 0.95  # an overlap with top-k above this is called nearly top-k
EQUAL_SHARE = 0.9  # an effective sample size above this part of the pool is called nearly random

# Why a document was not chosen.
NOT_WHERE, NO_SCORE, OUTSIDE, NO_SHARE, BELOW = (
    "not where", "no score", "outside the threshold", "no share for its group", "below the cut",
)  # fmt: skip


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
        if not scored:
            for name in ("by", "order", "combine"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"how: {self.how} ignores scores; leave {name} out, or choose top_k, threshold or resample")
        self._check_bounds()
        if self.temperature is not None and not (self.how == "resample" and 0 < self.temperature < math.inf):
            raise ConfigError(f"temperature belongs to how: resample and is above 0, got {self.temperature} with how: {self.how}")
        self._check_groups()
        for written in (self.budget, *_amounts(self.floor), *_amounts(self.ceiling)):
            if written is not None:
                budget.parse(written)
        self._check_units()

    def _check_bounds(self) -> None:
        if self.how != "threshold":
            if self.min is not None or self.max is not None:
                raise ConfigError(f"min and max belong to how: threshold, not to {self.how}")
            if self.budget is None:
                raise ConfigError(f"how: {self.how} needs a budget, such as 500, 5%, 200MB or 2Mwords")
            return
        if self.min is None and self.max is None:
            raise ConfigError("how: threshold needs min, max or both")
        if any(bound is not None and math.isnan(bound) for bound in (self.min, self.max)):
            raise ConfigError(f"expected numbers as min and max, got {self.min} and {self.max}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"min {self.min} is above max {self.max}: nothing could pass")
        if self.combine in ("round_robin", "quota"):
            raise ConfigError(f"how: threshold takes all that passes, so combine: {self.combine} has nothing to share; use max or mean")

    def _check_groups(self) -> None:
        limited = self.share is not None or self.floor is not None or self.ceiling is not None
        if limited and self.group_by is None:
            raise ConfigError("share, floor and ceiling need group_by: the column whose values they are for")
        if self.group_by is not None and not limited and self.how != "random_balanced":
            raise ConfigError("group_by needs share, floor or ceiling, which say what each group gets (or how: random_balanced, which gives each the same)")
        if limited and self.how == "random_balanced":
            raise ConfigError("how: random_balanced gives every group the same; for shares, floors or ceilings choose how: random")
        if self.combine in ("round_robin", "quota") and self.group_by:
            raise ConfigError(f"combine: {self.combine} and group_by cannot be given together")
        if self.share is None:
            return
        if self.floor is not None or self.ceiling is not None:
            raise ConfigError("share fixes every group's part of the budget; floor and ceiling cannot be given with it")
        if self.budget is None:
            raise ConfigError("share is a part of the budget, and there is none; give a budget, or floor and ceiling")
        total = sum(self.share.values())
        if not (self.share and total <= 1 + 1e-9 and all(part >= 0 for part in self.share.values())):
            raise ConfigError(f"expected shares of 0 or more that add up to at most 1, got {self.share}")

    def _check_units(self) -> None:
        unit = unit_of(self.budget)
        for name in ("floor", "ceiling"):
            for written in _amounts(getattr(self, name)):
                if written is not None and budget.parse(written).unit != unit:
                    raise ConfigError(f"{name} is in the budget's unit, {unit}; got {written!r}")


def _amounts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


def check_direction(fields: Sequence[pa.Field], order: str | None, also: frozenset[str] = frozenset()) -> None:
    """Refuse columns of which less is better, by what they carry or by a word of their name, unless the order is said.

    `also` are further such words.
    """
    if order is not None:
        return
    for item in fields:
        larger = meaning(item)[1]
        words = {word.lower() for word in _WORDS_OF_A_NAME.findall(item.name)}
        if larger is False or (larger is None and words & (_DIRECTED | also)):
            raise ConfigError(f"by: is smaller better for {item.name}, as its name says, or larger? say it: order: asc takes the smallest first, order: desc the largest")


def unit_of(written: int | str | None) -> budget.Unit:
    """The unit that a budget counts in; documents where there is none."""
    return budget.parse(written).unit if written is not None else "documents"


@register("select")
class Select:
    """Adds keep, reason, rank (1 is best) and score: what was ranked by, the noise of a resample included.

    The score of top_k and threshold is the score itself; of a resample or a random draw, the number of which the
    largest were taken. With round_robin and quota, score and target say for which target a document was taken.
    """

    version = 1
    Params = SelectParams
    selects = True  # it leaves out most on purpose: guards do not warn of that
    uses_seed = True
    uses_targets = True

    def __init__(self, params: SelectParams, context: Context) -> None:
        self.params = params
        self.context = context
        self._unit = unit_of(params.budget)
        self._notes: list[str] = []
        self._sized = budget.size_column(params.budget, context.columns) if params.budget is not None else None
        self._columns = self._by_columns()
        self._targeted = params.combine in ("round_robin", "quota")
        self._check_meaning()
        if params.how == "random_balanced" and params.group_by is None and context.source is None:
            raise ConfigError("how: random_balanced needs a source: corpus: {source: COLUMN}, or group_by: COLUMN here")
        self.by_score = params.how not in ("random", "random_balanced")
        # whether guards look at the lengths of the best: a summed log weight falls with length by what it is
        self.ranks = self.by_score and self.kind != "log_weight"
        self._group = params.group_by or (context.source if params.how == "random_balanced" else None)

    # -- what is read ---------------------------------------------------------------------------------------------

    def _by_columns(self) -> list[str]:
        """The SQL expressions to rank by: several where a score has one column per target."""
        by = self.params.by
        names, targets = self.context.columns.names, self.context.targets
        several = [f"{by}_{t.name}" for t in targets]
        if isinstance(by, str) and by not in names and several and all(name in names for name in several):
            if self.params.combine is None and len(several) > 1:
                raise ConfigError(f"by: {by} has a score per target ({', '.join(several)}); say how they combine: max, mean, round_robin or quota, or name one of them")
            return [quote(name) for name in several]
        if self.params.combine is not None and len(targets) != 1:
            raise ConfigError(f"combine: {self.params.combine} is for a score per target, and by: {by if isinstance(by, str) else 'a file'} is one score; leave combine out{self._example()}")
        if by is None:
            return []
        if isinstance(by, ByFile):
            return [scorefile.SCORE]
        if by in names:
            return [quote(by)]
        if re.fullmatch(r"\w+", by):
            raise ConfigError(f"by: there is no column {by!r} at this point{did_you_mean(by, self._visible())}")
        return [in_query(by)]

    def _example(self) -> str:
        scores = [n for n in self._visible() if meaning(self.context.columns.field(n))[0]]
        return f", or name a score that has a column for each of {', '.join(t.name for t in self.context.targets)} (scores: {', '.join(scores) or 'none'})" if self.context.targets else ""

    def _visible(self) -> list[str]:
        return [n for n in self.context.columns.names if not n.startswith("__")]

    def _ranked_by(self) -> list[pa.Field]:
        """The columns ranked by, where they are columns and not an expression or a file."""
        by = self.params.by
        if not isinstance(by, str):
            return []
        wanted = [by, *(f"{by}_{t.name}" for t in self.context.targets)]
        return [self.context.columns.field(n) for n in wanted if n in self.context.columns.names and quote(n) in self._columns]

    def _check_meaning(self) -> None:
        """Find the score's kind and direction, and refuse what would be read upside down."""
        fields = self._ranked_by()
        kinds = {meaning(item)[0] for item in fields}
        self.kind = kinds.pop() if len(kinds) == 1 else ""
        by = self.params.by
        if isinstance(by, ByFile):
            fields = [pa.field(by.column, pa.float64())]
        check_direction(fields, self.params.order)
        if self.params.how == "resample" and self.params.temperature is None and self.kind != "log_weight":
            word = by.column if isinstance(by, ByFile) else by
            raise ConfigError(f"by: {word} is not a log weight, so a resample needs a temperature: the score is standardised (mean 0, sd 1) and divided by it; 1 is mild, 0.1 is nearly top-k")

    def finish_reads(self) -> list[str]:
        """The columns that the decision needs; ConfigError, naming the setting, for one that cannot work."""
        named: list[str] = []
        by = self.params.by
        if isinstance(by, ByFile):
            scorefile.check(by, scorefile.find(by, Path(self.context.base)))
            expressions: list[str] = []
        else:
            expressions = [by] if by and self._columns == [in_query(by)] else self._columns
        wanted: list[tuple[str, str | None, Literal["DOUBLE", "BOOLEAN"] | None]] = [("by", e, "DOUBLE") for e in expressions]
        wanted += [("where", self.params.where, "BOOLEAN"), ("group_by", self._group and quote(self._group), None)]
        for setting, expression, result in wanted:
            if expression:
                try:
                    named += check_expression(expression, self.context.columns, result)
                except ConfigError as error:
                    raise ConfigError(f"{setting}: {error}") from error
                if setting == "by":
                    check_direction([self.context.columns.field(n) for n in named], self.params.order)
        sized = [self._sized] if self._sized else []
        return list(dict.fromkeys([IDENTITY, KEY, BYTES, WORDS, *sized, *named]))

    def finish_fields(self) -> pa.Schema:
        fields = [(KEEP, pa.bool_()), (REASON, pa.string()), ("rank", pa.int64()), ("score", pa.float64())]
        return pa.schema([*fields, ("target", pa.string())] if self._targeted else fields)

    def extra_key(self) -> str:
        """The content of the file that the score is joined from."""
        by = self.params.by
        return scorefile.content_hash(scorefile.find(by, Path(self.context.base))) if isinstance(by, ByFile) else ""

    # -- noise, added before DuckDB sees the rows --------------------------------------------------------------------

    def prepared(self, schema: pa.Schema) -> pa.Schema:
        """The schema after `prepare`: one column of noise per column ranked by, or one draw."""
        return pa.schema([*schema, *[pa.field(f"__draw_{i}", pa.float64()) for i in range(self._draws())]])

    def _draws(self) -> int:
        if self.params.how in ("random", "random_balanced"):
            return 1
        if self.params.how != "resample":
            return 0
        return len(self._columns) if self._targeted else 1

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Gumbel noise for a resample, a uniform number for a random draw, keyed by (seed, label, identity)."""
        keys = batch.column(KEY).to_numpy()
        draw = randomness.gumbel if self.params.how == "resample" else randomness.uniform
        for i in range(self._draws()):
            stream = randomness.stream(self.context.seed, "select", self.context.label, str(i))
            batch = batch.append_column(f"__draw_{i}", pa.array(draw(keys, stream)))
        return batch

    # -- the decision ---------------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """What the user should hear about the last selection."""
        return list(self._notes)

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Decide; the rows of every document of the frame, in order of doc."""
        self._notes = []
        scores = self._score(frame)
        bases = [self._base(frame, i) for i in range(scores)]
        values = [self._value(i, base) for i, base in enumerate(bases)] or ["__draw_0"]
        columns = ", ".join(f"{value} AS value_{i}" for i, value in enumerate(values))
        frame.con.execute(f"CREATE VIEW eligible AS SELECT *, {columns} FROM scored WHERE reason IS NULL")
        count = int(frame.scalar("SELECT count(*) FROM eligible"))
        limit = self._limit(frame, count)
        reach = None if self._group or self._targeted or limit is None else cutting.reach(frame, "eligible", "value_0", "size", limit)
        enough = "true" if reach is None else f"value_0 >= {cutting.number(reach)}"
        ties = self._tell_apart(frame, enough)
        if self._targeted:
            self._choose_by_targets(frame, limit or 0, ties)
        else:
            self._choose(frame, limit, enough, ties)
        self._tell(frame, count, bases)
        return frame.reader(self._decided())

    def _score(self, frame: Frame) -> int:
        """Table `scored(doc, identity, key, size, grp, reason, score_i, __draw_i)`; returns how many scores."""
        import duckdb

        scores, joined = [f"CAST({expression} AS DOUBLE)" for expression in self._columns], ""
        if isinstance(self.params.by, ByFile):
            self._join(frame, self.params.by)
            joined = f"LEFT JOIN score_file ON {scorefile.ID} = {TABLE}.{IDENTITY}"
        if self.params.combine in ("max", "mean"):
            scores = [_combined(self.params.combine, scores, self.params.order == "asc")]
        fits = f"coalesce({in_query(self.params.where)}, false)" if self.params.where else "true"
        draws = "".join(f", __draw_{i}" for i in range(self._draws()))
        measured = "".join(f", CASE WHEN {fits} THEN {score} END AS __score_{i}" for i, score in enumerate(scores))
        names = [f"score_{i}" for i in range(len(scores))]
        missing = " OR ".join(f"__{name} IS NULL OR isnan(__{name})" for name in names) or "false"
        bounds = [("<", self.params.min), (">", self.params.max)]
        outside = " OR ".join(f"__score_0 {sign} {cutting.number(bound)}" for sign, bound in bounds if bound is not None) or "false"
        try:
            frame.con.execute(
                f"""CREATE TABLE scored AS SELECT __doc AS doc, __identity AS identity, __key AS key, __size AS size, __grp AS grp,
                    CASE WHEN NOT __fits THEN '{NOT_WHERE}' WHEN {missing} THEN '{NO_SCORE}' WHEN {outside} THEN '{OUTSIDE}' END AS reason
                    {"".join(f", __{name} + 0.0 AS {name}" for name in names)}{draws}
                    FROM (SELECT doc AS __doc, {IDENTITY} AS __identity, {KEY} AS __key, CAST({quote(self._sized) if self._sized else 1} AS BIGINT) AS __size,
                          CAST({quote(self._group) if self._group else 'NULL'} AS VARCHAR) AS __grp, {fits} AS __fits{measured}{draws}
                          FROM pool AS {TABLE} {joined})"""
            )
        except (duckdb.DataError, duckdb.ProgrammingError) as error:
            settings = " or ".join(name for name in ("by", "where") if isinstance(getattr(self.params, name), str))
            raise ConfigError(f"{settings}: the SQL expression fails on a document: {said_by(error)}; TRY_CAST(... AS DOUBLE) or TRY(...) gives null there instead") from error
        return len(scores)

    def _join(self, frame: Frame, by: ByFile) -> None:
        path = scorefile.find(by, Path(self.context.base))
        table = scorefile.read(by, path)
        frame.con.register("incoming", table)
        frame.con.execute("CREATE TABLE score_file AS SELECT * FROM incoming")
        frame.con.unregister("incoming")
        without = frame.scalar(f"SELECT count(*) FROM pool ANTI JOIN score_file ON {scorefile.ID} = {IDENTITY}")
        strangers = frame.scalar(f"SELECT count(*) FROM score_file ANTI JOIN pool ON {scorefile.ID} = {IDENTITY}")
        if without or strangers:
            self._notes.append(f"by.file {path.name}: {without} documents have no row in it, {strangers} of its {table.num_rows} ids are of no document that is left here")

    def _base(self, frame: Frame, i: int) -> str:
        """The i-th score as an SQL expression of which more is better, on the scale that noise is added to."""
        sign = "-" if self.params.order == "asc" else ""
        if self.params.how != "resample":
            return f"({sign}score_{i})"
        temperature = cutting.number(self.params.temperature or 1.0)
        if self.kind == "log_weight":
            return f"({sign}score_{i} / {temperature})"
        mean, deviation = cutting.moments(frame, "scored WHERE reason IS NULL", f"score_{i}")
        if deviation == 0:
            return f"(CASE WHEN isinf(score_{i}) THEN {sign}score_{i} ELSE 0.0 END)"
        return f"({sign}((score_{i} - {cutting.number(mean)}) / {cutting.number(deviation)}) / {temperature})"

    def _value(self, i: int, base: str) -> str:
        """What to rank by, larger first."""
        return f"({base} + __draw_{i if self._draws() > 1 else 0})" if self._draws() else base

    def _limit(self, frame: Frame, eligible: int) -> int | None:
        """The budget in its unit; None: everything that passed the threshold."""
        if self._sized and (unknown := frame.scalar("SELECT count(*) FROM eligible WHERE size IS NULL")):
            raise budget.no_size(str(self.params.budget), unknown, self._sized)
        if self.params.budget is None:
            return None
        asked = budget.parse(self.params.budget)
        limit = asked.of(eligible)
        there = int(frame.scalar("SELECT coalesce(sum(size), 0) FROM eligible"))
        if asked.share is None and limit > there:
            limited = self.params.share is not None or self.params.ceiling is not None
            said = "only the groups' limits hold" if limited else "everything is taken"
            self._notes.append(f"the budget {self.params.budget} is larger than what is eligible ({there} {asked.unit}): {said}")
        return limit

    def _tell_apart(self, frame: Frame, enough: str) -> str:
        """Documents of one identity among the candidates: only their whole rows tell them apart.

        Returns the join that gives every candidate its row_hash, or '' where no identity repeats.
        """
        copies = f"SELECT doc FROM eligible WHERE {enough} AND key IN (SELECT key FROM eligible WHERE {enough} GROUP BY key HAVING count(*) > 1) QUALIFY count(*) OVER (PARTITION BY identity) > 1"
        if not frame.scalar(f"SELECT count(*) FROM ({copies})"):
            return ""
        frame.add_row_hashes(f"{copies} ORDER BY doc", "hashes")
        return "LEFT JOIN hashes USING (doc)"

    def _choose(self, frame: Frame, limit: int | None, enough: str, ties: str) -> None:
        """Table `chosen(doc, rank)`."""
        frame.con.execute(
            f"""CREATE TABLE ranked AS SELECT doc, size, grp, row_number() OVER (ORDER BY value_0 DESC, identity, {'row_hash, ' if ties else ''}doc) AS r
                FROM eligible {ties} WHERE {enough}"""
        )
        frame.con.execute(f"CREATE TABLE chosen AS SELECT doc, row_number() OVER (ORDER BY r) AS rank FROM ({self._taken(frame, limit)})")

    def _taken(self, frame: Frame, limit: int | None) -> str:
        """A query of (doc, r): filling goes down the ranks and stops before the document that would exceed."""
        sizes: dict[str | None, int] = {}
        if self._group:
            sizes = {g: int(s) for g, s in frame.sql("SELECT grp, sum(size) FROM ranked GROUP BY grp ORDER BY grp")}
        if self.params.how == "random_balanced":
            return _filled_by_group(frame, allocation.balanced(sizes, limit or 0))
        if self.params.share is not None:
            self._check_groups(self.params.share, sizes)
            return _filled_by_group(frame, allocation.shared(self.params.share, list(sizes), limit or 0))
        if self._group:
            return self._bounded(frame, sizes, limit)
        return "SELECT doc, r FROM ranked" if limit is None else _filled("ranked", limit)

    def _check_groups(self, named: Mapping[str, Any], sizes: Mapping[str | None, int]) -> None:
        for name in named:
            if name not in sizes:
                self._notes.append(f"warning: the group {name!r} of group_by {self.params.group_by} has no eligible document")

    def _bounded(self, frame: Frame, sizes: Mapping[str | None, int], limit: int | None) -> str:
        """Each group's floor first, then down the ranks, no group above its ceiling."""
        floors = self._amount_per_group(self.params.floor, sizes, 0)
        ceilings = self._amount_per_group(self.params.ceiling, sizes, None)
        for group in sizes:
            if floors[group] > ceilings[group] and self.params.ceiling is not None and floors[group] and ceilings[group] < sizes[group]:
                raise ConfigError(f"floor: the group {group!r} has a floor of {floors[group]} {self._unit}, above its ceiling of {ceilings[group]}")
        needed = sum(min(f, sizes[g]) for g, f in floors.items())
        if limit is not None and needed > limit:
            raise ConfigError(f"floor: the floors add up to {needed} {self._unit}, more than the budget {self.params.budget} ({limit}); lower them or raise it")
        _put_limits(frame, "floors", floors)
        _put_limits(frame, "ceilings", ceilings)
        frame.con.execute(
            """CREATE TABLE bounded AS SELECT doc, r, size, filled <= floors.most AS first FROM
               (SELECT *, sum(size) OVER (PARTITION BY grp ORDER BY r) AS filled FROM ranked) AS x
               JOIN floors ON x.grp IS NOT DISTINCT FROM floors.grp JOIN ceilings ON x.grp IS NOT DISTINCT FROM ceilings.grp
               WHERE filled <= ceilings.most"""
        )
        if limit is None:
            return "SELECT doc, r FROM bounded"
        used = int(frame.scalar("SELECT coalesce(sum(size), 0) FROM bounded WHERE first"))
        return f"SELECT doc, r FROM bounded WHERE first UNION ALL ({_filled('(SELECT * FROM bounded WHERE NOT first)', limit - used)})"

    def _amount_per_group(self, value: Any, sizes: Mapping[str | None, int], default: int | None) -> dict[str | None, int]:
        """A floor or a ceiling for every group, in the budget's unit; a % is of the group's own eligible documents."""
        if isinstance(value, Mapping):
            self._check_groups(value, sizes)
        amounts: dict[str | None, int] = {}
        for group, size in sizes.items():
            written = (value.get(group) if group is not None else None) if isinstance(value, Mapping) else value
            amounts[group] = (size if default is None else default) if written is None else budget.parse(written).of(size)
        return amounts

    def _choose_by_targets(self, frame: Frame, limit: int, ties: str) -> None:
        """Table `chosen(doc, rank, value, target)`."""
        targets = self.context.targets
        lists: list[allocation.Ranked] = []
        most = f"LIMIT {limit}" if self._unit == "documents" else ""  # no list is needed any deeper
        for i in range(len(targets)):
            query = f"SELECT doc, size, value_{i} FROM eligible {ties} ORDER BY value_{i} DESC, identity, {'row_hash, ' if ties else ''}doc {most}"
            table = frame.con.sql(query).to_arrow_table()
            lists.append(list(zip(*(column.to_pylist() for column in table.columns), strict=True)))
        if self.params.combine == "round_robin":
            picks = allocation.round_robin(lists, limit)
        else:
            picks = allocation.quota(lists, limit, [t.weight for t in targets])
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

    def _decided(self) -> str:
        """The query of what `finish` returns."""
        score, target, share = "scored.value_0", "", ""
        if self._targeted:
            score, target = "chosen.value", ", chosen.target AS target"
        if self.params.order == "asc" and not self._draws():
            score = f"-{score}"  # the score itself, as it was read
        if self.params.share is not None:
            named = ", ".join("'" + name.replace("'", "''") + "'" for name, part in self.params.share.items() if part)
            share = f"WHEN {f'grp IS NULL OR grp NOT IN ({named})' if named else 'true'} THEN '{NO_SHARE}'"
        return f"""SELECT scored.doc AS doc, chosen.doc IS NOT NULL AS keep, {score} AS score, chosen.rank AS rank,
                          CASE WHEN chosen.doc IS NOT NULL THEN NULL WHEN reason IS NOT NULL THEN reason {share} ELSE '{BELOW}' END AS reason{target}
                   FROM (SELECT doc, reason, grp, value_0 FROM eligible UNION ALL SELECT doc, reason, grp, NULL FROM scored WHERE reason IS NOT NULL) AS scored
                   LEFT JOIN chosen ON scored.doc = chosen.doc ORDER BY scored.doc"""

    # -- what to tell -----------------------------------------------------------------------------------------------

    def _tell(self, frame: Frame, eligible: int, bases: Sequence[str]) -> None:
        """Say what was taken; for a resample, how far it is from top-k and from chance."""
        kept = int(frame.scalar("SELECT count(*) FROM chosen"))
        self._notes.append(f"{kept} of {eligible} eligible documents chosen")
        if self.params.how != "resample" or len(bases) != 1 or not kept:
            return
        overlap = self._overlap(frame, bases[0], kept)
        effective = cutting.effective_size(frame, "eligible", bases[0])
        weights = "an infinite score outweighs all others" if effective is None else f"effective sample size of the weights {effective:.1f} of {eligible}"
        self._notes.append(f"{weights}; overlap with top-k {overlap:.1%}")
        if kept >= eligible:
            return
        if effective is not None and effective > EQUAL_SHARE * eligible:
            self._notes.append(f"warning: this resample is nearly a random draw (all weights are nearly equal: effective sample size {effective:.1f} of {eligible}); a lower temperature makes it follow the scores")
        elif overlap > SHOWN_SHARE:
            why = "summed log weights dwarf the noise" if self.kind == "log_weight" else "the scores dwarf the noise"
            self._notes.append(f"warning: this resample is nearly top-k (overlap {overlap:.1%}): {why}; a higher temperature makes it draw more widely")

    def _overlap(self, frame: Frame, base: str, kept: int) -> float:
        """The part of the chosen that the same number of best scores would have given."""
        frame.con.execute(f"CREATE VIEW plainly AS SELECT doc, identity, {base} AS value FROM eligible")
        reach = cutting.reach(frame, "plainly", "value", "1", kept)
        enough = "true" if reach is None else f"value >= {cutting.number(reach)}"
        best = f"SELECT doc FROM plainly WHERE {enough} ORDER BY value DESC, identity, doc LIMIT {kept}"
        return float(frame.scalar(f"SELECT count(*) FROM ({best}) SEMI JOIN chosen USING (doc)")) / kept


def _combined(how: str, scores: Sequence[str], smaller: bool) -> str:
    """The best (the least, where smaller is better), or the mean, of several scores; null where one is null."""
    if how == "max":
        total = f"{'least' if smaller else 'greatest'}({', '.join(scores)})"
    else:
        total = f"(({' + '.join(scores)}) / {cutting.number(float(len(scores)))})"
    missing = " OR ".join(f"({s} IS NULL OR isnan({s}))" for s in scores)
    return f"CASE WHEN {missing} THEN NULL ELSE {total} END"


def _filled(table: str, limit: int) -> str:
    """The ranks of a table that fit into the limit, from the first on."""
    return f"SELECT doc, r FROM (SELECT doc, r, sum(size) OVER (ORDER BY r) AS filled FROM {table}) WHERE filled <= {limit}"


def _filled_by_group(frame: Frame, limits: Mapping[str | None, int]) -> str:
    _put_limits(frame, "limits", limits)
    return "SELECT doc, r FROM (SELECT doc, r, most, sum(size) OVER (PARTITION BY ranked.grp ORDER BY r) AS filled FROM ranked JOIN limits ON ranked.grp IS NOT DISTINCT FROM limits.grp) WHERE filled <= most"


def _put_limits(frame: Frame, table: str, limits: Mapping[str | None, int]) -> None:
    values = pa.table({"grp": pa.array(list(limits), pa.string()), "most": pa.array(list(limits.values()), pa.int64())})
    frame.con.register("incoming", values)
    frame.con.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")
    frame.con.unregister("incoming")
