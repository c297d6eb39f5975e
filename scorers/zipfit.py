"""ZIP-FIT: how much of a target a compressor already knows after the document (Obbad et al. 2024, ZIP-FIT).

zipfit(x) = the mean over the guide's texts t of 1 - NCD(x, t), NCD(x, t) = (C(xt) - min(C(x), C(t))) / max(C(x), C(t)),
with C the compressed bytes, container included; the document first, nothing between the two. NCD depends on length:
documents about as long as the targets score highest, all else equal. Larger is nearer to the target. Exact: stock zlib's
lengths for every pair (native/zipfit.h); docs/zipfit.md has what that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import deflate, documents, randomness
from curate.errors import ConfigError, DataError
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context, measure


class ZipfitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_targets` takes that many of each guide's texts, drawn by their hash and the run's seed; None takes all."""

    compressor: Literal["gzip", "zlib", "deflate", "zstd", "lz4"] = "gzip"
    level: int = 6
    max_targets: int | None = None

    def __post_init__(self) -> None:
        deflate.Compressor(self.compressor, self.level)
        if self.max_targets is not None and self.max_targets < 1:
            raise ConfigError(f"expected max_targets of 1 or more (leave it out for all), got {self.max_targets}")


@register("zipfit")
class Zipfit:
    """Adds `zipfit` (float64, about 0 to 1, larger is nearer to the target), or `zipfit_<target>` for each of several."""

    version = 1
    Params = ZipfitParams
    uses_targets = True
    scores = True

    def __init__(self, params: ZipfitParams, context: Context) -> None:
        if not context.targets:
            raise ConfigError(
                "zipfit needs a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}"
            )
        self.params = params
        self.compressor = deflate.Compressor(params.compressor, params.level)
        self.library = self.compressor.library()
        self.names = [t.name for t in context.targets]
        self.uses_seed = params.max_targets is not None
        self._stream = randomness.stream(context.seed, "zipfit", "targets")
        self._guides: tuple[pa.Table | None, list[pa.Array]] = (None, [])

    def extra_key(self) -> str:
        """Another version of a compressor's library may give other lengths."""
        return self.library

    def close(self, merged: None, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        return guide_texts("zipfit", self.names, targets, self.params.max_targets, self._stream)

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        names = [VALUE] if len(self.names) == 1 else self.names
        scores = [measure(name, pa.float64(), means="score", larger_is_better=True) for name in names]
        return pa.schema([*scores, pa.field(REASON, pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        """An empty document is null: its number would say only how long the targets are, and on short ones it wins."""
        text = batch.column(TEXT)
        is_empty = pc.equal(pc.binary_length(text), 0)
        empty = is_empty.to_numpy(zero_copy_only=False)
        found = [deflate.similarity(text, guide, self.compressor) for guide in self._texts(state)]
        reason = pc.if_else(is_empty, "empty text", pa.scalar(None, pa.string()))
        return pa.record_batch([*(pa.array(f, mask=empty) for f in found), reason], schema=self.fields())

    def _texts(self, state: pa.Table) -> list[pa.Array]:
        """One array per target, kept for the state at hand."""
        if self._guides[0] is not state:
            self._guides = (state, texts_by_target(state, self.names))
        return self._guides[1]


def guide_texts(
    stage: str, names: Sequence[str], targets: Mapping[str, pa.ChunkedArray], most: int | None, stream: int
) -> pa.Table:
    """The guides' texts by target, in the order of their hashes, so that a sum does not depend on files' order.

    Of a guide with more than `most` texts, the ones whose hashes draw the lowest numbers in `stream`.
    """
    found = {name: _sampled(targets[name].combine_chunks().cast(pa.large_string()), most, stream) for name in names}
    for name, texts in found.items():
        if not len(texts):
            raise DataError(f"{stage}: the guide of target {name!r} holds no text")
    owners = pa.array([name for name in names for _ in range(len(found[name]))], pa.string())
    return pa.table({"target": owners, "text": pa.chunked_array(list(found.values()), pa.large_string())})


def texts_by_target(state: pa.Table, names: Sequence[str]) -> list[pa.Array]:
    """What guide_texts put together, one array for each target."""
    return [state.filter(pc.equal(state["target"], name))["text"].combine_chunks() for name in names]


def _sampled(texts: pa.Array, most: int | None, stream: int) -> pa.Array:
    hashes = documents.text_hashes(texts)
    order = np.argsort(np.array(hashes.to_pylist(), "S16"), kind="stable")
    if most is not None:
        drawn = randomness.bits(randomness.keys_of(documents.hex_of(hashes)), stream)
        first = order[np.argsort(drawn[order], kind="stable")][:most]
        order = order[np.isin(order, first)]
    return texts.take(pa.array(order))
