"""Near-duplicates: documents whose sets of shingles overlap, found by MinHash, verified, and one of each group kept.

apply signs every document. finish lets those meet that share a band of their signatures, has their shingles read
again (gather), joins pairs whose true Jaccard index reaches the threshold, and keeps one document of each cluster.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import minhash
from curate.errors import ConfigError
from curate.frame import DOC, Frame
from curate.minhash import MinhashSpec
from curate.pipelines import against, keep_rule
from curate.pipelines.near_pairs import Joined, join_near
from curate.registry import register
from curate.stage import IDENTITY, KEEP, KEY, REASON, TEXT, Context

Int64 = npt.NDArray[np.int64]

SIGNATURE, SUM, SHINGLES = "signature", "sum", "shingles"
_GATHERED = pa.schema([("set", pa.large_list(pa.uint64()))])


class MinhashParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shingle is, how alike is too alike, and which document of a cluster stays (keep_rule.py).

    `bands` and `rows` go together; left out, `bands_rule` chooses them for `threshold` (curate.minhash.choose_bands).
    """

    ngram: int = 5
    unit: Literal["word", "char", "auto"] = "auto"
    threshold: float = 0.7
    num_perm: int = 128
    bands: int | None = None
    rows: int | None = None
    bands_rule: minhash.BandsRule = "recall"
    seed: int = 1
    scheme: Literal["native", "affine32", "legacy"] = "native"
    verify: bool = True
    keep: keep_rule.Keep = "least"
    priority: str | None = None
    by: str | None = None
    order: Literal["asc", "desc"] = "desc"
    against: list[str] = []

    def __post_init__(self) -> None:
        keep_rule.check(self)
        spec_of(self)
        if (self.bands is None) != (self.rows is None):
            raise ConfigError("bands and rows go together: give both, or neither")
        if self.bands is not None and self.bands_rule != "recall":
            raise ConfigError(f"bands and rows are given, so bands_rule: {self.bands_rule} would choose nothing; leave it out, or them")
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"expected a threshold above 0 and below 1, got {self.threshold}; for equal texts there is dedup_exact")
        bands, rows = bands_of(self)
        if bands < 1 or rows < 1 or bands * rows > self.num_perm:
            raise ConfigError(f"expected bands * rows of 1 to num_perm = {self.num_perm}, got {bands} * {rows}")


def spec_of(params: MinhashParams) -> MinhashSpec:
    """The settings of the signatures."""
    return MinhashSpec(
        ngram=params.ngram, unit=params.unit, num_perm=params.num_perm, seed=params.seed, scheme=params.scheme
    )


def bands_of(params: MinhashParams) -> tuple[int, int]:
    """(bands, rows): as given, or chosen for the threshold."""
    if params.bands is not None and params.rows is not None:
        return params.bands, params.rows
    return minhash.choose_bands(params.threshold, params.num_perm, params.bands_rule)


