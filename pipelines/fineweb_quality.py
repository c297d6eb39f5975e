"""FineWeb's own quality rules (Penedo et al. 2024, section 3.6), thresholds as published: drops lists and menus."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from curate import textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context
from curate.textrules import Rule, Scan, ratio


class FinewebQualityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds are inclusive and null is off. Shares are 0..1. `short_line_chars` and `closing_quotes` are measured by."""

    min_line_punct_ratio: float | None = 0.12
    max_short_line_ratio: float | None = 0.67
    short_line_chars: int = 30
    closing_quotes: bool = False
    max_dup_line_chars_ratio: float | None = 0.01
    max_new_line_ratio: float | None = 0.3

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")


@register("fineweb_quality")
class FinewebQuality:
    """Lines that end in punctuation, short lines, characters in duplicate lines, line feeds per word; a reason for each rule."""

    version = 2
    Params = FinewebQualityParams
    judge_params = ("min_line_punct_ratio", "max_short_line_ratio", "max_dup_line_chars_ratio", "max_new_line_ratio")

    def __init__(self, params: FinewebQualityParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def reads(self) -> list[str]:
        return [TEXT]

    def rule_scan(self) -> Scan:
        return Scan(textrules.LINES, self.params.short_line_chars)

    def fields(self) -> pa.Schema:
        """One share for each rule; new_line_ratio: line feeds per word, may be above 1; null where there is nothing to share."""
        names = ["line_punct_ratio", "short_line_ratio", "dup_line_chars_ratio", "new_line_ratio"]
        return pa.schema([("filled_lines", pa.int64()), *((name, pa.float64()) for name in names)])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        n = textrules.found(batch, self.rule_scan())
        columns = [
            pa.array(n["filled"]),
            ratio(n["punctuated"] + (n["quoted"] if self.params.closing_quotes else 0), n["filled"]),
            ratio(n["short"], n["filled"]),
            ratio(n["dup_line_chars"], n["chars"] - n["newlines"]),
            ratio(n["newlines"], n["words"]),
        ]
        return pa.record_batch(columns, schema=self.fields())

    def _rules(self) -> list[Rule]:
        p = self.params
        return [
            Rule("filled_lines", "empty", least=1),
            Rule("line_punct_ratio", "too few lines end in punctuation", least=p.min_line_punct_ratio),
            Rule("short_line_ratio", "too many short lines", most=p.max_short_line_ratio),
            Rule("dup_line_chars_ratio", "characters in duplicate lines", most=p.max_dup_line_chars_ratio),
            Rule("new_line_ratio", "too many line feeds per word", most=p.max_new_line_ratio),
        ]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{rule.column}" for rule in self._rules()]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return textrules.verdict(batch, self._rules())
