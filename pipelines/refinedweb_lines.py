"""RefinedWeb's corrections of lines (Penedo et al. 2023, appendix G): lines of the page around the text go."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from curate import linerules, spans, textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context
from curate.textrules import Rule


class RefinedwebLinesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """null is off. Shares are 0..1. `max_words_cut_ratio` is the verdict only; the others decide what is cut."""

    max_uppercase_ratio: float | None = 0.5
    numeric: bool = True
    counters: bool = True
    min_words: int | None = 2
    max_edit_words: int | None = 10
    max_words_cut_ratio: float | None = 0.05

    def __post_init__(self) -> None:
        for name in ("max_uppercase_ratio", "min_words", "max_edit_words", "max_words_cut_ratio"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")


@register("refinedweb_lines")
class RefinedwebLines:
    """Cuts lines of capitals, of digits, counters, of one word, and phrases of menus; drops by how much went; changes text."""

    version = 1
    Params = RefinedwebLinesParams
    judge_params = ("max_words_cut_ratio",)

    def __init__(self, params: RefinedwebLinesParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """Counts of lines by the rule that cut them; text_words and, of them, words_cut; words_cut_ratio: null without words; spans; cut_bytes."""
        counts = [(name, pa.int64()) for name in (*linerules.REFINED[:-2], "text_words", "words_cut", "cut_bytes")]
        return pa.schema([*counts, ("words_cut_ratio", pa.float64()), (spans.FIELD, spans.SPANS)])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        p = self.params
        found = linerules.refined(
            batch.column(0),
            max_uppercase=2.0 if p.max_uppercase_ratio is None else p.max_uppercase_ratio,
            min_words=p.min_words or 0,
            max_edit_words=p.max_edit_words or 0,
            numeric=p.numeric,
            counters=p.counters,
        )
        counts = [*(found.counts[name] for name in linerules.REFINED), found.cut_bytes]
        share = textrules.ratio(found.counts["words_cut"], found.counts["words"])
        return pa.record_batch([*map(pa.array, counts), share, found.spans], schema=self.fields())

    def _rules(self) -> list[Rule]:
        return [Rule("words_cut_ratio", "too many words in cut lines", most=self.params.max_words_cut_ratio)]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{rule.column}" for rule in self._rules()]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return textrules.verdict(batch, self._rules())
