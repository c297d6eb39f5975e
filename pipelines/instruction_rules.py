"""Rules for instruction data: a prompt and a response that are there, no refusal, and lengths that fit each other."""

from __future__ import annotations

import re

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import Context
from curate.textrules import Rule

#: What assistants say when they decline. In small letters, with the straight apostrophe.
REFUSALS = (
    "as an ai language model", "as a language model", "as an ai assistant", "as an artificial intelligence",
    "i'm sorry, but i can", "i am sorry, but i can", "i'm sorry, i can", "i apologize, but i can", "sorry, but i can't",
    "i cannot assist", "i can't assist", "i cannot help with", "i can't help with", "i cannot fulfill", "i can't fulfill",
    "i'm unable to", "i am unable to", "i'm not able to", "i am not able to", "i cannot provide", "i can't provide", "i won't be able to",
)  # fmt: skip


class InstructionRulesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`prompt` and `response` are columns. Lengths are characters without white space at both ends; null is off."""

    prompt: str = "prompt"
    response: str = "response"
    min_prompt_chars: int | None = 1
    min_response_chars: int | None = 1
    max_prompt_chars: int | None = None
    max_response_chars: int | None = None
    min_length_ratio: float | None = None
    max_length_ratio: float | None = None
    refusals: bool = True
    phrases: tuple[str, ...] = REFUSALS
    refusal_chars: int = 200

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")
        if not all(self.phrases):
            raise ConfigError("expected phrases of at least one character, got an empty one, which every response holds")


@register("instruction_rules")
class InstructionRules:
    """Drops pairs without a prompt or a response, refusals, and pairs of lengths that do not fit; a reason for each rule."""

    version = 1
    Params = InstructionRulesParams
    judge_params = (
        "min_prompt_chars", "min_response_chars", "max_prompt_chars", "max_response_chars", "min_length_ratio", "max_length_ratio", "refusals",
    )  # fmt: skip

    def __init__(self, params: InstructionRulesParams, context: Context) -> None:
        self.params = params
        self._label = context.label
        self._pattern = "|".join(re.escape(phrase.lower().replace("\u2019", "'")) for phrase in params.phrases)

    def reads(self) -> list[str]:
        return [self.params.prompt, self.params.response]

    def fields(self) -> pa.Schema:
        """prompt_chars and response_chars, 0 for null; length_ratio: response to prompt, null without a prompt; refusal."""
        return pa.schema([("prompt_chars", pa.int64()), ("response_chars", pa.int64()), ("length_ratio", pa.float64()), ("refusal", pa.bool_())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        prompt, response = (pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.large_string()), "")) for column in batch.columns)
        prompt_chars, response_chars = (pc.utf8_length(column).cast(pa.int64()) for column in (prompt, response))
        head = pc.utf8_lower(pc.replace_substring(pc.utf8_slice_codeunits(response, 0, self.params.refusal_chars), "\u2019", "'"))
        refusal = pc.match_substring_regex(head, self._pattern) if self._pattern else pa.repeat(pa.scalar(False), len(head))
        ratio = textrules.ratio(response_chars.to_numpy(), prompt_chars.to_numpy())
        return pa.record_batch([prompt_chars, response_chars, ratio, refusal], schema=self.fields())

    def _rules(self) -> list[Rule]:
        p = self.params
        return [
            Rule("prompt_chars", "prompt too short", least=p.min_prompt_chars),
            Rule("response_chars", "response too short", least=p.min_response_chars),
            Rule("prompt_chars", "prompt too long", most=p.max_prompt_chars),
            Rule("response_chars", "response too long", most=p.max_response_chars),
            Rule("refusal", "refusal", most=0 if p.refusals else None),
            Rule("length_ratio", "response too short for its prompt", least=p.min_length_ratio),
            Rule("length_ratio", "response too long for its prompt", most=p.max_length_ratio),
        ]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{rule.column}" for rule in self._rules()]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return textrules.verdict(batch, self._rules())
