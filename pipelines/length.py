"""Drop documents that are too short or too long, by bytes of UTF-8 or by words."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import ConfigError
from curate.registry import register
from curate.stage import BYTES, WORDS, Context


class LengthParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds are inclusive; None is off. Words are runs of characters that are not white space."""

    min_bytes: int | None = None
    max_bytes: int | None = None
    min_words: int | None = None
    max_words: int | None = None

    def __post_init__(self) -> None:
        for what in ("bytes", "words"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if (low is not None and low < 0) or (high is not None and high < 0):
                raise ConfigError(f"expected min_{what} and max_{what} of 0 or more, got {low} and {high}")
            if low is not None and high is not None and low > high:
                raise ConfigError(f"min_{what} {low} is above max_{what} {high}: nothing could pass")
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ConfigError("expected at least one of min_bytes, max_bytes, min_words, max_words, got none")


@register("length")
class Length:
    """A verdict from columns that the first pass has: no text is read, and a moved bound costs next to nothing."""

    version = 1
    Params = LengthParams
    usually_drops = ("its bounds lie beyond the pool's lengths, or are in another unit than meant", ("length",))
    judge_params = ("min_bytes", "max_bytes", "min_words", "max_words")

    def __init__(self, params: LengthParams, context: Context) -> None:
        self.params = params

    def judge_reads(self) -> list[str]:
        return [BYTES, WORDS]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """bool[n] and string[n]: the first bound that a document breaks is its reason (bytes before words)."""
        reason = pa.nulls(batch.num_rows, pa.string())
        for column, what in ((BYTES, "bytes"), (WORDS, "words")):
            low, high = getattr(self.params, f"min_{what}"), getattr(self.params, f"max_{what}")
            if low is not None:
                reason = _where_none(reason, pc.less(batch.column(column), low), f"fewer than {low} {what}")
            if high is not None:
                reason = _where_none(reason, pc.greater(batch.column(column), high), f"more than {high} {what}")
        return pc.is_null(reason), reason


def _where_none(reason: pa.Array, broken: pa.Array, text: str) -> pa.Array:
    return pc.if_else(pc.and_(broken, pc.is_null(reason)), text, reason)
