"""From bands to clusters: which documents meet, which of these pairs are near, and what they join into.

A document is entered once for each unit that it is looked at by: view 0, and view 1 for those that are compared by
characters too. Entries are numbered by view and by a hash of the identity (`place`), so that nothing here depends on
the order of documents. Those of equal shingles are one class, of which one is compared; the entries of one document
are joined from the start. Then, in rounds, so that copies of a form meet one of their
kind and not each other:

    1. documents of equal signatures: each with the first of them
    2. documents that share a band: each with the first of its bucket
    3. where a bucket still holds several clusters: all its pairs that are not joined yet; in a bucket of more than
       BUCKET documents, those with its first ANCHORS

A pair whose ends are already joined is not compared: clusters are the same with it or without.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import minhash
from curate.errors import InternalError
from curate.frame import DOC, Frame

Int64 = npt.NDArray[np.int64]
Uint64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]

#: In a bucket of so many documents all pairs are compared (2,016); in a larger one, all with ANCHORS of them.
BUCKET, ANCHORS = 64, 16
#: Bytes of shingles that are held at once.
HELD_BYTES = 256_000_000
#: Pairs that are compared before what they joined is looked at again.
PAIRS = 1 << 17


class ShingleSets:
    """Sets of shingles by place: in memory while they fit, otherwise in a scratch file and read as they are needed."""

    def __init__(self, scratch_folder: str, places: int) -> None:
        self._folder = scratch_folder
        self._file: IO[bytes] | None = None
        self._slot = np.full(places, -1, np.int64)
        self._starts = [np.zeros(1, np.int64)]
        self._values: list[Uint64] = []
        self._count = 0
        self._total = 0
        self._held: Uint64 | None = None

    def add(self, places: Int64, sets: pa.LargeListArray) -> None:
        """Append sets; those that are null belong to no place."""
        if sets.null_count:
            there = sets.is_valid()
            places, sets = places[there.to_numpy(zero_copy_only=False)], sets.filter(there)
        offsets = np.asarray(sets.offsets.to_numpy(), np.int64)
        values = np.array(sets.values.to_numpy()[offsets[0] : offsets[-1]], np.uint64)
        self._slot[places] = self._count + np.arange(len(places))
        self._starts.append(offsets[1:] - offsets[0] + self._total)
        self._count += len(places)
        self._total += len(values)
        self._values.append(values)
        if 8 * self._total > HELD_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - held until close()
        for values in self._values:
            values.tofile(self._file)
        self._values = []

    def has(self, places: Int64) -> npt.NDArray[np.bool_]:
        """Whether the set of each place was added."""
        return self._slot[places] >= 0

    def close_adding(self) -> None:
        """No more sets will come."""
        self.starts = np.concatenate(self._starts)
        self._starts = []
        if self._file is None:
            self._held = np.concatenate([np.empty(0, np.uint64), *self._values])
            self._values = []
        else:
            self._file.flush()

    def jaccard(self, left: Int64, right: Int64) -> Float64:
        """The Jaccard index of each pair of places."""
        a, b = self._slot[left], self._slot[right]
        if len(a) and (a.min() < 0 or b.min() < 0):
            raise InternalError("a pair was to be compared whose shingles had not been read")
        if self._held is not None:
            return minhash.jaccard(self._held, self.starts, a, b)
        out = np.empty(len(a))
        for start, stop in self._blocks(a, b):
            out[start:stop] = self._jaccard_block(a[start:stop], b[start:stop])
        return out

    def _blocks(self, a: Int64, b: Int64) -> Iterator[tuple[int, int]]:
        """Runs of pairs whose sets, each counted as often as it is named anew, fit what may be held."""
        sizes = np.diff(self.starts)
        anew = np.r_[True, a[1:] != a[:-1]]
        filled = np.cumsum(sizes[b] + np.where(anew, sizes[a], 0)) * 8
        start = 0
        while start < len(a):
            before = int(filled[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(filled, before + HELD_BYTES, side="right")))
            yield start, stop
            start = stop

    def _jaccard_block(self, a: Int64, b: Int64) -> Float64:
        slots = np.unique(np.concatenate([a, b]))
        lengths = self.starts[slots + 1] - self.starts[slots]
        starts = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        values = np.empty(int(starts[-1]), np.uint64)
        for i, slot in enumerate(slots.tolist()):
            values[starts[i] : starts[i + 1]] = self._read(int(self.starts[slot]), int(lengths[i]))
        return minhash.jaccard(values, starts, np.searchsorted(slots, a), np.searchsorted(slots, b))

    def _read(self, start: int, count: int) -> Uint64:
        assert self._file is not None
        return np.frombuffer(os.pread(self._file.fileno(), 8 * count, 8 * start), np.uint64)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Joined:
    """Entries, by place, and what they joined into.

    doc     int64[n]: the document at each place
    class_  int64[n]: the place of the first entry of equal shingles
    other   int64[m]: for each of the m documents, which come first, the place of its other entry; -1 where it has none
    parent  int64[n]: the union-find forest over places
    """

    def __init__(self, doc: Int64, class_: Int64, view: Int64, sets: ShingleSets | None, *, empty: int) -> None:
        self.doc, self.class_, self.sets, self.empty = doc, class_, sets, empty
        self.other = _others_of(doc, int(np.count_nonzero(view == 0)))
        self.parent = class_.copy()
        twice = np.flatnonzero(self.other >= 0)
        minhash.join(self.parent, twice, self.other[twice])
        self.compared = self.near = self.unverified = 0

    def compare(self, pairs: tuple[Int64, Int64], threshold: float) -> None:
        """Join the pairs that are near; pairs whose ends are joined already are passed over."""
        left, right = pairs
        for start in range(0, len(left), PAIRS):
            a, b = left[start : start + PAIRS], right[start : start + PAIRS]
            minhash.roots(self.parent)
            apart = self.parent[a] != self.parent[b]
            a, b = a[apart], b[apart]
            if self.sets is None:
                self.unverified += len(a)
            else:
                near = self.sets.jaccard(a, b) >= threshold
                self.compared += len(a)
                a, b = a[near], b[near]
                self.near += len(a)
            minhash.join(self.parent, a, b)

    def clusters(self) -> tuple[Int64, Int64, Int64]:
        """The places that are not alone, with their cluster (its least place) and its size."""
        root = minhash.roots(self.parent)[: len(self.other)]
        sizes = np.bincount(root, minlength=len(root)).astype(np.int64)
        members = np.flatnonzero(sizes[root] > 1)
        return members, root[members], sizes[root[members]]

    def jaccard(self, left: Int64, right: Int64) -> Float64:
        """The Jaccard index of pairs of documents, by their first places; NaN where nothing was read.

        Of two that are both looked at twice, the larger index. A document that met none by its words, and whose
        characters are another's, was not read: its words then count for nothing.
        """
        out = self._jaccard(left, right)
        twice = np.flatnonzero((self.other[left] >= 0) & (self.other[right] >= 0))
        out[twice] = np.fmax(out[twice], self._jaccard(self.other[left[twice]], self.other[right[twice]]))
        return out

    def _jaccard(self, left: Int64, right: Int64) -> Float64:
        a, b = self.class_[left], self.class_[right]
        out = np.where(a == b, 1.0, np.nan)
        if self.sets is not None:
            differ = np.flatnonzero((a != b) & self.sets.has(a) & self.sets.has(b))
            by_place = differ[np.lexsort((b[differ], a[differ]))]
            out[by_place] = self.sets.jaccard(a[by_place], b[by_place])
        return out

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.sets is not None:
            self.sets.close()


def join_near(frame: Frame, bands: Sequence[str], threshold: float, *, verify: bool) -> Joined:
    """Join the documents of the frame's `entries` that are near.

    `entries` has doc, view, curate_key, curate_identity, sum, shingles, whole (a hash of the signature) and the `bands`.
    Makes the table `ordered(doc, view, place)`.
    """
    con = frame.con
    con.execute(
        """CREATE TABLE ordered AS SELECT doc, view, sum, shingles,
                  row_number() OVER (ORDER BY view, curate_key, curate_identity, doc) - 1 AS place
           FROM entries WHERE shingles > 0"""
    )
    con.execute(
        """CREATE TABLE equal AS SELECT view, sum, shingles, min(place) AS first FROM ordered GROUP BY ALL HAVING count(*) > 1"""
    )
    con.execute(
        f"""CREATE TABLE leaders AS SELECT place, whole, {", ".join(bands)} FROM entries JOIN ordered USING (doc, view)
            WHERE place NOT IN (SELECT place FROM ordered JOIN equal USING (view, sum, shingles) WHERE place <> first)"""
    )
    doc, class_, view = columns_of(
        frame,
        "SELECT doc, coalesce(first, place) AS class, view FROM ordered LEFT JOIN equal USING (view, sum, shingles) ORDER BY place",
    )
    empty = frame.scalar("SELECT count(*) FROM entries WHERE shingles = 0")
    _meet(frame, bands)
    sets = _gather(frame, doc, int(np.count_nonzero(view == 0))) if verify else None
    joined = Joined(doc, class_, view, sets, empty=empty)
    joined.compare(pairs_of(frame, "SELECT first, place FROM alike ORDER BY first, place"), threshold)
    joined.compare(pairs_of(frame, "SELECT DISTINCT first, place FROM met WHERE place <> first ORDER BY first, place"), threshold)
    if verify:
        joined.compare(_others(frame, joined), threshold)
    for name in ("leaders", "equal", "alike", "met"):
        con.execute(f"DROP TABLE {name}")
    return joined


def _meet(frame: Frame, bands: Sequence[str]) -> None:
    """The tables `alike(first, place)` and `met(key, place, documents, first)`: who meets whom, and in which bucket.

    A key is a hash of the band's number too, so a bucket of one band is none of another.
    """
    con = frame.con
    con.execute(
        """CREATE TABLE alike AS SELECT first, place FROM leaders JOIN
           (SELECT whole, min(place) AS first FROM leaders GROUP BY 1 HAVING count(*) > 1) USING (whole) WHERE place <> first"""
    )
    con.execute("DELETE FROM leaders WHERE place IN (SELECT place FROM alike)")
    con.execute("CREATE TABLE met (key UBIGINT, place BIGINT, documents BIGINT, first BIGINT)")
    for band in bands:
        con.execute(
            f"""INSERT INTO met SELECT {band}, place, documents, first FROM leaders JOIN
                (SELECT {band}, count(*) AS documents, min(place) AS first FROM leaders GROUP BY 1 HAVING count(*) > 1) USING ({band})"""
        )


def _others_of(doc: Int64, documents: int) -> Int64:
    """The place of each document's entry in view 1; -1 where it has none."""
    other = np.full(documents, -1, np.int64)
    order = np.argsort(doc[:documents])
    other[order[np.searchsorted(doc[:documents], doc[documents:], sorter=order)]] = np.arange(documents, len(doc))
    return other


