"""A mixture of sources: what each gives, by weights, in tokens, bytes, words or documents, and which of its documents.

No document is taken twice. What cannot be had is refused with the numbers, before anything is published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa

from curate import budget, randomness
from curate.errors import ConfigError
from curate.frame import quote
from curate.params import did_you_mean
from curate.pipelines import allocation
from curate.pipelines.select import check_direction
from curate.registry import register
from curate.sqlcolumns import check_expression
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS, Context

if TYPE_CHECKING:
    from curate.frame import Frame

NO_SOURCE, NO_SCORE, NO_SHARE, BEHIND = "no source", "no score", "no share for its source", "its source is full"
_RANKS = frozenset({"rank", "ranks", "place", "position"})
#: Sources that the notes tell of; SQL has all.
TOLD = 30
#: A realised share that differs from the one asked for by more than this is warned of.
FAR = 0.01


class MixParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/mix.md."""

    budget: int | str | dict[str, int | str]
    weights: dict[str, float] | Literal["proportional", "temperature", "unimax"] | None = None
    temperature: float | None = None
    cap: float | None = None
    group_by: str | None = None
    by: str | None = None
    order: Literal["asc", "desc"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.budget, Mapping):
            self._check_budgets(self.budget)
        else:
            budget.parse(self.budget)
            if self.weights is None:
                raise ConfigError("mix needs weights: {SOURCE: WEIGHT, ...}, proportional, temperature or unimax; or a budget for each source: budget: {SOURCE: AMOUNT, ...}")
        if isinstance(self.weights, Mapping) and not (all(0 <= w < math.inf for w in self.weights.values()) and any(self.weights.values())):
            raise ConfigError(f"expected weights of 0 or more, one at least above 0, got {self.weights}")
        if (self.temperature is not None) != (self.weights == "temperature"):
            raise ConfigError(f"temperature and weights: temperature go together, got temperature: {self.temperature} and weights: {self.weights}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(f"expected a temperature above 0 (1 is proportional, above it flatter), got {self.temperature}")
        if self.cap is not None and self.weights != "unimax":
            raise ConfigError(f"cap belongs to weights: unimax, not to {self.weights}")
        if self.cap is not None and not 0 < self.cap <= 1:
            raise ConfigError(f"expected a cap above 0 and at most 1 (a source's share of itself; no document is taken twice), got {self.cap}")
        if self.order is not None and self.by is None:
            raise ConfigError("order says which end of by comes first; leave it out, or give by: a column")

    def _check_budgets(self, budgets: Mapping[str, int | str]) -> None:
        if self.weights is not None:
            raise ConfigError("a budget for each source says what weights would; leave weights out, or give one budget")
        units = {budget.parse(written).unit for written in budgets.values()}
        if len(units) != 1:
            raise ConfigError(f"expected a budget for each source, all in one unit, got {', '.join(sorted(units)) or 'none'}: {budgets}")


@dataclass(frozen=True)
class Share:
    """What a source has, what was asked of it and what it gave, in the budget's unit, and how many documents that are."""

    there: int
    asked: int
    taken: int
    documents: int


@register("mix")
class Mix:
    """Adds keep, reason, rank (1 is first in its source), and of its source asked, taken, asked_share and share."""

    version = 1
    Params = MixParams
    selects = True
    uses_seed = True
    unpublished = ("asked", "taken", "asked_share", "share")

    def __init__(self, params: MixParams, context: Context) -> None:
        self.params = params
        self.context = context
        written = params.budget
        self._written: int | str = next(iter(written.values())) if isinstance(written, Mapping) else written
        self.unit = budget.parse(self._written).unit
        self._sized = budget.size_column(self._written, context.columns)
        self._group = params.group_by or context.source
        if self._group is None:
            raise ConfigError("mix needs sources: corpus: {source: COLUMN}, or group_by: COLUMN here")
        self._notes: list[str] = []

    def finish_reads(self) -> list[str]:
        """The columns that the decision needs; ConfigError, naming the setting, for one that cannot work."""
        named: list[str] = []
        wanted: list[tuple[str, str | None, Literal["DOUBLE"] | None]] = [("by", self.params.by, "DOUBLE"), ("group_by", self._group, None)]
        for setting, column, kind in wanted:
            if column is None:
                continue
            try:
                named += check_expression(quote(column), self.context.columns, kind)
            except ConfigError as error:
                raise ConfigError(f"{setting}: {error}") from error
            if setting == "by":
                check_direction([self.context.columns.field(n) for n in named], self.params.order, _RANKS)
        return list(dict.fromkeys([IDENTITY, KEY, BYTES, WORDS, *([self._sized] if self._sized else []), *named]))

    def finish_fields(self) -> pa.Schema:
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("rank", pa.int64()), ("asked", pa.int64()), ("taken", pa.int64()),
                          ("asked_share", pa.float64()), ("share", pa.float64())])  # fmt: skip

    # -- the draw, added before DuckDB sees the rows -------------------------------------------------------------------

    def prepared(self, schema: pa.Schema) -> pa.Schema:
        """The schema after `prepare`: a draw, where no column says the order."""
        return schema if self.params.by else schema.append(pa.field("__draw", pa.float64()))

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A uniform number keyed by (seed, label, identity)."""
        if self.params.by:
            return batch
        stream = randomness.stream(self.context.seed, "mix", self.context.label)
        return batch.append_column("__draw", pa.array(randomness.uniform(batch.column(KEY).to_numpy(), stream)))

    # -- the decision --------------------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """Realised beside asked, source by source."""
        return list(self._notes)

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Decide; the rows of every document of the frame, in order of doc."""
        self._notes = []
        value = f"CAST({quote(self.params.by)} AS DOUBLE) + 0.0" if self.params.by else "__draw"
        frame.con.execute(
            f"""CREATE TABLE valued AS SELECT *, CASE WHEN grp IS NULL THEN '{NO_SOURCE}' WHEN value IS NULL OR isnan(value) THEN '{NO_SCORE}' END AS reason
                FROM (SELECT doc, {IDENTITY} AS identity, {KEY} AS key, CAST({quote(self._sized) if self._sized else '1'} AS BIGINT) AS size, CAST({quote(str(self._group))} AS VARCHAR) AS grp,
                      {value} AS value FROM pool)"""
        )
        if unknown := frame.scalar("SELECT count(*) FROM valued WHERE reason IS NULL AND size IS NULL"):
            raise budget.no_size(self._written, unknown, str(self._sized))
        there = {g: (int(s), int(n)) for g, s, n in frame.sql("SELECT grp, sum(size), count(*) FROM valued WHERE reason IS NULL GROUP BY grp ORDER BY grp")}
        asked = self._asked({g: s for g, (s, _) in there.items()}, {g: n for g, (_, n) in there.items()})
        limits = pa.table({"grp": pa.array(list(asked), pa.string()), "most": pa.array(list(asked.values()), pa.int64())})
        frame.con.register("limits", limits)
        ties = self._tell_apart(frame)
        frame.con.execute(
            f"""CREATE TABLE chosen AS SELECT doc, grp, size, r FROM
                (SELECT doc, grp, size, most, sum(size) OVER (PARTITION BY grp ORDER BY r) AS filled, r FROM
                 (SELECT doc, grp, size, row_number() OVER (PARTITION BY grp ORDER BY value {'ASC' if self.params.order == 'asc' else 'DESC'}, identity, {'row_hash, ' if ties else ''}doc) AS r
                  FROM valued {ties} WHERE reason IS NULL) JOIN limits USING (grp) WHERE most > 0)
                WHERE filled <= most"""
        )
        frame.con.unregister("limits")
        got = {g: (int(s), int(n)) for g, s, n in frame.sql("SELECT grp, sum(size), count(*) FROM chosen GROUP BY grp")}
        shares = {g: Share(there.get(g, (0, 0))[0], asked.get(g, 0), *got.get(g, (0, 0))) for g in sorted(there.keys() | asked.keys())}
        self._tell(frame, shares)
        return self._decided(frame, shares)

    def _tell_apart(self, frame: Frame) -> str:
        """The join that gives documents of one identity their whole row's hash; '' where no identity repeats."""
        copies = "SELECT doc FROM valued WHERE reason IS NULL AND key IN (SELECT key FROM valued WHERE reason IS NULL GROUP BY key HAVING count(*) > 1) QUALIFY count(*) OVER (PARTITION BY identity) > 1"
        if not frame.scalar(f"SELECT count(*) FROM ({copies})"):
            return ""
        frame.add_row_hashes(f"{copies} ORDER BY doc", "hashes")
        return "LEFT JOIN hashes USING (doc)"

    def _asked(self, sizes: Mapping[str, int], documents: Mapping[str, int]) -> dict[str, int]:
        """What every source is to give, in the unit; ConfigError with the numbers where one has less."""
        written, weights, most = self.params.budget, self.params.weights, None
        if isinstance(written, Mapping):
            asked = {name: budget.parse(part).of(documents.get(name, 0)) for name, part in written.items()}
            self._refuse(asked, sizes, None)
            return asked
        limit = budget.parse(written).of(sum(documents.values()))
        if weights == "unimax":
            cap = self.params.cap or 1.0
            asked, most = allocation.unimax(sizes, limit, cap), sum(allocation.unimax(sizes, 10**18 * max(1, len(sizes)), cap).values())
            if sum(asked.values()) < limit:
                raise ConfigError(f"budget: {written} is more than there is: the sources have {sum(sizes.values()):,} {self.unit}, of which a cap of {cap:g} leaves {most:,}, and no document is taken twice; lower the budget{' or raise cap' if cap < 1 else ''}")
            return asked
        if isinstance(weights, Mapping):
            parts: Mapping[str, float | int] = weights
        else:
            parts = sizes if weights == "proportional" else allocation.tempered(sizes, self.params.temperature or 1.0)
        asked = allocation.by_weight(parts, limit)
        if limit and not any(sizes.values()):
            raise ConfigError(f"budget: {written} is asked of sources that have nothing: no document that reached this stage has a source{' and a ' + self.params.by if self.params.by else ''} and a size in {self.unit}")
        self._refuse(asked, sizes, allocation.most_by_weight(parts, sizes))
        return asked

    def _refuse(self, asked: Mapping[str, int], sizes: Mapping[str, int], most: int | None) -> None:
        """Refuse what a source does not have."""
        lacking = [name for name, amount in asked.items() if amount > sizes.get(name, 0)]
        if not lacking:
            for name in sorted(asked.keys() - sizes.keys()):
                self._notes.append(f"warning: the source {name!r} has no document that reached this stage{did_you_mean(name, sizes)}")
            return
        said = "; ".join(f"{name!r}: {asked[name]:,} {self.unit} asked, {sizes.get(name, 0):,} there" for name in lacking[:10])
        more = f" and {len(lacking) - 10} more sources" if len(lacking) > 10 else ""
        strange = next((did_you_mean(name, sizes) for name in lacking if name not in sizes), "")
        way = f"; with these weights {most:,} {self.unit} can be had" if most is not None else ""
        raise ConfigError(f"mix: more is asked of sources than they have, and no document is taken twice: {said}{more}{strange}{way}; lower the budget or change the weights")

    def _decided(self, frame: Frame, shares: Mapping[str, Share]) -> pa.RecordBatchReader:
        """The answer: each document with its source's numbers; no division by an empty mixture."""
        asked, taken = sum(s.asked for s in shares.values()), sum(s.taken for s in shares.values())
        found: dict[str, tuple[pa.DataType, list[Any]]] = {
            "grp": (pa.string(), list(shares)),
            "asked": (pa.int64(), [s.asked for s in shares.values()]),
            "taken": (pa.int64(), [s.taken for s in shares.values()]),
            "asked_share": (pa.float64(), [s.asked / asked if asked else None for s in shares.values()]),
            "share": (pa.float64(), [s.taken / taken if taken else None for s in shares.values()]),
        }
        table = pa.table({name: pa.array(values, kind) for name, (kind, values) in found.items()})
        frame.con.register("told", table)
        frame.con.execute("CREATE TABLE shares AS SELECT * FROM told")
        frame.con.unregister("told")
        return frame.reader(
            f"""SELECT valued.doc AS doc, chosen.doc IS NOT NULL AS keep, chosen.r AS rank, asked, taken, asked_share, share,
                       CASE WHEN chosen.doc IS NOT NULL THEN NULL WHEN reason IS NOT NULL THEN reason WHEN asked = 0 THEN '{NO_SHARE}' ELSE '{BEHIND}' END AS reason
                FROM valued LEFT JOIN chosen ON valued.doc = chosen.doc LEFT JOIN shares ON valued.grp = shares.grp ORDER BY valued.doc"""
        )

    def _tell(self, frame: Frame, shares: Mapping[str, Share]) -> None:
        """Say what was asked and what came of it."""
        asked, taken = sum(s.asked for s in shares.values()), sum(s.taken for s in shares.values())
        self._notes.append(f"{taken:,} of {asked:,} {self.unit} in {sum(s.documents for s in shares.values()):,} documents")
        far = []
        for name, s in list(shares.items()):
            wanted, given = s.asked / asked if asked else 0.0, s.taken / taken if taken else 0.0
            if abs(wanted - given) > FAR:
                far.append(name)
            if len(self._notes) <= TOLD:
                short = f", {s.asked - s.taken:,} short" if s.asked > s.taken else ""
                self._notes.append(f"{name}: asked {s.asked:,} ({wanted:.2%}), took {s.taken:,} ({given:.2%}) in {s.documents:,} documents{short}; {s.there:,} there")
        if len(shares) > TOLD:
            self._notes.append(f"and {len(shares) - TOLD} more sources: SELECT {quote(str(self._group))}, any_value({self.context.label}_share) FROM docs GROUP BY ALL")
        for reason, count in frame.sql("SELECT reason, count(*) FROM valued WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"):
            self._notes.append(f"warning: {count:,} documents are in no mixture: {reason}")
        if far:
            self._notes.append(f"warning: {len(far)} sources are more than {FAR:.0%} of the mixture off what was asked ({', '.join(far[:5])}): documents are whole, and the next one would have exceeded the source's part")
