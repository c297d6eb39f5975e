"""Gopher's repetition rules (Rae et al. 2021, table A1), thresholds as published: drops what repeats itself."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context
from curate.textrules import Rule, Scan, ratio


class GopherRepetitionParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Largest shares, 0..1; null is off. `top_once`: an n-gram that stands once may be the most frequent. The verdict only."""

    max_dup_paragraph_ratio: float | None = 0.3
    max_dup_paragraph_chars_ratio: float | None = 0.2
    max_dup_line_ratio: float | None = 0.3
    max_dup_line_chars_ratio: float | None = 0.2
    max_top_2_gram_ratio: float | None = 0.2
    max_top_3_gram_ratio: float | None = 0.18
    max_top_4_gram_ratio: float | None = 0.16
    max_dup_5_gram_ratio: float | None = 0.15
    max_dup_6_gram_ratio: float | None = 0.14
    max_dup_7_gram_ratio: float | None = 0.13
    max_dup_8_gram_ratio: float | None = 0.12
    max_dup_9_gram_ratio: float | None = 0.11
    max_dup_10_gram_ratio: float | None = 0.1
    top_once: bool = True

    def __post_init__(self) -> None:
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")


#: The settings that are largest shares, each of a column.
SHARES = tuple(name for name in GopherRepetitionParams.__struct_fields__ if name.startswith("max_"))


@register("gopher_repetition")
class GopherRepetition:
    """Duplicate lines, paragraphs and n-grams of words, as shares of the document; a reason for each rule."""

    version = 2
    Params = GopherRepetitionParams
    judge_params = GopherRepetitionParams.__struct_fields__

    def __init__(self, params: GopherRepetitionParams, context: Context) -> None:
        self.params = params
        self._label = context.label

    def reads(self) -> list[str]:
        return [TEXT]

    def rule_scan(self) -> Scan:
        return Scan(textrules.REPEATS)

    def fields(self) -> pa.Schema:
        """One share for each rule, named as its setting without `max_`; null for a text without characters. repeated_gram: the
        largest n up to 10 of which an n-gram was met again, 0 if none."""
        return pa.schema([*((name.removeprefix("max_"), pa.float64()) for name in SHARES), ("repeated_gram", pa.int64())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        n = textrules.found(batch, self.rule_scan())
        columns = [
            ratio(n["dup_paragraphs"], n["paragraphs"]),
            ratio(n["dup_paragraph_chars"], n["chars"]),
            ratio(n["dup_lines"], n["filled"]),
            ratio(n["dup_line_chars"], n["chars"]),
            *(ratio(n[f"top_{k}"], n["chars"]) for k in (2, 3, 4)),
            *(ratio(n[f"dup_{k}"], n["chars"]) for k in range(5, 11)),
            pa.array(n["repeated"]),
        ]
        return pa.record_batch(columns, schema=self.fields())

    def _rules(self) -> list[Rule]:
        p = self.params
        return [
            Rule("dup_paragraph_ratio", "duplicate paragraphs", most=p.max_dup_paragraph_ratio),
            Rule("dup_paragraph_chars_ratio", "characters in duplicate paragraphs", most=p.max_dup_paragraph_chars_ratio),
            Rule("dup_line_ratio", "duplicate lines", most=p.max_dup_line_ratio),
            Rule("dup_line_chars_ratio", "characters in duplicate lines", most=p.max_dup_line_chars_ratio),
            *(Rule(f"top_{k}_gram_ratio", f"most frequent {k}-gram", most=getattr(p, f"max_top_{k}_gram_ratio")) for k in (2, 3, 4)),
            *(Rule(f"dup_{k}_gram_ratio", f"duplicate {k}-grams", most=getattr(p, f"max_dup_{k}_gram_ratio")) for k in range(5, 11)),
        ]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{column}" for column in [*(rule.column for rule in self._rules()), "repeated_gram"]]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        columns = dict(zip((rule.column for rule in self._rules()), batch.columns, strict=False))
        if not self.params.top_once:
            for k in (2, 3, 4):
                columns[f"top_{k}_gram_ratio"] = pc.if_else(pc.less(batch.column(len(columns)), k), None, columns[f"top_{k}_gram_ratio"])
        return textrules.verdict(pa.record_batch(list(columns.values()), names=list(columns)), self._rules())
