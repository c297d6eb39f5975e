"""Instruction-following difficulty: how much of a response's loss is left when the prompt is given.

    ifd(x)     = mean loss of the response given the prompt / mean loss of the response alone       in nats a token each
    ifd_ppl(x) = exp(the first) / exp(the second), the ratio of perplexities, which is another scale

Li et al. 2024, From Quantity to Quality (Cherry LLM): larger is harder, and kept; above 1 the prompt makes the response less
likely, so they do not belong together, and the document is dropped. Superfiltering ranks by `ifd_ppl`.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, VALUE, Context, measure


class IfdParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The labels of two `lm` stages before this one; `max` null drops nothing."""

    given: str = "given"
    alone: str = "alone"
    max: float | None = 1.0

    def __post_init__(self) -> None:
        if self.given == self.alone:
            raise ConfigError(f"expected given and alone as two stages, got {self.given!r} for both: every ratio would be 1")
        if self.max is not None and self.max <= 0:
            raise ConfigError(f"expected max above 0 (null drops nothing), got {self.max}")


@register("ifd")
class Ifd:
    """Adds `ifd` and `ifd_ppl` (float64, larger is harder), null with a reason where one of the losses is."""

    version = 1
    Params = IfdParams
    judge_params = ("max",)
    usually_drops = ("the prompts do not belong to the responses, or `given` and `alone` are exchanged", ("ifd",))

    def __init__(self, params: IfdParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def verbs(self) -> tuple[str, ...]:
        return ("apply",) if self.params.max is None else ("apply", "judge")

    def reads(self) -> list[str]:
        return [name for label in (self.params.given, self.params.alone) for name in (label, f"{label}_tokens")]

    def fields(self) -> pa.Schema:
        value, ppl = (measure(name, pa.float64(), means="score", larger_is_better=True) for name in (VALUE, "ppl"))
        return pa.schema([value, ppl, (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        given, of_given, alone, of_alone = batch.columns
        none = pa.scalar(None, pa.string())
        reason = pc.if_else(pc.or_(pc.is_null(given), pc.is_null(alone)), "no loss of the response", none)
        sure = pc.fill_null(pc.equal(alone, 0.0), False)
        reason = pc.if_else(pc.and_(sure, pc.is_null(reason)), "the response alone is certain", reason)
        same = pc.fill_null(pc.equal(of_given, of_alone), True)
        reason = pc.if_else(pc.and_(pc.invert(same), pc.is_null(reason)), "other tokens were scored", reason)
        known = pc.is_null(reason)
        ratio = pc.divide(given, pc.if_else(known, alone, 1.0))
        nothing = pa.scalar(None, pa.float64())
        return pa.record_batch(
            [pc.if_else(known, ratio, nothing), pc.if_else(known, pc.exp(pc.subtract(given, alone)), nothing), reason], schema=self.fields()
        )

    def judge_reads(self) -> list[str]:
        return [self._label]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """What has no ratio stays: a selection that ranks by it leaves it out."""
        above = pc.fill_null(pc.greater(batch.column(0), self.params.max), False)
        return pc.invert(above), pc.if_else(above, f"ifd above {self.params.max:g}", pa.scalar(None, pa.string()))
