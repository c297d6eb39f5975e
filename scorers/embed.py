"""A vector for every document, for the stages that compare documents by vectors (docs/embed.md).

`ngrams`, the one method, needs no model: hashed n-grams under a random projection (curate.embedding). It measures how much of
their wording two documents share. Two texts that say one thing in other words are far apart.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import embedding, minhash
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, Context

VECTOR = "vector"


class EmbedParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ngram` is the highest order; `dtype` is how a coordinate is stored, 2 or 4 bytes."""

    method: Literal["ngrams"] = "ngrams"
    dim: int = 384
    ngram: int = 2
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if not 8 <= self.dim <= embedding.MAX_DIM:
            raise ConfigError(f"expected dim from 8 to {embedding.MAX_DIM}, got {self.dim}")
        if not 1 <= self.ngram <= minhash.MAX_NGRAM:
            raise ConfigError(f"expected ngram from 1 to {minhash.MAX_NGRAM}, got {self.ngram}")


@register("embed")
class Embed:
    """Adds `embed_vector`, which only stages behind it see, and `embed_reason` where there is none."""

    version = 1
    Params = EmbedParams
    unlisted = (VECTOR,)

    def __init__(self, params: EmbedParams, context: Context) -> None:
        self.params = params

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """The vector's coordinates, little-endian, one behind the other in the list."""
        kind = pa.float16() if self.params.dtype == "float16" else pa.float32()
        return pa.schema([(VECTOR, pa.list_(kind, self.params.dim)), (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        found, known = embedding.vectors(batch.column(TEXT), ngram=self.params.ngram, dim=self.params.dim)
        flat = pa.array(found.astype(self.params.dtype).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, self.params.dim)
        is_known = pa.array(known)
        return pa.record_batch(
            [pc.if_else(is_known, column, pa.scalar(None, column.type)), pc.if_else(is_known, pa.scalar(None, pa.string()), "no word")],
            schema=self.fields(),
        )
