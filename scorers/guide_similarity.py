"""How near each document is to the guides' examples: the cosine of their vectors, for any method of `embed`.

The guides are embedded once (the state), as the documents are. Larger is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import documents
from curate.errors import ConfigError, DataError
from curate.registry import register
from curate.scorers.embed import EmbedParams, TextVectors
from curate.stage import REASON, TEXT, VALUE, Context, measure


class GuideSimilarityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`embed` has the settings of `embed`; `each: true` adds the cosine with every example, which `cover` reads."""

    embed: EmbedParams = EmbedParams()
    combine: Literal["max", "mean"] = "max"
    each: bool = False


@register("guide_similarity")
class GuideSimilarity:
    """Adds the largest or the mean cosine with each target's examples, and on request all of them."""

    version = 1
    Params = GuideSimilarityParams
    scores = True
    uses_targets = True

    def __init__(self, params: GuideSimilarityParams, context: Context) -> None:
        if not context.targets:
            raise ConfigError("guide_similarity needs targets: in a recipe targets: {code: {guide: [code.jsonl]}}")
        self.params = params
        self.names = [target.name for target in context.targets]
        self.embedder = TextVectors(params.embed, context.base)
        self.unlisted = tuple(name for name in self._named("each")) if params.each else ()
        self._read: tuple[pa.Table | None, list[npt.NDArray[np.float32]]] = (None, [])

    def _named(self, name: str) -> list[str]:
        """A field for each target; of the only one, the name alone."""
        if len(self.names) == 1:
            return [name]
        return [target if name == VALUE else f"{name}_{target}" for target in self.names]

    def extra_key(self) -> str:
        return self.embedder.key()

    def close(self, merged: None, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """target, vector: of the guides' texts, in the order of their hashes; those without a vector are left out."""
        owners: list[str] = []
        found = []
        for name in self.names:
            texts = targets[name].combine_chunks()
            texts = texts.take(pa.array(np.argsort(np.array(documents.text_hashes(texts).to_pylist(), "S16"), kind="stable")))
            vectors, known = self.embedder.vectors(texts)
            if not known.any():
                raise DataError(f"guide_similarity: no example of target {name!r} has a vector")
            found.append(vectors[known])
            owners += [name] * int(known.sum())
        flat = pa.array(np.concatenate(found).ravel())
        return pa.table({"target": pa.array(owners), "vector": pa.FixedSizeListArray.from_arrays(flat, self.embedder.dim)})

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """`each` is a list of float32 in the order of the examples' hashes."""
        values = [measure(name, pa.float64(), means="similarity", larger_is_better=True) for name in self._named(VALUE)]
        each = [pa.field(name, pa.list_(pa.float32())) for name in self._named("each")] if self.params.each else []
        return pa.schema([*values, *each, (REASON, pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        guides = self._guides(state)
        rows, known = self.embedder.vectors(batch.column(TEXT))
        values, lists = [], []
        for guide in guides:
            cosines = _products(rows, guide)
            values.append(pa.array(cosines.max(axis=1) if self.params.combine == "max" else cosines.mean(axis=1), mask=~known))
            if self.params.each:
                offsets = np.concatenate([[0], np.cumsum(np.where(known, len(guide), 0))]).astype(np.int32)
                flat = pa.array(cosines[known].astype(np.float32).ravel())
                lists.append(pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(~known)))
        reason = pc.if_else(pa.array(known), pa.scalar(None, pa.string()), "no word")
        return pa.record_batch([*values, *lists, reason], schema=self.fields())

    def _guides(self, state: pa.Table) -> list[npt.NDArray[np.float32]]:
        if self._read[0] is not state:
            owner = np.array(state["target"].to_pylist())
            flat = state["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.embedder.dim)
            self._read = (state, [flat[owner == name] for name in self.names])
        return self._read[1]


def _products(rows: npt.NDArray[np.float32], guide: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosines float64[n, guides] of unit vectors, clamped to -1 .. 1; a row's do not depend on the rows beside it."""
    out = np.empty((len(rows), len(guide)))
    exact = guide.astype(np.float64)
    for i, row in enumerate(rows.astype(np.float64)):
        out[i] = exact @ row
    return np.clip(out, -1.0, 1.0)