def _gather(frame: Frame, doc: Int64, documents: int) -> ShingleSets:
    """Have the shingles of all documents read that meet another, in all views that they are in."""
    met = column(frame, "SELECT place FROM (SELECT place FROM met UNION SELECT place FROM alike UNION SELECT first FROM alike)")
    other = _others_of(doc, documents)
    order = np.argsort(doc[:documents])
    wanted = np.unique(doc[met])
    places = order[np.searchsorted(doc[:documents], wanted, sorter=order)]
    sets = ShingleSets(str(frame.scratch), len(doc))
    for batch in frame.gather(wanted):
        at = places[np.searchsorted(wanted, batch.column(DOC).to_numpy())]
        sets.add(at, batch.column("words"))
        if "chars" in batch.schema.names:
            sets.add(other[at], batch.column("chars"))
    sets.close_adding()
    return sets


def _others(frame: Frame, joined: Joined) -> tuple[Int64, Int64]:
    """The pairs of buckets that hold several clusters, but for those with the first, which have been compared."""
    minhash.roots(joined.parent)
    frame.con.register("forest", pa.table({"place": np.arange(len(joined.parent)), "root": joined.parent}))
    frame.con.execute(
        """CREATE TABLE unsettled AS SELECT key, place, documents, root, row_number() OVER (PARTITION BY key ORDER BY place) AS number
           FROM met JOIN forest USING (place)
           WHERE key IN (SELECT key FROM met JOIN forest USING (place) GROUP BY key HAVING min(root) < max(root))"""
    )
    frame.con.unregister("forest")
    pairs = pairs_of(
        frame,
        f"""SELECT DISTINCT a.place AS a, b.place AS b FROM unsettled a JOIN unsettled b ON a.key = b.key
            WHERE a.number > 1 AND a.number < b.number AND a.root <> b.root AND (a.documents <= {BUCKET} OR a.number <= {ANCHORS})
            ORDER BY a, b""",
    )
    frame.con.execute("DROP TABLE unsettled")
    return pairs


def column(frame: Frame, query: str) -> Int64:
    """The one column of a query, int64."""
    return np.array(frame.con.sql(query).to_arrow_table().column(0).to_numpy(), np.int64)


def pairs_of(frame: Frame, query: str) -> tuple[Int64, Int64]:
    """The two columns of a query, int64."""
    left, right = columns_of(frame, query)
    return left, right


def columns_of(frame: Frame, query: str) -> list[Int64]:
    """The columns of a query, int64."""
    found = frame.con.sql(query).to_arrow_table()
    return [np.array(column.to_numpy(), np.int64) for column in found.columns]
