"""A mixture of sources: what each gives, in tokens, bytes, words or documents, how often, in which stage and which order.

No document is taken twice unless `max_epochs` (or UniMax's cap) says so: then a source is gone through again and again, whole
epochs and a part of one. A stage of a schedule goes on where the one before it stopped. What cannot be had is refused with
the numbers, before anything is published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import budget, randomness
from curate.copies import POSITIONS, REPEATS
from curate.errors import ConfigError
from curate.frame import quote
from curate.params import did_you_mean
from curate.pipelines.portions import Pool, Portion, Replay, ask
from curate.pipelines.realised import FAR, Share, Taken, told
from curate.pipelines.select import check_direction
from curate.registry import register
from curate.sqlcolumns import check_expression
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS, Context

if TYPE_CHECKING:
    from curate.frame import Frame

NO_SOURCE, NO_SCORE, NO_PLACE = "no source", "no score", "no place in the order"
NO_SHARE, BEHIND = "no share for its source", "its source is full"
_RANKS = frozenset({"rank", "ranks", "place", "position"})
#: Lines on sources that the notes have; SQL has all.
TOLD = 30


class Arrange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order of training by a column; with `bands`, only from band to band, and shuffled inside each."""

    by: str
    order: Literal["asc", "desc"] = "asc"
    bands: int | None = None


class MixParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/mix.md."""

    budget: int | str | dict[str, int | str] | None = None
    weights: dict[str, float] | Literal["proportional", "temperature", "unimax"] | None = None
    temperature: float | None = None
    cap: float | None = None
    replay: Replay | None = None
    schedule: list[Portion] | None = None
    max_epochs: float | dict[str, float] | None = None
    group_by: str | None = None
    by: str | None = None
    order: Literal["asc", "desc"] | None = None
    arrange: Literal["shuffled"] | Arrange = "shuffled"

    def __post_init__(self) -> None:
        units = [self._unit_of(portion, place) for portion, place in zip(self.portions, self._places(), strict=True)]
        if len(set(units)) > 1:
            raise ConfigError(f"expected the budgets of all stages of the schedule in one unit, got {', '.join(sorted(set(units)))}")
        epochs = self.max_epochs.values() if isinstance(self.max_epochs, Mapping) else [] if self.max_epochs is None else [self.max_epochs]
        if not all(1 <= number < math.inf for number in epochs):
            raise ConfigError(f"expected max_epochs of 1 or more (how often a source may be gone through), got {self.max_epochs}")
        if self.max_epochs is None and self.schedule and any((portion.cap or 0) > 1 for portion in self.schedule):
            raise ConfigError("a cap above 1 in a schedule takes documents more than once over several stages; say how often in all: max_epochs")
        if self.order is not None and self.by is None:
            raise ConfigError("order says which end of by comes first; leave it out, or give by: a column")
        if isinstance(self.arrange, Arrange) and self.arrange.bands is not None and self.arrange.bands < 2:
            raise ConfigError(f"arrange.bands: expected at least 2, got {self.arrange.bands}; leave it out to order by the column itself")

    @property
    def portions(self) -> list[Portion]:
        """The stages of the schedule; without one, the whole mixture as the only stage."""
        own = {"weights": self.weights, "temperature": self.temperature, "cap": self.cap, "replay": self.replay}
        if self.schedule is not None:
            said = [name for name, value in {"budget": self.budget, **own}.items() if value is not None]
            if said:
                raise ConfigError(f"a schedule has {', '.join(said)} in each of its stages; leave {'it' if len(said) == 1 else 'them'} out beside it")
            if not self.schedule:
                raise ConfigError("expected a schedule of at least one stage: [{weights: ..., budget: ...}, ...]")
            return self.schedule
        if self.budget is None:
            raise ConfigError("mix needs a budget, or a schedule of stages that each have one")
        return [Portion(budget=self.budget, **own)]  # type: ignore[arg-type]

    def _places(self) -> list[str]:
        return [""] if self.schedule is None else [f"schedule[{number}]: " for number in range(len(self.schedule))]

    @staticmethod
    def _unit_of(portion: Portion, place: str) -> str:
        try:
            return portion.unit()
        except ConfigError as error:
            raise ConfigError(f"{place}{error}") from error

    def epochs(self, source: str) -> Fraction:
        """How often a source may be gone through: as max_epochs says, else as UniMax's cap does, else once."""
        if isinstance(self.max_epochs, Mapping):
            return Fraction(str(self.max_epochs.get(source, 1)))
        if self.max_epochs is not None:
            return Fraction(str(self.max_epochs))
        return max(Fraction(1), Fraction(str(self.cap or 1)))


