"""ZIP-FIT for large pools: one pass over each document, whatever the number of targets, and exact scores where it counts.

A document's own compression, the grams it shares with the targets and the symbols of its stream (curate.zipfit_profile) are
weighed by a ridge regression on the exact scores of a sample of the pool, drawn by identity. Then the best `rescore` of
the pool are scored exactly, as zipfit does. Documents of the sample have their exact score too: none is scored by a model
that was fitted to it. Larger is nearer to the target. docs/zipfit_fast.md has what that costs and how near it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import budget, deflate, guidetexts, randomness, ridge, zipfit_profile
from curate.errors import ConfigError
from curate.frame import DOC, Frame
from curate.registry import register
from curate.stage import KEY, REASON, TEXT, VALUE, Context, measure

Float64 = npt.NDArray[np.float64]

PROFILE, DRAW, EXACT, SIZE = "profile", "draw", "exact", "size"
#: Rows of profiles held at once while scores are worked out: 6 MB of features.
_ROWS = 2048
#: Groups of the sample, by length, whose mean scores make up the curve of a length correction: 125 documents each of 2,000.
LENGTHS = 16
#: A rank correlation below this, on documents that were left out of the fit, is said as a warning.
POOR = 0.95


class ZipfitFastParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sample` documents have exact scores and are fitted to; `rescore` of the pool, the best, are scored exactly.

    `length_correction: residual` takes from each score what the sample's documents of its length have on average.
    """

    compressor: Literal["gzip", "zlib", "deflate"] = "gzip"
    level: int = 6
    max_targets: int | None = 2000
    sample: int = 2000
    rescore: str | int | None = "10%"
    length_correction: Literal["none", "residual"] = "none"

    def __post_init__(self) -> None:
        guidetexts.check(self)
        if not 100 <= self.sample <= ridge.MOST_ROWS:
            raise ConfigError(f"expected a sample of 100 to {ridge.MOST_ROWS} documents, got {self.sample}")
        if self.rescore is not None and budget.parse(self.rescore).unit != "documents":
            raise ConfigError(f"expected rescore as a share or a number of documents, got {self.rescore!r}")


