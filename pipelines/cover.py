"""Choose so that what is chosen covers: guide examples in turn, clusters alike, or documents far from each other.

round_robin, global_max   by columns of similarities to each guide example, of whatever stage (`similarity`)
cluster_balanced          the same from every cluster of vectors
k_center, facility_location, dpp   greedy algorithms over the vectors of candidates (curate.coverage)

A selection like `select`: fills the budget and stops before the document that would exceed it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import budget, coverage, kmeans
from curate.errors import ConfigError
from curate.frame import DOC, Frame, quote
from curate.params import did_you_mean
from curate.pipelines import allocation
from curate.pipelines.semdedup import Pool, check_clustering
from curate.registry import register
from curate.stage import BYTES, IDENTITY, KEEP, KEY, REASON, WORDS, Context
from curate.vectors import Float64, Int64, VectorFile

How = Literal["round_robin", "global_max", "cluster_balanced", "k_center", "facility_location", "dpp"]
BY_GUIDE = ("round_robin", "global_max")
GREEDY = ("k_center", "facility_location", "dpp")
NO_VECTOR, NO_SCORE, NO_CANDIDATE, LEFT = "no vector", "no score", "not among the candidates", "not chosen"
#: Rows of similarities that are looked at at once.
_ROWS = 65536


class CoverParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/cover.md."""

    how: How
    budget: int | str
    similarity: str = "guide_similarity_each"
    taken: Literal["next", "spend"] = "next"
    vector: str = "embed_vector"
    by: str | None = None
    candidates: int = 10_000
    clusters: int | None = None
    iterations: int = 20
    seed: int = 1234

    def __post_init__(self) -> None:
        budget.parse(self.budget)
        check_clustering(self.clusters, self.iterations)
        if self.candidates < 1:
            raise ConfigError(f"expected candidates of 1 or more, got {self.candidates}")
        if self.by is not None and self.how in BY_GUIDE:
            raise ConfigError(f"how: {self.how} goes by similarity alone; leave by out")
        if self.taken == "spend" and self.how != "round_robin":
            raise ConfigError(f"taken belongs to how: round_robin, not to {self.how}")
        if self.clusters is not None and self.how != "cluster_balanced":
            raise ConfigError(f"clusters belongs to how: cluster_balanced, not to {self.how}")