@register("mix")
class Mix:
    """Adds keep, reason, rank (1 is first in its source), repeats, positions, and of its source asked, taken, asked_share, share.

    repeats    int64: how often a document is taken; 0 where it is not
    positions  list of int64, ascending: the places of its copies in the mixture, 1 is the first
    stages     list of int64 beside positions, with a schedule: the stage of each copy, from 1
    bands      list of int64 beside positions, with arrange.bands: the band of each copy inside its stage, from 1
    """

    version = 2
    Params = MixParams
    selects = True
    composes = True  # it shares out what a selection left: random draws are of what the selection saw
    uses_seed = True
    unpublished = ("asked", "taken", "asked_share", "share")

    def __init__(self, params: MixParams, context: Context) -> None:
        self.params = params
        self.context = context
        self.portions = params.portions
        self._written = self.portions[0].written
        self.unit = budget.parse(self._written).unit
        self._sized = budget.size_column(self._written, context.columns)
        self._group = params.group_by or context.source
        if self._group is None:
            raise ConfigError("mix needs sources: corpus: {source: COLUMN}, or group_by: COLUMN here")
        self._arrange = params.arrange if isinstance(params.arrange, Arrange) else None
        #: what of a document has a value for each copy, and its name in a publication; the first says the order
        self.copies = {POSITIONS: "position"}
        if params.schedule is not None:
            self.copies["stages"] = "stage"
        if self._arrange is not None and self._arrange.bands is not None:
            self.copies["bands"] = "band"
        #: whether the order matters inside a stage and a band
        self.sorted = self._arrange is not None and self._arrange.bands is None
        self._notes: list[str] = []

    def finish_reads(self) -> list[str]:
        """The columns that the decision needs; ConfigError, naming the setting, for one that cannot work."""
        named: list[str] = []
        arranged = self._arrange.by if self._arrange else None
        wanted: list[tuple[str, str | None, Literal["DOUBLE"] | None]] = [("by", self.params.by, "DOUBLE"), ("group_by", self._group, None), ("arrange.by", arranged, "DOUBLE")]
        for setting, column, kind in wanted:
            if column is None:
                continue
            try:
                own = check_expression(quote(column), self.context.columns, kind)
            except ConfigError as error:
                raise ConfigError(f"{setting}: {error}") from error
            if setting == "by":
                check_direction([self.context.columns.field(n) for n in own], self.params.order, _RANKS)
            named += own
        return list(dict.fromkeys([IDENTITY, KEY, BYTES, WORDS, *([self._sized] if self._sized else []), *named]))

    def finish_fields(self) -> pa.Schema:
        each = pa.list_(pa.int64())
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("rank", pa.int64()), (REPEATS, pa.int64()), *((name, each) for name in self.copies),
                          ("asked", pa.int64()), ("taken", pa.int64()), ("asked_share", pa.float64()), ("share", pa.float64())])  # fmt: skip

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
        """Realised beside asked, stage by stage and source by source."""
        return list(self._notes)

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Decide; the rows of every document of the frame, in order of doc."""
        self._notes = []
        self._value(frame)
        there = {g: (int(s), int(n)) for g, s, n in frame.sql("SELECT grp, sum(size), count(*) FROM valued WHERE reason IS NULL GROUP BY grp ORDER BY grp")}
        asked = self._asked({g: s for g, (s, _) in there.items()}, {g: n for g, (_, n) in there.items()})
        self._rank(frame, {name for part in asked for name, amount in part.items() if amount})
        self._cut(frame, asked, there)
        self._place(frame)
        taken = self._taken(frame, asked, {g: s for g, (s, _) in there.items()})
        self._tell(frame, taken)
        return self._decided(frame, taken.whole)

    def _value(self, frame: Frame) -> None:
        """`valued`: each document's size, source, what it is ranked and arranged by, and why it is in no mixture."""

        def number(column: str) -> str:
            return f"CAST({quote(column)} AS DOUBLE) + 0.0"

        size = f"CAST({quote(self._sized) if self._sized else '1'} AS BIGINT)"
        frame.con.execute(
            f"""CREATE TABLE valued AS SELECT *, CASE WHEN grp IS NULL THEN '{NO_SOURCE}' WHEN value IS NULL OR isnan(value) THEN '{NO_SCORE}'
                                                      WHEN along IS NULL OR isnan(along) THEN '{NO_PLACE}' END AS reason
                FROM (SELECT doc, {IDENTITY} AS identity, {KEY} AS key, {size} AS size, CAST({quote(str(self._group))} AS VARCHAR) AS grp,
                      {number(self.params.by) if self.params.by else "__draw"} AS value, {number(self._arrange.by) if self._arrange else "0.0::DOUBLE"} AS along FROM pool)"""
        )
        if unknown := frame.scalar("SELECT count(*) FROM valued WHERE reason IS NULL AND size IS NULL"):
            raise budget.no_size(self._written, unknown, str(self._sized))
        copies = "SELECT doc FROM valued WHERE reason IS NULL AND key IN (SELECT key FROM valued WHERE reason IS NULL GROUP BY key HAVING count(*) > 1) QUALIFY count(*) OVER (PARTITION BY identity) > 1"
        if frame.scalar(f"SELECT count(*) FROM ({copies})"):  # one identity, several documents: their whole rows tell them apart
            frame.add_row_hashes(f"{copies} ORDER BY doc", "hashes")
        else:
            frame.con.execute("CREATE TABLE hashes (doc BIGINT, row_hash VARCHAR)")

    def _asked(self, sizes: Mapping[str, int], documents: Mapping[str, int]) -> list[dict[str, int]]:
        """What every stage asks of every source; ConfigError with the numbers where one has less."""
        left = {name: int(size * self.params.epochs(name)) for name, size in sizes.items()}
        again = any(self.params.epochs(name) > 1 for name in sizes)
        found: list[dict[str, int]] = []
        for number, portion in enumerate(self.portions, 1):
            try:
                asked, warnings = ask(portion, Pool(self.unit, sizes, documents, left, again))
            except ConfigError as error:
                raise ConfigError(f"stage {number} of the schedule: {error}") if self.params.schedule else error from None
            self._notes += [warning for warning in warnings if warning not in self._notes]
            left = {name: amount - asked.get(name, 0) for name, amount in left.items()}
            found.append(asked)
        named = self.params.max_epochs if isinstance(self.params.max_epochs, Mapping) else {}
        self._notes += [f"warning: max_epochs: the source {name!r} has no document that reached this stage{did_you_mean(name, sizes)}" for name in sorted(named.keys() - sizes.keys())]
        return found

    def _rank(self, frame: Frame, sources: set[str]) -> None:
        """`ranked`: of the sources that are asked for something, each document's rank, and the size up to it."""
        frame.con.register("wanted", pa.table({"grp": pa.array(sorted(sources), pa.string())}))
        frame.con.execute(
            f"""CREATE TABLE ranked AS SELECT *, CAST(sum(size) OVER (PARTITION BY grp ORDER BY r) AS BIGINT) AS filled FROM
                (SELECT doc, key, identity, row_hash, grp, size, along, count(*) OVER (PARTITION BY grp) AS n,
                        row_number() OVER (PARTITION BY grp ORDER BY value {'ASC' if self.params.order == 'asc' else 'DESC'}, identity, row_hash, doc) AS r
                 FROM valued JOIN wanted USING (grp) LEFT JOIN hashes USING (doc) WHERE reason IS NULL)"""
        )
        frame.con.unregister("wanted")

    def _cut(self, frame: Frame, asked: list[dict[str, int]], there: Mapping[str, tuple[int, int]]) -> None:
        """`cuts`: of each source, read again and again, which documents (the low-th, not included, to the high-th) a stage takes.

        A stage stops before the document that would exceed its part; the next goes on with that document.
        """
        read = dict.fromkeys(there, (0, 0))  # by source: documents taken, and their size
        rows: list[tuple[str, int, int, int]] = []
        for stage, parts in enumerate(asked, 1):
            limits = {name: divmod(read[name][1] + amount, there[name][0]) for name, amount in parts.items() if amount}
            frame.con.register("limits", pa.table({"grp": pa.array(list(limits), pa.string()), "most": pa.array([rest for _, rest in limits.values()], pa.int64())}))
            begun = {g: (int(n), int(s)) for g, n, s in frame.sql("SELECT grp, count(*), max(filled) FROM ranked JOIN limits USING (grp) WHERE most > 0 AND filled <= most GROUP BY grp")}
            frame.con.unregister("limits")
            for name, (epochs, _) in limits.items():
                size, documents = there[name]
                more, filled = begun.get(name, (0, 0))
                high = epochs * documents + more
                rows.append((name, stage, read[name][0], high))
                read[name] = (high, epochs * size + filled)
        table = pa.table([pa.array([row[i] for row in rows], kind) for i, kind in enumerate((pa.string(), pa.int64(), pa.int64(), pa.int64()))], ["grp", "stage", "low", "high"])
        frame.con.register("told", table)
        frame.con.execute("CREATE TABLE cuts AS SELECT * FROM told")
        frame.con.unregister("told")

    def _place(self, frame: Frame) -> None:
        """`placed`: a row for each copy with its stage, band and position.

        Of m copies of a document in a stage, the k-th lies at random in the k-th m-th of it: shuffled, and as far apart as epochs.
        """
        reader = frame.reader(
            """SELECT *, unnest(range(first, behind)) AS epoch FROM
               (SELECT doc, key, identity, row_hash, grp, size, along, stage, (low - r + n) // n AS first, (high - r + n) // n AS behind FROM ranked JOIN cuts USING (grp))
               WHERE behind > first"""
        )
        file = frame.scratch / f"copies-{self.context.label}.arrow"
        with pa.ipc.new_file(str(file), reader.schema.append(pa.field("place", pa.float64()))) as out:
            for batch in reader:
                out.write_batch(batch.append_column("place", pa.array(self._places(batch))))
        with pa.memory_map(str(file)) as mapped:
            frame.con.register("copies", pa.ipc.open_file(mapped).read_all())
            way, tie = ("DESC" if self._arrange and self._arrange.order == "desc" else "ASC"), "place, identity, row_hash, doc, epoch"
            if self._arrange is not None and self._arrange.bands:
                bands = self._arrange.bands
                frame.con.execute(
                    f"""CREATE TABLE placed AS SELECT *, row_number() OVER (ORDER BY stage, band, {tie}) AS position FROM
                        (SELECT *, 1 + CAST(CASE WHEN whole = 0 THEN 0 ELSE least({bands - 1}, (until - size) * {bands} // whole) END AS BIGINT) AS band FROM
                         (SELECT doc, grp, size, stage, {tie.replace('doc, ', '')}, CAST(sum(size) OVER (PARTITION BY stage) AS HUGEINT) AS whole,
                                 CAST(sum(size) OVER (PARTITION BY stage ORDER BY along {way}, {tie} ROWS UNBOUNDED PRECEDING) AS HUGEINT) AS until FROM copies))"""
                )
            else:
                frame.con.execute(f"CREATE TABLE placed AS SELECT doc, grp, size, stage, row_number() OVER (ORDER BY stage, along {way}, {tie}) AS position FROM copies")
            frame.con.unregister("copies")
        file.unlink()

    def _places(self, batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
        """Where each copy lies in its stage, if it is shuffled: float64 from 0 to 1."""
        keys, epochs, first, behind = (batch.column(name).to_numpy() for name in ("key", "epoch", "first", "behind"))
        drawn = np.empty(len(keys), np.float64)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            drawn[rows] = randomness.uniform(keys[rows], randomness.stream(self.context.seed, "mix", self.context.label, "place", str(epoch)))
        places: npt.NDArray[np.float64] = ((epochs - first) + drawn) / (behind - first)
        return places

    def _taken(self, frame: Frame, asked: list[dict[str, int]], sizes: Mapping[str, int]) -> Taken:
        names = sorted(sizes.keys() | {name for part in asked for name in part})
        found = Taken({name: Share(sizes.get(name, 0), sum(part.get(name, 0) for part in asked)) for name in names})
        found.stages = [{name: Share(sizes.get(name, 0), part.get(name, 0)) for name in names} for part in asked]
        for stage, name, size, documents, copies in frame.sql("SELECT stage, grp, sum(size), count(DISTINCT doc), count(*) FROM placed GROUP BY GROUPING SETS ((stage, grp), (grp))"):
            share = found.whole[name] if stage is None else found.stages[stage - 1][name]
            share.taken, share.documents, share.copies = int(size), int(documents), int(copies)
        return found

    def _decided(self, frame: Frame, shares: Mapping[str, Share]) -> pa.RecordBatchReader:
        """The answer: each document with its copies and its source's numbers; no division by an empty mixture."""
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
        lists = ", ".join(f"list({one} ORDER BY position) AS {name}" for name, one in self.copies.items())
        frame.con.execute(f"CREATE TABLE chosen AS SELECT doc, count(*) AS {REPEATS}, {lists} FROM placed GROUP BY doc")
        return frame.reader(
            f"""SELECT valued.doc AS doc, chosen.doc IS NOT NULL AS keep, CASE WHEN chosen.doc IS NOT NULL THEN r END AS rank, coalesce({REPEATS}, 0) AS {REPEATS},
                       {', '.join(self.copies)}, asked, taken, asked_share, share,
                       CASE WHEN chosen.doc IS NOT NULL THEN NULL WHEN reason IS NOT NULL THEN reason WHEN asked = 0 THEN '{NO_SHARE}' ELSE '{BEHIND}' END AS reason
                FROM valued LEFT JOIN chosen ON valued.doc = chosen.doc LEFT JOIN ranked ON valued.doc = ranked.doc LEFT JOIN shares ON valued.grp = shares.grp ORDER BY valued.doc"""
        )

    def _tell(self, frame: Frame, taken: Taken) -> None:
        """Say what was asked and what came of it, stage by stage, and which documents are in no mixture."""
        replayed = [portion.replay.sources if portion.replay else [] for portion in self.portions]
        lines, far = told(taken, self.unit, replayed, staged=self.params.schedule is not None)
        self._notes += lines[: TOLD + 1]
        if len(lines) > TOLD + 1:
            self._notes.append(f"and {len(lines) - TOLD - 1} more lines: SELECT {quote(str(self._group))}, any_value({self.context.label}_asked_share), any_value({self.context.label}_share) FROM docs GROUP BY ALL")
        for reason, count in frame.sql("SELECT reason, count(*) FROM valued WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"):
            self._notes.append(f"warning: {count:,} documents are in no mixture: {reason}")
        if far:
            self._notes.append(f"warning: {len(far)} sources are more than {FAR:.0%} of the mixture off what was asked ({', '.join(far[:5])}): documents are whole, and the next one would have exceeded the source's part")