@register("zipfit_fast")
class ZipfitFast(guidetexts.GuideTexts):
    """Adds `zipfit_fast` (float64, near to zipfit's), or `zipfit_fast_<target>` for each of several, and which are exact."""

    version = 1
    Params = ZipfitFastParams
    keyless_params = ("sample", "rescore", "length_correction")
    unlisted = (PROFILE,)
    scores = True

    def __init__(self, params: ZipfitFastParams, context: Context) -> None:
        super().__init__("zipfit_fast", params, context, needs="a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}")
        self.params = params
        self.uses_seed = True  # the sample is drawn
        self._label = context.label
        self._sample_stream = randomness.stream(context.seed, "zipfit_fast", "sample")
        self._indexes: tuple[pa.Table | None, list[zipfit_profile.Guide]] = (None, [])
        self._notes: list[str] = []

    # -- apply ----------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """What finish needs of each document, 80 bytes and 56 for each target (curate.zipfit_profile.record)."""
        return pa.schema([(PROFILE, pa.binary(zipfit_profile.record(len(self.names)).itemsize))])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        """An empty document has no profile, and no score."""
        text = batch.column(TEXT)
        found = zipfit_profile.profiles(text, self._indexed(state), self.compressor)
        kept = pa.array(found["bytes"] > 0)
        whole = pa.FixedSizeBinaryArray.from_buffers(self.fields().field(0).type, len(text), [None, pa.py_buffer(found)])
        return pa.record_batch([pc.if_else(kept, whole, pa.scalar(None, whole.type))], schema=self.fields())

    def _indexed(self, state: pa.Table) -> list[zipfit_profile.Guide]:
        """The targets' index, made again only where another state comes."""
        if self._indexes[0] is None or not self._indexes[0].equals(state):
            self._indexes = (state, [zipfit_profile.Guide(texts, self.compressor) for texts in self.texts(state)])
        return self._indexes[1]

    # -- finish ---------------------------------------------------------------------------------------------------

    def finish_reads(self) -> list[str]:
        return [f"{self._label}_{PROFILE}", KEY]

    def finish_fields(self) -> pa.Schema:
        names = [VALUE] if len(self.names) == 1 else self.names
        scores = [measure(name, pa.float64(), means="score", larger_is_better=True) for name in names]
        return pa.schema([*scores, pa.field(EXACT, pa.bool_()), pa.field(REASON, pa.string())])

    def prepared(self, schema: pa.Schema) -> pa.Schema:
        profile = schema.field(f"{self._label}_{PROFILE}").with_name(PROFILE)
        return pa.schema([(DOC, pa.int64()), profile, (DRAW, pa.uint64()), (SIZE, pa.int64())])

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        drawn = randomness.bits(batch.column(KEY).to_numpy(), self._sample_stream)
        profile = batch.column(f"{self._label}_{PROFILE}")
        size = np.zeros(batch.num_rows, np.int64)
        size[profile.is_valid().to_numpy(zero_copy_only=False)] = self._records(profile.drop_null())["bytes"]
        columns = [batch.column(DOC), profile, pa.array(drawn), pa.array(size)]
        return pa.record_batch(columns, schema=self.prepared(batch.schema))

    def gather_reads(self) -> list[str]:
        return [TEXT]

    def gather_fields(self) -> pa.Schema:
        return pa.schema([(name, pa.float64()) for name in self.names])

    def gather(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Exact scores, as zipfit's."""
        guides = self.texts(state)
        found = [deflate.similarity(batch.column(TEXT), guide, self.compressor) for guide in guides]
        return pa.record_batch([pa.array(f) for f in found], schema=self.gather_fields())

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Fit to the sample's exact scores, score all, score the best exactly; every document, in order of doc.

        Held in memory: 24 bytes per document and target, and 17.
        """
        self._notes = []
        found = frame.con.sql(f"SELECT {DOC}, {SIZE} FROM pool WHERE {PROFILE} IS NOT NULL ORDER BY {DOC}").to_arrow_table()
        docs, size = found[DOC].to_numpy(), found[SIZE].to_numpy()
        scores, exact = np.full((len(docs), len(self.names)), np.nan), np.zeros(len(docs), bool)
        drawn, profiles, first = self._sample(frame)
        self._exactly(frame, drawn, docs, scores, exact)
        if len(first) >= self.params.sample:
            fitted = self._fit(profiles[first], scores[np.searchsorted(docs, drawn[first])])
            self._predict(frame, fitted, docs, scores, exact)
        of_length = np.zeros_like(scores)
        if self.params.length_correction == "residual" and len(first):
            at = np.searchsorted(docs, drawn[first])
            of_length = np.column_stack([mean_by_length(size[at], column[at], size) for column in scores.T])
        self._rescore(frame, docs, scores, exact, of_length)
        scores -= of_length
        self._notes.append(f"{int(exact.sum()):,} of {len(docs):,} scores are exact, the others fitted to those of {len(first):,} documents")
        return self._rows(frame, docs, scores, exact)

    def _sample(self, frame: Frame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.void], npt.NDArray[np.int64]]:
        """The documents of the lowest draws, their profiles, and the first place of each draw; all by draw.

        Copies without ids of their own have one draw: all of them are exact, one of them is fitted to.
        """
        lowest = f"SELECT DISTINCT {DRAW} FROM pool WHERE {PROFILE} IS NOT NULL ORDER BY 1 LIMIT {self.params.sample}"
        found = frame.con.sql(
            f"SELECT {DOC}, {DRAW}, {PROFILE} FROM pool WHERE {PROFILE} IS NOT NULL AND {DRAW} IN ({lowest}) ORDER BY {DRAW}, {DOC}"
        ).to_arrow_table()
        _, first = np.unique(found[DRAW].to_numpy(), return_index=True)
        return found[DOC].to_numpy(), self._records(found[PROFILE].combine_chunks()), first

    def _records(self, column: pa.Array) -> npt.NDArray[np.void]:
        kind = zipfit_profile.record(len(self.names))
        return np.frombuffer(b"".join(column.to_pylist()), kind)

    def _exactly(
        self, frame: Frame, wanted: npt.NDArray[np.int64], docs: npt.NDArray[np.int64], scores: Float64, exact: npt.NDArray[np.bool_]
    ) -> None:
        """Put exact scores at the places of some documents."""
        if not len(wanted):
            return
        for batch in frame.gather(wanted):
            at = np.searchsorted(docs, batch.column(DOC).to_numpy())
            scores[at] = np.column_stack([batch.column(name).to_numpy() for name in self.names])
            exact[at] = True

    def _fit(self, profiles: npt.NDArray[np.void], scores: Float64) -> list[ridge.Fitted]:
        fitted = []
        for i, name in enumerate(self.names):
            found = ridge.fit(zipfit_profile.features(profiles, i), scores[:, i])
            fitted.append(found)
            alike = rank_correlation(found.left_out, scores[:, i])
            of = f" of target {name!r}" if len(self.names) > 1 else ""
            said = f"rank correlation of fitted and exact scores{of}, over {len(scores):,} documents each left out of its fit: {alike:.3f}"
            poor = f"; below {POOR}, so use zipfit, or a larger sample" if alike < POOR else ""
            self._notes.append(f"{'warning: ' if poor else ''}{said}{poor}")
        return fitted

    def _predict(
        self, frame: Frame, fitted: list[ridge.Fitted], docs: npt.NDArray[np.int64], scores: Float64, exact: npt.NDArray[np.bool_]
    ) -> None:
        """Fitted scores where there are no exact ones."""
        query = f"SELECT {DOC}, {PROFILE} FROM pool WHERE {PROFILE} IS NOT NULL ORDER BY {DOC}"
        at = 0
        for batch in frame.con.sql(query).to_arrow_reader(_ROWS):
            records = self._records(batch.column(1))
            rows = slice(at, at + len(records))
            for i, fit in enumerate(fitted):
                found = fit.predict(zipfit_profile.features(records, i))
                scores[rows, i] = np.where(exact[rows], scores[rows, i], found)
            at += len(records)

    def _rescore(
        self, frame: Frame, docs: npt.NDArray[np.int64], scores: Float64, exact: npt.NDArray[np.bool_], of_length: Float64
    ) -> None:
        """Exact scores for the best of each target, with those that are as good as the last of them."""
        if self.params.rescore is None:
            return
        many = min(budget.parse(self.params.rescore).of(len(docs)), len(docs))
        if not many:
            return
        ranked = scores - of_length
        least = np.partition(ranked, len(docs) - many, axis=0)[len(docs) - many]
        self._exactly(frame, docs[(ranked >= least).any(axis=1) & ~exact], docs, scores, exact)

    def _rows(
        self, frame: Frame, docs: npt.NDArray[np.int64], scores: Float64, exact: npt.NDArray[np.bool_]
    ) -> pa.RecordBatchReader:
        schema = pa.schema([pa.field(DOC, pa.int64()), *self.finish_fields()])

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in frame.reader(f"SELECT {DOC}, {PROFILE} IS NULL AS empty FROM pool ORDER BY {DOC}"):
                empty = batch.column("empty").to_numpy(zero_copy_only=False)
                at = np.minimum(np.searchsorted(docs, batch.column(DOC).to_numpy()), max(0, len(docs) - 1))
                found = [pa.array(scores[at, i] if len(docs) else np.zeros(len(at)), mask=empty) for i in range(len(self.names))]
                is_exact = pa.array(exact[at] if len(docs) else empty, mask=empty)
                reason = pc.if_else(batch.column("empty"), "empty text", pa.scalar(None, pa.string()))
                yield pa.record_batch([batch.column(DOC), *found, is_exact, reason], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def notes(self) -> list[str]:
        """What the user should hear about the last fit."""
        return list(self._notes)


def mean_by_length(sizes: npt.NDArray[np.int64], scores: Float64, wanted: npt.NDArray[np.int64]) -> Float64:
    """The mean score of documents of each wanted length: float64[len(wanted)].

    The sample is cut by length into LENGTHS groups of about as many documents, those of one length together; a straight
    line over log(bytes + 1) joins the means of neighbouring groups, level before the first and behind the last.
    """
    order = np.lexsort((scores, sizes))
    cuts = np.unique(sizes[order[[len(order) * i // LENGTHS for i in range(1, LENGTHS)]]])
    of = np.searchsorted(cuts, sizes[order], side="right")
    groups = [order[of == g] for g in np.unique(of)]
    places = [float(np.log(sizes[g] + 1.0).mean()) for g in groups]
    means = [float(scores[g].mean()) for g in groups]
    return np.asarray(np.interp(np.log(wanted + 1.0), places, means))


def rank_correlation(a: Float64, b: Float64) -> float:
    """Spearman's: the correlation of ranks, equal values sharing the mean of theirs; 0 where one of the two is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    spread = [r - r.mean() for r in ranks]
    size = float(np.sqrt((spread[0] ** 2).sum() * (spread[1] ** 2).sum()))
    return float((spread[0] * spread[1]).sum() / size) if size else 0.0


def _ranks(values: Float64) -> Float64:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[place])


__all__ = ["ZipfitFast", "ZipfitFastParams", "mean_by_length", "rank_correlation"]
