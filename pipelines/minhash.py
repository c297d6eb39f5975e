"""Near-duplicates: documents whose sets of shingles overlap, found by MinHash, verified, and one of each group kept.

apply signs every document. finish lets those meet that share a band of their signatures, has their shingles read
again (gather), joins pairs whose true Jaccard index reaches the threshold, and keeps one document of each cluster.

With `unit: auto` every document is signed by its words, and one that is written in a script without spaces (which has
none, or next to none) by its characters too. Two documents are near where one of the two indices says so.
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
from curate.textview import column_text

Int64 = npt.NDArray[np.int64]

SIGNATURE, SUM, SHINGLES = "signature", "sum", "shingles"
#: Of documents with more than half of their characters unspaced, null at others: that share, and what they are signed by.
UNSPACED, CHARS_SIGNATURE, CHARS_SUM, CHARS_SHINGLES = "unspaced", "chars_signature", "chars_sum", "chars_shingles"
_CHARS = pa.schema([(UNSPACED, pa.float64()), (CHARS_SIGNATURE, pa.binary()), (CHARS_SUM, pa.uint64()), (CHARS_SHINGLES, pa.int64())])
_SET = pa.large_list(pa.uint64())
_OTHER = 0x9E3779B97F4A7C15  # tells keys of characters from those of words


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
    column: str | None = None

    def __post_init__(self) -> None:
        keep_rule.check(self)
        spec_of(self)
        if self.column is not None and self.against:
            raise ConfigError("against compares texts: what was published has no column of this pool; leave column out, or against")
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
    unit = "word" if params.unit == "auto" else params.unit
    return MinhashSpec(ngram=params.ngram, unit=unit, num_perm=params.num_perm, seed=params.seed, scheme=params.scheme)


def bands_of(params: MinhashParams) -> tuple[int, int]:
    """(bands, rows): as given, or chosen for the threshold."""
    if params.bands is not None and params.rows is not None:
        return params.bands, params.rows
    return minhash.choose_bands(params.threshold, params.num_perm, params.bands_rule)


@register("minhash")
class Minhash:
    """Keeps one document of each cluster of near-duplicates; a cluster is joined by verified pairs."""

    version = 3  # 2: `unit: auto` cuts by runs of script, not by document; 3: words for all, and characters where there are none
    Params = MinhashParams
    keyless_params = ("threshold", "bands", "rows", "bands_rule", "verify", "keep", "priority", "by", "order", "against")
    usually_drops = (
        "the pool was de-duplicated before, the threshold is too high, or each text carries much of its own (a header, a log's times)", ("minhash",),
    )  # fmt: skip
    unlisted = (SIGNATURE, SUM, SHINGLES, *_CHARS.names)
    unpublished = (*unlisted, "duplicate_of", "jaccard", *against.FIELDS.names)  # but for the unlisted, null at all that are kept

    def __init__(self, params: MinhashParams, context: Context) -> None:
        self.params = params
        self.spec = spec_of(params)
        self.by_chars = msgspec.structs.replace(self.spec, unit="char") if params.unit == "auto" else None
        self.bands, self.rows = bands_of(params)
        self._label = context.label
        self._columns = context.columns
        self._notes: list[str] = []

    # -- apply ----------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        return [self.params.column or TEXT]

    def fields(self) -> pa.Schema:
        """uint32[num_perm], little-endian; a sum that texts of equal shingles share; shingles, repeats counted."""
        own = [pa.field(SIGNATURE, pa.binary(4 * self.spec.num_perm)), pa.field(SUM, pa.uint64()), pa.field(SHINGLES, pa.int64())]
        return pa.schema([*own, *(_CHARS if self.by_chars else ())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = column_text(batch.column(0)) if self.params.column else batch.column(0)
        signed = minhash.signatures(text, self.spec)
        values = pa.py_buffer(np.ascontiguousarray(signed.values, "<u4"))
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * self.spec.num_perm), len(signed.shingles), [None, values])
        chars = self._signed_by_chars(text) if self.by_chars else []
        return pa.record_batch([column, pa.array(signed.sums), pa.array(signed.shingles), *chars], schema=self.fields())

    def _signed_by_chars(self, text: pa.Array) -> list[pa.Array]:
        """The columns of _CHARS."""
        assert self.by_chars is not None
        share = minhash.unspaced(text)
        rows = np.flatnonzero(share)
        signed = minhash.signatures(text.take(pa.array(rows)), self.by_chars)
        values = signed.values.astype("<u4", copy=False)
        at = np.full(len(text), -1, np.int64)
        at[rows] = np.arange(len(rows))
        place = pa.array(at, mask=at < 0)
        made = [pa.array(share[rows]), pa.array([row.tobytes() for row in values], pa.binary()), pa.array(signed.sums), pa.array(signed.shingles)]
        return [column.take(place) for column in made]

    # -- finish ---------------------------------------------------------------------------------------------------

    def finish_reads(self) -> list[str]:
        own = [f"{self._label}_{name}" for name in self.fields().names]
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
        names = {f"{self._label}_{name}": name for name in self.fields().names}
        others = [item.with_name(names.get(item.name, item.name)) for item in schema if item.name != f"{self._label}_{SIGNATURE}"]
        return pa.schema([*others, *(pa.field(name, pa.uint64()) for name in ("whole", *self._bands()))])

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = self.prepared(batch.schema)
        others = [batch.column(i) for i, item in enumerate(batch.schema) if item.name != f"{self._label}_{SIGNATURE}"]
        return pa.record_batch([*others, *self._hashed(batch.column(f"{self._label}_{SIGNATURE}"))], schema=schema)

    def _hashed(self, signature: pa.Array, view: int = 0) -> list[pa.Array]:
        """One hash of all of each signature, and one of each band; those of one view are none of the other."""
        width = self.spec.num_perm
        data = signature.buffers()[1] if len(signature) else b""
        values = np.frombuffer(data, "<u4", width * len(signature), 4 * width * signature.offset if len(signature) else 0)
        values = values.reshape(-1, width).astype(np.uint32, copy=False)
        keys = np.c_[minhash.band_keys(values, 1, width), minhash.band_keys(values, self.bands, self.rows)] ^ np.uint64(view * _OTHER)
        return [pa.array(np.ascontiguousarray(keys[:, i])) for i in range(self.bands + 1)]

    def _bands(self) -> list[str]:
        return [f"band{i}" for i in range(self.bands)]

    def gather_reads(self) -> list[str]:
        return [self.params.column or TEXT]

    def gather_fields(self) -> pa.Schema:
        return pa.schema([(name, _SET) for name in (("words", "chars") if self.by_chars else ("words",))])

    def gather(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Each text's different shingles, sorted: what a pair's true Jaccard index is computed from."""
        text = column_text(batch.column(0)) if self.params.column else batch.column(0)
        sets = [_sets(text, self.spec)]
        if self.by_chars:
            rows = np.flatnonzero(minhash.unspaced(text) >= minhash.without_words(self.params.threshold))
            at = np.full(len(text), -1, np.int64)
            at[rows] = np.arange(len(rows))
            sets.append(_sets(text.take(pa.array(rows)), self.by_chars).take(pa.array(at, mask=at < 0)))
        return pa.record_batch(sets, schema=self.gather_fields())

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Join what is near, choose one of each cluster; the rows of every document, in order of doc."""
        held = self._hold(frame) if self.params.against else None
        self._enter(frame, "pool", (KEY, IDENTITY))
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

    def _enter(self, frame: Frame, table: str, others: tuple[str, ...]) -> None:
        """The view `entries(doc, view, sum, shingles, whole, bands...)` of `table`, and `others` of its columns.

        View 0 is by words (or what `unit` says); 1 by characters, of the documents without words alone.
        """
        hashed = ", ".join(("whole", *self._bands()))
        both = ", ".join((DOC, *others))
        query = f"SELECT {both}, 0 AS view, sum, shingles, {hashed} FROM {table}"
        if self.by_chars:
            found = frame.con.sql(
                f"""SELECT {DOC}, {CHARS_SIGNATURE} AS signature, {CHARS_SUM} AS sum, {CHARS_SHINGLES} AS shingles FROM {table}
                    WHERE {UNSPACED} >= '{minhash.without_words(self.params.threshold)!r}'::DOUBLE"""
            ).to_arrow_table()
            signature = found["signature"].cast(pa.binary(4 * self.spec.num_perm)).combine_chunks()
            keys = zip(("whole", *self._bands()), self._hashed(signature, 1), strict=True)
            frame.con.execute("DROP TABLE IF EXISTS by_chars")
            make(frame, "by_chars", {name: found[name] for name in (DOC, "sum", "shingles")} | dict(keys))
            query += f" UNION ALL SELECT {both}, 1, by_chars.sum, by_chars.shingles, {', '.join(f'by_chars.{n}' for n in ('whole', *self._bands()))} FROM by_chars JOIN {table} USING ({DOC})"
        frame.con.execute(f"CREATE OR REPLACE VIEW entries AS {query}")

    def _hold(self, frame: Frame) -> against.Held:
        """Drop what is near to a published document; `pool` has the rest."""

        kept = [name for name in self.fields().names if name != SIGNATURE]

        def columns(batch: pa.RecordBatch) -> list[pa.Array]:
            return [*(batch.column(name) for name in kept), *self._hashed(batch.column(SIGNATURE))]

        hashed = [pa.field(name, pa.uint64()) for name in ("whole", *self._bands())]
        against.load(frame, columns, pa.schema([*(self.fields().field(name) for name in kept), *hashed]))
        self._enter(frame, "published", ("number",))
        frame.con.execute("CREATE TABLE before AS SELECT * FROM entries")
        self._enter(frame, "pool", ())
        views = (("words", 0), ("chars", 1)) if self.by_chars else (("words", 0),)
        return against.drop_near(frame, self._bands(), self.params.threshold, views, verify=self.params.verify)

    def _choose(self, frame: Frame, joined: Joined) -> None:
        """The tables `clustered`, `ranked` and `likeness` of the documents that are not alone."""
        con = frame.con
        members, cluster, size = joined.clusters()
        make(frame, "clustered", {DOC: joined.doc[members], "cluster": cluster, "size": size})
        names = ", ".join(f'pool."{name}"' for name in keep_rule.reads(self.params))
        con.execute(f"CREATE TABLE copies AS SELECT pool.doc, cluster, {names} FROM clustered JOIN pool ON clustered.doc = pool.doc")
        keep_rule.rank(frame, self.params, self._columns, "cluster")
        con.execute("DROP TABLE copies")
        found = con.sql(
            """SELECT r.doc, l.place AS mine, w.place AS winner FROM ranked r JOIN ordered l ON r.doc = l.doc JOIN ordered w ON r.winner_doc = w.doc
               WHERE r.place > 1 AND l.view = 0 AND w.view = 0"""
        ).to_arrow_table()
        mine, winner = (np.asarray(found[n].to_numpy(), np.int64) for n in ("mine", "winner"))
        alike = joined.jaccard(mine, winner)
        make(frame, "likeness", {DOC: found[DOC], "jaccard": pa.array(alike, pa.float64(), mask=np.isnan(alike))})

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


def _sets(text: pa.Array, spec: MinhashSpec) -> pa.LargeListArray:
    values, starts = minhash.shingle_sets(text, spec)
    return pa.LargeListArray.from_arrays(pa.array(starts), pa.array(values))


def make(frame: Frame, name: str, columns: dict[str, object]) -> None:
    """Make a table of the frame's database from columns."""
    frame.con.register("given", pa.table(columns))
    frame.con.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    frame.con.unregister("given")


__all__ = ["IDENTITY", "Minhash", "MinhashParams", "bands_of", "spec_of"]
