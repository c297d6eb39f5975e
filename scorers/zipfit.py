"""ZIP-FIT: how much of a target a compressor already knows after the document (Obbad et al. 2024, ZIP-FIT).

zipfit(x) = the mean over the guide's texts t of 1 - NCD(x, t), NCD(x, t) = (C(xt) - min(C(x), C(t))) / max(C(x), C(t)),
with C the compressed bytes, container included; the document first, nothing between the two. NCD depends on length:
documents about as long as the targets score highest, all else equal. Larger is nearer to the target. Exact: stock zlib's
lengths for every pair (native/zipfit.h); docs/zipfit.md has what that costs.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import deflate, guidetexts
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context, measure


class ZipfitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_targets` takes that many of each guide's texts, drawn by their hash and the run's seed; None takes all."""

    compressor: Literal["gzip", "zlib", "deflate", "zstd", "lz4"] = "gzip"
    level: int = 6
    max_targets: int | None = None

    def __post_init__(self) -> None:
        guidetexts.check(self)


@register("zipfit")
class Zipfit(guidetexts.GuideTexts):
    """Adds `zipfit` (float64, about 0 to 1, larger is nearer to the target), or `zipfit_<target>` for each of several."""

    version = 1
    Params = ZipfitParams
    scores = True

    def __init__(self, params: ZipfitParams, context: Context) -> None:
        super().__init__("zipfit", params, context, needs="a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}")
        self.params = params

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
        found = [deflate.similarity(text, guide, self.compressor) for guide in self.texts(state)]
        reason = pc.if_else(is_empty, "empty text", pa.scalar(None, pa.string()))
        return pa.record_batch([*(pa.array(f, mask=empty) for f in found), reason], schema=self.fields())