@register("cover")
class Cover:
    """Adds keep, reason, rank, value (what it was picked for), and for guides which target and example took it."""

    version = 2  # 2: dpp's ties go by identity
    Params = CoverParams
    selects = True
    uses_seed = True
    uses_targets = True

    def __init__(self, params: CoverParams, context: Context) -> None:
        self.params = params
        self.context = context
        self._sized = budget.size_column(params.budget, context.columns)
        self._notes: list[str] = []
        self.targets: list[str | None] = [None]
        if params.how in BY_GUIDE:
            self.vector_columns = self._similarities()
            self.directions = False
        else:
            self.vector_columns = (params.vector,)

    def _similarities(self) -> tuple[str, ...]:
        """The columns of similarities, of each target where there are several."""
        name, known = self.params.similarity, self.context.columns.names
        if name in known or not self.context.targets:
            self.targets = [self.context.targets[0].name] if len(self.context.targets) == 1 else [None]
            return (name,)
        several = [f"{name}_{t.name}" for t in self.context.targets]
        for column in several:
            if column not in known and known:
                raise ConfigError(f"how: {self.params.how} needs the similarity to each guide example as the column {name!r} or {column!r}, a list for each document; guide_similarity with each: true makes it{did_you_mean(column, known)}")
        self.targets = [t.name for t in self.context.targets]
        return tuple(several)

    def extra_key(self) -> str:
        return kmeans.version()

    def finish_reads(self) -> list[str]:
        return list(dict.fromkeys([*self.vector_columns, IDENTITY, KEY, BYTES, WORDS, *([self._sized] if self._sized else []), *([self.params.by] if self.params.by else [])]))

    def finish_fields(self) -> pa.Schema:
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("rank", pa.int64()), ("value", pa.float64()),
                          ("target", pa.string()), ("guide", pa.int64()), ("cluster", pa.int32())])  # fmt: skip

    def notes(self) -> list[str]:
        return self._notes

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Choose; the rows of every document, in order of doc."""
        pool = Pool(frame, self.context, self.params.seed)
        sizes, score = self._measured(frame, pool.doc)
        can = np.ones(len(pool.doc), bool) if score is None else ~np.isnan(score)
        places = np.flatnonzero(can)
        limit = budget.parse(self.params.budget).of(len(places))
        reason = np.where(can, LEFT, NO_SCORE).astype(object)
        picks, cluster = self._picks(pool, places, score, sizes, limit, reason)
        chosen = list(itertools.islice(_filled(picks, sizes, limit), len(places)))
        self._notes = [f"{len(chosen)} of {len(places)} documents chosen"]
        if self.params.how == "dpp" and sum(int(sizes[p]) for p, *_ in chosen) < limit and len(chosen) < len(places):
            self._notes.append("dpp ended where no document is independent of those chosen: vectors of d coordinates allow d documents at most")
        return self._answer(frame, pool, chosen, reason, cluster)

    def _measured(self, frame: Frame, doc: Int64) -> tuple[Int64, Float64 | None]:
        """Each document's size in the budget's unit, and its `by`, by place."""
        frame.con.register("placed", pa.table({DOC: doc, "place": np.arange(len(doc))}))
        by = f"CAST({quote(self.params.by)} AS DOUBLE)" if self.params.by else "NULL::DOUBLE"
        found = frame.con.sql(f"SELECT CAST({quote(self._sized) if self._sized else 1} AS BIGINT) AS size, {by} AS by FROM placed JOIN pool USING (doc) ORDER BY place").to_arrow_table()
        frame.con.unregister("placed")
        if self._sized and found["size"].null_count:
            raise budget.no_size(self.params.budget, found["size"].null_count, self._sized)
        score = np.array(found["by"].to_numpy(), np.float64) if self.params.by else None
        return np.array(found["size"].to_numpy(), np.int64), score

    def _picks(
        self, pool: Pool, places: Int64, score: Float64 | None, sizes: Int64, limit: int, reason: npt.NDArray[np.object_]
    ) -> tuple[Iterable[tuple[int, float, int]], npt.NDArray[np.int32] | None]:
        """What to take, in order: (place, value, guide or -1); and the clusters, where there are any."""
        how = self.params.how
        if how in BY_GUIDE:
            return self._by_guide(pool, limit), None
        if how == "cluster_balanced":
            return self._balanced(pool, places, score, sizes, limit)
        if len(places) > self.params.candidates:
            by: npt.NDArray[np.generic] = pool.draw[places] if score is None else -score[places]
            among = np.sort(places[np.argsort(by, kind="stable")[: self.params.candidates]])
            reason[np.setdiff1d(places, among)] = NO_CANDIDATE
            self._notes.append(f"{len(among):,} of {len(places):,} documents are candidates")
            places = among
        return self._greedy(pool, places, score), None

    def _greedy(self, pool: Pool, places: Int64, score: Float64 | None) -> Iterator[tuple[int, float, int]]:
        rows = pool.file.take(pool.slots[places]).astype(np.float64)
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        with kmeans.one_thread():
            if self.params.how == "k_center":
                picks = coverage.k_center(rows, first=0 if score is None else int(np.argmax(score[places])))
            elif self.params.how == "facility_location":
                picks = coverage.facility_location(rows)
            else:
                quality = np.ones(len(rows)) if score is None else score[places]
                if (quality <= 0).any():
                    raise ConfigError(f"by: {self.params.by} is the quality of a document in dpp and must be above 0, got {float(quality.min())}")
                picks = coverage.dpp(rows, quality)
            for place, value in picks:
                yield int(places[place]), value, -1

    def _balanced(
        self, pool: Pool, places: Int64, score: Float64 | None, sizes: Int64, limit: int
    ) -> tuple[Iterable[tuple[int, float, int]], npt.NDArray[np.int32]]:
        """Each cluster its share, filled by score or by a draw; clusters share alike, what small ones leave goes to the others."""
        cluster = np.full(len(pool.doc), -1, np.int32)
        if not len(places):
            return [], cluster
        k = min(len(places), self.params.clusters or kmeans.choose_k(len(places)))
        cluster[places], nearness, _ = kmeans.clustered(pool.file, pool.slots[places], pool.draw[places], k, iterations=self.params.iterations, seed=self.params.seed)
        first = np.lexsort((places, pool.order_draw[places] if score is None else -score[places], cluster[places]))
        amounts = np.bincount(cluster[places], weights=sizes[places], minlength=k).astype(np.int64)
        shares = allocation.balanced({f"{c:09d}": int(a) for c, a in enumerate(amounts)}, limit)
        value = nearness if score is None else score[places]
        picks, starts = [], np.searchsorted(cluster[places][first], np.arange(k + 1))
        for c, (start, stop) in enumerate(itertools.pairwise(starts.tolist())):
            filled = _filled(((int(places[i]), float(value[i]), -1) for i in first[start:stop]), sizes, shares[f"{c:09d}"])
            picks += [(turn, c, pick) for turn, pick in enumerate(filled)]
        return [pick for _, _, pick in sorted(picks)], cluster  # rank: each cluster's first, then each one's second

    def _by_guide(self, pool: Pool, limit: int) -> Iterator[tuple[int, float, int]]:
        files = pool.files
        lists = [Best(file, slots) for file, slots in zip(files, pool.slots_of, strict=True)]
        guides = [best.guides for best in lists]
        if self.params.how == "global_max":
            yield from _greatest(lists)
            return
        starts = np.concatenate([[0], np.cumsum(guides)]).astype(int)

        def best(guide: int, depth: int) -> tuple[Int64, Float64]:
            target = int(np.searchsorted(starts, guide, side="right")) - 1
            return lists[target].best(guide - int(starts[target]), depth)

        documents = min(limit, len(pool.doc))
        depth = max(64, 4 * -(-documents // max(1, sum(guides))))
        yield from coverage.round_robin(best, guides, spend=self.params.taken == "spend", depth=depth)

    def _answer(
        self, frame: Frame, pool: Pool, chosen: list[tuple[int, float, int]], reason: npt.NDArray[np.object_], cluster: npt.NDArray[np.int32] | None
    ) -> pa.RecordBatchReader:
        at = np.array([p for p, _, _ in chosen], np.int64)
        rank, value = np.full(len(pool.doc), -1, np.int64), np.full(len(pool.doc), np.nan)
        guide = np.full(len(pool.doc), -1, np.int64)
        rank[at], value[at], guide[at] = np.arange(1, len(at) + 1), [v for _, v, _ in chosen], [g for _, _, g in chosen]
        reason[at] = None
        ends = np.cumsum([file.dim for file in pool.files]) if self.params.how in BY_GUIDE else np.empty(0, np.int64)
        target = np.searchsorted(ends, guide, side="right")
        names = pa.array([*self.targets, None], pa.string())
        by_guide = guide >= 0
        within = guide - np.concatenate([[0], ends])[target] if len(ends) else guide
        given = pa.table(
            {DOC: pool.doc, "rank": pa.array(rank, mask=rank < 0), "value": pa.array(value, mask=rank < 0), "reason": pa.array(reason, pa.string()),
             "target": names.take(pa.array(np.where(by_guide, target, len(self.targets)))), "guide": pa.array(within, mask=~by_guide),
             "cluster": pa.nulls(len(pool.doc), pa.int32()) if cluster is None else pa.array(cluster, mask=cluster < 0)}
        )  # fmt: skip
        frame.con.register("given", given)
        frame.con.execute("CREATE TABLE decided AS SELECT * FROM given")
        frame.con.unregister("given")
        return frame.reader(
            f"""SELECT pool.doc AS doc, rank IS NOT NULL AS keep, CASE WHEN decided.doc IS NULL THEN '{NO_VECTOR}' ELSE reason END AS reason,
                rank, value, target, guide, cluster FROM pool LEFT JOIN decided ON pool.doc = decided.doc ORDER BY pool.doc"""
        )


def _filled(picks: Iterable[tuple[int, float, int]], sizes: Int64, limit: int) -> Iterator[tuple[int, float, int]]:
    """As many picks as fit; stops before the first that would exceed."""
    used = 0
    for pick in picks:
        used += int(sizes[pick[0]])
        if used > limit:
            return
        yield pick
        if used == limit:
            return


class Best:
    """The best documents of each guide example, by the columns of a file of similarities; ties by place."""

    def __init__(self, file: VectorFile, slots: Int64) -> None:
        self.file, self.slots, self.guides = file, slots, file.dim
        self._depth = 0
        self._known: list[tuple[Int64, Float64]] = []

    def best(self, guide: int, depth: int) -> tuple[Int64, Float64]:
        """The `depth` most alike, or all: places and similarities."""
        if not self._known:
            self._depth, self._known = depth, self._all(range(self.guides), depth)
        return self._known[guide] if depth <= self._depth else self._all([guide], depth)[0]

    def _all(self, guides: Iterable[int], depth: int) -> list[tuple[Int64, Float64]]:
        wanted = list(guides)
        found = [(np.empty(0, np.int64), np.empty(0)) for _ in wanted]
        for start in range(0, len(self.slots), _ROWS):
            rows = self.file.take(self.slots[start : start + _ROWS])
            for i, guide in enumerate(wanted):
                places = np.concatenate([found[i][0], start + np.arange(len(rows))])
                values = np.concatenate([found[i][1], rows[:, guide].astype(np.float64)])
                if len(values) > depth:
                    least = np.partition(values, len(values) - depth)[len(values) - depth]
                    enough = values >= least
                    places, values = places[enough], values[enough]
                order = np.lexsort((places, -values))[:depth]
                found[i] = places[order], values[order]
        return found


def _greatest(lists: list[Best]) -> Iterator[tuple[int, float, int]]:
    """All documents by their greatest similarity to any guide example; the first example, where equal."""
    count = len(lists[0].slots)
    value, guide, before = np.full(count, -np.inf), np.zeros(count, np.int64), 0
    for best in lists:
        for start in range(0, count, _ROWS):
            rows = best.file.take(best.slots[start : start + _ROWS]).astype(np.float64)
            if rows.shape[1]:
                at = rows.argmax(axis=1)
                top = rows[np.arange(len(rows)), at]
                better = top > value[start : start + _ROWS]
                guide[start : start + _ROWS][better] = before + at[better]
                value[start : start + _ROWS][better] = top[better]
        before += best.guides
    for place in np.lexsort((np.arange(count), -value)).tolist():
        yield place, float(value[place]), int(guide[place])
