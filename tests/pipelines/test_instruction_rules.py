"""Rules for instruction data: a pair at each threshold, and one beyond it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.pipelines.instruction_rules import InstructionRules, InstructionRulesParams
from curate.stage import Context


def judged(prompt: str | None, response: str | None, **params: Any) -> tuple[str | None, dict[str, Any]]:
    """The reason of one pair, and its columns."""
    stage = InstructionRules(InstructionRulesParams(**params), Context("i"))
    found = stage.apply(None, pa.record_batch([pa.array([prompt], pa.string()), pa.array([response], pa.string())], names=stage.reads()))
    columns = [found.column(name.removeprefix("i_")) for name in stage.judge_reads()]
    keep, reason = stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))
    assert keep[0].as_py() == (reason[0].as_py() is None)
    return reason[0].as_py(), found.to_pylist()[0]


@pytest.mark.parametrize(
    ("prompt", "response", "params", "reason"),
    [
        ("Add 1 and 2.", "3", {}, None),
        (" \n", "3", {}, "prompt too short"),
        (None, "3", {}, "prompt too short"),
        ("Why?", None, {}, "response too short"),
        ("Why?", " \u3000", {}, "response too short"),
        ("Why?", "é" * 9, {"min_response_chars": 9}, None),
        ("Why?", "é" * 8, {"min_response_chars": 9}, "response too short"),
        ("Why", "x", {"max_prompt_chars": 3}, None),
        ("Why?", "x", {"max_prompt_chars": 3}, "prompt too long"),
        ("Why?", "abcd", {"max_response_chars": 3}, "response too long"),
        ("Why?", "I\u2019m sorry, but I can\u2019t do that.", {}, "refusal"),
        ("Why?", "AS AN AI LANGUAGE MODEL, I", {}, "refusal"),
        ("Why?", "As an AI language model, I", {"refusals": False}, None),
        ("Why?", "x" * 176 + " as an ai language model", {}, "refusal"),  # ends at the 200th character
        ("Why?", "x" * 177 + " as an ai language model", {}, None),
        ("Why?", "No way.", {"phrases": ("NO WAY",)}, "refusal"),
        ("Why?", "As an AI language model", {"phrases": ()}, None),
        ("abcd", "ab", {"min_length_ratio": 0.5}, None),
        ("abcd", "a", {"min_length_ratio": 0.5}, "response too short for its prompt"),
        ("ab", "abcd", {"max_length_ratio": 2.0}, None),
        ("ab", "abcde", {"max_length_ratio": 2.0}, "response too long for its prompt"),
        ("", "abcde", {"min_prompt_chars": None, "max_length_ratio": 2.0}, None),
    ],
)
def test_a_pair_at_and_beyond_each_threshold(prompt: str | None, response: str | None, params: dict[str, Any], reason: str | None) -> None:
    assert judged(prompt, response, **params)[0] == reason


def test_the_columns() -> None:
    assert judged(" abcd\n", "é ", min_response_chars=None)[1] == {"prompt_chars": 4, "response_chars": 1, "length_ratio": 0.25, "refusal": False}
    assert judged(None, None)[1] == {"prompt_chars": 0, "response_chars": 0, "length_ratio": None, "refusal": False}


def test_other_columns_and_wrong_settings() -> None:
    assert InstructionRules(InstructionRulesParams(prompt="question", response="answer"), Context("i")).reads() == ["question", "answer"]
    with pytest.raises(ConfigError, match="min_length_ratio of 0 or more"):
        InstructionRulesParams(min_length_ratio=-1.0)
    with pytest.raises(ConfigError, match="phrases of at least one"):
        InstructionRulesParams(phrases=("",))
