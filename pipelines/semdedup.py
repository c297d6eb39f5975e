"""Semantic duplicates: documents whose vectors point the same way, within clusters of spherical k-means (SemDeDup).

finish finds for every document the one ranked before it that is most like it (curate.blocking); the verdict is whether
their cosine is above 1 - eps, so all values of eps come of one pass (Abbas et al. 2023, arXiv 2303.09540).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import blocking, kmeans, randomness
from curate.errors import ConfigError
from curate.frame import DOC, Frame
from curate.pipelines.near_pairs import column
from curate.registry import register
from curate.stage import IDENTITY, KEY, Context
from curate.vectors import Float64, Int64, VectorFile

Uint64 = npt.NDArray[np.uint64]

REASON = "semantic duplicate of another document"


class SemdedupParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/semdedup.md. `clusters`: left out, kmeans.choose_k of the documents."""

    vector: str = "embed_vector"
    eps: float = 0.05
    clusters: int | None = None
    keep: blocking.Keep = "hard"
    rule: Literal["earlier", "greedy"] = "earlier"
    iterations: int = 20
    seed: int = 1234

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps <= 1.0:
            raise ConfigError(f"expected eps from 0 to 1, got {self.eps}: a document is dropped where its cosine with an earlier one is above 1 - eps")
        check_clustering(self.clusters, self.iterations)


def check_clustering(clusters: int | None, iterations: int) -> None:
    """Raise ConfigError for numbers of clusters and iterations that mean nothing."""
    if clusters is not None and clusters < 1:
        raise ConfigError(f"expected clusters of 1 or more, got {clusters}; leave it out and it follows from the number of documents")
    if iterations < 1:
        raise ConfigError(f"expected iterations of 1 or more, got {iterations}")


