"""Gopher's quality rules (Rae et al. 2021, appendix A.1.1), thresholds as published: drops what is no running text."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from curate import textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context
from curate.textrules import Rule, Scan, ratio


class GopherQualityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds are inclusive and null is off. Shares are 0..1. Only the verdict depends on them."""

    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_chars: float | None = 3.0
    max_mean_word_chars: float | None = 10.0
    max_hash_ratio: float | None = 0.1
    max_ellipsis_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    min_alphabetic_ratio: float | None = 0.8
    min_stop_words: int | None = 2

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")


@register("gopher_quality")
class GopherQuality:
    """Words, their mean length, symbols, bullets, ellipses, letters and English stop words; a reason for each rule."""

    version = 1
    Params = GopherQualityParams
    judge_params = GopherQualityParams.__struct_fields__

    def __init__(self, params: GopherQualityParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def reads(self) -> list[str]:
        return [TEXT]

    def rule_scan(self) -> Scan:
        return Scan(textrules.WORDS)

    def fields(self) -> pa.Schema:
        """words: with a letter or digit; the others as the settings name them; null where a rule does not apply."""
        whole = [("words", pa.int64())]
        shares = ["mean_word_chars", "hash_ratio", "ellipsis_ratio", "bullet_lines_ratio", "ellipsis_lines_ratio", "alphabetic_ratio"]
        return pa.schema([*whole, *((name, pa.float64()) for name in shares), ("stop_words", pa.int64())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        n = textrules.found(batch, self.rule_scan())
        columns = [
            pa.array(n["proper"]),
            ratio(n["spaced_chars"], n["spaced"]),
            ratio(n["hashes"], n["words"]),
            ratio(n["ellipses"], n["words"]),
            ratio(n["bullets"], n["lines"]),
            ratio(n["trailing"], n["lines"]),
            ratio(n["alpha"], n["words"]),
            # English stop words say nothing of a text that is mostly in a script without spaces
            pa.array(n["stops"], mask=2 * n["unspaced"] > n["words"]),
        ]
        return pa.record_batch(columns, schema=self.fields())

    def _rules(self) -> list[Rule]:
        p = self.params
        return [
            Rule("words", "fewer words than min_words", least=p.min_words),
            Rule("words", "more words than max_words", most=p.max_words),
            Rule("mean_word_chars", "mean word too short", least=p.min_mean_word_chars),
            Rule("mean_word_chars", "mean word too long", most=p.max_mean_word_chars),
            Rule("hash_ratio", "too many hash signs", most=p.max_hash_ratio),
            Rule("ellipsis_ratio", "too many ellipses", most=p.max_ellipsis_ratio),
            Rule("bullet_lines_ratio", "too many bullet lines", most=p.max_bullet_lines_ratio),
            Rule("ellipsis_lines_ratio", "too many lines end in an ellipsis", most=p.max_ellipsis_lines_ratio),
            Rule("alphabetic_ratio", "too few words with a letter", least=p.min_alphabetic_ratio),
            Rule("stop_words", "too few stop words", least=p.min_stop_words),
        ]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{rule.column}" for rule in self._rules()]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return textrules.verdict(batch, self._rules())
