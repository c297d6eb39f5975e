"""D4: SemDeDup, then cluster what is left anew, then drop what is nearest its centroid (Tirumala et al. 2023, arXiv 2308.12284).

No code of the authors is known. The order of steps is the paper's: without the second clustering the centroids stand where
duplicates were, and the last step drops those again. Both steps drop a share: SemDeDup the documents with the largest
similarity to an earlier one, the last step (SSL prototypes, Sorscher et al. 2022) those nearest their centroid.
"""

from __future__ import annotations

from fractions import Fraction

import msgspec
import numpy as np
import pyarrow as pa

from curate import blocking, kmeans
from curate.errors import ConfigError
from curate.frame import DOC, Frame
from curate.pipelines.semdedup import Pool, SemdedupParams, check_clustering
from curate.registry import register
from curate.stage import IDENTITY, KEEP, KEY, REASON, Context

DUPLICATE, PROTOTYPE = "semantic duplicate of another document", "near its centroid"


class D4Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keep_dedup` of all documents are left by SemDeDup, `keep_prototypes` of those by the last step."""

    vector: str = "embed_vector"
    keep_dedup: float = 0.75
    keep_prototypes: float = 0.75
    clusters: int | None = None
    keep: blocking.Keep = "hard"
    iterations: int = 20
    seed: int = 1234

    def __post_init__(self) -> None:
        for name in ("keep_dedup", "keep_prototypes"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"expected {name} above 0 and up to 1, got {getattr(self, name)}")
        check_clustering(self.clusters, self.iterations)


@register("d4")
class D4:
    """Adds keep, reason, the similarity that SemDeDup went by, and the cosine with the second clustering's centroid."""

    version = 2  # 2: shares are taken as they were written
    Params = D4Params
    uses_seed = True
    selects = True
    unpublished = ("near",)

    def __init__(self, params: D4Params, context: Context) -> None:
        self.params = params
        self.context = context
        self.vector_columns = (params.vector,)
        self._notes: list[str] = []

    def extra_key(self) -> str:
        return kmeans.version()

    def finish_reads(self) -> list[str]:
        return [self.params.vector, IDENTITY, KEY]

    def finish_fields(self) -> pa.Schema:
        """`cluster` and `centroid_similarity` are of the second clustering, null for what SemDeDup dropped."""
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("similarity", pa.float64()), ("near", pa.string()),
                          ("cluster", pa.int32()), ("centroid_similarity", pa.float64())])  # fmt: skip

    def notes(self) -> list[str]:
        return self._notes

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Both steps; the rows of every document, in order of doc. One without a vector is kept."""
        p = self.params
        pool = Pool(frame, self.context, p.seed)
        count = len(pool.doc)
        reason = np.full(count, None, object)
        similarity, near = np.zeros(count), np.full(count, -1, np.int64)
        cluster, nearness = np.full(count, -1, np.int32), np.full(count, np.nan)
        if count:
            settings = SemdedupParams(vector=p.vector, keep=p.keep, iterations=p.iterations, seed=p.seed)
            found = pool.find(np.arange(count), self._clusters(count), settings)
            similarity, near = found.similarity, found.near
            # the least similar stay; where equal, those of the least identity
            order = np.lexsort((np.arange(count), similarity))
            wanted = _share(p.keep_dedup, count)
            reason[order[wanted:]] = DUPLICATE
            left = np.sort(order[:wanted])
            cluster[left], nearness[left], _ = kmeans.clustered(
                pool.file, pool.slots[left], pool.draw[left], self._clusters(len(left)), iterations=p.iterations, seed=p.seed
            )  # fmt: skip
            farthest = left[np.lexsort((left, nearness[left]))]
            reason[farthest[_share(p.keep_prototypes, len(left)) :]] = PROTOTYPE
            edge = float(similarity[order[wanted - 1]])
            self._notes = [f"SemDeDup kept {len(left):,} of {count:,} documents, those of a similarity up to {edge:.4f}"]
            if wanted < count and similarity[order[wanted]] <= 0:
                self._notes.append("warning: SemDeDup dropped documents that are like no other: keep_dedup is less than what is no duplicate")
        self._put(frame, pool, {"reason": pa.array(reason, pa.string()), "similarity": similarity, "near": pa.array(pool.doc[np.maximum(near, 0)] if count else near, mask=near < 0),
                                "cluster": pa.array(cluster, mask=cluster < 0), "centroid_similarity": pa.array(nearness, mask=np.isnan(nearness))})  # fmt: skip
        return frame.reader(
            f"""SELECT pool.doc AS doc, reason IS NULL AS keep, reason, similarity, other.{IDENTITY} AS near, cluster, centroid_similarity
                FROM pool LEFT JOIN found ON pool.doc = found.doc LEFT JOIN pool other ON found.near = other.doc ORDER BY pool.doc"""
        )

    def _clusters(self, documents: int) -> int:
        return min(documents, self.params.clusters or kmeans.choose_k(documents))

    @staticmethod
    def _put(frame: Frame, pool: Pool, columns: dict[str, object]) -> None:
        frame.con.register("given", pa.table({DOC: pool.doc, **columns}))
        frame.con.execute("CREATE TABLE found AS SELECT * FROM given")
        frame.con.unregister("given")


def _share(written: float, documents: int) -> int:
    """So many of the documents, rounded down, and one at least; the share as it was written: 0.57 of 100 is 57."""
    return max(1, int(Fraction(str(written)) * documents))