@register("semdedup")
class Semdedup:
    """Adds what each document is most like among those before it in its cluster, and drops what is too alike."""

    version = 1
    Params = SemdedupParams
    uses_seed = True
    usually_drops = (
        "the vectors tell nothing apart, eps is too small for them, or the pool was de-duplicated before", ("semdedup",),
    )  # fmt: skip
    unpublished = ("near", "similarity")

    def __init__(self, params: SemdedupParams, context: Context) -> None:
        self.params = params
        self.context = context
        self.vector_columns = (params.vector,)
        #: under the greedy rule what is found depends on eps
        self.judge_params = ("eps",) if params.rule == "earlier" else ()
        self._notes: list[str] = []

    def extra_key(self) -> str:
        return kmeans.version()

    def finish_reads(self) -> list[str]:
        return [self.params.vector, IDENTITY, KEY]

    def finish_fields(self) -> pa.Schema:
        """`near` is the identity of the document ranked before that `similarity` is with; null where there is none."""
        return pa.schema(
            [("similarity", pa.float64()), ("near", pa.string()), ("cluster", pa.int32()), ("cluster_size", pa.int64()), ("centroid_similarity", pa.float64())]
        )

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Cluster, rank, compare; the rows of every document, in order of doc."""
        pool = Pool(frame, self.context, self.params.seed)
        k = min(len(pool.slots), self.params.clusters or kmeans.choose_k(len(pool.slots)))
        without = frame.scalar("SELECT count(*) FROM pool") - len(pool.slots)
        self._notes = [f"{without:,} documents have no vector; they are compared with none and kept"] if without else []
        found = Found.empty()
        if k:
            found = pool.find(np.arange(len(pool.slots)), k, self.params)
            sizes = np.bincount(found.cluster, minlength=k)
            self._notes.append(f"{k:,} clusters, the largest of {int(sizes.max()):,} documents, the median of {int(np.median(sizes)):,}")
        frame.con.register("given", found.table(pool.doc))
        frame.con.execute("CREATE TABLE found AS SELECT * FROM given")
        frame.con.unregister("given")
        return frame.reader(
            f"""SELECT pool.doc AS doc, similarity, other.{IDENTITY} AS near, cluster, cluster_size, centroid_similarity
                FROM pool LEFT JOIN found ON pool.doc = found.doc LEFT JOIN pool other ON found.near = other.doc ORDER BY pool.doc"""
        )

    def judge_reads(self) -> list[str]:
        return [f"{self.context.label}_similarity"]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """Dropped where the similarity is above 1 - eps, strictly: eps 0 drops nothing."""
        drop = pc.fill_null(pc.greater(batch.column(0), 1.0 - self.params.eps), False)
        return pc.invert(drop), pc.if_else(drop, pa.scalar(REASON), pa.scalar(None, pa.string()))

    def notes(self) -> list[str]:
        return self._notes


class Found(msgspec.Struct, frozen=True):
    """What was found of each document of a pool, by place; `near` is a place, -1 for none."""

    similarity: Float64
    near: Int64
    cluster: npt.NDArray[np.int32]
    centroid_similarity: Float64

    @classmethod
    def empty(cls) -> Found:
        return cls(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0))

    def table(self, doc: Int64) -> pa.Table:
        """By doc, `near` as a doc too."""
        alone = self.near < 0
        near = pa.array(doc[np.maximum(self.near, 0)] if len(doc) else self.near, mask=alone)
        sizes = np.bincount(self.cluster) if len(self.cluster) else np.empty(0, np.int64)
        return pa.table({DOC: doc, "similarity": self.similarity, "near": near, "cluster": self.cluster,
                         "cluster_size": sizes[self.cluster].astype(np.int64), "centroid_similarity": self.centroid_similarity})  # fmt: skip


class Pool:
    """The documents of a frame that have a vector in each of its columns, in the order of their identities.

    doc, slots        int64[n]: the document, and its vector's row in the first file
    files, slots_of   all files of vectors, and the rows in each
    draw, order_draw  uint64[n]: random numbers of each
    """

    def __init__(self, frame: Frame, context: Context, seed: int) -> None:
        self.files: Sequence[VectorFile] = frame.vectors
        self.file = self.files[0]
        there = " AND ".join(f"{file.slot} IS NOT NULL" for file in self.files)
        twice = f"SELECT doc FROM pool WHERE {there} QUALIFY count(*) OVER (PARTITION BY {KEY}, {IDENTITY}) > 1 ORDER BY doc"
        ties, joined = "", ""
        if frame.scalar(f"SELECT count(*) FROM ({twice})"):
            frame.add_row_hashes(twice, "hashes")
            ties, joined = "row_hash, ", "LEFT JOIN hashes USING (doc)"
        frame.con.execute(f"CREATE TABLE placed AS SELECT doc, {', '.join(file.slot for file in self.files)}, {KEY} AS key, row_number() OVER (ORDER BY {IDENTITY}, {ties}doc) AS place FROM pool {joined} WHERE {there}")
        self.doc = column(frame, "SELECT doc FROM placed ORDER BY place")
        self.slots_of = [column(frame, f"SELECT {file.slot} FROM placed ORDER BY place") for file in self.files]
        self.slots = self.slots_of[0]
        keys = np.array(frame.con.sql("SELECT key FROM placed ORDER BY place").to_arrow_table().column(0).to_numpy(), np.uint64)
        stream = randomness.stream(context.seed, context.label, str(seed))
        self.draw: Uint64 = randomness.bits(keys, stream)
        self.order_draw: Uint64 = randomness.bits(keys, randomness.stream(context.seed, context.label, str(seed), "order"))
        frame.con.execute("DROP TABLE placed")

    def find(self, places: Int64, k: int, params: SemdedupParams) -> Found:
        """Cluster some documents and compare them within clusters; results in the order of `places`, which is ascending."""
        cluster, nearness, _ = kmeans.clustered(self.file, self.slots[places], self.draw[places], k, iterations=params.iterations, seed=params.seed)
        order = blocking.ranks(cluster, nearness, self.order_draw[places], params.keep)
        similarity, near = np.zeros(len(places)), np.full(len(places), -1, np.int64)
        starts = np.searchsorted(cluster[order], np.arange(k + 1))
        with kmeans.one_thread():
            for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                members = order[start:stop]
                m, by = blocking.blocked(self._fetch(self.slots[places[members]]), len(members), greedy=params.eps if params.rule == "greedy" else None)
                similarity[members] = m
                near[members] = np.where(by >= 0, members[np.maximum(by, 0)], -1)
        return Found(similarity, near, cluster, nearness)

    def _fetch(self, slots: Int64) -> blocking.Fetch:
        """The rows of a cluster: held where they fit, else read as they are asked for."""
        if len(slots) > HELD_ROWS:
            return lambda at: self.file.take(slots[at])
        rows = self.file.take(slots)
        return lambda at: rows[at]


#: Rows of a cluster that are held at once: 96 MB at 384 coordinates.
HELD_ROWS = 65536
