"""Shouting: the share of a document's letters that are capitals. An example of a scorer of one's own."""

import msgspec
import pyarrow as pa

from curate.errors import ConfigError
from curate.stage import REASON, TEXT, VALUE, Context, measure


class ShoutParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document with fewer letters than `min_letters` has no score."""

    min_letters: int = 1

    def __post_init__(self) -> None:
        if self.min_letters < 1:
            raise ConfigError(f"expected min_letters of 1 or more, got {self.min_letters}")


class Shout:
    """Adds `shout` (float64, 0 to 1, smaller is calmer) and `shout_reason` where there is no score."""

    name = "shout"
    version = 1  # raise it when results change: stored scores are then computed again
    Params = ShoutParams

    def __init__(self, params: ShoutParams, context: Context) -> None:
        self.least = params.min_letters

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        score = measure(VALUE, pa.float64(), means="score", larger_is_better=False)
        return pa.schema([score, pa.field(REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        letters = [[c for c in text if c.isalpha()] for text in batch.column(TEXT).to_pylist()]
        scores = [sum(c.isupper() for c in own) / len(own) if len(own) >= self.least else None for own in letters]
        reasons = [None if score is not None else f"fewer than {self.least} letters" for score in scores]
        return pa.record_batch([pa.array(scores, pa.float64()), pa.array(reasons, pa.string())], schema=self.fields())
