"""Documents that an earlier run published: which of a pool are near to one of them, or equal.

A document is held against what was published before any two of the pool are compared. One that is near is dropped and
takes no part in the pool's clusters; a document that is near to it, and not to what was published, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import InternalError
from curate.frame import DOC, Frame
from curate.pipelines.near_pairs import ANCHORS, BUCKET, PAIRS, ShingleSets, pairs_of
from curate.reference import NUMBER
from curate.stage import IDENTITY, KEY

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

#: The columns that a stage with `against` adds, at the documents that it drops for that: the identity of the published
#: document, and the reference as `against` names it.
FIELDS = pa.schema([("against", pa.string()), ("against_run", pa.string())])


def load(frame: Frame, columns: Callable[[pa.RecordBatch], Sequence[pa.Array]], schema: pa.Schema) -> None:
    """Make `published(number, doc, reference, name, curate_identity, ...)` of all references.

    Numbers follow the order of `against`, then a hash of the identity: where several would do, the least is named.
    """
    if frame.references is None:
        raise InternalError("a stage with `against` was given no references")
    frame.con.register("incoming", frame.references.batches(columns, schema))
    names = frame.references.names
    frame.con.register("named", pa.table({NUMBER: pa.array(np.arange(len(names), dtype=np.int32)), "name": pa.array(names, pa.string())}))
    frame.con.execute(
        f"""CREATE TABLE published AS SELECT row_number() OVER (ORDER BY {NUMBER}, {KEY}, {IDENTITY}, {DOC}) - 1 AS number, *
            FROM incoming JOIN named USING ({NUMBER})"""
    )
    frame.con.unregister("incoming")
    frame.con.unregister("named")


@dataclass
class Held:
    """What came of holding a pool against what was published."""

    dropped: int = 0
    compared: int = 0
    unverified: int = 0


def drop_near(frame: Frame, bands: Sequence[str], threshold: float, views: Sequence[tuple[str, int]], *, verify: bool) -> Held:
    """Move the documents of `pool` that are near to one of `published` into `settled(doc, against, against_run, jaccard)`.

    `entries` (of the pool) and `before` (of `published`) have view, sum, shingles and the `bands`. Each of `views` is
    asked in turn, (the name of its sets, its number); a document goes by the first that says it is near. Documents of
    equal shingles are one on either side. In a bucket with more than BUCKET published documents a document is compared
    with the first ANCHORS of them.
    """
    held = Held()
    frame.con.execute("CREATE TABLE settled (doc BIGINT, against VARCHAR, against_run VARCHAR, jaccard DOUBLE)")
    for sets, view in views:
        _drop_near(frame, held, bands, threshold, sets, view, verify)
    frame.con.execute("DROP TABLE before")
    held.dropped = frame.scalar("SELECT count(*) FROM settled")
    return held


def _drop_near(frame: Frame, held: Held, bands: Sequence[str], threshold: float, sets: str, view: int, verify: bool) -> None:
    con = frame.con
    con.execute(f"CREATE TABLE here AS SELECT * FROM entries WHERE shingles > 0 AND view = {view}")
    con.execute(
        f"""CREATE TABLE there AS SELECT * FROM before WHERE number IN
            (SELECT min(number) FROM before WHERE shingles > 0 AND view = {view} GROUP BY sum, shingles) AND view = {view}"""
    )
    con.execute(
        f"""CREATE TABLE asked AS SELECT doc, sum, shingles, {", ".join(bands)} FROM here
            WHERE doc IN (SELECT min(doc) FROM here GROUP BY sum, shingles)"""
    )
    con.execute("CREATE TABLE found AS SELECT asked.doc, number, 1.0::DOUBLE AS jaccard FROM asked JOIN there USING (sum, shingles)")
    con.execute("CREATE TABLE met (doc BIGINT, number BIGINT)")
    for band in bands:
        con.execute(
            f"""INSERT INTO met SELECT doc, number FROM (SELECT doc, {band} FROM asked WHERE doc NOT IN (SELECT doc FROM found)) JOIN
                (SELECT {band}, number FROM there SEMI JOIN asked USING ({band})
                 QUALIFY count(*) OVER (PARTITION BY {band}) <= {BUCKET} OR row_number() OVER (PARTITION BY {band} ORDER BY number) <= {ANCHORS})
                USING ({band})"""
        )
    doc, number = pairs_of(frame, "SELECT DISTINCT doc, number FROM met ORDER BY doc, number")
    index = _verified(frame, doc, number, sets) if verify else np.full(len(doc), np.nan)
    held.compared += len(doc) if verify else 0
    held.unverified += 0 if verify else len(doc)
    near = np.ones(len(doc), bool) if not verify else index >= threshold
    alike = pa.array(index[near], pa.float64(), mask=np.isnan(index[near]))
    con.register("verified", pa.table({DOC: doc[near], "number": number[near], "jaccard": alike}))
    con.execute("INSERT INTO found SELECT doc, number, jaccard FROM verified QUALIFY row_number() OVER (PARTITION BY doc ORDER BY jaccard DESC, number) = 1")
    con.unregister("verified")
    con.execute(
        f"""INSERT INTO settled SELECT here.doc, published.{IDENTITY}, name, jaccard
            FROM found JOIN asked USING (doc) JOIN published USING (number) JOIN here ON here.sum = asked.sum AND here.shingles = asked.shingles"""
    )
    con.execute("DELETE FROM pool WHERE doc IN (SELECT doc FROM settled)")
    for name in ("here", "there", "asked", "found", "met"):
        con.execute(f"DROP TABLE {name}")


def _verified(frame: Frame, doc: Int64, number: Int64, name: str) -> Float64:
    """The true Jaccard index of each document with the published one of that number."""
    assert frame.references is not None
    docs, numbers = np.unique(doc), np.unique(number)
    there = frame.con.sql("SELECT number, doc FROM published ORDER BY number").to_arrow_table()
    place = np.searchsorted(there["number"].to_numpy(), numbers)
    theirs = there["doc"].to_numpy()[place]
    sets = ShingleSets(str(frame.scratch), len(docs) + len(numbers))
    try:
        for batch in frame.gather(docs):
            sets.add(np.searchsorted(docs, batch.column(DOC).to_numpy()), batch.column(name))
        order = np.argsort(theirs)
        for batch in frame.references.gather(theirs):
            sets.add(len(docs) + order[np.searchsorted(theirs[order], batch.column(DOC).to_numpy())], batch.column(name))
        sets.close_adding()
        left, right = np.searchsorted(docs, doc), len(docs) + np.searchsorted(numbers, number)
        out = np.empty(len(doc))
        for start in range(0, len(doc), PAIRS):
            out[start : start + PAIRS] = sets.jaccard(left[start : start + PAIRS], right[start : start + PAIRS])
        return out
    finally:
        sets.close()