@register("minhash")
class Minhash:
    """Keeps one document of each cluster of near-duplicates; a cluster is joined by verified pairs."""

    version = 2  # 2: `unit: auto` cuts by runs of script, not by document
    Params = MinhashParams
    keyless_params = ("threshold", "bands", "rows", "bands_rule", "verify", "keep", "priority", "by", "order", "against")
    usually_drops = (
        "the pool was de-duplicated before, the threshold is too high, or each text carries much of its own (a header, a log's times)", ("minhash",),
    )  # fmt: skip
    unlisted = (SIGNATURE, SUM, SHINGLES)
    unpublished = (*unlisted, "duplicate_of", "jaccard", *against.FIELDS.names)  # but for the unlisted, null at all that are kept

    def __init__(self, params: MinhashParams, context: Context) -> None:
        self.params = params
        self.spec = spec_of(params)
        self.bands, self.rows = bands_of(params)
        self._label = context.label
        self._columns = context.columns
        self._notes: list[str] = []

    # -- apply ----------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """uint32[num_perm], little-endian; a sum that texts of equal shingles share; shingles, repeats counted."""
        return pa.schema([(SIGNATURE, pa.binary(4 * self.spec.num_perm)), (SUM, pa.uint64()), (SHINGLES, pa.int64())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        signed = minhash.signatures(batch.column(0), self.spec)
        values = pa.py_buffer(np.ascontiguousarray(signed.values, "<u4"))
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * self.spec.num_perm), len(signed.shingles), [None, values])
        return pa.record_batch([column, pa.array(signed.sums), pa.array(signed.shingles)], schema=self.fields())

    # -- finish ---------------------------------------------------------------------------------------------------

    def finish_reads(self) -> list[str]:
        own = [f"{self._label}_{name}" for name in (SIGNATURE, SUM, SHINGLES)]
        return [*own, KEY, *keep_rule.reads(self.params)]

    def finish_fields(self) -> pa.Schema:
        return pa.schema(
            [(KEEP, pa.bool_()), (REASON, pa.string()), ("cluster", pa.string()), ("cluster_size", pa.int64()),
             ("duplicate_of", pa.string()), ("jaccard", pa.float64()), *(against.FIELDS if self.params.against else ())]
        )  # fmt: skip

    def reference_fields(self) -> pa.Schema:
        """What is kept of a published document: what is kept of any other."""
        return self.fields()

    def reference(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.apply(None, batch)

    def prepared(self, schema: pa.Schema) -> pa.Schema:
        """The frame's columns: for the signature, one hash of all of it and one of each band."""
        names = {f"{self._label}_{SUM}": SUM, f"{self._label}_{SHINGLES}": SHINGLES}
        others = [item.with_name(names.get(item.name, item.name)) for item in schema if item.name != f"{self._label}_{SIGNATURE}"]
        return pa.schema([*others, *(pa.field(name, pa.uint64()) for name in ("whole", *self._bands()))])

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = self.prepared(batch.schema)
        others = [batch.column(i) for i, item in enumerate(batch.schema) if item.name != f"{self._label}_{SIGNATURE}"]
        return pa.record_batch([*others, *self._hashed(batch.column(f"{self._label}_{SIGNATURE}"))], schema=schema)

    def _hashed(self, signature: pa.Array) -> list[pa.Array]:
        """One hash of all of each signature, and one of each band."""
        width = self.spec.num_perm
        values = np.frombuffer(signature.buffers()[1], "<u4", width * len(signature), 4 * width * signature.offset)
        values = values.reshape(-1, width).astype(np.uint32, copy=False)
        keys = minhash.band_keys(values, self.bands, self.rows)
        whole = pa.array(minhash.band_keys(values, 1, width)[:, 0])
        return [whole, *(pa.array(np.ascontiguousarray(keys[:, i])) for i in range(self.bands))]

    def _bands(self) -> list[str]:
        return [f"band{i}" for i in range(self.bands)]

    def gather_reads(self) -> list[str]:
        return [TEXT]

    def gather_fields(self) -> pa.Schema:
        return _GATHERED

    def gather(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Each text's different shingles, sorted: what a pair's true Jaccard index is computed from."""
        values, starts = minhash.shingle_sets(batch.column(0), self.spec)
        return pa.record_batch([pa.LargeListArray.from_arrays(pa.array(starts), pa.array(values))], schema=_GATHERED)

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Join what is near, choose one of each cluster; the rows of every document, in order of doc."""
        held = self._hold(frame) if self.params.against else None
        joined = join_near(frame, self._bands(), self.params.threshold, verify=self.params.verify)
        with joined:
            self._choose(frame, joined)
            self._say(joined, held)
        columns, rest = "", ""
        if held:
            columns = ", NULL::VARCHAR AS against, NULL::VARCHAR AS against_run"
            rest = """UNION ALL SELECT doc, false, 'near-duplicate of a document that was published before', NULL, 1, NULL, jaccard, against, against_run
                      FROM settled"""
        return frame.reader(
            f"""SELECT pool.doc AS doc, ranked.place IS NULL OR ranked.place = 1 AS keep,
                      CASE WHEN ranked.place > 1 THEN 'near-duplicate of another document' END AS reason,
                      ranked.winner AS cluster, coalesce(clustered.size, 1) AS cluster_size,
                      CASE WHEN ranked.place > 1 THEN ranked.winner END AS duplicate_of, likeness.jaccard AS jaccard{columns}
               FROM pool LEFT JOIN clustered ON pool.doc = clustered.doc LEFT JOIN ranked ON pool.doc = ranked.doc
                    LEFT JOIN likeness ON pool.doc = likeness.doc {rest} ORDER BY doc"""
        )

    def _hold(self, frame: Frame) -> against.Held:
        """Drop what is near to a published document; `pool` has the rest."""

        def columns(batch: pa.RecordBatch) -> list[pa.Array]:
            return [batch.column(SUM), batch.column(SHINGLES), *self._hashed(batch.column(SIGNATURE))]

        names = ("whole", *self._bands())
        against.load(frame, columns, pa.schema([(SUM, pa.uint64()), (SHINGLES, pa.int64()), *((name, pa.uint64()) for name in names)]))
        return against.drop_near(frame, self._bands(), self.params.threshold, verify=self.params.verify)

    def _choose(self, frame: Frame, joined: Joined) -> None:
        """The tables `clustered`, `ranked` and `likeness` of the documents that are not alone."""
        con = frame.con
        members, cluster, size = joined.clusters()
        table(frame, "clustered", {DOC: joined.doc[members], "cluster": cluster, "size": size})
        names = ", ".join(f'pool."{name}"' for name in keep_rule.reads(self.params))
        con.execute(f"CREATE TABLE copies AS SELECT pool.doc, cluster, {names} FROM clustered JOIN pool ON clustered.doc = pool.doc")
        keep_rule.rank(frame, self.params, self._columns, "cluster")
        con.execute("DROP TABLE copies")
        found = con.sql(
            "SELECT r.doc, l.place AS mine, w.place AS winner FROM ranked r JOIN ordered l ON r.doc = l.doc JOIN ordered w ON r.winner_doc = w.doc WHERE r.place > 1"
        ).to_arrow_table()
        mine, winner = (np.asarray(found[n].to_numpy(), np.int64) for n in ("mine", "winner"))
        alike = joined.jaccard(mine, winner)
        table(frame, "likeness", {DOC: found[DOC], "jaccard": pa.array(alike, pa.float64(), mask=np.isnan(alike))})

    # -- notes ----------------------------------------------------------------------------------------------------

    def _say(self, joined: Joined, held: against.Held | None) -> None:
        shown = ", ".join(f"{s:g}: {p:.3f}" for s, p in minhash.curve(self.bands, self.rows))
        counts = f"{joined.compared:,} pairs compared, {joined.near:,} of them at {self.params.threshold:g} or above"
        if not self.params.verify:
            counts = f"{joined.unverified:,} pairs joined unverified, because verify is off"
        self._notes = [
            f"{self.bands} bands of {self.rows} rows: the probability that a pair is compared, by its Jaccard index, is {shown}",
            counts,
        ]
        if held:
            how = f"{held.unverified:,} pairs joined unverified" if held.unverified else f"{held.compared:,} pairs compared"
            self._notes.append(f"{held.dropped:,} documents are near to one that was published before ({how})")
        if joined.empty:
            self._notes.append(f"{joined.empty:,} documents hold nothing but white space; they are compared with none")

    def notes(self) -> list[str]:
        return self._notes


def table(frame: Frame, name: str, columns: dict[str, object]) -> None:
    """Make a table of the frame's database from columns."""
    frame.con.register("given", pa.table(columns))
    frame.con.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    frame.con.unregister("given")


__all__ = ["IDENTITY", "Minhash", "MinhashParams", "bands_of", "spec_of"]
